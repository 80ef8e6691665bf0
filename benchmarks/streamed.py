"""Streams that are relayed: what is added before the first byte, and the CPU time of each relayed chunk."""

import selectors
import socket
from statistics import median

from benchmarks import prompts
from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import Client, LoadFailed, added
from benchmarks.machine import cpu_seconds

FIRST_BYTE_ROUNDS = 10
FIRST_BYTE_REQUESTS = 50
STREAMS = 8
TOKENS = 1_500
CHUNK_MS = 2


def run(bench: Bench) -> list[Row]:
    with bench.sim("--tokens", "20") as sim, bench.proxy(sim.base_url) as (gateway, project):
        ours, direct = _first_bytes(gateway.port, sim.port, project.key)
    rows = [
        Row(
            "streamed, added to the first byte (p50)",
            added(ours, direct),
            "ms",
            median(direct),
            "ms directly",
            Target("≤", 0.5),
            "1 connection; the simulated provider streams",
        )
    ]
    with (
        bench.sim("--tokens", str(TOKENS), "--chunk-time", f"{CHUNK_MS}ms") as sim,
        bench.proxy(sim.base_url) as (gateway, project),
    ):
        for figure, header in (("stored", ""), ("no-store", "Cache-Control: no-store\r\n")):
            _read_streams(gateway.port, project.key, header, first=0 if header else 100, count=1)
            before = cpu_seconds(gateway.process.pid)
            chunks = _read_streams(gateway.port, project.key, header, first=200 if header else 300, count=STREAMS)
            spent = cpu_seconds(gateway.process.pid) - before
            rows.append(
                Row(
                    f"streamed, CPU per relayed chunk ({figure})",
                    spent / chunks * 1e6,
                    "µs",
                    target=Target("≤", 25.0),
                    note=f"{STREAMS} streams, a chunk each {CHUNK_MS} ms, {chunks:,} chunks; request and end included",
                )
            )
    return rows


def _first_bytes(gateway: int, upstream: int, key: str) -> tuple[list[float], list[float]]:
    clients = {port: Client(port, key) for port in (gateway, upstream)}
    times: dict[int, list[float]] = {gateway: [], upstream: []}
    for turn in range(FIRST_BYTE_ROUNDS):
        for port, client in clients.items():
            for number in range(FIRST_BYTE_REQUESTS):
                answer = client.post(prompts.body(turn * FIRST_BYTE_REQUESTS + number, stream=True))
                if answer.headers.get(b"x-watchllm-cache", b"MISS") != b"MISS":
                    raise LoadFailed("a stream that should have been relayed came from the cache")
                times[port].append((answer.first_byte - answer.sent) * 1000)
    for client in clients.values():
        client.close()
    return times[gateway], times[upstream]


def _read_streams(port: int, key: str, header: str, *, first: int, count: int) -> int:
    """Read `count` streams at once to their end; the number of events that came."""
    events = 0
    with selectors.DefaultSelector() as selector:
        for number in range(first, first + count):
            body = prompts.body(number, stream=True)
            peer = socket.create_connection(("127.0.0.1", port), 30)
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {key}\r\nConnection: close\r\n{header}Content-Length: {len(body)}\r\n\r\n"
            )
            peer.sendall(head.encode() + body)
            selector.register(peer, selectors.EVENT_READ, bytearray())
        while selector.get_map():
            for chosen, _ in selector.select(30):
                assert isinstance(chosen.fileobj, socket.socket)
                received: bytearray = chosen.data
                data = chosen.fileobj.recv(262_144)
                received += data
                if data:
                    continue
                selector.unregister(chosen.fileobj)
                chosen.fileobj.close()
                if not received.startswith(b"HTTP/1.1 200") or b"[DONE]" not in received[-200:]:
                    raise LoadFailed(f"a stream failed: {bytes(received[:300])!r}")
                events += received.count(b"data: ")
    return events
