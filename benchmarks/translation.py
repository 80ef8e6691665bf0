"""What it costs to say a request, an answer and each event of a stream in another dialect.

Single-threaded micro-benchmarks, best of several rounds: `python -m benchmarks.translation`.
"""

import json
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target, show
from watchllm.providers.anthropic.assemble import StreamAssembler
from watchllm.providers.anthropic.replay import replay
from watchllm.providers.anthropic.storable import judge
from watchllm.providers.translation.answer_messages_to_chat import translate as answer_to_chat
from watchllm.providers.translation.request_chat_to_messages import translate as request_to_messages
from watchllm.providers.translation.stream_messages_to_chat import Translator as StreamToChat

_EVENT = Target("≤", 60)

_CALL = {"id": "call_1", "type": "function", "function": {"name": "stock", "arguments": '{"article":"4711"}'}}
_CHAT: dict[str, Any] = {
    "model": "claude-sonnet-4-5",
    "messages": [
        {"role": "system", "content": "You are the assistant of a hardware shop. Answer in two short sentences."},
        {"role": "user", "content": "Which of your kinds of screws holds best in a wall of old brick? " * 3},
        {"role": "assistant", "content": "Let me look.", "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "120 in stock"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "stock",
                "description": "How many of an article are in stock",
                "parameters": {"type": "object", "properties": {"article": {"type": "string"}}},
            },
        }
    ],
    "temperature": 0.7,
    "max_tokens": 256,
}
_MESSAGE = {
    "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Frame anchors hold best in old brick, and we have 120 of them. " * 8}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 120, "output_tokens": 130, "cache_read_input_tokens": 0},
}
_MESSAGE_BEGUN = json.dumps(
    {"type": "message_start", "message": _MESSAGE | {"content": [], "stop_reason": None}}, separators=(",", ":")
).encode()
_BLOCK_BEGUN = b'{"type":"content_block_start","index":%d,"content_block":%b}'
_TEXT = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" screw"}}'
_THINKING = b'{"type":"content_block_delta","index":1,"delta":{"type":"thinking_delta","thinking":" screw"}}'
_INPUT = b'{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\\"art"}}'


def run(bench: Bench | None = None) -> list[Row]:
    """All rows; nothing needs to be started for them."""
    return [*_messages_rows(), *_chat_to_messages_rows()]


def _messages_rows() -> list[Row]:
    answer = json.dumps(_MESSAGE).encode()
    assembler = StreamAssembler(limit=1 << 40)
    assembler.feed(_MESSAGE_BEGUN)
    assembler.feed(_BLOCK_BEGUN % (0, b'{"type":"text","text":""}'))
    return [
        Row("messages: assemble an event", _micros(lambda: assembler.feed(_TEXT)), "µs", target=_EVENT),
        Row("messages: judge an answer", _micros(lambda: judge(answer)), "µs"),
        Row("messages: replay an answer as a stream", _micros(lambda: replay(answer)), "µs"),
    ]


def _chat_to_messages_rows() -> list[Row]:
    answer = json.dumps(_MESSAGE).encode()
    stream = StreamToChat()
    stream.feed(_MESSAGE_BEGUN)
    for index, block in enumerate(
        (
            b'{"type":"text","text":""}',
            b'{"type":"thinking","thinking":""}',
            b'{"type":"tool_use","id":"toolu_1","name":"stock","input":{}}',
        )
    ):
        stream.feed(_BLOCK_BEGUN % (index, block))
    events = {"text": _TEXT, "thinking": _THINKING, "a tool's input": _INPUT}
    return [
        Row("chat to messages: a request", _micros(lambda: request_to_messages(_CHAT, max_tokens=1000)), "µs"),
        Row("messages to chat: an answer", _micros(lambda: answer_to_chat(answer)), "µs"),
        *[
            Row(f"messages to chat: an event with {name}", _micros(partial(stream.feed, event)), "µs", target=_EVENT)
            for name, event in events.items()
        ],
    ]


def _micros(action: Callable[[], object], number: int = 5000) -> float:
    return min(timeit.repeat(action, number=number, repeat=9)) / number * 1e6


if __name__ == "__main__":
    from rich.console import Console

    show("Translation", run(), Console())
