"""Chat completions become messages that Anthropic's own client reads.

The completions follow OpenAI's API reference ("The chat completion object") and, where a vendor differs, its own: vLLM
and SGLang ("OpenAI-compatible server"), DeepSeek ("Reasoning model"), Mistral ("Reasoning"), OpenRouter ("Web search").
"""

import json
from typing import Any

import pytest
from anthropic.types import Message
from hypothesis import given

from tests.unit.providers.translation.chat_completions import CALL, completion
from tests.unit.providers.translation.replaced import replaced
from watchllm.providers.dialect import Untranslatable
from watchllm.providers.translation.answer_chat_to_messages import translate


def translated(answer: dict[str, Any]) -> dict[str, Any]:
    body = translate(json.dumps(answer).encode()).body
    Message.model_validate_json(body)
    told: dict[str, Any] = json.loads(body)
    return told


def exact(answer: dict[str, Any]) -> bool:
    return translate(json.dumps(answer).encode()).exact


def test_a_text() -> None:
    answer = completion(content="Hello. 🗼", refusal=None, annotations=[])
    assert translated(answer) == {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "gpt-4o-mini",
        "content": [{"type": "text", "text": "Hello. 🗼"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 9,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 12,
        },
    }
    assert exact(answer)


def test_parallel_tool_calls_behind_reasoning_and_text() -> None:
    second = {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": ""}}
    answer = completion("tool_calls", content="I look.", reasoning_content="Hm.", tool_calls=[CALL, second])
    told = translated(answer)
    assert told["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Zürich"}},
        {"type": "tool_use", "id": "call_2", "name": "time", "input": {}},
    ]
    assert told["stop_reason"] == "tool_use"
    assert exact(answer)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("tool_calls", "end_turn"),
        ("eos", "end_turn"),
        ("model_length", "max_tokens"),
    ],
)
def test_finish_reasons(finish: str, reason: str) -> None:
    assert translated(completion(finish, content="x"))["stop_reason"] == reason


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_calls_to_make_decide_over_the_finish_reason(finish: str) -> None:
    assert translated(completion(finish, tool_calls=[CALL]))["stop_reason"] == "tool_use"


@pytest.mark.parametrize("told", [{"stop_reason": "END"}, {"matched_stop": "END"}])
def test_a_stop_sequence_is_named_where_the_vendor_tells_it(told: dict[str, Any]) -> None:
    answer = translated(completion(content="x", choice=told))
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "END")


def test_a_stop_token_is_no_stop_sequence() -> None:
    answer = translated(completion(content="x", choice={"stop_reason": 128009, "matched_stop": 128009}))
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    answer = translated(completion(tool_calls=[CALL], choice={"stop_reason": "</tool_call>"}))
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("tool_use", None)


def test_a_refusal_is_text_and_the_reason_to_stop() -> None:
    answer = translated(completion(refusal="I can't help with that."))
    assert answer["content"] == [{"type": "text", "text": "I can't help with that."}]
    assert answer["stop_reason"] == "refusal"


def test_usage_counts_cached_input_apart() -> None:
    answer = completion(content="x") | {
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
            "completion_tokens_details": {"reasoning_tokens": 40},
        }
    }
    assert translated(answer)["usage"] == {
        "input_tokens": 30,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 10,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 40},
    }


@pytest.mark.parametrize("usage", [None, {}, "many", {"prompt_tokens": -1}])
def test_no_usage_is_zeros(usage: Any) -> None:
    told = translated(completion(content="x") | {"usage": usage})["usage"]
    assert set(told.values()) == {0}


class TestReasoning:
    @pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
    def test_of_vendors(self, field: str) -> None:
        told = translated(completion(content="x", **{field: "Hm."}))
        assert told["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": ""}

    def test_in_parts(self) -> None:
        content = [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}, {"type": "text", "text": " So."}]},
            {"type": "text", "text": "Yes"},
        ]
        assert translated(completion(content=content))["content"] == [
            {"type": "thinking", "thinking": "Hm. So.", "signature": ""},
            {"type": "text", "text": "Yes"},
        ]

    def test_signed_blocks_come_back_as_they_were(self) -> None:
        blocks = [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "b3BhcXVl"},
        ]
        told = translated(completion(content="x", reasoning_content="Hm.", thinking_blocks=[*blocks, None]))
        assert told["content"][:2] == blocks


class TestCallIds:
    def ids(self, *calls: dict[str, Any]) -> list[str]:
        function = CALL["function"]
        answer = completion("tool_calls", tool_calls=[{"function": function, **call} for call in calls])
        return [block["id"] for block in translated(answer)["content"]]

    def test_are_made_where_there_are_none(self) -> None:
        assert self.ids({}, {"id": ""}, {"id": None}) == [f"call_chatcmpl-1_{number}" for number in range(3)]

    def test_are_never_the_same_twice(self) -> None:
        ids = self.ids({"id": "a"}, {"id": "a"}, {"id": "call_chatcmpl-1_0"}, {})
        assert ids[0] == "a"
        assert len(set(ids)) == 4


def test_pages_that_were_found_become_citations() -> None:
    page = {"url": "https://example.com", "title": "Example", "start_index": 0, "end_index": 3, "content": "quoted"}
    answer = completion(content="See it.", annotations=[{"type": "url_citation", "url_citation": page}])
    assert translated(answer)["content"][0]["citations"] == [
        {
            "type": "web_search_result_location",
            "url": "https://example.com",
            "title": "Example",
            "cited_text": "quoted",
            "encrypted_index": "",
        }
    ]
    assert not exact(answer)


def test_a_call_that_was_cut_at_the_length_is_left_out() -> None:
    cut = {"id": "call_2", "function": {"name": "time", "arguments": '{"zone": "Eu'}}
    answer = completion("length", tool_calls=[CALL, cut])
    assert [block["id"] for block in translated(answer)["content"]] == ["call_1"]
    assert translated(answer)["stop_reason"] == "max_tokens"
    assert not exact(answer)


def test_what_a_message_cannot_say_is_known() -> None:
    assert not exact(completion(content="x", choice={"logprobs": {"content": [{"token": "x"}]}}))
    assert not exact(completion(content="x", vendor_field="y"))


UNTRANSLATABLE: dict[str, Any] = {
    "no choices": completion(content="x") | {"choices": []},
    "2 choices": completion(content="x") | {"choices": [{}, {}]},
    "an error": {"error": {"message": "no"}},
    "finish_reason is missing": completion(None, content="x"),
    "finish_reason error": completion("error", content="x"),
    "audio in the message": completion(audio={"id": "a"}),
    "images in the message": completion(images=[{"type": "image_url"}]),
    "content of an unknown kind": completion(content=[{"type": "video"}]),
    "malformed tool calls": completion("tool_calls", tool_calls=[{"custom": {"name": "x"}}]),
    "arguments of a tool call that are not a JSON object": completion(
        "tool_calls", tool_calls=[{"function": {"name": "x", "arguments": "[1]"}}]
    ),
    "not an object": [],
}


@pytest.mark.parametrize("reason", UNTRANSLATABLE)
def test_what_has_no_form_says_why(reason: str) -> None:
    with pytest.raises(Untranslatable, match=reason):
        translate(json.dumps(UNTRANSLATABLE[reason]).encode())


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff", b"[" * 100_000, b'{"choices": [' + b'{"a":' * 5000])
def test_what_is_no_json_is_untranslatable(body: bytes) -> None:
    with pytest.raises(Untranslatable):
        translate(body)


@given(
    replaced(
        completion(
            "tool_calls",
            content=[{"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}, {"type": "text", "text": "x"}],
            reasoning_content="r",
            thinking_blocks=[{"type": "thinking", "thinking": "t", "signature": "s"}],
            tool_calls=[CALL],
            annotations=[{"type": "url_citation", "url_citation": {"url": "u", "title": "t"}}],
            citations=[{"type": "char_location"}],
            choice={"stop_reason": "x"},
        )
    )
)
def test_whatever_comes_is_a_message_or_untranslatable(answer: Any) -> None:
    try:
        body = translate(json.dumps(answer).encode()).body
    except Untranslatable:
        return
    told = json.loads(body)
    for block in told["content"]:
        block.pop("citations", None)  # kinds of citations that nobody knows are passed on
    Message.model_validate(told)
