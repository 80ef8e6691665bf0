"""What it costs to know a request: reading its JSON, its canonical form and its key; and to read a stream along.

Single-threaded micro-benchmarks, best of several rounds: `python -m benchmarks.canonical`.
"""

import timeit
from collections.abc import Callable

import msgspec

from benchmarks import prompts
from benchmarks.bench import Bench
from benchmarks.figure import Row, Target, show
from watchllm.cache.bypass import bypass_reason
from watchllm.cache.canonical import Defaults, canonical_form, is_plain
from watchllm.cache.key import KeyHash, answer_headers
from watchllm.cache.key import Target as Provider
from watchllm.domain import json_body
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.providers.openai.replay import replay
from watchllm.providers.openai.storable import judge
from watchllm.providers.openai.strip_usage import without_usage
from watchllm.wire.sse import EventScanner, event_data

_REQUEST = {
    "model": "gpt-4o-mini",
    "messages": [
        {"role": "system", "content": "You are the assistant of a hardware shop. Answer in two short sentences."},
        {"role": "user", "content": "Which of your kinds of screws holds best in a wall of old brick? " * 3},
    ],
    "temperature": 0.7,
    "top_p": 1.0,
    "max_tokens": 256,
    "presence_penalty": 0,
    "seed": 42,
    "stream": False,
}
_HEADERS = [
    (b"host", b"127.0.0.1:8787"),
    (b"accept", b"application/json"),
    (b"content-type", b"application/json"),
    (b"user-agent", b"OpenAI/Python"),
    (b"authorization", b"Bearer lgw_proj_"),
    (b"x-stainless-lang", b"python"),
    (b"content-length", b"500"),
]
_CHUNK = (
    b'data: {"id":"chatcmpl-AbC123","object":"chat.completion.chunk","created":1730000000,"model":"gpt-4o-mini",'
    b'"service_tier":"default","system_fingerprint":"fp_0ba0d124f1","choices":[{"index":0,"delta":{"content":" screw"},'
    b'"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"abcdef"}\n\n'
)


def run(bench: Bench | None = None) -> list[Row]:
    """All rows; nothing needs to be started for them."""
    body = msgspec.json.encode(_REQUEST)
    defaults = Defaults({"temperature": 1, "top_p": 1, "n": 1, "presence_penalty": 0, "stream": False}, ["stop"])
    keys = KeyHash(bytes(32))
    target = Provider("openai", "https://api.openai.com/v1", "gpt-4o-mini")
    project = "prj_" + "0" * 32
    request = json_body.parse(body)
    form = canonical_form(request, plain=True, defaults=defaults)

    def whole() -> bytes:
        parsed = json_body.parse(body)
        canonical = canonical_form(parsed, plain=is_plain(body), defaults=defaults)
        bypass_reason(parsed)
        return keys.key(project, None, "generate", target, answer_headers(_HEADERS), b"", canonical)

    scanner = EventScanner()
    assembler = StreamAssembler("generate", limit=1 << 40)

    def chunk() -> None:
        for raw in scanner.feed(_CHUNK):
            assembler.feed(event_data(raw) or b"")
            without_usage(raw)

    answer = prompts.completion()
    note = f"a chat request of {len(body)} bytes, an answer of {len(answer)} bytes, a chunk of {len(_CHUNK)} bytes"
    return [
        Row("parse, canonical form and key", _micros(whole), "µs", target=Target("≤", 9), note=note),
        Row("  parse", _micros(lambda: json_body.parse(body)), "µs", target=Target("≤", 3)),
        Row("  canonical form", _micros(lambda: canonical_form(request, plain=True, defaults=defaults)), "µs"),
        Row("  key", _micros(lambda: keys.key(project, None, "generate", target, (), b"", form)), "µs"),
        Row("read one chunk along and strip usage", _micros(chunk), "µs"),
        Row("  assemble", _micros(lambda: assembler.feed(_CHUNK[6:-2])), "µs", target=Target("≤", 5)),
        Row("judge an answer", _micros(lambda: judge("generate", answer)), "µs"),
        Row("replay an answer as a stream", _micros(lambda: replay("generate", answer, include_usage=True)), "µs"),
    ]


def _micros(action: Callable[[], object], number: int = 5000) -> float:
    return min(timeit.repeat(action, number=number, repeat=9)) / number * 1e6


if __name__ == "__main__":
    from rich.console import Console

    show("Canonical form and key", run(), Console())
