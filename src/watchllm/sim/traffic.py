"""A traffic generator for the demo: what a few applications would send to a gateway, at a bounded rate.

Popular questions come again and again, some are varied, some streamed; there are embeddings, tools, structured outputs,
mistakes, failing models and readers that leave early, so that every page of the console has something to show.
"""

import asyncio
import random
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from watchllm.wire.client import ClientPool
from watchllm.wire.types import Origin, Timeouts, WireError

MAX_RATE = 500.0
_MAX_UNDER_WAY = 64
_MAX_ANSWER_BYTES = 8 * 1024 * 1024
_TIMEOUTS = Timeouts(connect=5.0, first_byte=30.0, idle=30.0, total=60.0)
_MODELS = ("sim/gpt-4o-mini", "sim/gpt-4o", "sim/llama-3.3-70b", "sim/echo")
_MODEL_WEIGHTS = (60, 25, 10, 5)
_SYSTEMS = ("You are the support assistant of a bank.", "You answer in one paragraph.", "You review code.")
_QUESTIONS = (
    "How do I reset my password?",
    "What are your opening hours?",
    "Where can I see my invoices?",
    "How do I cancel my subscription?",
    "What is the difference between a debit and a credit card?",
    "How long does a transfer abroad take?",
    "Can I change my billing address?",
    "What does error 403 mean?",
    "How do I invite a colleague?",
    "Which plans do you offer?",
    "Explain what a mutex is.",
    "Write a haiku about autumn.",
    "What is the capital of Australia?",
    "Summarise the theory of relativity in two sentences.",
    "How do I export my data as CSV?",
    "What is two-factor authentication?",
    "Translate 'good morning' into French.",
    "Is my data encrypted at rest?",
    "How do I rotate an API key?",
    "Why is my card declined?",
)
_VARIED = (
    "How much is {n} euros in dollars?",
    "Summarise ticket {n}.",
    "What is the status of order {n}?",
    "Write a slogan for product number {n}.",
)
_TAGS = ("team=support,env=prod", "team=search,env=prod", "team=research,env=staging")
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_order",
        "description": "Look up an order.",
        "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    },
}
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "ticket",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "topic": {"type": "string", "enum": ["billing", "access", "other"]},
                "urgent": {"type": "boolean"},
            },
            "required": ["topic", "urgent"],
            "additionalProperties": False,
        },
    },
}


class Shot(NamedTuple):
    """One request to send. `leave_after` is seconds after which the reader goes away, 0 = it stays."""

    path: str
    body: dict[str, Any]
    headers: tuple[tuple[str, str], ...] = ()
    leave_after: float = 0.0


class TrafficReport(NamedTuple):
    """How many requests were sent, and how many answers came by status; those that never got one are `failed`."""

    sent: int
    by_status: dict[int, int]
    failed: int
    left_early: int
    skipped: int


def shots(rng: random.Random) -> Iterator[Shot]:
    """An endless mixture, the same for the same generator."""
    while True:
        user = f"user-{rng.randrange(12)}"
        headers = (("X-WatchLLM-User", user), ("X-WatchLLM-Tags", rng.choice(_TAGS)))
        (make,) = rng.choices((_repeated, _varied, _streamed, _embedded, _with_tool, _structured, _mistaken), _WEIGHTS)
        shot = make(rng)
        yield shot._replace(headers=headers + shot.headers)


async def run_traffic(
    base_url: str,
    key: str,
    *,
    rate: float,
    stop: asyncio.Event,
    duration: float | None = None,
    seed: int = 0,
    pool: ClientPool | None = None,
) -> TrafficReport:
    """Send about `rate` requests a second to the gateway at `base_url` (with its `/v1`) until `stop` is set or
    `duration` seconds have passed.

    Never more than 64 requests are under way: beyond that, beats are skipped, so a gateway that hangs is not buried.
    A gateway that is not there counts as failed requests. Raises ValueError for a rate that is not within 0–500 or a
    URL that is not http(s).
    """
    if not 0 < rate <= MAX_RATE:
        raise ValueError(f"rate must be above 0 and at most {MAX_RATE:g} requests a second")
    sender = _Sender(base_url, key, pool or ClientPool(max_connections=_MAX_UNDER_WAY))
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()
    end = loop.time() + duration if duration is not None else float("inf")
    tasks: set[asyncio.Task[None]] = set()
    mixture = shots(rng)
    beat = loop.time()
    try:
        while not stop.is_set() and loop.time() < end:
            if len(tasks) < _MAX_UNDER_WAY:
                task = loop.create_task(sender.send(next(mixture)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                sender.skipped += 1
            # Real arrivals are independent of each other; a late loop catches up by at most one second.
            beat = max(beat + rng.expovariate(rate), loop.time() - 1.0)
            await _until(stop, min(beat, end) - loop.time())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if pool is None:
            await sender.pool.close()
    return TrafficReport(sender.sent, sender.by_status, sender.failed, sender.left_early, sender.skipped)


class _Sender:
    def __init__(self, base_url: str, key: str, pool: ClientPool) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {base_url!r}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # The operator named this gateway, so any address will do.
        self._origin = Origin(parts.scheme, parts.hostname, port, trusted=True)
        self._prefix = parts.path.rstrip("/")
        self._head = f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        self.pool = pool
        self.sent = self.failed = self.left_early = self.skipped = 0
        self.by_status: dict[int, int] = {}

    async def send(self, shot: Shot) -> None:
        self.sent += 1
        head = self._head + "".join(f"{name}: {value}\r\n" for name, value in shot.headers)
        target = (self._prefix + shot.path).encode()
        body = msgspec.json.encode(shot.body)
        try:
            async with asyncio.timeout(shot.leave_after or None):
                response = await self.pool.fetch(
                    self._origin, b"POST", target, head.encode(), body, _TIMEOUTS, max_bytes=_MAX_ANSWER_BYTES
                )
        except TimeoutError:
            self.left_early += 1
        except WireError:
            self.failed += 1
        else:
            self.by_status[response.status] = self.by_status.get(response.status, 0) + 1


async def _until(stop: asyncio.Event, seconds: float) -> None:
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass  # the next beat


def _model(rng: random.Random) -> str:
    return rng.choices(_MODELS, _MODEL_WEIGHTS)[0]


def _popular(rng: random.Random) -> dict[str, Any]:
    # A few questions make up most of the traffic, as in real support desks.
    position = min(int(rng.paretovariate(1.1)) - 1, len(_QUESTIONS) - 1)
    system = _SYSTEMS[position % len(_SYSTEMS)]
    messages = [{"role": "system", "content": system}, {"role": "user", "content": _QUESTIONS[position]}]
    return {"model": _model(rng), "messages": messages}


def _repeated(rng: random.Random) -> Shot:
    return Shot("/chat/completions", _popular(rng))


def _varied(rng: random.Random) -> Shot:
    text = rng.choice(_VARIED).format(n=rng.randrange(1, 5000))
    body = {"model": _model(rng), "messages": [{"role": "user", "content": text}], "temperature": rng.choice((0, 0.7))}
    return Shot("/chat/completions", body)


def _streamed(rng: random.Random) -> Shot:
    body = _popular(rng) | {"stream": True, "stream_options": {"include_usage": True}}
    if rng.random() < 0.1:
        body["messages"] = [{"role": "user", "content": f"Write a long story, part {rng.randrange(10_000)}."}]
        return Shot("/chat/completions", body, leave_after=0.05)
    return Shot("/chat/completions", body)


def _embedded(rng: random.Random) -> Shot:
    texts = rng.sample(_QUESTIONS, rng.randrange(1, 5))
    return Shot("/embeddings", {"model": "sim/text-embedding-3-small", "input": texts, "dimensions": 256})


def _with_tool(rng: random.Random) -> Shot:
    messages = [{"role": "user", "content": f"Where is order {rng.randrange(50)}? Please call get_order."}]
    return Shot("/chat/completions", {"model": _model(rng), "messages": messages, "tools": [_TOOL]})


def _structured(rng: random.Random) -> Shot:
    messages = [{"role": "user", "content": f"Classify: {rng.choice(_QUESTIONS)}"}]
    return Shot("/chat/completions", {"model": "sim/gpt-4o", "messages": messages, "response_format": _SCHEMA})


def _mistaken(rng: random.Random) -> Shot:
    body = _popular(rng)
    mistakes: tuple[dict[str, Any], ...] = (
        {"model": "sim/status-429"},
        {"model": "sim/status-500"},
        {"model": "sim/cut-2", "stream": True},
        {"messages": []},
        {"temperature": 9},
    )
    return Shot("/chat/completions", body | rng.choice(mistakes))


_WEIGHTS = (42, 14, 20, 12, 4, 4, 4)
