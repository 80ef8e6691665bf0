"""Streams of responses: told from the cache as OpenAI sends them, read along, and read by the official client."""

import json
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.unit.providers.answers import json_values
from tests.unit.providers.responses.responses import (
    CALL,
    CITATION,
    CUSTOM_CALL,
    REASONING,
    USAGE,
    message,
    response,
    responses,
    text_part,
    token,
)
from watchllm.domain.errors import ProviderFailed
from watchllm.domain.usage import TokenUsage
from watchllm.providers.responses.assemble import StreamAssembler
from watchllm.providers.responses.dialect import DIALECT
from watchllm.wire.sse import EventScanner, event_data

TEXT = "The capital of France is Paris. 🗼 It has some two million inhabitants. " * 5
WORDS = ["Hello", " there", "!"]
FULL = response(
    REASONING | {"content": [{"type": "reasoning_text", "text": "Hm."}]},
    message(
        text_part("".join(WORDS), annotations=[CITATION, CITATION], logprobs=[token(word) for word in WORDS]),
        {"type": "refusal", "refusal": "But I cannot help with that."},
    ),
    CALL,
    CUSTOM_CALL,
)


def replayed(answer: dict[str, Any]) -> bytes:
    return DIALECT.replay(json.dumps(answer).encode(), include_usage=False)


def events_of(stream: bytes) -> list[dict[str, Any]]:
    scanner = EventScanner()
    events = [json.loads(event_data(raw) or b"null") for raw in scanner.feed(stream)]
    assert scanner.rest() == b""
    return events


def fed(*events: Any) -> StreamAssembler:
    assembler = StreamAssembler()
    for event in events:
        assembler.feed(event if type(event) is bytes else json.dumps(event).encode())
    return assembler


def client(body: bytes, content_type: str = "text/event-stream") -> openai.OpenAI:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": content_type}, content=body)

    http = httpx.Client(transport=httpx.MockTransport(answer))
    return openai.OpenAI(api_key="k", base_url="http://provider.test/v1", http_client=http, max_retries=0)


def test_events_come_in_the_order_and_with_the_places_of_the_reference() -> None:
    events = events_of(replayed(FULL))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"] for event in events]
    assert [kind.removeprefix("response.") for kind in kinds] == [
        *("created", "in_progress"),
        "output_item.added",
        *("reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done"),
        *("content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done"),
        "output_item.done",
        "output_item.added",
        *("content_part.added", "output_text.delta", "output_text.delta", "output_text.delta"),
        *("output_text.annotation.added", "output_text.annotation.added", "output_text.done", "content_part.done"),
        *("content_part.added", "refusal.delta", "refusal.done", "content_part.done"),
        "output_item.done",
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        *("output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done"),
        "completed",
    ]
    refusals = [event for event in events if event["type"].startswith("response.refusal")]
    assert {(event["item_id"], event["output_index"], event["content_index"]) for event in refusals} == {
        ("msg_1", 1, 1)
    }
    calls = [event for event in events if "function_call_arguments" in event["type"]]
    assert {(event["item_id"], event["output_index"]) for event in calls} == {("fc_1", 2)}
    annotations = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    assert [(event["annotation_index"], event["annotation"]) for event in annotations] == [(0, CITATION), (1, CITATION)]
    begun = events[0]["response"]
    assert (begun["status"], begun["output"], begun["usage"]) == ("in_progress", [], None)
    assert events[-1]["response"] == FULL


def test_every_event_is_one_of_the_official_schema_and_named_as_it() -> None:
    schema: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for raw in EventScanner().feed(replayed(FULL)):
        name = raw.split(b"\n", 1)[0]
        event = schema.validate_json(event_data(raw) or b"", strict=True)
        assert name == f"event: {event.type}".encode()
        assert type(event).__name__ != "ResponseErrorEvent"


def test_the_official_client_puts_the_stored_response_together() -> None:
    with client(replayed(FULL)).responses.stream(model="m", input="?") as stream:
        seen = list(stream)
        final = stream.get_final_response()
    assert final.to_dict()["output"][1]["content"][0]["text"] == "Hello there!"
    assert final.output_text == "Hello there!"
    texts = [event for event in seen if event.type == "response.output_text.delta"]
    assert [event.delta for event in texts] == WORDS
    assert [event.snapshot for event in texts] == ["Hello", "Hello there", "Hello there!"]
    assert [[part.token for part in event.logprobs] for event in texts] == [[word] for word in WORDS]
    arguments = [event for event in seen if event.type == "response.function_call_arguments.delta"]
    assert arguments[-1].snapshot == CALL["arguments"]
    assert final.usage is not None
    assert final.usage.total_tokens == 123


def test_a_long_text_is_told_in_pieces() -> None:
    events = events_of(replayed(response(message(text_part(TEXT)))))
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert len(deltas) > 2
    assert "".join(deltas) == TEXT


def test_an_incomplete_response_ends_as_one() -> None:
    cut = response(
        message(text_part("Hel"), status="incomplete"),
        status="incomplete",
        incomplete_details={"reason": "max_output_tokens"},
    )
    events = events_of(replayed(cut))
    assert events[-1]["type"] == "response.incomplete"
    assert events[0]["response"]["incomplete_details"] is None
    assert fed(*events).finish_reasons == ("max_output_tokens",)


@given(responses())
def test_a_response_that_is_told_is_read_along_as_itself(answer: dict[str, Any]) -> None:
    stream = replayed(answer)
    assembler = fed(*events_of(stream))
    result = assembler.result()
    assert result is not None
    assert json.loads(result) == answer
    assert DIALECT.judge(result, {}) == DIALECT.judge(json.dumps(answer).encode(), {})
    assert assembler.done
    assert assembler.usage == (None if answer["usage"] is None else TokenUsage(36, 87, 8, 0, 20))


@given(responses(), st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_how_a_stream_is_split_does_not_matter(answer: dict[str, Any], sizes: list[int]) -> None:
    stream = replayed(answer)
    scanner, assembler = EventScanner(), StreamAssembler()
    at, step = 0, 0
    while at < len(stream):
        size = sizes[step % len(sizes)]
        for raw in scanner.feed(stream[at : at + size]):
            assembler.feed(event_data(raw) or b"")
        at, step = at + size, step + 1
    assert json.loads(assembler.result() or b"null") == answer


@given(st.lists(json_values() | st.dictionaries(
    st.sampled_from(["type", "response", "sequence_number", "item", "output_index", "delta", "error"]),
    json_values(4) | st.sampled_from(["response.completed", "response.output_item.done", "error"]),
), max_size=6))  # fmt: skip
def test_whatever_comes_is_read_without_an_exception(stream: list[Any]) -> None:
    assembler = fed(*stream)
    result = assembler.result()
    assert (assembler.usage, assembler.finish_reasons, assembler.text) is not None
    if result is not None and DIALECT.judge(result, {}).storable:
        assert DIALECT.replay(result, include_usage=True)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_leave_no_response(data: bytes) -> None:
    assert fed(data).result() is None


def test_what_was_written_is_known_of_a_stream_that_was_cut() -> None:
    events = events_of(replayed(FULL))
    assembler = fed(*events[:-1])
    assert assembler.result() is None
    assert not assembler.done
    assert assembler.finish_reasons == ()
    expected = "**Adding** upHm." + "".join(WORDS) + "But I cannot help with that." + CALL["arguments"] + "SELECT 1"
    assert assembler.text == expected
    assert assembler.text_length == len(expected)


def test_items_are_kept_where_the_last_event_lacks_them() -> None:
    events = events_of(replayed(FULL))
    events[-1]["response"]["output"] = []
    result = fed(*events).result()
    assert json.loads(result or b"null") == FULL


@pytest.mark.parametrize("at", [1, 5, -2, -1])
def test_an_event_that_comes_twice_leaves_no_response(at: int) -> None:
    events = events_of(replayed(FULL))
    position = at % len(events)
    assembler = fed(*events[: position + 1], *events[position:])
    assert assembler.result() is None
    assert assembler.failure is not None
    assert assembler.usage is not None


def test_unnumbered_events_are_believed_but_none_after_the_end() -> None:
    events = [{field: value for field, value in event.items() if field != "sequence_number"}
              for event in events_of(replayed(FULL))]  # fmt: skip
    assert fed(*events).result() is not None
    assert fed(*events, b"[DONE]").result() is not None
    assert fed(*events, events[5]).result() is None


@pytest.mark.parametrize(
    "failing",
    [
        {"type": "error", "code": "server_error", "message": "x", "param": None},
        {"type": "error", "error": {"code": "server_error", "message": "x"}},
        {"error": {"message": "x"}},
        {
            "type": "response.failed",
            "response": response(status="failed", error={"code": "server_error", "message": "x"}),
        },
        {"type": "response.failed", "response": response(status="failed")},
        b"{",
        b"[" * 5000,
        [],
        {"type": "response.completed", "response": 3},
    ],
)
def test_an_error_or_what_is_no_event_leaves_no_response(failing: Any) -> None:
    *events, last = events_of(replayed(FULL))
    assembler = fed(*events, failing, last)
    assert assembler.result() is None
    assert assembler.error is not None or assembler.failure is not None
    assert assembler.usage is not None


@pytest.mark.parametrize("error", [None, {"code": "server_error", "message": "x"}])
def test_a_response_that_failed_is_an_error_at_the_end(error: Any) -> None:
    *events, _ = events_of(replayed(FULL))
    failed = response(message(text_part("Hi")), status="failed", error=error)
    assembler = fed(*events, {"type": "response.failed", "sequence_number": 99, "response": failed})
    assert (assembler.result(), assembler.failure, assembler.done) == (None, None, True)
    assert assembler.error["message"]
    assert assembler.finish_reasons == ("failed",)


def test_a_stream_that_is_too_large_is_forgotten_but_its_ending_is_read() -> None:
    assembler = StreamAssembler(limit=1000)
    for event in events_of(replayed(response(message(text_part(TEXT * 3))))):
        assembler.feed(json.dumps(event).encode())
    assert assembler.result() is None
    assert (assembler.failure, assembler.text) == ("too large", "")
    assert assembler.text_length == len(TEXT) * 3
    assert assembler.finish_reasons == ("completed",)
    assert assembler.usage is not None


def test_the_official_client_raises_an_error_in_a_stream() -> None:
    begun = b"\n\n".join(replayed(FULL).split(b"\n\n")[:6]) + b"\n\n"
    broken = begun + DIALECT.error_event(ProviderFailed("The provider failed."), "req_1")
    with (
        client(broken).responses.stream(model="m", input="?") as stream,
        pytest.raises(openai.APIError, match=r"The provider failed\."),
    ):
        stream.until_done()


def test_the_hand_written_response_is_one_of_the_official_schema() -> None:
    read = Response.model_validate(FULL)
    assert read.output_text == "Hello there!"
    assert read.usage is not None
    assert read.usage.to_dict() == USAGE


def test_unnumbered_text_that_comes_in_pairs_leaves_no_response() -> None:
    def stream(*pieces: str) -> list[dict[str, Any]]:
        deltas = [{"type": "response.output_text.delta", "delta": piece} for piece in pieces]
        return [*deltas, {"type": "response.completed", "response": FULL}]

    words = ("One", " and", " two", ",", " two", " and", " three", ".")
    doubled = [word for word in words for _ in range(2)]
    assert fed(*stream(*words)).result() is not None
    assert fed(*stream(*doubled)).result() is None
    assert fed(*stream(*doubled, "!")).result() is not None
