"""What it costs to translate between the Messages API, which the client speaks, and chat completions.

Single-threaded micro-benchmarks, best of several rounds: `python -m benchmarks.translation_messages`.
"""

import timeit
from collections.abc import Callable

import msgspec

from benchmarks import prompts
from benchmarks.bench import Bench
from benchmarks.figure import Row, Target, show
from watchllm.providers.translation import answer_chat_to_messages, request_messages_to_chat
from watchllm.providers.translation.stream_chat_to_messages import Translator
from watchllm.wire.sse import EventScanner, event_data

_REQUEST = {
    "model": "gpt-4o-mini",
    "max_tokens": 256,
    "system": [{"type": "text", "text": "You are the assistant of a hardware shop. Answer in two short sentences."}],
    "messages": [
        {"role": "user", "content": "Which screws hold best in old brick?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look at what we have."},
                {"type": "tool_use", "id": "toolu_1", "name": "stock", "input": {"kind": "screw", "wall": "brick"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "frame fixings, 8 mm"},
                {"type": "text", "text": "Which of them are in stock?"},
            ],
        },
    ],
    "tools": [{"name": "stock", "description": "Tells the stock", "input_schema": {"type": "object"}}],
    "temperature": 0.7,
}
_HEAD = (
    b'data: {"id":"chatcmpl-AbC123","object":"chat.completion.chunk","created":1730000000,"model":"gpt-4o-mini",'
    b'"service_tier":"default","system_fingerprint":"fp_0ba0d124f1","choices":['
)
_TAIL = b'],"usage":null,"obfuscation":"abcdef"}\n\n'
_CHUNK = _HEAD + b'{"index":0,"delta":{"content":" screw"},"logprobs":null,"finish_reason":null}' + _TAIL
_CALL = (
    _HEAD + b'{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":'
    b'{"name":"stock","arguments":""}}]},"logprobs":null,"finish_reason":null}' + _TAIL
)
_PIECE = (
    _HEAD + b'{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"wall"}}]},"logprobs":null,'
    b'"finish_reason":null}' + _TAIL
)
_NUMBER = 5000


def run(bench: Bench | None = None) -> list[Row]:
    """All rows; nothing needs to be started for them."""
    body = msgspec.json.encode(_REQUEST)
    answer = prompts.completion()
    note = f"a request of {len(body)} bytes, an answer of {len(answer)} bytes, chunks of {len(_CHUNK)} bytes"
    per_event = Target("≤", 60)
    return [
        Row(
            "request, messages to chat", _micros(lambda: request_messages_to_chat.translate(_REQUEST)), "µs", note=note
        ),
        Row("answer, chat to messages", _micros(lambda: answer_chat_to_messages.translate(answer)), "µs"),
        Row("stream, chat to messages: an event of text", _micros_of_event(_CHUNK, _CHUNK), "µs", target=per_event),
        Row("  of a tool call's input", _micros_of_event(_CALL, _PIECE), "µs", target=per_event),
        Row("  of whole short streams", _micros_of_streams(), "µs", target=per_event, note="16 events, its ends told"),
    ]


def _micros_of_event(first: bytes, event: bytes) -> float:
    """Microseconds to find, translate and frame `event`, again and again in one stream that began with `first`. The
    arguments of a tool call are kept, so each round has a stream of its own."""
    best = float("inf")
    for _ in range(9):
        scanner, translator = EventScanner(), Translator()

        def take(raw: bytes, scanner: EventScanner = scanner, translator: Translator = translator) -> None:
            for found in scanner.feed(raw):
                translator.feed(event_data(found) or b"")

        take(first)
        best = min(best, timeit.timeit(lambda take=take: take(event), number=_NUMBER))  # type: ignore[misc]
    return best / _NUMBER * 1e6


def _micros_of_streams() -> float:
    end = b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}'
    usage = b'],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}\n\n'
    events = [_CHUNK] * 13 + [_HEAD + end + _TAIL, _HEAD + usage, b"data: [DONE]\n\n"]

    def stream() -> None:
        scanner, translator = EventScanner(), Translator()
        for event in events:
            for raw in scanner.feed(event):
                translator.feed(event_data(raw) or b"")

    return _micros(stream, 500) / len(events)


def _micros(action: Callable[[], object], number: int = _NUMBER) -> float:
    return min(timeit.repeat(action, number=number, repeat=9)) / number * 1e6


if __name__ == "__main__":
    from rich.console import Console

    show("Translation: Messages clients, chat providers", run(), Console())
