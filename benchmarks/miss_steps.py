"""Where the time of one miss goes, step by step: the proxy's own code in this process, without sockets and kernel.

A client's connection and one to the provider are driven by hand: a request's bytes go in at the one, the provider's
answer at the other, and the answer must have left at the first. Each step is then timed alone and over and over on one
request, so its code and data are warm, best of many rounds; the whole rotates over different requests. "The rest" is
what the steps leave of the whole: dispatch, the flight, and memory that is not warm.
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
from benchmarks.figure import Row
from benchmarks.in_process import Sent, client_connection, exchange_of, micros, provider_connection, request_bytes
from watchllm.compose.control import open_control_plane
from watchllm.compose.proxy import ProxyProcess
from watchllm.configuration import load
from watchllm.providers.openai.storable import judge
from watchllm.proxy.calls import account, head_of
from watchllm.proxy.directives import directives
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.upstream import Answer
from watchllm.wire.connection import Connection
from watchllm.wire.exchange import BodyMode, Exchange
from watchllm.wire.lane import Lane
from watchllm.wire.server import Server, ServerLimits
from watchllm.wire.server_connection import ServerConnection
from watchllm.wire.types import Headers, Origin, WireError

_REQUESTS = 4000
_HUNDRED = 100
_ORIGIN = Origin("http", "127.0.0.1", 9, trusted=True)
_BASE_URL = "http://127.0.0.1:9/v1"
_BODY = prompts.completion()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%b" % (len(_BODY), _BODY)
)
_HEADERS = [(b"server", b"nginx"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]
_NO_STORE = "Cache-Control: no-store\r\n"


def run(bench: Bench | None = None) -> list[Row]:
    """All rows; nothing needs to be started for them."""
    folder = Path(tempfile.mkdtemp(prefix="watchllm-bench-"))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_measure(folder))
    finally:
        shutil.rmtree(folder)


async def _measure(folder: Path) -> list[Row]:
    instance = {"OPENAI_API_KEY": "sk-benchmark", "OPENAI_BASE_URL": _BASE_URL}
    configuration = load({"home": str(folder)}, {"PATH": os.environ["PATH"], **instance})
    with open_control_plane(configuration, actor="benchmark") as plane:
        project = plane.create_project("benchmark")
        plane.set_project(project.id, {"semantic": "off"})
        key = plane.create_key(project.id).secret
    process = ProxyProcess(configuration, asyncio.get_running_loop())
    services = process._services
    lane = _lane(services)
    provider, _ = provider_connection(lane)
    try:
        client, sent = client_connection(process._server)
        requests = [request_bytes(key, number, lines=_NO_STORE) for number in range(_REQUESTS)]
        unseen = _micros_each(client, sent, provider, requests, rounds=1)
        whole = _micros_each(client, sent, provider, requests)
        assert b"X-WatchLLM-Cache: MISS" in sent.last, sent.last
        # Refreshed, so that every round is a miss.
        refreshing = [request.replace(b"no-store", b"no-cache") for request in requests]
        stored = _micros_each(client, sent, provider, refreshing)
        relay = Server(_Relay(services), ServerLimits(), services.loop)
        wire = _micros_each(*client_connection(relay), provider, requests)
        rows = [
            Row("one miss that is not stored, from bytes to bytes", whole, "µs", note=f"{len(requests[0])} bytes"),
            Row("  HTTP: parse and write, at the client's end and at the provider's", wire, "µs"),
        ]
        rest = whole - wire
        for name, step in _steps(process, client, requests[0]).items():
            took = micros(step)
            rest -= took
            rows.append(Row(f"  {name}", took, "µs"))
        rows += [
            Row("  the rest: dispatch, coroutine, flight, cold code and memory", max(rest, 0.0), "µs"),
            Row("the same for a body not seen before: parse, canonical form, key", unseen, "µs"),
            Row("one miss that is stored, from bytes to bytes", stored, "µs"),
        ]
    finally:
        provider.connection_lost(None)
        await process.close()
    return rows


def _steps(process: ProxyProcess, client: ServerConnection, raw: bytes) -> dict[str, Callable[[], Any]]:
    """The parts of a miss that can be done over and over on one request."""
    services = process._services
    tenants, settlement = services.tenants, services.settlement
    endpoint = process._app._generation[b"/v1/chat/completions"]
    exchange = exchange_of(client, raw)
    request = Request(exchange, endpoint.name)
    request.principal = principal = tenants.authenticate(exchange.headers, time.time())
    tenant = principal.tenant
    request.directives = directives(exchange.headers, tenant.settings)
    request.authenticated = time.perf_counter()
    asked = tenants.reader.read(tenant, endpoint, exchange.body, exchange.headers, b"", None)
    assert asked.key is not None
    place = asked.key
    request.looked_up = time.perf_counter()
    request.target, request.model, request.cache = asked.target, asked.target.model, "MISS"
    settlement.open_call(request, len(exchange.body))
    request.upstream_began = request.first_byte = request.upstream_ended = time.perf_counter()
    request.upstream_status = 200
    account(services, request, asked.target, judge(endpoint.family, _BODY, expected=asked.expected).usage)
    answer = Answer(200, _HEADERS, _BODY)

    def settle() -> None:
        request.settled = False
        settlement.settle(request, 200, "complete")

    def directions() -> None:
        destination = services.outbound.destinations.known(asked.target)
        assert destination is not None
        services.forwarded(exchange.headers, tenant.partition, destination)

    return {
        "the request's own state and id": lambda: Request(exchange, endpoint.name),
        "authenticate (snapshot version, key, project)": lambda: tenants.authenticate(exchange.headers, 1.0),
        "cache directives": lambda: directives(exchange.headers, tenant.settings),
        "what is asked: keyed hash of the body": lambda: tenants.reader.read(
            tenant, endpoint, exchange.body, exchange.headers, b"", None
        ),
        "look-up in LMDB": lambda: services.cache.get(tenant.partition, place),
        "history for explain": lambda: services.history.missed(
            request, asked.target, asked.named, asked.key, exchange.body, endpoint.family, "not stored"
        ),
        "where to and with which lines": directions,
        "record of the call, before it": lambda: settlement.open_call(request, len(exchange.body)),
        "judge the answer": lambda: judge(endpoint.family, _BODY, expected=asked.expected),
        "usage, price, cost": lambda: account(services, request, asked.target, request.usage),
        "header lines of the answer": lambda: head_of(request, answer),
        "usage event, journal, counters": settle,
    }


class _Relay:
    """A handler that does nothing but to call and to answer: what is left is the wire."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def body_mode(self, _exchange: Exchange) -> BodyMode:
        return BodyMode.BUFFER

    def on_request(self, exchange: Exchange) -> None:
        services = self._services
        services.outbound.pool.send(
            _ORIGIN, b"POST", b"/v1/chat/completions", b"", exchange.body, _Relayed(exchange), services.timeouts
        )

    def on_refusal(self, _exchange: Exchange | None, error: Exception) -> tuple[bytes, bytes]:
        raise error


class _Relayed:
    """Gives the answer on when it is whole."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._body = b""

    def on_response(self, _status: int, _headers: Headers) -> None: ...

    def on_data(self, data: bytes) -> None:
        self._body += data

    def on_complete(self) -> None:
        self._exchange.respond(200, b"", self._body)

    def on_failure(self, error: WireError) -> None:
        raise error


def _lane(services: Services) -> Lane:
    pool = services.outbound.pool
    lane = pool._lanes[_ORIGIN] = Lane(_ORIGIN, pool._bounds, pool._dialer, services.loop)
    return lane


def _micros_each(
    client: ServerConnection, sent: Sent, provider: Connection, requests: list[bytes], *, rounds: int = 3
) -> float:
    """Microseconds of one request and its answer: the best of many hundreds, which go on over the requests."""
    best = float("inf")
    for _ in range(rounds):
        for start in range(0, len(requests), _HUNDRED):
            before = sent.count
            began = time.perf_counter()
            for request in requests[start : start + _HUNDRED]:
                client.data_received(request)
                provider.data_received(_ANSWER)
            best = min(best, time.perf_counter() - began)
            assert sent.count == before + _HUNDRED, "an answer did not come at once"
    return best / _HUNDRED * 1e6
