"""Listening sockets that outlive who serves them, and a server that leaves its own to a successor."""

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from watchllm.domain.errors import GatewayError
from watchllm.wire.listening import bind, bind_for_workers
from watchllm.wire.server import BodyMode, Exchange, Server, ServerLimits

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Named:
    """Answers with its name, at once or when `go` is set."""

    def __init__(self, name: bytes, go: asyncio.Event | None = None) -> None:
        self.name = name
        self.asked = asyncio.Event()
        self._go = go
        self._tasks: list[asyncio.Task[None]] = []

    def body_mode(self, exchange: Exchange) -> BodyMode:
        return BodyMode.BUFFER

    def on_request(self, exchange: Exchange) -> None:
        self.asked.set()
        self._tasks.append(asyncio.ensure_future(self._answer(exchange)))

    def on_refusal(self, exchange: Exchange | None, error: GatewayError) -> tuple[bytes, bytes]:
        return b"", error.code.encode()

    async def _answer(self, exchange: Exchange) -> None:
        if self._go is not None:
            await self._go.wait()
        exchange.respond(200, b"", self.name)


@contextmanager
def closing_all(sockets: list[list[socket.socket]]) -> Iterator[list[socket.socket]]:
    try:
        yield [bound for group in sockets for bound in group]
    finally:
        for group in sockets:
            for bound in group:
                bound.close()


def run(loop_factory: LoopFactory, talk: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(talk(), 20))


async def server_on(bound: socket.socket, handler: Named) -> Server:
    server = Server(handler, ServerLimits(), asyncio.get_running_loop())
    await server.listen_on([bound.dup()])
    return server


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, bytes]:
    """Head and body of the answer to one request."""
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head, await reader.readexactly(length)


def test_workers_get_sockets_of_their_own_on_one_port_among_which_connections_are_spread() -> None:
    with closing_all(bind_for_workers("127.0.0.1", 0, 3)) as sockets:
        assert len({bound.getsockname() for bound in sockets}) == 1
        clients = [socket.create_connection(sockets[0].getsockname()) for _ in range(60)]
        accepted = [_accepted(bound) for bound in sockets]
        for client in clients:
            client.close()
        assert sum(accepted) == 60
        if sys.platform == "linux":
            assert all(accepted)


def _accepted(bound: socket.socket) -> int:
    count = 0
    while True:
        try:
            bound.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_workers_do_not_share_a_port_that_another_installation_has() -> None:
    with closing_all(bind_for_workers("127.0.0.1", 0, 2)) as sockets:
        port = sockets[0].getsockname()[1]
        for count in (1, 2):
            with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
                bind_for_workers("127.0.0.1", port, count)


def test_a_name_is_listened_on_at_all_of_its_addresses_with_one_port() -> None:
    with closing_all([bind("localhost", 0)]) as sockets:
        assert {bound.getsockname()[0] for bound in sockets} <= {"127.0.0.1", "::1"}
        assert len({bound.getsockname()[1] for bound in sockets}) == 1


def test_what_waits_to_be_accepted_is_the_successor_s(loop_factory: LoopFactory) -> None:
    async def talk() -> None:
        with closing_all(bind_for_workers("127.0.0.1", 0, 1)) as (bound,):
            port = bound.getsockname()[1]
            old = await server_on(bound, Named(b"old"))
            kept = await connected(port)
            assert (await ask(*kept))[1] == b"old"
            retiring = asyncio.ensure_future(old.retire(10, 10))
            await asyncio.sleep(0)
            waiting = await connected(port)
            waiting[1].write(REQUEST)
            new = await server_on(bound, Named(b"new"))
            assert (await ask(*waiting))[1] == b"new"
            head, body = await ask(*kept)
            assert body == b"old"
            assert b"connection: close" in head.lower()
            assert await kept[0].read() == b""
            await retiring
            for _, writer in (kept, waiting):
                writer.close()
            await new.close()

    run(loop_factory, talk)


def test_a_connection_without_a_request_is_closed_after_a_while_and_one_with_a_request_is_not(
    loop_factory: LoopFactory,
) -> None:
    async def talk() -> None:
        with closing_all(bind_for_workers("127.0.0.1", 0, 1)) as (bound,):
            go = asyncio.Event()
            handler = Named(b"late", go)
            server = await server_on(bound, handler)
            idle, busy = await connected(server.port), await connected(server.port)
            answer = asyncio.ensure_future(ask(*busy))
            await handler.asked.wait()
            retiring = asyncio.ensure_future(server.retire(10, 0.1))
            assert await idle[0].read() == b""
            assert not retiring.done()
            go.set()
            assert (await answer)[1] == b"late"
            await retiring
            for _, writer in (idle, busy):
                writer.close()

    run(loop_factory, talk)


def test_it_can_be_told_to_hurry(loop_factory: LoopFactory) -> None:
    async def talk() -> None:
        with closing_all(bind_for_workers("127.0.0.1", 0, 1)) as (bound,):
            handler = Named(b"never", asyncio.Event())
            server = await server_on(bound, handler)
            _, writer = await connected(server.port)
            writer.write(REQUEST)
            await handler.asked.wait()
            retiring = asyncio.ensure_future(server.retire(1000, 1000))
            await asyncio.sleep(0)
            server.hurry(0.1)
            await retiring
            assert server.connections == 0
            writer.close()

    run(loop_factory, talk)
