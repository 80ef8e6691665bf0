"""Tool calls of chat streams, whose pieces vendors number in their own ways, become blocks one after the other.

The ways follow OpenAI's API reference ("The chat completion chunk object") and what is publicly known of vendors:
Google's compatible endpoint numbers whole calls 0, Ollama's and older servers of vLLM number none.
"""

from typing import Any

import pytest

from tests.unit.providers.translation.chat_streams import (
    DONE,
    USAGE_CHUNK,
    call,
    calls,
    content_of,
    events_of,
    fed,
    message_of,
    says,
)
from watchllm.providers.translation.stream_chat_to_messages import Translator
from watchllm.wire.types import BadMessage

END = (says("tool_calls"), USAGE_CHUNK, DONE)


def tool_use(id_: str, name: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": name, "input": given}


ROME, NOON = tool_use("call_a", "weather", city="Rome"), tool_use("call_b", "time", zone="UTC")

TOOL_STREAMS: dict[str, list[bytes]] = {
    "as OpenAI streams them": [
        calls(call(0, "", "weather", id="call_a", type="function")),
        calls(call(0, '{"city"')),
        calls(call(0, ':"Rome"}')),
        calls(call(1, "", "time", id="call_b", type="function")),
        calls(call(1, '{"zone":"UTC"}')),
    ],
    "ids and names repeated with each piece": [
        calls(call(0, '{"city"', "weather", id="call_a")),
        calls(call(0, ':"Rome"}', "weather", id="call_a")),
        calls(call(1, '{"zone":', "time", id="call_b")),
        calls(call(1, '"UTC"}', "time", id="call_b")),
    ],
    "another id with each piece": [
        calls(call(0, '{"city"', "weather", id="call_a")),
        calls(call(0, ':"Rome"}', id="x")),
        calls(call(1, '{"zone":"UTC"}', "time", id="call_b")),
        calls(call(1, "", id="y")),
    ],
    "whole calls that are all numbered 0": [
        calls(call(0, '{"city":"Rome"}', "weather", id="call_a")),
        calls(call(0, '{"zone":"UTC"}', "time", id="call_b")),
    ],
    "no numbers, ids with each piece": [
        calls(call(None, '{"city"', "weather", id="call_a")),
        calls(call(None, ':"Rome"}', id="call_a")),
        calls(call(None, '{"zone":"UTC"}', "time", id="call_b")),
    ],
    "no numbers, ids at the beginning": [
        calls(call(None, '{"city"', "weather", id="call_a")),
        calls(call(None, ':"Rome"}')),
        calls(call(None, '{"zone":"UTC"}', "time", id="call_b")),
    ],
    "both in one delta": [
        calls(call(0, '{"city":"Rome"}', "weather", id="call_a"), call(1, '{"zone":"UTC"}', "time", id="call_b")),
    ],
    "arguments as objects": [
        calls(call(0, None, "weather", id="call_a") | {"function": {"name": "weather", "arguments": {"city": "Rome"}}}),
        calls(call(1, '{"zone":"UTC"}', "time", id="call_b")),
    ],
    "by turns": [
        calls(call(0, '{"city"', "weather", id="call_a")),
        calls(call(1, '{"zone"', "time", id="call_b")),
        calls(call(0, ':"Rome"}')),
        calls(call(1, ':"UTC"}')),
    ],
    "announced first": [
        calls(call(0, "", "weather", id="call_a"), call(1, "", "time", id="call_b")),
        calls(call(1, '{"zone":"UTC"}')),
        calls(call(0, '{"city":"Rome"}')),
    ],
    "a name that comes later": [
        calls(call(0, '{"city"', id="call_a")),
        calls(call(0, ':"Rome"}', "weather")),
        calls(call(1, '{"zone":"UTC"}', "time", id="call_b")),
    ],
}


@pytest.mark.parametrize("vendor", TOOL_STREAMS)
def test_parallel_tool_calls_however_the_vendor_numbers_them(vendor: str) -> None:
    stream = fed([says(content="I look."), *TOOL_STREAMS[vendor], *END])
    message = message_of(stream)
    assert [block.model_dump(exclude_none=True) for block in message.content] == [
        {"type": "text", "text": "I look."},
        ROME,
        NOON,
    ]
    assert message.stop_reason == "tool_use"


def test_arguments_are_told_as_they_come() -> None:
    translator = Translator()
    translator.feed(calls(call(0, "", "weather", id="call_a")))
    for piece in ('{"ci', 'ty":', '"Rome"}'):
        (event,) = events_of(translator.feed(calls(call(0, piece))))
        assert event["delta"] == {"type": "input_json_delta", "partial_json": piece}


def test_the_next_call_is_told_as_soon_as_the_last_is_whole() -> None:
    translator = Translator()
    translator.feed(calls(call(0, '{"city":"Rome"}', "weather", id="call_a")))
    told = events_of(translator.feed(calls(call(1, "{", "time", id="call_b"))))
    assert [event["type"] for event in told] == ["content_block_stop", "content_block_start", "content_block_delta"]


def test_calls_without_ids_get_some() -> None:
    content = content_of(calls(call(None, "{}", "a"), call(None, "{}", "b")), *END)
    assert [block["name"] for block in content] == ["a", "b"]
    assert [block["id"] for block in content] == ["call_chatcmpl-1_0", "call_chatcmpl-1_1"]


def test_one_id_for_two_calls_becomes_two() -> None:
    content = content_of(calls(call(0, "{}", "a", id="same")), calls(call(1, "{}", "b", id="same")), *END)
    assert content[0]["id"] == "same"
    assert content[1]["id"] not in ("same", "")


def test_a_call_that_was_cut_at_the_length_is_told_as_far_as_it_came() -> None:
    message = message_of(fed([calls(call(0, '{"city":"Ro', "weather", id="call_a")), says("length"), DONE]))
    assert message.stop_reason == "max_tokens"


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_calls_to_make_decide_over_the_finish_reason(finish: str) -> None:
    message = message_of(fed([calls(call(0, "{}", "a", id="c")), says(finish), DONE]))
    assert message.stop_reason == "tool_use"


BAD: dict[str, list[bytes]] = {
    "tool_calls of the stream is not a list": [says(tool_calls={"0": {}})],
    "no function call": [calls({"index": 0, "custom": {"name": "x"}})],
    "has no number": [calls({"index": "0", "function": {"name": "x"}})],
    "is malformed": [calls({"index": 0, "function": {"name": ["x"]}})],
    "has no name": [calls(call(0, "{}", id="c")), says("tool_calls"), DONE],
    "tool call that had ended": [
        calls(call(0, "{}", "a", id="c")),
        calls(call(1, "{}", "b", id="d")),
        calls(call(0, "{}")),
    ],
    "too many tool calls": [calls(*[call(number, "{}", "a") for number in range(1025)])],
    "too long": [calls(call(0, "x" * (1 << 20), "a")) for _ in range(5)],
}


@pytest.mark.parametrize("reason", BAD)
def test_what_are_no_tool_calls_is_said_to_be_none(reason: str) -> None:
    with pytest.raises(BadMessage, match=reason):
        fed(BAD[reason])


def test_a_call_that_a_text_interrupts_cannot_be_gone_on_with() -> None:
    begun = [calls(call(0, '{"a', "a", id="c")), says(content="so")]
    with pytest.raises(BadMessage, match="had ended"):
        fed([*begun, calls(call(0, '":1}'))])
