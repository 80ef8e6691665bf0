"""Where the time of one exact hit goes, step by step: the proxy's own code in this process, without socket and kernel.

Each step is timed alone and over and over on one request, so its code and data are warm, best of many rounds; the whole
rotates over different requests. "The rest" is what the steps leave of the whole: dispatch, and memory that is not warm.
"""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import prompts
from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from watchllm.compose.control import open_control_plane
from watchllm.compose.proxy import ProxyProcess
from watchllm.configuration import Configuration, load
from watchllm.domain.limits import Limits
from watchllm.limits.spending import Spent, moment
from watchllm.limits.subject import PROJECT, bounds_of, subject_of
from watchllm.proxy import egress
from watchllm.proxy.directives import directives
from watchllm.proxy.local_limits import LocalLimits
from watchllm.proxy.request import Request
from watchllm.wire.exchange import BodyMode, Exchange
from watchllm.wire.server import Server, ServerLimits
from watchllm.wire.server_connection import ServerConnection

_PROMPTS = 2000
_ROUND = 100
_ROUNDS = 200
_ANSWER_BYTES = 780


def run(bench: Bench | None = None) -> list[Row]:
    """All rows; nothing needs to be started for them."""
    folder = Path(tempfile.mkdtemp(prefix="watchllm-bench-"))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_measure(folder))
    finally:
        shutil.rmtree(folder)


async def _measure(folder: Path) -> list[Row]:
    configuration = load({"home": str(folder)}, {"PATH": os.environ["PATH"]})
    with open_control_plane(configuration, actor="benchmark") as plane:
        project = plane.create_project("benchmark")
        plane.set_project(project.id, {"semantic": "off"})
        made = plane.create_key(project.id)
        key = made.secret
    loop = asyncio.get_running_loop()
    process = ProxyProcess(configuration, loop)
    services = process._services
    connection = _connected(process._server)
    raw = [_request(key, number) for number in range(_PROMPTS)]
    sent = _Transport.sent
    for sending in raw:
        before = sent.count
        connection.data_received(sending)
        while sent.count == before:  # noqa: ASYNC110  (the answer comes in a few turns of the loop)
            await asyncio.sleep(0)
    process._cache.flush()  # type: ignore[union-attr]  # no Redis here
    connection.data_received(raw[0])
    assert b"X-WatchLLM-Cache: HIT" in sent.last, sent.last

    exchange = _exchange(connection, raw[0])
    endpoint = process._app._generation[b"/v1/chat/completions"]
    tenants = services.tenants

    def known() -> Request:
        request = Request(exchange, endpoint.name)
        request.principal = principal = tenants.authenticate(exchange.headers, time.time())
        request.directives = directives(exchange.headers, principal.tenant.settings)
        return request

    request = known()
    assert request.principal is not None
    tenant = request.principal.tenant
    asked = tenants.reader.read(tenant, endpoint, exchange.body, exchange.headers, b"", None)
    assert asked.key is not None
    place = asked.key
    entry = services.cache.get(tenant.partition, place)
    assert entry is not None
    request.target, request.model, request.cache = asked.target, asked.target.model, "HIT"
    request.usage, request.cost, request.saved = entry.usage, 0, entry.cost

    def settle() -> None:
        services.settlement.settle_hit(request, asked.target)

    read_anew = tenants.reader._read
    steps: dict[str, Callable[[], Any]] = {
        "the request's own state and id": lambda: Request(exchange, endpoint.name),
        "authenticate (snapshot version, key, project)": lambda: tenants.authenticate(exchange.headers, 1.0),
        "what is asked: keyed hash of the body": lambda: tenants.reader.read(
            tenant, endpoint, exchange.body, exchange.headers, b"", None, usual=True
        ),
        "look-up in LMDB and decoding": lambda: services.cache.get(tenant.partition, place),
        "history for explain": lambda: services.history.hit(request, asked.named, place, entry),
        "header lines of the answer": lambda: egress.hit_head(request),
        "usage event, journal, counters": settle,
    }
    whole = _micros_each(connection.data_received, raw)
    wire = _micros_each(_connected(Server(_Bare(), ServerLimits(), loop)).data_received, raw)
    forgetful = _connected(Server(_Bare(), ServerLimits(), loop))
    forgetful._memory._lessons = 0
    parsed = _micros_each(forgetful.data_received, raw)
    rows = [
        Row("one exact hit, from bytes to bytes", whole, "µs", note=f"requests of {len(raw[0])} bytes"),
        Row("  HTTP: recognise the head, write the answer", wire, "µs"),
    ]
    rest = whole - wire
    for name, step in steps.items():
        micros = _micros(step)
        rest -= micros
        rows.append(Row(f"  {name}", micros, "µs"))
    rows.append(Row("  the rest: dispatch, checks, memory that is not warm", max(rest, 0.0), "µs"))
    anew = _micros(lambda: read_anew(tenant, endpoint, exchange.body, exchange.headers, b"", None))
    rows.append(
        Row("instead of recognising it, for a head that differs from the last: parse the request", parsed, "µs")
    )
    rows.append(Row("instead of the hash, for a body not seen before: parse, canonical form, key", anew, "µs"))
    limited = _limited(configuration, project.id, made.record.id, process)
    whole_limited = _micros_each(connection.data_received, raw)
    assert b"x-ratelimit-limit-requests" in sent.last, sent.last
    rows.append(Row(f"added for a key under {limited}", whole_limited - whole, "µs", target=Target("≤", 10)))
    await process.close()
    return rows


def _limited(configuration: Configuration, project_id: str, key_id: str, process: ProxyProcess) -> str:
    """Put key and project under limits that are not reached, what they spent before being known."""
    limits = {"requests_per_minute": 10**9, "tokens_per_minute": 10**9, "concurrent_requests": 10**6}
    with open_control_plane(configuration, actor="benchmark") as plane:
        plane.set_key(key_id, limits)
        plane.set_project(project_id, {**limits, "monthly_requests": 10**9})
    at = moment(time.time())
    local = process._services.limiting._limits
    assert isinstance(local, LocalLimits)
    limiter = local.limiter
    limiter._meters.clear()
    subject = subject_of(bounds_of(project_id, PROJECT, Limits(monthly_requests=1)))
    assert subject is not None
    for name in limiter.unknown(subject):
        limiter.learn(name, at, Spent())
    return "6 limits and a quota, headers and settlement included"


class _Sent:
    count = 0
    last = b""


class _Transport:
    """Takes what is written and forgets it."""

    sent = _Sent()

    def write(self, data: bytes) -> None:
        self.sent.count += 1
        self.sent.last = data

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None: ...

    def abort(self) -> None: ...


class _Bare:
    """A handler that answers at once: what is left is the wire."""

    def body_mode(self, _exchange: Exchange) -> BodyMode:
        return BodyMode.BUFFER

    def on_request(self, exchange: Exchange) -> None:
        exchange.respond(200, b"", b"x" * _ANSWER_BYTES)

    def on_refusal(self, _exchange: Exchange | None, _error: Exception) -> tuple[bytes, bytes]:
        return b"", b""


def _connected(server: Server) -> ServerConnection:
    connection = ServerConnection(server)
    connection.connection_made(_Transport())  # type: ignore[arg-type]
    return connection


def _request(key: str, number: int) -> bytes:
    body = prompts.body(number).replace(b'"gpt-4o-mini"', b'"sim/echo"')
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8787\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\nAccept: application/json\r\nUser-Agent: OpenAI/Python\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _exchange(connection: ServerConnection, request: bytes) -> Exchange:
    head, _, body = request.partition(b"\r\n\r\n")
    exchange = Exchange(connection, b"POST", b"/v1/chat/completions", b"")
    lines = [line.partition(b": ") for line in head.split(b"\r\n")[1:]]
    exchange.headers = {name.lower(): value for name, _, value in lines}
    exchange.body = body
    exchange.began = time.perf_counter()
    return exchange


def _micros(step: Callable[[], Any]) -> float:
    return _best(lambda _: step(), [b""] * _PROMPTS)


def _micros_each(feed: Callable[[bytes], Any], requests: list[bytes]) -> float:
    return _best(feed, requests)


def _best(feed: Callable[[bytes], Any], requests: list[bytes]) -> float:
    best = float("inf")
    for round_ in range(_ROUNDS):
        start = (round_ * _ROUND) % (_PROMPTS - _ROUND)
        chosen = requests[start : start + _ROUND]
        began = time.perf_counter()
        for request in chosen:
            feed(request)
        best = min(best, (time.perf_counter() - began) / _ROUND)
    return best * 1e6
