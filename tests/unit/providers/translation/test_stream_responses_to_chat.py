"""Streams of responses told as chat completions: read by the official client, and the same as the whole answer.

The recorded streams follow the API reference's page on the streaming events of Responses.
"""

import json
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.unit.providers.answers import chat_answers
from tests.unit.providers.responses import responses as made
from tests.unit.providers.translation.chat_answers import BLOCKS
from tests.unit.providers.translation.replaced import replaced
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.providers.openai.replay import replay as replay_chat
from watchllm.providers.openai.strip_usage import without_usage
from watchllm.providers.responses.replay import replay
from watchllm.providers.translation import answer_responses_to_chat, responses_reasoning, stream_responses_to_chat
from watchllm.providers.translation.stream_chat_to_responses import Translator as ToResponses
from watchllm.providers.translation.stream_responses_to_chat import Translator
from watchllm.wire.sse import EventScanner, event_data
from watchllm.wire.types import BadMessage


def framed(*events: dict[str, Any]) -> bytes:
    numbered = (event | {"sequence_number": number} for number, event in enumerate(events))
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in numbered)


def event(kind: str, at: int = 0, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "output_index": at, "item_id": f"item_{at}"} | fields


def of_text(kind: str, at: int = 0, text: int = 0, **fields: Any) -> dict[str, Any]:
    return event(kind, at, content_index=text, **fields)


def added(item: int, whole: dict[str, Any], **empty: Any) -> dict[str, Any]:
    return event("output_item.added", item, item=whole | empty)


def done(item: int, whole: dict[str, Any]) -> dict[str, Any]:
    return event("output_item.done", item, item=whole)


REASONING = made.REASONING | {"encrypted_content": responses_reasoning.pack(BLOCKS)}
MESSAGE = made.message(made.text_part("Hello there", annotations=[made.CITATION]))
RESPONSE = made.response(REASONING, MESSAGE, made.CALL, made.CUSTOM_CALL, service_tier="default")
BEGUN = RESPONSE | {"status": "in_progress", "output": [], "usage": None}
CREATED = {"type": "response.created", "response": BEGUN}
COMPLETED = {"type": "response.completed", "response": RESPONSE}
EVENTS = (
    CREATED,
    {"type": "response.in_progress", "response": BEGUN},
    added(0, made.REASONING, summary=[]),
    event("reasoning_summary_part.added", 0, summary_index=0, part={"type": "summary_text", "text": ""}),
    event("reasoning_summary_text.delta", 0, summary_index=0, delta="**Adding**"),
    event("reasoning_summary_text.delta", 0, summary_index=0, delta=" up"),
    event("reasoning_summary_text.done", 0, summary_index=0, text="**Adding** up"),
    done(0, REASONING),
    added(1, MESSAGE, content=[]),
    of_text("content_part.added", 1, part=made.text_part("")),
    of_text("output_text.delta", 1, delta="Hello", logprobs=[]),
    of_text("output_text.delta", 1, delta=" there", logprobs=[]),
    of_text("output_text.annotation.added", 1, annotation_index=0, annotation=made.CITATION),
    event("output_text.done", 1, content_index=0, text="Hello there", logprobs=[]),
    done(1, MESSAGE),
    added(2, made.CALL, arguments=""),
    event("function_call_arguments.delta", 2, delta='{"location":"Zü'),
    event("function_call_arguments.delta", 2, delta='rich","unit":"celsius"}'),
    event("function_call_arguments.done", 2, arguments=made.CALL["arguments"], name=made.CALL["name"]),
    done(2, made.CALL),
    added(3, made.CUSTOM_CALL, input=""),
    event("custom_tool_call_input.delta", 3, delta="SELECT 1"),
    event("custom_tool_call_input.done", 3, input="SELECT 1"),
    done(3, made.CUSTOM_CALL),
    COMPLETED,
)
WHOLE = framed(*EVENTS)


def told(stream: bytes, translator: Translator | None = None) -> bytes:
    translator = translator or Translator()
    return b"".join([translator.feed(event_data(raw) or b"") for raw in EventScanner().feed(stream)]) + (
        translator.finish()
    )


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    """The chunks before the end marker, each one that the official schema has."""
    *chunks, end = [event_data(raw) or b"" for raw in EventScanner().feed(stream)]
    assert end == b"[DONE]"
    for chunk in chunks:
        if b'"custom":' in chunk:
            continue  # of streams, the schema knows calls of functions only
        ChatCompletionChunk.model_validate_json(chunk)
    return [json.loads(chunk) for chunk in chunks]


def put_together(stream: bytes) -> dict[str, Any] | None:
    assembler = StreamAssembler("generate")
    for raw in EventScanner().feed(stream):
        assembler.feed(event_data(raw) or b"")
    result = assembler.result()
    return None if result is None else json.loads(result)


def whole(response: dict[str, Any]) -> dict[str, Any]:
    chat: dict[str, Any] = json.loads(answer_responses_to_chat.translate(json.dumps(response).encode()).body)
    return chat


def said(chat: dict[str, Any] | None) -> dict[str, Any]:
    """What is compared of an answer: streams and whole answers write nothing in several ways."""
    assert chat is not None
    (choice,) = chat["choices"]
    message = {field: value for field, value in choice["message"].items() if value}
    for block in message.get("thinking_blocks", ()):
        block.pop("index", None)
    tokens = (choice.get("logprobs") or {}).get("content")
    calls = [{field: call[field] for field in ("id", "type", call["type"])} for call in message.pop("tool_calls", ())]
    head = {field: chat.get(field) for field in ("id", "created", "model", "service_tier", "usage")}
    return head | {"message": message, "calls": calls, "tokens": tokens, "finish": choice["finish_reason"]}


def test_the_recorded_events_are_openais() -> None:
    for raw in EventScanner().feed(WHOLE):
        TypeAdapter[Any](ResponseStreamEvent).validate_json(event_data(raw) or b"")


def test_each_event_is_told_when_it_comes() -> None:
    translator = Translator()
    steps = [translator.feed(event_data(raw) or b"").count(b"data: ") for raw in EventScanner().feed(WHOLE)]
    assert steps == [1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 3]


def test_a_stream_has_the_chunks_that_openai_sends() -> None:
    *chunks, last = chunks_of(told(WHOLE))
    head = {"id": "chatcmpl-67ccd2bed1ec8190b14f964abc054267", "model": "gpt-4.1-2025-04-14", "service_tier": "default"}
    for chunk in [*chunks, last]:
        assert chunk.items() >= (head | {"object": "chat.completion.chunk", "created": 1741476542}).items()
    assert [chunk["usage"] for chunk in chunks] == [None] * len(chunks)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == [None, "tool_calls"]
    assert (last["choices"], last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == ([], 36, 87)


def test_usage_can_be_taken_out_again() -> None:
    chunks = [without_usage(raw) for raw in EventScanner().feed(told(WHOLE))]
    assert b"usage" not in b"".join(chunk or b"" for chunk in chunks)


def test_the_official_client_puts_it_together() -> None:
    # Of streams, the client knows calls of functions only.
    body = told(framed(*(one for one in EVENTS if one.get("output_index") != 3)))

    def provider(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    with (
        httpx.Client(transport=httpx.MockTransport(provider)) as transport,
        openai.OpenAI(api_key="k", base_url="http://p.test/v1", http_client=transport, max_retries=0) as client,
        client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "?"}]) as stream,
    ):
        read = stream.get_final_completion()
    message: Any = read.choices[0].message
    assert message.content == "Hello there"
    assert message.reasoning_content == "**Adding** up"
    (first,) = message.tool_calls
    assert (first.id, first.function.name) == (made.CALL["call_id"], "get_current_weather")
    assert first.function.arguments == made.CALL["arguments"]
    assert read.choices[0].finish_reason == "tool_calls"
    assert read.usage is not None
    assert read.usage.total_tokens == 123
    assert [one.model_dump() for one in message.annotations] == whole(RESPONSE)["choices"][0]["message"]["annotations"]


def test_a_stream_says_what_the_whole_answer_says() -> None:
    assert said(put_together(told(WHOLE))) == said(whole(RESPONSE))


@given(made.responses())
def test_any_stream_says_what_the_whole_answer_says(response: dict[str, Any]) -> None:
    for item in response["output"]:
        if any(part["text"] for part in item.get("summary", ())):
            item.pop("content", None)  # a stream tells what comes first of the two, a whole answer the longer
    stream = told(replay(json.dumps(response).encode(), include_usage=True))
    chunks_of(stream)
    assert said(put_together(stream)) == said(whole(response))


@given(made.responses(), st.booleans())
def test_a_stream_tells_less_where_the_whole_answer_does(response: dict[str, Any], in_the_end: bool) -> None:
    stream = replay(json.dumps(response).encode(), include_usage=True)
    events = [json.loads(event_data(raw) or b"") for raw in EventScanner().feed(stream)]
    if not in_the_end:
        events[-1]["response"]["output"] = []
    translator = Translator()
    told(framed(*events), translator)
    exact = answer_responses_to_chat.translate(json.dumps(response).encode()).exact
    # Of items one by one, more is taken for lost than is.
    assert translator.exact is exact if in_the_end else exact or not translator.exact


@given(chat_answers(), st.booleans())
def test_a_chats_stream_comes_back_as_the_same_answer(chat: dict[str, Any], usage: bool) -> None:
    to_responses, to_chat = ToResponses({"model": "m"}), Translator()
    back = b""
    for raw in EventScanner().feed(replay_chat("generate", json.dumps(chat).encode(), include_usage=usage)):
        try:
            events = EventScanner().feed(to_responses.feed(event_data(raw) or b""))
        except BadMessage:
            return  # several choices, audio: no response has a form for them
        back += b"".join([to_chat.feed(event_data(one) or b"") for one in events])
    if b'"error"' in back[-400:]:
        return
    first, again = said(chat | {"created": 0}), said(put_together(back))
    for field in ("content", "refusal"):
        assert again["message"].get(field) == (first["message"].get(field) or None)
    assert [call[call["type"]] for call in again["calls"]] == [call[call["type"]] for call in first["calls"]]


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_any_split_of_a_stream_gives_the_same(cuts: list[int]) -> None:
    scanner, translator = EventScanner(), Translator()
    sent = b""
    for start, end in pairwise([0, *sorted(cuts), len(WHOLE)]):
        for raw in scanner.feed(WHOLE[start:end]):
            sent += translator.feed(event_data(raw) or b"")
    assert sent == told(WHOLE)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_stream_that_is_cut_does_not_look_ended(length: int) -> None:
    sent = told(WHOLE[:length])
    assert b"[DONE]" not in sent
    assert b'"finish_reason":"' not in sent
    assert put_together(sent) is None


def test_a_chats_end_marker_ends_no_response() -> None:
    assert told(framed(*EVENTS[:-1]) + b"data: [DONE]\n\n") == told(framed(*EVENTS[:-1]))
    assert told(WHOLE + b"data: [DONE]\n\n") == told(WHOLE)


@pytest.mark.parametrize(
    "events",
    [
        [one for one in EVENTS if not one["type"].endswith((".delta", "annotation.added"))],
        [one for one in EVENTS if "output_item" in one["type"] or one in (CREATED, COMPLETED)],
        [one for one in EVENTS if one["type"] == "response.output_item.done" or one in (CREATED, COMPLETED)],
        [CREATED, COMPLETED],
        [COMPLETED],
    ],
)
def test_what_no_delta_told_is_told_at_the_end(events: list[dict[str, Any]]) -> None:
    assert said(put_together(told(framed(*events)))) == said(whole(RESPONSE))


def test_log_probabilities_come_with_their_text() -> None:
    tokens = [made.token("Hel"), made.token("lo")]
    events = [CREATED, *(of_text("output_text.delta", delta=one["token"], logprobs=[one]) for one in tokens)]
    chat = put_together(told(framed(*events, COMPLETED)))
    assert chat is not None
    assert chat["choices"][0]["logprobs"]["content"] == tokens
    ChatCompletion.model_validate(chat)


def test_thoughts_in_several_parts_are_told_apart_and_once() -> None:
    events = [
        CREATED,
        event("reasoning_summary_text.delta", 0, summary_index=0, delta="One"),
        event("reasoning_summary_text.delta", 0, summary_index=1, delta="Two"),
        event("reasoning_text.delta", 0, content_index=0, delta="The same in full"),
        event("reasoning_text.delta", 1, content_index=0, delta="Three"),
        COMPLETED,
    ]
    chat = put_together(told(framed(*events)))
    assert chat is not None
    assert chat["choices"][0]["message"]["reasoning_content"] == "One\n\nTwo\n\nThree"


def test_citations_of_a_second_text_keep_their_place_in_the_whole() -> None:
    cited = made.message(made.text_part("Hello "), made.text_part("there", annotations=[made.CITATION]))
    chat = put_together(told(framed(CREATED, done(0, cited), COMPLETED)))
    assert chat is not None
    (annotation,) = chat["choices"][0]["message"]["annotations"]
    assert (annotation["url_citation"]["start_index"], annotation["url_citation"]["end_index"]) == (6, 11)


@pytest.mark.parametrize(
    ("response", "finish"),
    [
        (made.response(MESSAGE), "stop"),
        (made.response(made.CALL), "tool_calls"),
        (made.response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}), "length"),
        (made.response(status="incomplete", incomplete_details={"reason": "content_filter"}), "content_filter"),
    ],
)
def test_how_it_ended_is_told(response: dict[str, Any], finish: str) -> None:
    chunks = chunks_of(told(framed(CREATED, {"type": f"response.{response['status']}", "response": response})))
    assert chunks[-2]["choices"][0]["finish_reason"] == finish


def test_items_of_tools_at_the_provider_and_unknown_events_tell_nothing() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    others = (added(0, search), event("web_search_call.searching"), done(0, search), {"type": "response.new", "a": 1})
    assert told(framed(CREATED, *others, *EVENTS[1:])) == told(WHOLE)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (
            {"type": "response.failed", "response": made.response(status="failed", error={"code": "server_error",
             "message": "Broken."})},
            {"message": "Broken.", "type": "server_error", "param": None, "code": "server_error"},
        ),
        (
            {"type": "error", "code": "invalid_prompt", "message": "Not this.", "param": "input"},
            {"message": "Not this.", "type": "invalid_request_error", "param": "input", "code": "invalid_prompt"},
        ),
        (
            {"type": "error", "error": {"type": "rate_limit_error", "code": "rate_limit_exceeded", "message": "Slow"}},
            {"message": "Slow", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"},
        ),
        (
            {"type": "error"},
            {"message": "The provider sent an error inside its stream.", "type": "server_error", "param": None,
             "code": None},
        ),
    ],
)  # fmt: skip
def test_an_error_in_the_stream_is_a_chats_and_the_end(failure: dict[str, Any], expected: dict[str, Any]) -> None:
    sent = told(framed(CREATED, failure, *EVENTS[1:]))
    *_, last = EventScanner().feed(sent)
    assert json.loads(event_data(last) or b"") == {"error": expected}
    assembler = StreamAssembler("generate")
    for raw in EventScanner().feed(sent):
        assembler.feed(event_data(raw) or b"")
    assert assembler.error == expected


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        b'{"type":1}',
        b"[" * 100_000,
        b'{"type":"response.created"}',
        b'{"type":"response.completed","response":[]}',
        b'{"type":"response.completed","response":{"status":"cancelled"}}',
        b'{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"a"}',
    ],
)
def test_what_is_no_stream_of_responses(data: bytes) -> None:
    with pytest.raises(BadMessage):
        Translator().feed(data)


def test_a_piece_of_a_call_that_has_not_begun_is_an_error() -> None:
    with pytest.raises(BadMessage):
        told(framed(CREATED, event("function_call_arguments.delta", 0, delta="{")))


def test_parts_without_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_responses_to_chat, "MAX_TEXTS", 3)
    with pytest.raises(BadMessage):
        told(framed(CREATED, *(of_text("output_text.delta", text=part, delta="") for part in range(4))))


@given(st.data())
def test_any_value_in_any_place_is_told_or_refused(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(EVENTS) - 1))
    changed = data.draw(replaced(EVENTS[place]))
    translator = Translator()
    sent = b""
    try:
        for one in (*EVENTS[:place], changed, *EVENTS[place + 1 :]):
            sent += translator.feed(json.dumps(one).encode())
    except BadMessage:
        return
    for raw in EventScanner().feed(sent):
        piece = event_data(raw) or b""
        assert piece == b"[DONE]" or type(json.loads(piece)) is dict


@pytest.mark.parametrize("at", range(len(EVENTS)))
def test_an_event_that_comes_twice_or_out_of_order_is_an_error(at: int) -> None:
    raws = EventScanner().feed(framed(*EVENTS))
    with pytest.raises(BadMessage, match=r"twice or out of order|behind its end"):
        told(b"".join([*raws[: at + 1], *raws[at:]]))
    if at:
        with pytest.raises(BadMessage):
            told(b"".join([*raws[: at - 1], raws[at], raws[at - 1], *raws[at + 1 :]]))
