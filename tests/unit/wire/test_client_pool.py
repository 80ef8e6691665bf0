"""Connections: reuse, limits, loss, failures, and the end."""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.wire_peers import (
    PATIENT,
    LoopFactory,
    Recorder,
    Source,
    Talk,
    answer,
    answers,
    call,
    never,
    peer,
    pool_of,
    read_request,
    run,
    send,
    until,
)
from watchllm.wire.client import ClientPool
from watchllm.wire.connection import Connection
from watchllm.wire.dial import Dialer
from watchllm.wire.types import BadMessage, ConnectFailed, Origin, PeerClosed, PoolFull, WireError


def test_the_request_as_the_peer_sees_it(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                seen.append(await read_request(reader))
                writer.write(answer(b""))

        async with peer(talk) as server, pool_of() as pool:
            await call(pool, server.origin, body=b'{"a":1}')
            await call(pool, server.origin, method=b"GET", body=None)
            await call(pool, server.origin, method=b"POST", body=None)
            await call(pool, server.origin, body=b"z" * 200_000)
        host = b"Host: 127.0.0.1:%d\r\nX-Test: 1\r\n" % server.port
        assert seen == [
            b"POST /v1/x HTTP/1.1\r\n" + host + b'Content-Length: 7\r\n\r\n{"a":1}',
            b"GET /v1/x HTTP/1.1\r\n" + host + b"\r\n",
            b"POST /v1/x HTTP/1.1\r\n" + host + b"Content-Length: 0\r\n\r\n",
            b"POST /v1/x HTTP/1.1\r\n" + host + b"Content-Length: 200000\r\n\r\n" + b"z" * 200_000,
        ]

    run(loop_factory, main())


def test_a_call_on_a_pooled_connection_is_written_within_send(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"x"))) as server, pool_of() as pool:
            await call(pool, server.origin)
            before = asyncio.all_tasks()
            sink = Recorder()
            send(pool, server.origin, sink)
            assert pool.stats()[server.origin] == (0, 1, 0, 0)
            assert asyncio.all_tasks() == before
            await sink.ended.wait()
            assert pool.stats()[server.origin] == (1, 0, 0, 0)

    run(loop_factory, main())


def test_the_connection_used_last_is_reused_first(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            mine = b"%d" % server.connections
            while True:
                await read_request(reader)
                await gates[mine].wait()
                writer.write(answer(mine))

        gates = {b"1": asyncio.Event(), b"2": asyncio.Event()}
        async with peer(talk) as server, pool_of() as pool:
            sinks = [Recorder(), Recorder()]
            for number, sink in enumerate(sinks, 1):
                send(pool, server.origin, sink)
                await until(lambda number=number: server.connections == number)  # type: ignore[misc]
            for idle, name in enumerate((b"2", b"1"), 1):
                gates[name].set()
                await until(lambda idle=idle: pool.stats()[server.origin].idle == idle)  # type: ignore[misc]
            assert [(await call(pool, server.origin)).body for _ in range(3)] == [b"1"] * 3

    run(loop_factory, main())


def test_calls_beyond_the_connections_wait_in_order_and_then_are_refused(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await read_request(reader)
                await gate.wait()
                writer.write(answer(b"x"))

        async with peer(talk) as server, pool_of(max_connections=1, max_waiting=2) as pool:
            order: list[int] = []
            sinks = [Recorder() for _ in range(4)]
            for number, sink in enumerate(sinks):
                sink.when_complete = lambda number=number: order.append(number)  # type: ignore[misc]
                send(pool, server.origin, sink)
            assert pool.stats()[server.origin].waiting == 2
            assert sinks[3].error is None  # never before `send` returned
            await sinks[3].ended.wait()
            assert isinstance(sinks[3].error, PoolFull)
            gate.set()
            await until(lambda: len(order) == 3)
            assert (order, server.connections) == ([0, 1, 2], 1)

    run(loop_factory, main())


def test_a_waiting_call_gets_a_new_connection_when_the_old_one_ends(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"x", b"Connection: close"))) as server, pool_of(max_connections=1) as pool:
            sinks = [Recorder() for _ in range(3)]
            for sink in sinks:
                send(pool, server.origin, sink)
            for sink in sinks:
                await sink.ended.wait()
            assert [sink.body for sink in sinks] == [b"x"] * 3
            assert server.connections == 3

    run(loop_factory, main())


def test_an_idle_connection_is_closed_after_its_time(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"x"))) as server, pool_of(keepalive_seconds=0.1) as pool:
            await call(pool, server.origin)
            await asyncio.wait_for(server.closed.wait(), 5)
            await until(lambda: pool.stats() == {})  # nothing stays behind for an origin without connections

    run(loop_factory, main())


@pytest.mark.parametrize("unsolicited", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
def test_an_idle_connection_that_the_peer_ends_leaves_the_pool(loop_factory: LoopFactory, unsolicited: bytes) -> None:
    async def main() -> None:
        leave = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(answer(b"x"))
            if server.connections == 1:
                await leave.wait()
                writer.write(unsolicited)
                if unsolicited:
                    await reader.read()
            else:
                await reader.read()

        async with peer(talk) as server, pool_of() as pool:
            await call(pool, server.origin)
            leave.set()
            await until(lambda: pool.stats().get(server.origin, (0,))[0] == 0)
            assert (await call(pool, server.origin)).body == b"x"
            assert server.connections == 2

    run(loop_factory, main())


def loses_second_request(after: bytes = b"") -> Talk:
    """Each connection answers one request; upon the next it says `after` and leaves."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer(b"x"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(after)

    return talk


def test_a_request_lost_to_a_stale_connection_is_sent_once_more(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(loses_second_request()) as server, pool_of(max_connections=1) as pool:
            await call(pool, server.origin)
            heard = await call(pool, server.origin)
            assert (heard.error, heard.body, server.connections) == (None, b"x", 2)

    run(loop_factory, main())


def test_a_request_is_not_repeated_once_anything_was_received(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(loses_second_request(after=b"HTTP/1.1 2")) as server, pool_of() as pool:
            await call(pool, server.origin)
            assert isinstance((await call(pool, server.origin)).error, PeerClosed)
            assert server.connections == 1

    run(loop_factory, main())


def test_a_request_on_a_new_connection_is_not_repeated(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            if server.connections == 1:
                writer.write(answer(b"x"))
                await read_request(reader)

        async with peer(talk) as server, pool_of() as pool:
            await call(pool, server.origin)
            assert isinstance((await call(pool, server.origin)).error, PeerClosed)
            assert server.connections == 2  # the stale one, and one more: no third

    run(loop_factory, main())


@pytest.mark.parametrize("written", [True, False])
def test_an_upload_is_repeated_only_if_nothing_of_it_is_gone(loop_factory: LoopFactory, written: bool) -> None:
    async def main() -> None:
        left = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(answer(b"x"))
            await reader.readuntil(b"\r\n\r\n")
            if written:
                await reader.readuntil(b"abc")
            left.set()

        async with peer(talk) as server, pool_of() as pool:
            await call(pool, server.origin)
            source, sink = Source(3), Recorder()
            upload = send(pool, server.origin, sink, upload=source)
            if written:
                upload.write(b"abc")
            await left.wait()
            if not written:
                await until(lambda: server.connections == 2)
                await source.may_write.wait()
                upload.write(b"abc")
                upload.end()
            await sink.ended.wait()
            assert isinstance(sink.error, PeerClosed) if written else sink.body == b"x"
            assert server.connections == (1 if written else 2)

    run(loop_factory, main())


def test_a_refused_connection_fails(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(never) as server:
            pass
        async with pool_of() as pool:
            assert isinstance((await call(pool, server.origin)).error, ConnectFailed)

    run(loop_factory, main())


def test_a_peer_that_hangs_up_on_connecting_fails_the_call_at_once(
    loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = Dialer.dial

    async def dial(dialer: Dialer, origin: Origin, make: Callable[[], Connection]) -> Connection:
        connection = await genuine(dialer, origin, make)
        await until(connection.transport.is_closing)  # as when this task is late
        return connection

    monkeypatch.setattr(Dialer, "dial", dial)

    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.close()

        async with peer(talk) as server, pool_of() as pool:
            assert isinstance((await call(pool, server.origin)).error, ConnectFailed)

    run(loop_factory, main())


@pytest.mark.parametrize(
    "origin",
    [
        Origin("http", "no-such-host.invalid", 80, True),
        Origin("http", "a b", 80, True),
        Origin("http", "a\r\nX: y", 80, True),
        Origin("http", "", 80, True),
        Origin("http", "x" * 300, 80, True),
        Origin("http", "ü" * 100, 80, True),
        Origin("ftp", "localhost", 80, True),
        Origin("http", "localhost", 0, True),
    ],
)
def test_an_origin_that_leads_nowhere_fails_like_any_other(loop_factory: LoopFactory, origin: Origin) -> None:
    async def main() -> None:
        async with pool_of() as pool:
            assert isinstance((await call(pool, origin)).error, ConnectFailed)

    run(loop_factory, main())


def test_fetch_gives_the_whole_answer_or_raises(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"0123456789", status=b"418 Teapot"))) as server, pool_of() as pool:
            got = await pool.fetch(server.origin, b"GET", b"/", b"", None, PATIENT, max_bytes=10)
            assert (got.status, got.body) == (418, b"0123456789")
            with pytest.raises(BadMessage):
                await pool.fetch(server.origin, b"GET", b"/", b"", None, PATIENT, max_bytes=9)

    run(loop_factory, main())


def test_a_fetch_whose_task_is_cancelled_closes_its_socket(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(never) as server, pool_of() as pool:
            task = asyncio.create_task(pool.fetch(server.origin, b"GET", b"/", b"", None, PATIENT, max_bytes=9))
            await until(lambda: server.connections == 1 and pool.stats()[server.origin].active == 1)
            task.cancel()
            await asyncio.wait_for(server.closed.wait(), 5)

    run(loop_factory, main())


def test_closing_the_pool_fails_what_is_under_way_and_refuses_what_comes(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(never) as server:
            pool = ClientPool(max_connections=2)
            sinks = [Recorder() for _ in range(3)]  # one active, one opening, one waiting
            send(pool, server.origin, sinks[0])
            await until(lambda: pool.stats()[server.origin].active == 1)
            send(pool, server.origin, sinks[1])
            send(pool, server.origin, sinks[2])
            await pool.close()
            await pool.close()
            assert all(isinstance(sink.error, WireError) for sink in sinks)
            assert isinstance((await call(pool, server.origin)).error, WireError)
            other = Origin("http", "127.0.0.2", server.port, True)
            assert isinstance((await call(pool, other)).error, WireError)
            await pool.close()

    run(loop_factory, main())
