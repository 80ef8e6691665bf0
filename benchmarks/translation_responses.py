"""What it costs to answer a client of OpenAI Responses by a provider of chat completions, and to read its own streams.

Single-threaded micro-benchmarks, best of several rounds: `python -m benchmarks.translation_responses`.
"""

import timeit
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import msgspec

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target, show
from watchllm.domain import json_body
from watchllm.providers.responses.assemble import StreamAssembler
from watchllm.providers.responses.replay import replay
from watchllm.providers.responses.storable import judge
from watchllm.providers.translation import answer_chat_to_responses, answer_responses_to_chat
from watchllm.providers.translation.request_responses_to_chat import translate
from watchllm.providers.translation.stream_chat_to_responses import Translator
from watchllm.wire.sse import EventScanner, event_data

_TEXT = "A frame fixing of nylon, because its long sleeve spreads the load over several bricks. " * 6
_REQUEST = {
    "model": "gpt-4o-mini",
    "instructions": "You are the assistant of a hardware shop. Answer in two short sentences.",
    "input": [
        {"role": "user", "content": "Which of your kinds of screws holds best in a wall of old brick?"},
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "How heavy is what it holds?", "annotations": []}],
        },
        {"role": "user", "content": [{"type": "input_text", "text": "A shelf of books, some 40 kg. " * 3}]},
    ],
    "temperature": 0.7,
    "max_output_tokens": 256,
    "store": False,
    "stream": True,
}
_HEAD = {"id": "chatcmpl-AbC123", "created": 1730000000, "model": "gpt-4o-mini", "service_tier": "default"}
_USAGE = {"prompt_tokens": 90, "completion_tokens": 120, "total_tokens": 210}
_TARGET = Target("≤", 60)


def run(bench: Bench | None = None) -> list[Row]:
    """All rows; nothing needs to be started for them."""
    body = msgspec.json.encode(_REQUEST)
    request = json_body.parse(body)
    message: dict[str, object] = {"role": "assistant", "content": _TEXT, "refusal": None, "annotations": []}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    chat = msgspec.json.encode(_HEAD | {"object": "chat.completion", "choices": choices, "usage": _USAGE})
    response = answer_chat_to_responses.translate(chat, request).body
    stream = replay(response, include_usage=True)
    events = [event_data(raw) or b"" for raw in EventScanner().feed(stream)]
    words = [_chunk({"content": f" {word}"}) for word in _TEXT.split()]
    arguments = {"index": 0, "function": {"arguments": ' "Zürich",'}}
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    calls = [_chunk({"tool_calls": [call]}), *[_chunk({"tool_calls": [arguments]})] * 100]
    text = _stream(request, words)
    note = f"a request of {len(body)} bytes, an answer of {len(chat)} bytes, a stream of {len(words) + 3} chunks"
    return [
        Row("request: Responses to chat", _micros(lambda: translate(request)), "µs", target=_TARGET, note=note),
        Row(
            "answer: chat to Responses",
            _micros(lambda: answer_chat_to_responses.translate(chat, request)),
            "µs",
            target=_TARGET,
        ),
        Row(
            "answer: Responses to chat",
            _micros(lambda: answer_responses_to_chat.translate(response)),
            "µs",
            target=_TARGET,
        ),
        Row("stream: chat to Responses, its first event", text.first, "µs", target=_TARGET),
        Row("stream: chat to Responses, an event of text", text.event, "µs", target=_TARGET),
        Row("stream: chat to Responses, an event of a call", _stream(request, calls).event, "µs", target=_TARGET),
        Row("stream: chat to Responses, its end", text.end, "µs", target=_TARGET),
        Row("judge a response", _micros(lambda: judge(response, request)), "µs"),
        Row("read one event of a response along", _micros(lambda: _read(events)) / len(events), "µs"),
        Row("replay a response as a stream", _micros(lambda: replay(response, include_usage=True)), "µs"),
    ]


def _chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return msgspec.json.encode(_HEAD | {"object": "chat.completion.chunk", "choices": [choice], "usage": None})


class _Stream(NamedTuple):
    """Microseconds of a translated stream: its first event, each after that, and its end with the whole response."""

    first: float
    event: float
    end: float


def _stream(request: dict[str, object], chunks: list[bytes]) -> _Stream:
    """Each part timed by itself, over the same streams; the best of many."""
    finish = _chunk({}, "stop")
    best = [float("inf")] * 3
    for _ in range(1500):
        began = perf_counter()
        translator = Translator(request)
        translator.feed(chunks[0])
        first = perf_counter()
        for data in chunks[1:]:
            translator.feed(data)
        last = perf_counter()
        translator.feed(finish)
        translator.feed(b"[DONE]")
        ended = perf_counter()
        best = [min(pair) for pair in zip(best, (first - began, last - first, ended - last), strict=True)]
    first_cost, middle, end_cost = (seconds * 1e6 for seconds in best)
    return _Stream(first_cost, middle / (len(chunks) - 1), end_cost)


def _read(events: list[bytes]) -> None:
    assembler = StreamAssembler()
    for data in events:
        assembler.feed(data)


def _micros(action: Callable[[], object], number: int = 2000) -> float:
    return min(timeit.repeat(action, number=number, repeat=7)) / number * 1e6


if __name__ == "__main__":
    from rich.console import Console

    show("Translation: OpenAI Responses", run(), Console())
