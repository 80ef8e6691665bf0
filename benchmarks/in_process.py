"""The product inside the benchmark's own process: connections that are driven by hand, without sockets and kernel."""

import time
from collections.abc import Callable
from typing import Any

from benchmarks import prompts
from watchllm.wire.connection import Connection
from watchllm.wire.exchange import Exchange
from watchllm.wire.lane import Lane
from watchllm.wire.server import Server
from watchllm.wire.server_connection import ServerConnection


class Sent:
    """What a transport was given: how many writes, and the last of them."""

    def __init__(self) -> None:
        self.count = 0
        self.last = b""


class Transport:
    """Takes what is written and forgets it."""

    def __init__(self) -> None:
        self.sent = Sent()

    def write(self, data: bytes) -> None:
        sent = self.sent
        sent.count += 1
        sent.last = data

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        return None if name == "ssl_object" else ("127.0.0.1", 1)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def abort(self) -> None: ...


def client_connection(server: Server) -> tuple[ServerConnection, Sent]:
    """A client's connection to `server`, and what is sent to that client."""
    connection = ServerConnection(server)
    transport = Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport.sent


def provider_connection(lane: Lane) -> tuple[Connection, Sent]:
    """An idle connection to the provider at `lane`, and what is sent to that provider."""
    connection = Connection(lane)
    transport = Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    lane.connections.add(connection)
    lane.idle.append(connection)
    return connection, transport.sent


def request_bytes(key: str, number: int, *, model: bytes = b"gpt-4o-mini", lines: str = "") -> bytes:
    """A chat completion as a client sends it; `lines` are further header lines, each with its CRLF."""
    body = prompts.body(number).replace(b'"gpt-4o-mini"', b'"%b"' % model)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8787\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nAccept: application/json\r\nUser-Agent: OpenAI/Python\r\n{lines}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def exchange_of(connection: ServerConnection, request: bytes) -> Exchange:
    """The exchange that `request` begins, as its handler is given it."""
    head, _, body = request.partition(b"\r\n\r\n")
    exchange = Exchange(connection, b"POST", b"/v1/chat/completions", b"")
    lines = [line.partition(b": ") for line in head.split(b"\r\n")[1:]]
    exchange.headers = {name.lower(): value for name, _, value in lines}
    exchange.body = body
    exchange.began = time.perf_counter()
    return exchange


def micros(step: Callable[[], Any], *, repeats: int = 100, rounds: int = 200) -> float:
    """Microseconds of one `step`: the best round of many."""
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(repeats):
            step()
        best = min(best, time.perf_counter() - began)
    return best / repeats * 1e6
