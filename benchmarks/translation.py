"""What it costs to say a request, an answer and each event of a stream in another dialect, and to read the answers of
providers that speak `messages` or `responses` themselves.

Single-threaded micro-benchmarks, best of several rounds: `python -m benchmarks.translation`.
"""

import timeit
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import msgspec

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target, show
from watchllm.domain import json_body
from watchllm.providers.anthropic import assemble as messages_assemble
from watchllm.providers.anthropic import replay as messages_replay
from watchllm.providers.anthropic import storable as messages_storable
from watchllm.providers.dialect import Assembler, StreamTranslator
from watchllm.providers.responses import assemble as responses_assemble
from watchllm.providers.responses import replay as responses_replay
from watchllm.providers.responses import storable as responses_storable
from watchllm.providers.translation import (
    answer_chat_to_messages,
    answer_chat_to_responses,
    answer_messages_to_chat,
    answer_responses_to_chat,
    request_chat_to_messages,
    request_chat_to_responses,
    request_messages_to_chat,
    request_responses_to_chat,
    stream_chat_to_messages,
    stream_chat_to_responses,
    stream_messages_to_chat,
    stream_responses_to_chat,
)
from watchllm.wire.sse import EventScanner, event_data

_TARGET = Target("≤", 60)
_TEXT = "A frame fixing of nylon, because its long sleeve spreads the load over several bricks. " * 6
_ARGUMENTS = '{"article":"4711","wall":"brick"}'
_SYSTEM = "You are the assistant of a hardware shop. Answer in two short sentences."
_QUESTION = "Which of your kinds of screws holds best in a wall of old brick?"
_TOOL = {
    "name": "stock",
    "description": "How many of an article are in stock",
    "parameters": {"type": "object", "properties": {"article": {"type": "string"}}},
}
_CHAT: dict[str, Any] = {
    "model": "claude-sonnet-4-5",
    "messages": [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": _QUESTION},
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "stock", "arguments": _ARGUMENTS}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "120 in stock"},
        {"role": "user", "content": "Are they in stock?"},
    ],
    "tools": [{"type": "function", "function": _TOOL}],
    "temperature": 0.7,
    "max_tokens": 256,
}
_HEAD = {
    "id": "chatcmpl-AbC123",
    "object": "chat.completion.chunk",
    "created": 1_730_000_000,
    "model": "gpt-4o-mini",
    "service_tier": "default",
    "system_fingerprint": "fp_0ba0d124f1",
}
_USAGE = {"prompt_tokens": 90, "completion_tokens": 120, "total_tokens": 210}


class _Stream(NamedTuple):
    """A stream's data of events: how it begins, the many in its middle, how it ends."""

    begin: list[bytes]
    middle: list[bytes]
    end: list[bytes]


def run(bench: Bench | None = None) -> list[Row]:
    """All rows; nothing needs to be started for them."""
    return [*_request_rows(), *_answer_rows(), *_stream_rows(), *_own_rows()]


def _request_rows() -> list[Row]:
    messages = request_chat_to_messages.translate(_CHAT, max_tokens=1000).document
    responses = request_chat_to_responses.translate(_CHAT).document
    note = f"a request of {len(msgspec.json.encode(_CHAT))} bytes with a tool, called once"
    return [
        _row("request: chat to messages", lambda: request_chat_to_messages.translate(_CHAT, max_tokens=1000), note),
        _row("request: chat to responses", lambda: request_chat_to_responses.translate(_CHAT)),
        _row("request: messages to chat", lambda: request_messages_to_chat.translate(messages)),
        _row("request: responses to chat", lambda: request_responses_to_chat.translate(responses)),
    ]


def _answer_rows() -> list[Row]:
    chat, message, response = _answers()
    request = json_body.parse(b'{"model":"m","input":"Hi"}')
    note = f"answers of {len(chat)} to {len(response)} bytes"
    return [
        _row("answer: chat to messages", lambda: answer_chat_to_messages.translate(chat), note),
        _row("answer: chat to responses", lambda: answer_chat_to_responses.translate(chat, request)),
        _row("answer: messages to chat", lambda: answer_messages_to_chat.translate(message)),
        _row("answer: responses to chat", lambda: answer_responses_to_chat.translate(response)),
    ]


def _stream_rows() -> list[Row]:
    chats, messages, responses = _chat_streams(), _message_streams(), _response_streams()
    to_responses = partial(stream_chat_to_responses.Translator, {"model": "m", "input": "Hi"})
    rows = []
    for pair, make, streams in (
        ("chat to messages", stream_chat_to_messages.Translator, chats),
        ("chat to responses", to_responses, chats),
        ("messages to chat", stream_messages_to_chat.Translator, messages),
        ("responses to chat", stream_responses_to_chat.Translator, responses),
    ):
        for kind, stream in streams.items():
            begun, event, ended = _times(make, stream)
            note = f"{pair}, {kind}: its beginning {begun:.0f} µs, its end {ended:.0f} µs"
            rows.append(Row(f"stream: {pair}, an event of {kind}", event, "µs", target=_TARGET, note=note))
    return rows


def _own_rows() -> list[Row]:
    """What is done with answers of providers whose dialect the client speaks."""
    _, message, response = _answers()
    request = json_body.parse(b'{"model":"m","input":"Hi"}')
    ends: list[tuple[Callable[[], Assembler], bytes]] = [
        (messages_assemble.StreamAssembler, messages_replay.replay(message)),
        (responses_assemble.StreamAssembler, responses_replay.replay(response, include_usage=True)),
    ]
    read = [_micros(partial(_read, make, _data(stream)), 300) / len(_data(stream)) for make, stream in ends]
    return [
        Row("messages: read an event along", read[0], "µs", target=_TARGET),
        Row("messages: judge an answer", _micros(lambda: messages_storable.judge(message)), "µs"),
        Row("messages: replay an answer as a stream", _micros(lambda: messages_replay.replay(message)), "µs"),
        Row("responses: read an event along", read[1], "µs", target=_TARGET),
        Row("responses: judge an answer", _micros(lambda: responses_storable.judge(response, request)), "µs"),
        Row(
            "responses: replay an answer as a stream",
            _micros(lambda: responses_replay.replay(response, include_usage=True)),
            "µs",
        ),
    ]


def _answers() -> tuple[bytes, bytes, bytes]:
    """One answer in the dialects chat, messages and responses."""
    message: dict[str, Any] = {"role": "assistant", "content": _TEXT, "refusal": None, "annotations": []}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    chat = msgspec.json.encode(_HEAD | {"object": "chat.completion", "choices": choices, "usage": _USAGE})
    response = answer_chat_to_responses.translate(chat, {"model": "m", "input": "Hi"}).body
    return chat, answer_chat_to_messages.translate(chat).body, response


def _chat_streams() -> dict[str, _Stream]:
    words = [_chunk({"content": f" {word}"}) for word in _TEXT.split()]
    function = {"name": "stock", "arguments": ""}
    begun = {"index": 0, "id": "call_1", "type": "function", "function": function}
    piece = {"index": 0, "function": {"arguments": ' "Zürich",'}}
    usage = msgspec.json.encode(_HEAD | {"choices": [], "usage": _USAGE})
    whole = {"index": 0, "function": {"arguments": '{"a":['}}
    closing = {"index": 0, "function": {"arguments": '""]}'}}
    calls = [_chunk({"tool_calls": [one]}) for one in (begun, whole)]
    return {
        "text": _Stream([_chunk({"role": "assistant"})], words, [_chunk({}, "stop"), usage, b"[DONE]"]),
        "a call": _Stream(
            [_chunk({"role": "assistant"}), *calls],
            [_chunk({"tool_calls": [piece]})] * 100,
            [_chunk({"tool_calls": [closing]}), _chunk({}, "tool_calls"), usage, b"[DONE]"],
        ),
    }


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return msgspec.json.encode(_HEAD | {"choices": [choice], "usage": None, "obfuscation": "abcdef"})


def _message_streams() -> dict[str, _Stream]:
    streams = {}
    for kind, block, delta in (
        ("text", {"type": "text", "text": ""}, {"type": "text_delta", "text": " screw"}),
        ("thinking", {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": " screw"}),
        (
            "a call",
            {"type": "tool_use", "id": "toolu_1", "name": "stock", "input": {}},
            {"type": "input_json_delta", "partial_json": '{"art'},
        ),
    ):
        message = {"id": "msg_1", "model": "claude-sonnet-4-5", "usage": {"input_tokens": 120, "output_tokens": 1}}
        event = msgspec.json.encode({"type": "content_block_delta", "index": 0, "delta": delta})
        begin = ({"type": "message_start", "message": message}, {"type": "content_block_start", "content_block": block})
        end = (
            {"type": "content_block_stop"},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 130}},
            {"type": "message_stop"},
        )
        streams[kind] = _Stream(_encoded(begin), [event] * 100, _encoded(end))
    return streams


def _response_streams() -> dict[str, _Stream]:
    _, _, answer = _answers()
    response = msgspec.json.decode(answer)
    created = {"type": "response.created", "response": response | {"status": "in_progress", "output": []}}
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "stock", "arguments": ""}
    text = {"type": "response.output_text.delta", "item_id": "msg_1", "content_index": 0, "delta": " screw"}
    piece = {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": ' "Zürich",'}
    thought = {"type": "response.reasoning_summary_text.delta", "item_id": "rs_1", "summary_index": 0, "delta": " Hm"}
    completed = {"type": "response.completed", "response": response}
    added = {"type": "response.output_item.added", "item": call}
    obfuscated = {"logprobs": [], "obfuscation": "abcdef"}
    return {
        "text": _response_stream((created,), text | obfuscated, completed),
        "reasoning": _response_stream((created,), thought, completed),
        "a call": _response_stream((created, added), piece, completed),
    }


def _response_stream(begin: tuple[dict[str, Any], ...], event: dict[str, Any], end: dict[str, Any]) -> _Stream:
    """A stream of a hundred such events, all numbered in turn, as the translation wants them."""
    events = _encoded((*begin, *[event] * 100, end))
    return _Stream(events[: len(begin)], events[len(begin) : -1], events[-1:])


def _encoded(events: tuple[dict[str, Any], ...]) -> list[bytes]:
    return [
        msgspec.json.encode(event | {"index": 0, "output_index": 0, "sequence_number": number})
        for number, event in enumerate(events)
    ]


def _times(make: Callable[[], StreamTranslator], stream: _Stream) -> tuple[float, float, float]:
    """Microseconds of a stream's beginning, of each event in its middle, and of its end with the whole of it; each
    part timed by itself, over the same streams: the best of many."""
    best = [float("inf")] * 3
    for _ in range(1000):
        translator = make()
        for number, part in enumerate(stream):
            began = perf_counter()
            for data in part:
                translator.feed(data)
            best[number] = min(best[number], perf_counter() - began)
    begun, middle, ended = (seconds * 1e6 for seconds in best)
    return begun, middle / len(stream.middle), ended


def _data(stream: bytes) -> list[bytes]:
    return [event_data(raw) or b"" for raw in EventScanner().feed(stream)]


def _read(make: Callable[[], Assembler], events: list[bytes]) -> None:
    assembler = make()
    for data in events:
        assembler.feed(data)


def _row(name: str, action: Callable[[], object], note: str = "") -> Row:
    return Row(name, _micros(action), "µs", target=_TARGET, note=note)


def _micros(action: Callable[[], object], number: int = 2000) -> float:
    return min(timeit.repeat(action, number=number, repeat=7)) / number * 1e6


if __name__ == "__main__":
    from rich.console import Console

    show("Translation", run(), Console())
