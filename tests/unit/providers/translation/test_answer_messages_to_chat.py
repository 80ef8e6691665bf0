"""Anthropic's messages as chat completions.

Messages follow the reference of the Messages API; every result is parsed by OpenAI's official client.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from tests.unit.providers.anthropic.messages import json_values, messages
from watchllm.providers.dialect import TranslatedAnswer, Untranslatable
from watchllm.providers.openai.storable import judge
from watchllm.providers.translation.answer_messages_to_chat import translate

USAGE = {"input_tokens": 10, "output_tokens": 20}


def message(*content: Any, **fields: Any) -> dict[str, Any]:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    end = {"stop_reason": "end_turn", "stop_sequence": None, "usage": USAGE}
    return head | {"content": list(content)} | end | fields


def text(said: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": said} | fields


def translated(whole: dict[str, Any]) -> TranslatedAnswer:
    result = translate(json.dumps(whole).encode(), created=1_730_000_000)
    ChatCompletion.model_validate_json(result.body)
    return result


def told(whole: dict[str, Any]) -> Any:
    return json.loads(translated(whole).body)


def said(*content: Any, **fields: Any) -> Any:
    return told(message(*content, **fields))["choices"][0]["message"]


def test_a_plain_answer() -> None:
    result = translated(message(text("Hello")))
    assert result.exact
    assert json.loads(result.body) == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 1_730_000_000,
        "model": "claude-sonnet-4-5",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "total_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        },
    }


def test_thoughts_and_calls() -> None:
    thought = {"type": "thinking", "thinking": "Hm", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich", "days": 2}}
    whole = message(thought, hidden, text("Let me look."), call, call | {"id": "toolu_2"}, stop_reason="tool_use")
    result = translated(whole)
    assert result.exact
    choice = json.loads(result.body)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me look."
    assert choice["message"]["reasoning_content"] == "Hm"
    assert choice["message"]["thinking_blocks"] == [thought, hidden]
    first, second = choice["message"]["tool_calls"]
    assert first == {
        "id": "toolu_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Zürich","days":2}'},
    }
    assert second["id"] == "toolu_2"


def test_only_calls_have_no_content() -> None:
    assert said({"type": "tool_use", "id": "t", "name": "f", "input": {}}, stop_reason="tool_use")["content"] is None
    assert said()["content"] == ""


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_why_it_ended(stop: str, finish: str) -> None:
    assert told(message(text("x"), stop_reason=stop))["choices"][0]["finish_reason"] == finish


def test_which_sequence_stopped_it_is_lost() -> None:
    assert not translated(message(text("x"), stop_reason="stop_sequence", stop_sequence=",")).exact


CALL = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
THOUGHT = {"type": "thinking", "thinking": "Hm", "signature": "s"}


@pytest.mark.parametrize(
    ("content", "exact"),
    [
        ([THOUGHT, text("a"), CALL, CALL], True),
        ([CALL, THOUGHT, CALL], False),
        ([text("a"), THOUGHT], False),
        ([text("a"), text("b")], False),
        ([CALL, text("a")], False),
    ],
)
def test_an_order_that_chat_cannot_tell_is_not_exact(content: list[Any], exact: bool) -> None:
    assert translated(message(*content, stop_reason="tool_use")).exact is exact


def test_a_refusal_is_explained_and_not_to_be_stored() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "Not this."}
    result = translated(message(stop_reason="refusal", stop_details=details))
    assert json.loads(result.body)["choices"][0]["message"]["refusal"] == "Not this."
    assert not result.exact
    assert not judge("generate", result.body, expected=1).storable


def test_citations_of_pages_are_annotations_of_the_text_that_cites_them() -> None:
    url = {"type": "web_search_result_location", "url": "https://a.b", "title": "A", "cited_text": "x"}
    page = {"type": "page_location", "cited_text": "y", "document_index": 0}
    whole = message(text("One. "), text("Two.", citations=[url, page]), text(" Three."))
    result = translated(whole)
    answer = json.loads(result.body)["choices"][0]["message"]
    assert not result.exact
    assert answer["content"] == "One. Two. Three."
    cited = answer["annotations"][0]["url_citation"]
    assert answer["content"][cited["start_index"] : cited["end_index"]] == "Two."
    assert (cited["url"], cited["title"]) == ("https://a.b", "A")
    assert answer["citations"] == [page]


def test_usage_counts_the_cache_as_part_of_the_prompt() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 5,
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 8},
        "service_tier": "standard",
    }
    whole = told(message(text("x"), usage=usage))
    assert whole["service_tier"] == "default"
    assert whole["usage"] == {
        "prompt_tokens": 115,
        "completion_tokens": 20,
        "total_tokens": 135,
        "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 8},
    }
    assert "usage" not in told(message(text("x"), usage=None))


@pytest.mark.parametrize(
    ("whole", "reason"),
    [
        (message(text("x"), stop_reason="pause_turn"), "stop_reason pause_turn"),
        (message(text("x"), stop_reason=None), "stop_reason None"),
        (message({"type": "server_tool_use", "id": "x", "name": "y"}), "content of the type server_tool_use"),
        (message(text("x"), {"type": "tool_use", "id": "x", "name": "y"}), "a tool's input is not an object"),
        (message({"type": "text"}), "a content block without its text"),
        (message("Hello"), "content of the type None"),
        ({"type": "error", "error": {"type": "api_error"}}, "not a message"),
        ({"choices": []}, "not a message"),
    ],
)  # fmt: skip
def test_what_chat_has_no_form_for(whole: dict[str, Any], reason: str) -> None:
    with pytest.raises(Untranslatable, match=f"^{reason}$"):
        translate(json.dumps(whole).encode())


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"\xff", b"[" * 100_000, b'{"type":"message","content":' + b'[{"a":' * 900]
)
def test_what_is_no_json_of_a_message(body: bytes) -> None:  # fmt: skip
    with pytest.raises(Untranslatable):
        translate(body)


@given(messages())
def test_every_message_is_a_chat_completion(whole: dict[str, Any]) -> None:
    answer = json.loads(translated(whole).body)["choices"][0]["message"]
    assert (answer["content"] or "") == "".join(b["text"] for b in whole["content"] if b["type"] == "text")
    calls = [(call["id"], json.loads(call["function"]["arguments"])) for call in answer.get("tool_calls", [])]
    assert calls == [(b["id"], b["input"]) for b in whole["content"] if b["type"] == "tool_use"]


@given(messages(hosted=True), st.data())
def test_any_value_in_any_field_is_translated_or_refused(whole: dict[str, Any], data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([whole, whole["usage"], *whole["content"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)
    reason = ""
    try:
        translated(whole)
    except Untranslatable as refused:
        reason = str(refused)
    assert len(reason) < 120
