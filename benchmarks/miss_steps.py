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
from watchllm.domain import json_body
from watchllm.providers.openai import answers
from watchllm.proxy import egress
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
_ROUND = 100
_ROUNDS = 120
_ORIGIN = Origin("http", "127.0.0.1", 9, trusted=True)
_BASE_URL = "http://127.0.0.1:9/v1"
_BODY = prompts.completion()
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%b" % (len(_BODY), _BODY)
)
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
        key = plane.create_key(plane.create_project("benchmark").id).secret
    process = ProxyProcess(configuration, asyncio.get_running_loop())
    services = process._services
    try:
        lane = _lane(services)
        provider, _ = provider_connection(lane)
        client, sent = client_connection(process._server)
        requests = [request_bytes(key, number, lines=_NO_STORE) for number in range(_REQUESTS)]
        whole = await _micros_each(client, sent, provider, requests)
        assert b"X-WatchLLM-Cache: MISS" in sent.last, sent.last
        stored = await _micros_each(
            client, sent, provider, [request.replace(b"no-store", b"x") for request in requests]
        )
        bare = Server(_Relay(services), ServerLimits(), services.loop)
        wire = await _micros_each(*client_connection(bare), provider, requests)
        rows = [
            Row("one miss that is not stored, from bytes to bytes", whole, "µs", note=f"{len(requests[0])} bytes"),
            Row("  HTTP: parse and write, at the client's end and at the provider's", wire, "µs"),
        ]
        rest = whole - wire
        for name, step in _steps(process, client, requests[0]).items():
            took = micros(step)
            rest -= took
            rows.append(Row(f"  {name}", took, "µs"))
        rows.append(Row("  the rest: dispatch, coroutine, flight, cold memory", max(rest, 0.0), "µs"))
        rows.append(Row("one miss that is stored, from bytes to bytes", stored, "µs"))
        provider.connection_lost(None)
    finally:
        await process.close()
    return rows
