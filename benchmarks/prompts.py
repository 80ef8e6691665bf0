"""The requests of the benchmarks: 10,000 different prompts of an ordinary size, the same in every run."""

from pathlib import Path

import msgspec

COUNT = 10_000
MODEL = "gpt-4o-mini"
_SYSTEM = "You are the assistant of a hardware shop. Answer in two sentences, and name the shelf."


def body(number: int, *, stream: bool = False) -> bytes:
    """The chat completion request with this number, about 330 bytes."""
    question = (
        f"Customer {number} asks: which of our {number % 97 + 2} kinds of screws holds best in wall no. {number}?"
    )
    fields = {
        "model": MODEL,
        "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}],
        "temperature": 0.2,
    }
    # A stream is as long as the simulated provider was told; any other answer is bounded as usual.
    return msgspec.json.encode({**fields, "stream": True} if stream else {**fields, "max_tokens": 120})


def write_bodies(path: Path) -> Path:
    """All of them, one a line, for wrk."""
    path.write_bytes(b"".join(body(number) + b"\n" for number in range(COUNT)))
    return path


def completion(
    text: str = "Shelf 12, left. The long brass ones hold best in that kind of wall, and do not rust.",
) -> bytes:
    """A complete answer as a provider would send it."""
    return msgspec.json.encode(
        {
            "id": "chatcmpl-benchmark",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 58, "completion_tokens": 21, "total_tokens": 79},
        }
    )
