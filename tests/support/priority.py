"""A proxy with a single slot: who takes it, who waits for it, and what an answer says of that."""

import asyncio
import json
from typing import Any

from tests.support.inside import Inside, until
from tests.support.raw_http import RawResponse
from watchllm.limits.tiers import TIERS

_FORM = (
    b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nsound\r\n--x--\r\n'
)
CALLS: list[tuple[str, object, dict[str, str]]] = [
    ("/v1/chat/completions", {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}, {}),
    (
        "/v1/chat/completions",
        {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "x"}]},
        {},
    ),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["x"]}, {}),
    ("/v1/moderations", {"model": "omni-moderation-latest", "input": "x"}, {}),
    ("/v1/audio/transcriptions", _FORM, {"content-type": "multipart/form-data; boundary=x"}),
]
"""Path, body and header lines of every kind of call that takes a slot."""


def waiting(pair: Inside) -> int:
    """How many requests wait for a slot."""
    return sum(map(pair.services.slots.waiting_in, TIERS))


async def saturated(pair: Inside, key: str | None = None) -> "asyncio.Task[RawResponse]":
    """Take the only slot."""
    first = pair.ask("takes the only slot", key=key)
    await until(lambda: pair.calls == 1, "the call that takes the only slot")
    return first


async def queued(pair: Inside, text: str, **asked: Any) -> "asyncio.Task[RawResponse]":
    """Ask, and wait until that waits."""
    before = waiting(pair)
    task = pair.ask(text, **asked)
    await until(lambda: waiting(pair) == before + 1, f"{text!r} waiting")
    return task


def texts(pair: Inside) -> list[str]:
    """What the provider was asked, in order."""
    return [json.loads(one.body)["messages"][0]["content"] for one in pair.sim.ledger.requests]


def timing(answer: RawResponse) -> dict[str, float]:
    """Milliseconds by span."""
    spans = (answer.header("server-timing") or "").split(", ")
    return {name: float(duration) for name, duration in (span.split(";dur=") for span in spans)}
