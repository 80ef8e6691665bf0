"""Streams of chat completion chunks told as responses: event by event, and as the official client reads them."""

import json
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.unit.providers.answers import chat_answers, json_values
from tests.unit.providers.translation.chat_answers import (
    ANNOTATION,
    BLOCKS,
    CITATION,
    TOKENS,
    TOOL_CALL,
    USAGE,
    answer,
    chunk,
    data_of,
)
from watchllm.providers.openai.replay import replay as replay_chat
from watchllm.providers.responses.assemble import StreamAssembler
from watchllm.providers.translation.answer_chat_to_responses import translate as translate_answer
from watchllm.providers.translation.stream_chat_to_responses import Translator
from watchllm.wire.sse import EventScanner, event_data
from watchllm.wire.types import BadMessage

REQUEST = {"model": "m", "input": "Hi", "temperature": 0.5}


def told(*chunks: Any, request: dict[str, Any] | None = None) -> bytes:
    translator = Translator(request or REQUEST)
    return b"".join(map(translator.feed, data_of(*chunks))) + translator.finish()


def events_of(stream: bytes) -> list[dict[str, Any]]:
    scanner = EventScanner()
    events = []
    for raw in scanner.feed(stream):
        event = json.loads(event_data(raw) or b"null")
        assert raw.startswith(f"event: {event['type']}\n".encode())
        events.append(event)
    assert scanner.rest() == b""
    return events


def kinds_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def response_of(stream: bytes) -> dict[str, Any]:
    assembler = StreamAssembler()
    for event in events_of(stream):
        assembler.feed(json.dumps(event).encode())
    assert (assembler.failure, assembler.error) == (None, None)
    response: dict[str, Any] = json.loads(assembler.result() or b"null")
    return response


def client(body: bytes) -> openai.OpenAI:
    def provider(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    http = httpx.Client(transport=httpx.MockTransport(provider))
    return openai.OpenAI(api_key="k", base_url="http://provider.test/v1", http_client=http, max_retries=0)


def call(index: Any = 0, call_id: Any = None, name: Any = None, arguments: Any = "") -> dict[str, Any]:
    piece: dict[str, Any] = {"function": {"arguments": arguments} | ({} if name is None else {"name": name})}
    return piece | {
        field: value
        for field, value in (("index", index), ("id", call_id), ("type", call_id and "function"))
        if value is not None
    }


TEXT_STREAM = (
    chunk({"role": "assistant", "content": "", "refusal": None}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
    chunk({}, "stop"),
    chunk(usage=USAGE),
    None,
)
FULL_STREAM = (
    chunk({"role": "assistant", "content": None, "reasoning_content": "Hm,"}),
    chunk({"reasoning_content": " so"}),
    chunk({"thinking_blocks": BLOCKS}),
    chunk({"content": "Let me"}),
    chunk({"content": " see.", "annotations": [ANNOTATION]}),
    chunk({"tool_calls": [call(0, "call_1", "weather")]}),
    chunk({"tool_calls": [call(0, arguments='{"city":')]}),
    chunk({"tool_calls": [call(1, "call_2", "weather", "{}")]}),
    chunk({"tool_calls": [call(0, arguments=' "Bern"}')]}),
    chunk({}, "tool_calls"),
    chunk(usage=USAGE),
    None,
)


def test_each_chunk_is_told_when_it_comes() -> None:
    translator = Translator(REQUEST)
    steps = [kinds_of(events_of(translator.feed(data))) for data in data_of(*TEXT_STREAM)]
    assert steps == [
        ["created", "in_progress"],
        ["output_item.added", "content_part.added", "output_text.delta"],
        ["output_text.delta"],
        [],
        [],
        ["output_text.done", "content_part.done", "output_item.done", "completed"],
    ]


def test_the_events_name_their_places_and_are_numbered() -> None:
    events = events_of(told(*FULL_STREAM))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    added = [event for event in events if event["type"] == "response.output_item.added"]
    assert [(event["output_index"], event["item"]["type"]) for event in added] == [
        (0, "reasoning"), (1, "message"), (2, "function_call"), (3, "function_call"),
    ]  # fmt: skip
    ids = [event["item"]["id"] for event in added]
    places = {(event["item_id"], event["output_index"]) for event in events if "item_id" in event}
    assert places == set(zip(ids, range(4), strict=True))
    assert {event["content_index"] for event in events if "content_index" in event} == {0}
    assert kinds_of(events)[2:8] == [
        "output_item.added",
        "reasoning_summary_part.added",
        *["reasoning_summary_text.delta"] * 2,
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
    ]
    kinds = kinds_of(events)
    message_done = [event.get("item", {}).get("id") for event in events].index(ids[1], kinds.index("content_part.done"))
    assert kinds[message_done : message_done + 2] == ["output_item.done", "output_item.added"]
    begun = events[0]["response"]
    assert (begun["status"], begun["output"], begun["temperature"]) == ("in_progress", [], 0.5)


def test_every_event_is_one_of_the_official_schema() -> None:
    schema: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    logprobs = {"content": TOKENS, "refusal": None}
    said = chunk({"content": "Hello there"})
    said["choices"][0]["logprobs"] = logprobs
    for stream in (TEXT_STREAM, FULL_STREAM, (said, chunk({"refusal": "No."}, "stop"), None)):
        for event in events_of(told(*stream)):
            read = schema.validate_json(json.dumps(event), strict=True)
            assert read.type == event["type"]


def test_the_whole_is_the_response_that_the_whole_answer_becomes() -> None:
    response = response_of(told(*FULL_STREAM))
    calls = [
        TOOL_CALL | {"function": {"name": "weather", "arguments": '{"city": "Bern"}'}},
        TOOL_CALL | {"id": "call_2", "function": {"name": "weather", "arguments": "{}"}},
    ]
    chat = answer(
        "tool_calls",
        reasoning_content="Hm, so",
        thinking_blocks=BLOCKS,
        content="Let me see.",
        annotations=[ANNOTATION],
        tool_calls=calls,
    )
    expected = json.loads(translate_answer(json.dumps(chat).encode(), REQUEST).body)
    assert response["output"] == expected["output"]
    assert response["usage"] == expected["usage"]
    assert (response["id"], response["status"]) == (expected["id"], "completed")
    assert response["output"][1]["content"][0]["annotations"] == [{"type": "url_citation"} | CITATION]


def test_the_official_client_reads_text_calls_and_usage() -> None:
    with client(told(*FULL_STREAM)).responses.stream(model="m", input="?") as stream:
        seen = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "Let me see."
    assert [item.arguments for item in final.output if item.type == "function_call"] == ['{"city": "Bern"}', "{}"]
    deltas = [event for event in seen if event.type == "response.function_call_arguments.delta"]
    assert [(event.output_index, event.snapshot) for event in deltas] == [
        (2, '{"city":'), (3, "{}"), (2, '{"city": "Bern"}'),
    ]  # fmt: skip
    assert final.usage is not None
    assert final.usage.to_dict() == response_of(told(*FULL_STREAM))["usage"]


def test_log_probabilities_go_along_with_their_text() -> None:
    pieces = []
    for told_token in TOKENS:
        piece = chunk({"content": told_token["token"]})
        piece["choices"][0]["logprobs"] = {"content": [told_token], "refusal": None}
        pieces.append(piece)
    stream = told(*pieces, chunk({}, "stop"), None)
    deltas = [event for event in events_of(stream) if event["type"] == "response.output_text.delta"]
    assert [event["logprobs"] for event in deltas] == [[TOKENS[0]], [TOKENS[1]]]
    assert response_of(stream)["output"][0]["content"][0]["logprobs"] == TOKENS


def test_a_refusal_is_a_part_of_its_own() -> None:
    stream = told(chunk({"content": "Well."}), chunk({"refusal": "I can"}), chunk({"refusal": "not."}, "stop"), None)
    events = events_of(stream)
    assert [event["content_index"] for event in events if event["type"] == "response.refusal.delta"] == [1, 1]
    assert [part["type"] for part in response_of(stream)["output"][0]["content"]] == ["output_text", "refusal"]
    assert response_of(stream)["output"][0]["content"][1]["refusal"] == "I cannot."


def test_reasoning_between_texts_makes_new_items() -> None:
    thought, said = chunk({"reasoning": "Hm"}), chunk({"content": "So"})
    response = response_of(told(thought, said, thought, said, chunk({}, "stop"), None))
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"] * 2
    assert len({item["id"] for item in response["output"]}) == 4


def test_reasoning_under_two_names_is_told_once() -> None:
    twice = chunk({"reasoning": "Hm", "reasoning_content": "Hm"})
    response = response_of(told(twice, chunk({"reasoning": " so"}), chunk({"content": "A"}, "stop"), None))
    assert response["output"][0]["summary"] == [{"type": "summary_text", "text": "Hm"}]


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [("length", "incomplete", "max_output_tokens"), ("content_filter", "incomplete", "content_filter")],
)
def test_an_answer_that_was_cut_short_is_incomplete(finish: str, status: str, reason: str) -> None:
    response = response_of(told(chunk({"reasoning": "Hm"}), chunk({"content": "Hel"}, finish), None))
    assert (response["status"], response["incomplete_details"]) == (status, {"reason": reason})
    assert response["output"][1]["status"] == "incomplete"
    assert "status" not in response["output"][0]


def test_blocks_in_pieces_are_joined_by_their_index() -> None:
    pieces = [
        [{"index": 0, "type": "thinking", "thinking": "Hm,"}],
        [{"index": 0, "type": "thinking", "thinking": " so", "signature": None}],
        [{"index": 0, "type": "thinking", "thinking": "", "signature": "c2ln"}],
    ]
    stream = told(*(chunk({"thinking_blocks": blocks}) for blocks in pieces), chunk({"content": "A"}, "stop"), None)
    whole = answer(thinking_blocks=BLOCKS, content="A")
    expected = json.loads(translate_answer(json.dumps(whole).encode(), REQUEST).body)
    assert response_of(stream)["output"] == expected["output"]


@pytest.mark.parametrize(
    "calls",
    [
        # All numbered 0, told apart by their ids.
        [call(0, "a", "f", "{}"), call(0, "b", "g", "{}")],
        # An id with every piece.
        [call(0, "a", "f", "{"), call(0, "a", "f", "}"), call(1, "b", "g", "{}")],
        # Not numbered: each whole, or named in its first piece.
        [call(None, "a", "f", "{"), call(None, None, None, "}"), call(None, "b", "g", "{}")],
        # The name comes late.
        [call(0, "a", None, "{"), call(0, None, "f", "}"), call(1, "b", "g", "{}")],
        # Arguments as an object, or without any before the end.
        [call(0, "a", "f", {}), call(1, "b", "g", None), call(1, None, None, "{}")],
    ],
)
def test_calls_are_told_apart_whatever_a_vendor_numbers(calls: list[dict[str, Any]]) -> None:
    response = response_of(told(*(chunk({"tool_calls": [piece]}) for piece in calls), chunk({}, "tool_calls"), None))
    assert [(item["call_id"], item["name"], item["arguments"]) for item in response["output"]] == [
        ("a", "f", "{}"), ("b", "g", "{}"),
    ]  # fmt: skip


def test_a_custom_tools_input_is_told_as_such() -> None:
    pieces = [
        {"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": ""}},
        {"index": 0, "custom": {"input": "SELECT 1"}},
    ]
    stream = told(*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls"), None)
    assert kinds_of(events_of(stream))[2:] == [
        *("output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done"),
        "completed",
    ]
    assert response_of(stream)["output"][0]["input"] == "SELECT 1"


def test_usage_in_groqs_own_field_is_found() -> None:
    stream = told(chunk({"content": "Hi"}), chunk({}, "stop", x_groq={"usage": USAGE}), None)
    assert response_of(stream)["usage"]["input_tokens"] == USAGE["prompt_tokens"]


@pytest.mark.parametrize("length", range(len(FULL_STREAM)))
def test_a_stream_that_was_cut_does_not_look_ended(length: int) -> None:
    events = events_of(told(*FULL_STREAM[:length]))
    assert {"response.completed", "response.incomplete"}.isdisjoint(event["type"] for event in events)


def test_an_end_marker_without_a_finish_reason_is_no_end() -> None:
    assert kinds_of(events_of(told(*TEXT_STREAM[:3], None)))[-1] == "output_text.delta"
    assert told(None) == b""


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        ({"message": "Overloaded.", "param": None, "code": "overloaded"}, "Overloaded.", "overloaded"),
        ({"message": "Overloaded.", "code": 529}, "Overloaded.", "529"),
        ("Overloaded.", "Overloaded.", None),
        ({"x": 1}, "The provider failed within its answer; try again.", None),
    ],
)
def test_an_error_in_the_stream_becomes_an_error_event_and_the_end(error: Any, message: str, code: Any) -> None:
    stream = told(*TEXT_STREAM[:3], {"error": error}, *TEXT_STREAM[3:])
    last = events_of(stream)[-1]
    assert (last["type"], last["error"]["message"], last["error"]["code"]) == ("error", message, code)
    assert last["sequence_number"] == len(events_of(stream)) - 1
    with (
        client(stream).responses.stream(model="m", input="?") as read,
        pytest.raises(openai.APIError, match=message.rstrip(".")),
    ):
        read.until_done()


@pytest.mark.parametrize(
    "broken", [chunk({}, "error"), chunk({"tool_calls": [call(0, "a", None, "{}")]}, "tool_calls")]
)
def test_an_answer_that_failed_at_its_end_is_an_error(broken: dict[str, Any]) -> None:
    assert events_of(told(TEXT_STREAM[1], broken, None))[-1]["type"] == "error"


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"",
        b"[1]",
        b"[" * 5000,
        *data_of(
            chunk() | {"choices": {}},
            chunk() | {"choices": [1]},
            chunk() | {"choices": [{"index": 1, "delta": {}}]},
            chunk() | {"choices": [{"index": 0}, {"index": 1}]},
            chunk({"content": 3}),
            chunk({"audio": {"data": "x"}}),
            chunk({"function_call": {"name": "f"}}),
            chunk({"tool_calls": {}}),
            chunk({"tool_calls": [3]}),
        ),
    ],
)
def test_what_is_no_chunk_of_one_choice_is_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        Translator(REQUEST).feed(data)


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x" * 6000},
        {"reasoning": "x" * 6000},
        {"refusal": "x" * 6000},
        {"tool_calls": [call(0, "a", "f", "x" * 6000)]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "x" * 6000}]},
        {"annotations": [{"type": "url_citation", "url_citation": {"url": "x" * 6000}}]},
    ],
)
def test_a_stream_without_end_is_refused_before_it_fills_the_memory(delta: dict[str, Any]) -> None:
    translator = Translator(REQUEST, limit=10_000)
    (piece,) = data_of(chunk(delta))
    assert translator.feed(piece)
    with pytest.raises(BadMessage, match="too large"):
        translator.feed(piece)


def test_many_small_chunks_are_charged_by_their_text_and_not_by_their_size() -> None:
    translator = Translator(REQUEST, limit=2000)
    (piece,) = data_of(chunk({"content": "x"}))
    assert len(piece) * 1000 > 100_000
    for _ in range(1000):
        assert translator.feed(piece)


def test_many_small_items_are_charged_for_more_than_their_text() -> None:
    translator = Translator(REQUEST, limit=10_000)
    pieces = data_of(chunk({"content": "x"}), chunk({"reasoning": "x"})) * 20
    with pytest.raises(BadMessage, match="too large"):
        b"".join(map(translator.feed, pieces))


# With one choice, and without the calls of the old form that no translated request asks for.
tellable = chat_answers().filter(
    lambda chat: len(chat["choices"]) == 1 and not chat["choices"][0]["message"].get("function_call")
)


@given(tellable)
def test_a_stream_says_what_the_whole_answer_says(chat: dict[str, Any]) -> None:
    body = json.dumps(chat).encode()
    translator = Translator(REQUEST)
    stream = b""
    for raw in EventScanner().feed(replay_chat("generate", body, include_usage=True)):
        stream += translator.feed(event_data(raw) or b"")
    response = response_of(stream + translator.finish())
    whole = translate_answer(body, REQUEST)
    expected = json.loads(whole.body)
    assert translator.exact is whole.exact
    assert (response["status"], response["usage"]) == (expected["status"], expected["usage"])
    assert said_in(response) == said_in(expected)


def said_in(response: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"calls": []}
    for item in response["output"]:
        if item["type"] in ("function_call", "custom_tool_call"):
            said["calls"].append((item["name"], item.get("arguments"), item.get("input")))
        for part in item.get("content", item.get("summary")) or ():
            said[part["type"]] = said.get(part["type"], "") + (part.get("text") or part.get("refusal") or "")
    return {kind: text for kind, text in said.items() if text}


@given(tellable, st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_how_the_stream_is_split_does_not_matter(chat: dict[str, Any], sizes: list[int]) -> None:
    stream = replay_chat("generate", json.dumps(chat).encode(), include_usage=True)

    def translated(sizes: list[int]) -> bytes:
        scanner, translator, out, at, step = EventScanner(), Translator(REQUEST), b"", 0, 0
        while at < len(stream):
            size = sizes[step % len(sizes)]
            for raw in scanner.feed(stream[at : at + size]):
                out += translator.feed(event_data(raw) or b"")
            at, step = at + size, step + 1
        return out + translator.finish()

    assert translated(sizes) == translated([len(stream)])


deltas = st.dictionaries(
    st.sampled_from(["content", "refusal", "tool_calls", "reasoning", "thinking_blocks", "annotations", "role"]),
    json_values(5),
)
choices = st.fixed_dictionaries(
    {"delta": deltas | json_values(2)},
    optional={"index": st.just(0) | json_values(2), "finish_reason": json_values(2), "logprobs": json_values(4)},
)
chunks = json_values() | st.fixed_dictionaries(
    {"choices": st.lists(choices, max_size=2) | json_values(2)},
    optional={"usage": json_values(4), "id": json_values(2), "x_groq": json_values(3), "error": json_values(2)},
)


@given(st.lists(chunks, max_size=6))
def test_any_stream_is_translated_or_refused(stream: list[Any]) -> None:
    translator = Translator(REQUEST)
    out = b""
    try:
        for data in data_of(*stream):
            out += translator.feed(data)
        out += translator.feed(b"[DONE]")
    except BadMessage:
        out = out or b""
    events = events_of(out)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


@pytest.mark.parametrize("field", ["citations", "reasoning_details"])
def test_a_vendors_own_field_is_lost(field: str) -> None:
    translator = Translator(REQUEST)
    for data in data_of(chunk({"content": "A", field: [{"x": 1}]}), chunk({}, "stop"), None):
        translator.feed(data)
    assert not translator.exact


def test_an_end_that_is_told_twice_is_an_error() -> None:
    opened, hello, end = chunk({"role": "assistant", "content": ""}), chunk({"content": "Hello"}), chunk({}, "stop")
    with pytest.raises(BadMessage, match="come twice"):
        told(opened, hello, end, end, None)
    again = end | {"usage": USAGE}
    assert response_of(told(opened, hello, end, again, None))["status"] == "completed"
    with pytest.raises(BadMessage, match="come twice"):
        told(opened, opened, hello, end, again, None)
