"""Streams of the messages dialect: put together, told again, cut, broken, hostile.

The recorded streams follow the public reference's page on streaming messages.
"""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from watchllm.domain.usage import TokenUsage
from watchllm.providers.anthropic.assemble import StreamAssembler
from watchllm.providers.anthropic.replay import replay
from watchllm.providers.anthropic.storable import judge
from watchllm.wire.sse import EventScanner, event_data

HELLO = begun() + PING + text(0, "Hel", "lo") + ended() + STOP


def fed(stream: bytes, **options: Any) -> StreamAssembler:
    assembler = StreamAssembler(**options)
    for raw in EventScanner().feed(stream):
        data = event_data(raw)
        if data is not None:
            assembler.feed(data)
    return assembler


def assembled(stream: bytes) -> Any:
    result = fed(stream).result()
    return None if result is None else json.loads(result)


@given(messages(hosted=True), st.booleans())
def test_a_message_told_as_a_stream_is_the_same_message(message: dict[str, Any], include_usage: bool) -> None:
    stream = replay(json.dumps(message).encode(), include_usage=include_usage)
    assert assembled(stream) == message


@given(messages(hosted=True), st.data())
def test_whatever_may_be_stored_can_be_told(message: dict[str, Any], data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([message, message["usage"], *message["content"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)
    body = json.dumps(message).encode()
    if judge(body).storable:
        got = assembled(replay(body))
        if type(message.get("usage")) is not dict or type(message["usage"].get("output_tokens")) is not int:
            # A stream always tells counts.
            assert got.pop("usage").keys() >= {"output_tokens"}
            del message["usage"]
        assert got == message


def test_a_stream_is_put_together_as_the_reference_tells_it() -> None:
    message = assembled(
        begun(cache_read_input_tokens=7)
        + block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "Let me "},
            {"type": "thinking_delta", "thinking": "think"},
            {"type": "signature_delta", "signature": "EqQB"},
        )
        + PING
        + text(1, "Hel", "lo")
        + tool(2, "get_weather", "", '{"location": "San', ' Francisco", "days": 1.0}')
        + ended("tool_use", 89)
        + STOP
    )
    assert message["content"] == [
        {"type": "thinking", "thinking": "Let me think", "signature": "EqQB"},
        {"type": "text", "text": "Hello"},
        {
            "type": "tool_use",
            "id": "toolu_2",
            "name": "get_weather",
            "input": {"location": "San Francisco", "days": 1.0},
        },
    ]
    assert message["stop_reason"] == "tool_use"
    assert message["usage"] == {"input_tokens": 25, "output_tokens": 89, "cache_read_input_tokens": 7}


def test_a_tool_without_input_has_an_empty_one() -> None:
    assert assembled(begun() + tool(0, "now", "") + ended("tool_use") + STOP)["content"][0]["input"] == {}


def test_citations_are_kept_in_their_order() -> None:
    cited = [{"type": "page_location", "cited_text": number} for number in "ab"]
    stream = block(
        0,
        {"type": "text", "text": "", "citations": []},
        {"type": "text_delta", "text": "Said."},
        *[{"type": "citations_delta", "citation": citation} for citation in cited],
    )
    assert assembled(begun() + stream + ended() + STOP)["content"] == [
        {"type": "text", "text": "Said.", "citations": cited}
    ]


@given(st.integers(0, len(HELLO) - 1))
def test_a_stream_that_is_cut_anywhere_has_no_result(length: int) -> None:
    assembler = fed(HELLO[:length])
    assert assembler.result() is None
    assert not assembler.done


@given(st.lists(st.integers(0, len(HELLO)), max_size=6))
def test_any_split_of_a_stream_gives_the_same_message(cuts: list[int]) -> None:
    scanner, assembler = EventScanner(), StreamAssembler()
    places = [0, *sorted(cuts), len(HELLO)]
    for start, end in pairwise(places):
        for raw in scanner.feed(HELLO[start:end]):
            assembler.feed(event_data(raw) or b"")
    assert assembler.result() is not None
    assert assembler.result() == fed(HELLO).result()


@pytest.mark.parametrize(
    "stream",
    [
        begun() + text(0, "Hello") + STOP,  # no stop_reason
        begun() + event("content_block_start", index=0, content_block={"type": "text", "text": ""}) + ended() + STOP,
        begun() + tool(0, "f", '{"a": ') + ended("max_tokens") + STOP,  # an input that is not whole
        begun() + tool(0, "f", "[1]") + ended("tool_use") + STOP,
        begun() + block(0, {"type": "text", "text": ""}, {"type": "new_delta", "new": "x"}) + ended() + STOP,
        begun() + event("content_block_delta", index=3, delta={"type": "text_delta", "text": "x"}) + ended() + STOP,
        begun() + begun() + text(0, "Hello") + ended() + STOP,
        text(0, "Hello") + ended() + STOP,  # no message_start
        begun() + b"data: {\n\n" + text(0, "Hello") + ended() + STOP,
        begun() + b"data: " + b"[" * 100_000 + b"\n\n" + text(0, "Hello") + ended() + STOP,
        begun() + b'data: "text"\n\n' + text(0, "Hello") + ended() + STOP,
    ],
)
def test_a_stream_that_is_not_whole_has_no_result(stream: bytes) -> None:
    assert fed(stream).result() is None


def test_unknown_events_are_passed_over() -> None:
    assert assembled(begun() + event("heartbeat", n=1) + HELLO.removeprefix(begun())) == assembled(HELLO)


def test_an_error_in_the_stream_is_kept_and_there_is_no_result() -> None:
    said = {"type": "overloaded_error", "message": "Overloaded"}
    assembler = fed(begun() + text(0, "Hel") + event("error", error=said))
    assert assembler.error == said
    assert assembler.result() is None


def test_the_counts_at_the_end_replace_those_of_the_beginning() -> None:
    usage = fed(begun(cache_read_input_tokens=100, cache_creation_input_tokens=10) + ended(output=40) + STOP).usage
    assert usage == TokenUsage(input=135, output=40, cached_input=100, cache_write=10)


def test_of_a_stream_that_was_cut_the_input_is_known_and_the_output_estimated() -> None:
    usage = fed(begun(cache_read_input_tokens=100) + text(0, "one two three four five six seven")).usage
    assert usage is not None
    assert (usage.input, usage.cached_input, usage.estimated) == (125, 100, True)
    assert 5 <= usage.output <= 10


def test_no_usage_is_no_usage() -> None:
    assert fed(event("message_start", message={"type": "message", "content": []})).usage is None


def test_a_stream_too_large_to_be_kept_is_still_read_for_its_end() -> None:
    long = [text(number, "x" * 1000) for number in range(20)]
    assembler = fed(begun() + b"".join(long) + ended("max_tokens", 5000) + STOP, limit=5000)
    assert assembler.failure == "too large"
    assert assembler.result() is None
    assert assembler.text == ""
    assert assembler.text_length == 20_000
    assert assembler.usage == TokenUsage(25, 5000)
    assert assembler.finish_reasons == ("max_tokens",)


def test_nothing_grows_in_a_stream_that_is_not_kept() -> None:
    assembler = fed(begun() + text(0, "x" * 6000), limit=5000)
    for number in range(50):
        assembler.feed(event_data(event("message_delta", delta={f"f{number}": "x"}, usage={f"u{number}": [1]})) or b"")
        assembler.feed(
            event_data(event("content_block_start", index=number + 1, content_block={"type": "text"})) or b""
        )
    assert assembler._message == {"stop_reason": None}
    assert assembler._usage.keys() == {"input_tokens", "output_tokens"}
    assert len(assembler._blocks) == 1


@given(st.lists(json_values | st.dictionaries(st.sampled_from(["type", "index", "delta", "message"]), json_values)))
def test_whatever_comes_is_taken_in(values: list[Any]) -> None:
    assembler = StreamAssembler()
    for value in values:
        assembler.feed(json.dumps(value).encode())
    assert assembler.result() is None


EVENTS = [
    json.loads(event_data(raw) or b"")
    for raw in EventScanner().feed(
        begun() + text(0, "Hi") + tool(1, "f", "{}") + ended(stop_details=None) + event("error", error={}) + STOP
    )
]


@given(st.data())
def test_any_value_in_any_place_of_an_event_is_taken_in(data: st.DataObject) -> None:
    assembler = StreamAssembler()
    for whole in EVENTS:
        told = json.loads(json.dumps(whole))
        place: Any = told
        while True:
            key = data.draw(st.sampled_from(sorted(place)))
            if type(place[key]) is not dict or not place[key] or data.draw(st.booleans()):
                break
            place = place[key]
        if data.draw(st.booleans()):
            place[key] = data.draw(json_values)
        assembler.feed(json.dumps(told).encode())
    assembler.result()
    assert assembler.usage is None or assembler.usage.input >= 0
    assert all(type(reason) is str for reason in assembler.finish_reasons)


def told(message: dict[str, Any]) -> list[dict[str, Any]]:
    raws = EventScanner().feed(replay(json.dumps(message).encode()))
    datas = [json.loads(event_data(raw) or b"") for raw in raws]
    for raw, data in zip(raws, datas, strict=True):
        assert raw.startswith(b"event: %b\n" % data["type"].encode())
    return datas


MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "The quick brown fox jumps over the lazy dog. " * 20}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 25, "output_tokens": 200, "service_tier": "standard"},
}


def test_a_replay_has_the_events_that_anthropic_sends() -> None:
    events = told(MESSAGE)
    kinds = [sent["type"] for sent in events]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[3:-3]) == {"content_block_delta"}
    assert 2 <= len(kinds[3:-3]) <= 16
    assert events[0]["message"] == MESSAGE | {
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 25, "output_tokens": 1, "service_tier": "standard"},
    }
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2]["usage"] == {"input_tokens": 25, "output_tokens": 200}


def test_the_input_of_a_tool_is_told_as_pieces_of_json_after_an_empty_one() -> None:
    used = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"text": "word " * 100}}
    events = told(MESSAGE | {"content": [used], "stop_reason": "tool_use"})
    assert events[1]["content_block"] == used | {"input": {}}
    pieces = [sent["delta"]["partial_json"] for sent in events if sent["type"] == "content_block_delta"]
    assert pieces[0] == ""
    assert len(pieces) > 2
    assert json.loads("".join(pieces)) == used["input"]


@pytest.mark.parametrize("at", [0, 1, 3, 4, 5])  # at 2 a piece of text, which may repeat itself
def test_an_event_that_comes_twice_leaves_no_message(at: int) -> None:
    events = EventScanner().feed(begun() + text(0, "Hello") + ended() + STOP)
    assert len(events) == 6
    assert assembled(b"".join(events)) is not None
    assert assembled(b"".join([*events[: at + 1], *events[at:]])) is None


def test_a_later_end_may_bring_other_counts() -> None:
    told = assembled(begun() + text(0, "Hello") + ended(output=5) + ended(output=7) + STOP)
    assert told["usage"]["output_tokens"] == 7


def test_a_message_whose_text_comes_in_pairs_is_none() -> None:
    words = ("One", " and", " two", ",", " two", " and", " three", ".")
    doubled = [word for word in words for _ in range(2)]
    assert assembled(begun() + text(0, *words) + ended() + STOP) is not None
    assert assembled(begun() + text(0, *doubled) + ended() + STOP) is None
    assert assembled(begun() + text(0, *doubled, "!") + ended() + STOP) is not None
