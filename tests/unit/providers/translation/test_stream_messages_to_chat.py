"""Anthropic's streams as OpenAI's: read by OpenAI's official client, and the same as the whole answer translated.

The recorded streams follow the public reference's page on streaming messages.
"""

import json
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from tests.unit.providers.anthropic.messages import (
    PING,
    STOP,
    begun,
    block,
    ended,
    event,
    json_values,
    messages,
    text,
    tool,
)
from watchllm.providers.anthropic.assemble import StreamAssembler as MessageAssembler
from watchllm.providers.anthropic.replay import replay
from watchllm.providers.dialect import Untranslatable
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.providers.openai.strip_usage import without_usage
from watchllm.providers.translation import stream_messages_to_chat
from watchllm.providers.translation.answer_messages_to_chat import translate
from watchllm.providers.translation.stream_messages_to_chat import Translator
from watchllm.wire.sse import EventScanner, event_data
from watchllm.wire.types import BadMessage

THINKING = block(
    0,
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "Let me "},
    {"type": "thinking_delta", "thinking": "think."},
    {"type": "signature_delta", "signature": "EqQB"},
)
WHOLE = (
    begun(cache_read_input_tokens=100)
    + PING
    + THINKING
    + block(1, {"type": "redacted_thinking", "data": "abc"})
    + text(2, "Hel", "lo")
    + tool(3, "weather", "", '{"city": "Zü', 'rich"}')
    + tool(4, "now", "")
    + ended("tool_use", 89)
    + STOP
)


def told(stream: bytes, translator: Translator | None = None) -> bytes:
    translator = translator or Translator(created=1_730_000_000)
    chunks = []
    for raw in EventScanner().feed(stream):
        data = event_data(raw)
        if data is not None:
            chunks.append(translator.feed(data))
    return b"".join([*chunks, translator.finish()])


def chunks(stream: bytes) -> list[dict[str, Any]]:
    datas = [event_data(raw) or b"" for raw in EventScanner().feed(told(stream))]
    assert datas[-1] == b"[DONE]"
    for data in datas[:-1]:
        ChatCompletionChunk.model_validate_json(data)
    return [json.loads(data) for data in datas[:-1]]


def deltas(stream: bytes) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(stream) if chunk["choices"]]


def test_a_stream_has_the_chunks_that_openai_sends() -> None:
    sent = chunks(begun() + PING + text(0, "Hel", "lo") + ended() + STOP)
    head = {"id": "msg_1", "object": "chat.completion.chunk", "created": 1_730_000_000, "model": "claude-sonnet-4-5"}
    assert all(head.items() <= chunk.items() for chunk in sent)
    going_on = {"index": 0, "logprobs": None, "finish_reason": None}
    assert [chunk["choices"] for chunk in sent] == [
        [going_on | {"delta": {"role": "assistant", "content": "", "refusal": None}}],
        [going_on | {"delta": {"content": "Hel"}}],
        [going_on | {"delta": {"content": "lo"}}],
        [going_on | {"delta": {}, "finish_reason": "stop"}],
        [],
    ]
    assert [chunk["usage"] for chunk in sent[:-1]] == [None] * 4
    assert sent[-1]["usage"]["total_tokens"] == 40


def test_usage_can_be_taken_out_again() -> None:
    raws = EventScanner().feed(told(WHOLE))
    left = [without_usage(raw) for raw in raws]
    assert left[-2] == b""
    assert all(b"usage" not in raw for raw in left)


def test_the_official_client_puts_it_together() -> None:
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=told(WHOLE))
    http = httpx.Client(transport=httpx.MockTransport(lambda _request: answer))
    with (
        openai.OpenAI(api_key="k", max_retries=0, http_client=http) as client,
        client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "?"}]) as stream,
    ):
        got = stream.get_final_completion().to_dict()
    (choice,) = got["choices"]  # type: ignore[misc]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Hello"
    assert choice["message"]["reasoning_content"] == "Let me think."
    thoughts = choice["message"]["thinking_blocks"]
    assert thoughts == [
        {"index": 0, "type": "thinking", "thinking": "Let me think.", "signature": "EqQB"},
        {"index": 1, "type": "redacted_thinking", "data": "abc"},
    ]
    calls = [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"]["tool_calls"]
    ]
    assert calls == [("toolu_3", "weather", {"city": "Zürich"}), ("toolu_4", "now", {})]
    assert got["usage"]["prompt_tokens"] == 125  # type: ignore[index]


def put_together(stream: bytes) -> Any:
    assembler = StreamAssembler("generate")
    for raw in EventScanner().feed(stream):
        assembler.feed(event_data(raw) or b"")
    return json.loads(assembler.result() or b"null")


def without_order(completion: Any) -> Any:
    """What a stream can't tell as a whole answer does: no text yet and no text at all are the same at its beginning,
    and the items of a list are numbered."""
    said = completion["choices"][0]["message"]
    said["content"] = said["content"] or ""
    for thought in said.get("thinking_blocks", []):
        thought.pop("index", None)
    for call in said.get("tool_calls", []):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return completion


@given(messages())
def test_a_stream_says_what_the_whole_answer_says(message: dict[str, Any]) -> None:
    stream = replay(json.dumps(message).encode())
    translator = Translator(created=1_730_000_000)
    body, exact = translate(json.dumps(message).encode(), created=1_730_000_000)
    assert without_order(put_together(told(stream, translator))) == without_order(json.loads(body))
    assert translator.exact is exact


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_any_split_of_a_stream_gives_the_same(cuts: list[int]) -> None:
    scanner, translator = EventScanner(), Translator(created=1_730_000_000)
    sent = b""
    for start, end in pairwise([0, *sorted(cuts), len(WHOLE)]):
        for raw in scanner.feed(WHOLE[start:end]):
            sent += translator.feed(event_data(raw) or b"")
    assert sent == told(WHOLE)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_stream_that_is_cut_does_not_look_ended(length: int) -> None:
    sent = told(WHOLE[:length])
    assert b"[DONE]" not in sent
    assert put_together(sent) is None


def test_text_is_told_at_once() -> None:
    translator = Translator()
    translator.feed(event_data(begun()) or b"")
    translator.feed(
        event_data(event("content_block_start", index=0, content_block={"type": "text", "text": ""})) or b""
    )
    piece = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hel"})
    assert b'"delta":{"content":"Hel"}' in translator.feed(event_data(piece) or b"")


def test_hidden_thinking_is_still_there_to_be_sent_back() -> None:
    hidden = block(
        0, {"type": "thinking", "thinking": "", "signature": ""}, {"type": "signature_delta", "signature": "E"}
    )
    message = put_together(told(begun() + hidden + text(1, "x") + ended() + STOP))["choices"][0]["message"]
    assert message["thinking_blocks"] == [{"index": 0, "type": "thinking", "thinking": "", "signature": "E"}]
    assert "reasoning_content" not in message


def test_citations_are_told_at_the_end_with_their_place() -> None:
    url = {"type": "web_search_result_location", "url": "https://a.b", "title": "A", "cited_text": "x"}
    page = {"type": "page_location", "cited_text": "y"}
    cites = block(
        1,
        {"type": "text", "text": "", "citations": []},
        {"type": "citations_delta", "citation": url},
        {"type": "text_delta", "text": "Two."},
        {"type": "citations_delta", "citation": page},
    )
    *_, cited, last = deltas(begun() + text(0, "One. ") + cites + ended() + STOP)
    assert cited["annotations"][0]["url_citation"] == {
        "start_index": 5,
        "end_index": 9,
        "title": "A",
        "url": "https://a.b",
    }
    assert cited["citations"] == [page]
    assert last == {}


def test_a_refusal_is_explained() -> None:
    details = {"type": "refusal", "category": None, "explanation": "Not this."}
    sent = chunks(begun() + text(0, "Su") + ended("refusal", stop_details=details) + STOP)
    assert sent[-3]["choices"][0]["delta"] == {"refusal": "Not this."}
    assert sent[-2]["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", ("api_error", "overloaded")),
        ("rate_limit_error", ("rate_limit_error", "rate_limit_exceeded")),
        ("not_found_error", ("invalid_request_error", "not_found")),
    ],
)
def test_an_error_in_the_stream_is_openais_and_the_end(kind: str, expected: tuple[str, str | None]) -> None:
    failed = begun() + text(0, "Hel") + event("error", error={"type": kind, "message": "No."})
    sent = told(failed + ended() + STOP)
    assert b"[DONE]" not in sent
    *_, last = EventScanner().feed(sent)
    error = json.loads(event_data(last) or b"")["error"]
    assert error == {"message": "No.", "type": expected[0], "param": None, "code": expected[1]}
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=sent)
    http = httpx.Client(transport=httpx.MockTransport(lambda _request: answer))
    with openai.OpenAI(api_key="k", max_retries=0, http_client=http) as client:
        stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True)
        with pytest.raises(openai.APIError, match=r"No\."):
            list(stream)


@pytest.mark.parametrize(
    "stream",
    [
        text(0, "x"),
        ended(),
        STOP,
        begun() + STOP,
        begun() + begun(),
        begun() + event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"}),
        begun() + text(0, "x") + event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"}),
        begun() + event("content_block_start", index=0, content_block={"type": "text", "text": ""}) + ended(),
        begun() + event("content_block_start", index=0, content_block={"type": "tool_use", "id": 1}),
        begun() + event("content_block_stop", index=0),
        begun() + event("content_block_start", index="0", content_block={"type": "text"}),
        b"data: {\n\n",
        b"data: 1\n\n",
        b"data: {}\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
def test_what_is_no_stream_of_anthropics(stream: bytes) -> None:
    with pytest.raises(BadMessage):
        told(stream)


@pytest.mark.parametrize(
    "stream",
    [
        begun() + event("content_block_start", index=0, content_block={"type": "server_tool_use"}),
        begun() + text(0, "x") + ended("pause_turn"),
        begun() + block(0, {"type": "text", "text": ""}, {"type": "new_delta"}),
        begun() + block(0, {"type": "text", "text": ""}, {"type": "input_json_delta", "partial_json": "{}"}),
    ],
)
def test_what_chat_has_no_form_for(stream: bytes) -> None:
    with pytest.raises(Untranslatable):
        told(stream)


def test_unknown_events_are_passed_over() -> None:
    assert told(begun() + event("heartbeat") + text(0, "x")) == told(begun() + text(0, "x"))


def test_citations_that_have_no_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_messages_to_chat, "MAX_CITED", 1000)
    endless = [{"type": "citations_delta", "citation": {"cited_text": "x" * 100}}] * 20
    with pytest.raises(BadMessage, match="citations"):
        told(begun() + block(0, {"type": "text", "text": ""}, *endless))


EVENTS = [json.loads(event_data(raw) or b"") for raw in EventScanner().feed(WHOLE)]


@given(st.data())
def test_any_value_in_any_place_is_told_or_refused(data: st.DataObject) -> None:
    translator, assembler = Translator(), MessageAssembler()
    for whole in EVENTS:
        changed = json.loads(json.dumps(whole))
        place: Any = changed
        while True:
            key = data.draw(st.sampled_from(sorted(place)))
            if type(place[key]) is not dict or not place[key] or data.draw(st.booleans()):
                break
            place = place[key]
        if data.draw(st.integers(0, 3)) == 0:
            place[key] = data.draw(json_values)
        written = json.dumps(changed).encode()
        assembler.feed(written)
        try:
            sent = translator.feed(written)
        except (BadMessage, Untranslatable):
            return
        for raw in EventScanner().feed(sent):
            read = event_data(raw) or b""
            if read != b"[DONE]" and b'"error"' not in read:
                ChatCompletionChunk.model_validate_json(read)


@pytest.mark.parametrize("at", [0, 1, 3, 4, 5])  # at 2 a piece of text, which may repeat itself
def test_an_event_that_comes_twice_is_an_error(at: int) -> None:
    raws = EventScanner().feed(begun() + text(0, "Hello") + ended() + STOP)
    with pytest.raises(BadMessage):
        told(b"".join([*raws[: at + 1], *raws[at:]]))


def test_a_later_end_may_bring_other_counts() -> None:
    sent = chunks(begun() + text(0, "Hello") + ended(output=5) + ended(output=7) + STOP)
    assert sent[-1]["usage"]["completion_tokens"] == 7
    assert [chunk["choices"][0]["finish_reason"] for chunk in sent[:-1]] == [None, None, "stop"]
