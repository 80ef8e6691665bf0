"""What it costs to join a call that is under way, and to be given its answer: CPU time of the proxy's thread a request.

5,000 requests for the same answer are handed to the proxy as its server would hand them, on connections that cost
nothing, so that neither sockets nor a client's own work count.
"""

import gc
import time
from collections.abc import Awaitable
from typing import cast

from benchmarks import prompts
from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from tests.support.inside import CHAT, Inside, inside, until
from tests.support.inside import run as inside_run
from tests.support.product import Installation, Project
from watchllm.proxy.app import ProxyApp
from watchllm.proxy.streamed_flight import StreamedFlight
from watchllm.wire.exchange import Exchange
from watchllm.wire.server_connection import ServerConnection

_FOLLOWERS = 5_000
_ROUNDS = 3
_CHUNKS = 10


class _Connection:
    """Takes what is written and forgets it."""

    peer = "127.0.0.1"
    writable = connected = True
    draining = has_waiting = False
    date_line = b"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n"

    def write(self, _data: bytes) -> None:
        pass

    def exchange_finished(self, _exchange: Exchange) -> None:
        pass


def run(bench: Bench) -> list[Row]:
    """The best of several rounds."""
    installation = Installation(bench.folder / "coalescing" / "home")
    project = installation.project("benchmark")
    whole: list[tuple[float, float]] = []
    streams: list[tuple[float, float]] = []
    for number in range(_ROUNDS):
        inside_run(_append(whole, _whole_answers(installation, project, number)))
        inside_run(_append(streams, _streams(installation, project, number)))
    (join, answer), (join_stream, chunk) = (map(min, zip(*each, strict=True)) for each in (whole, streams))
    note = f"{_FOLLOWERS:,} followers of one call, sockets left out; CPU of the proxy's thread a follower"
    return [
        Row("join a call under way", join, "µs", target=Target("≤", 30), note=note),
        Row("  be given its whole answer, usage event included", answer, "µs"),
        Row("join a stream under way", join_stream, "µs", target=Target("≤", 30)),
        Row("  be given one chunk of it", chunk, "µs"),
    ]


def _join(pair: Inside, project: Project, body: bytes) -> float:
    """Hand all the requests over; CPU microseconds each, the leader's call left out."""
    handler = ProxyApp(pair.services)
    headers = {b"authorization": b"Bearer " + project.key.encode(), b"content-type": b"application/json"}

    def ask() -> None:
        exchange = Exchange(cast(ServerConnection, _Connection()), b"POST", CHAT.encode(), b"")
        exchange.headers = headers
        exchange.body = body
        exchange.body_complete = True
        exchange.began = time.perf_counter()
        handler.on_request(exchange)

    pair.asked += 1 + _FOLLOWERS
    ask()
    # As the proxy does when it has started: what the tests' own code imported would be looked through otherwise.
    gc.collect()
    gc.freeze()
    began = time.thread_time()
    for _ in range(_FOLLOWERS):
        ask()
    took = time.thread_time() - began
    gc.unfreeze()
    return took / _FOLLOWERS * 1e6


async def _whole_answers(installation: Installation, project: Project, number: int) -> tuple[float, float]:
    """CPU microseconds to join, and to be answered."""
    async with inside(installation, project) as pair:
        joined = _join(pair, project, prompts.body(number))
        await pair.all_wait(1 + _FOLLOWERS)
        began = time.thread_time()
        await pair.steps.release()
        await pair.all_settled()
        return joined, (time.thread_time() - began) / _FOLLOWERS * 1e6


async def _streams(installation: Installation, project: Project, number: int) -> tuple[float, float]:
    """CPU microseconds to join, and to be given a chunk."""
    async with inside(installation, project) as pair:
        joined = _join(pair, project, prompts.body(number, stream=True))
        await pair.all_wait(1 + _FOLLOWERS)
        await pair.steps.release()
        chunk = await _relay(pair)
        pair.steps.release_all()
        await pair.all_settled()
        return joined, chunk


async def _relay(pair: Inside) -> float:
    """Let some chunks go to all that joined the only stream; CPU microseconds a chunk and follower."""
    (flight,) = pair.services.flights.values()
    assert isinstance(flight, StreamedFlight)
    stream = flight._stream
    await until(lambda: stream.end, "the first chunk")
    position = stream.end
    began = time.thread_time()
    await pair.steps.release(_CHUNKS)
    await until(lambda: stream.end >= position + _CHUNKS, f"{_CHUNKS} chunks more")
    return (time.thread_time() - began) / _FOLLOWERS / (stream.end - position) * 1e6


async def _append(figures: list[tuple[float, float]], measuring: Awaitable[tuple[float, float]]) -> None:
    figures.append(await measuring)
