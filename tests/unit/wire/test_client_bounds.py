"""Time-outs and cancellation: what never ends is ended, and its socket closed."""

import asyncio
import time

import pytest
from msgspec.structs import replace

from tests.support.wire_peers import (
    PATIENT,
    LoopFactory,
    Recorder,
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
from watchllm.wire.types import TimedOut


def timed_out(loop_factory: LoopFactory, talk: Talk, **bounds: float) -> tuple[str, float]:
    """The phase that timed out, and after how many seconds."""

    async def main() -> tuple[str, float]:
        async with peer(talk) as server, pool_of() as pool:
            start = asyncio.get_running_loop().time()
            heard = await call(pool, server.origin, timeouts=replace(PATIENT, **bounds))
            took = asyncio.get_running_loop().time() - start
            assert isinstance(heard.error, TimedOut), heard.error
            await asyncio.wait_for(server.closed.wait(), 5)  # the socket is closed, not abandoned
            return heard.error.phase, took

    return run(loop_factory, main())


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 102 Processing\r\n\r\n"])
def test_the_first_byte_is_waited_for_only_so_long(loop_factory: LoopFactory, interim: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(interim)
        await never(reader, writer)

    phase, took = timed_out(loop_factory, talk, first_byte=0.2)
    assert phase == "first_byte"
    assert took >= 0.19


@pytest.mark.parametrize("started", [b"HTTP/1.1 20", answer(b"hello")[:-2]], ids=["in the head", "in the body"])
def test_silence_within_an_answer_is_bounded(loop_factory: LoopFactory, started: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(started)
        await never(reader, writer)

    phase, took = timed_out(loop_factory, talk, idle=0.2)
    assert phase == "idle"
    assert took >= 0.19


def test_an_answer_that_never_ends_is_bounded_over_all(loop_factory: LoopFactory) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not (reader.at_eof() or writer.is_closing()):
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.01)

    phase, took = timed_out(loop_factory, talk, idle=0.15, total=0.4)
    assert phase == "total"
    assert took >= 0.39


def test_a_slow_answer_that_keeps_coming_does_not_time_out(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            for byte in answer(b"0123456789"):
                writer.write(bytes((byte,)))
                await asyncio.sleep(0.01)

        async with peer(talk) as server, pool_of() as pool:
            heard = await call(pool, server.origin, timeouts=replace(PATIENT, idle=0.3, first_byte=0.3))
            assert (heard.error, heard.body) == (None, b"0123456789")

    run(loop_factory, main())


def test_waiting_for_a_connection_is_bounded_by_the_time_to_connect(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(never) as server, pool_of(max_connections=1) as pool:
            send(pool, server.origin, Recorder())
            heard = await call(pool, server.origin, timeouts=replace(PATIENT, connect=0.1))
            assert isinstance(heard.error, TimedOut)
            assert heard.error.phase == "connect"
            assert pool.stats()[server.origin].waiting == 0

    run(loop_factory, main())


def test_a_tls_handshake_counts_as_connecting(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(never) as server, pool_of() as pool:
            origin = replace(server.origin, scheme="https")
            heard = await call(pool, origin, timeouts=replace(PATIENT, connect=0.2))
            assert isinstance(heard.error, TimedOut)
            assert heard.error.phase == "connect"
            await asyncio.wait_for(server.closed.wait(), 5)

    run(loop_factory, main())


def test_a_peer_that_takes_no_request_times_out(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gone.wait()

        gone = asyncio.Event()
        async with peer(talk) as server, pool_of() as pool:
            bounds = replace(PATIENT, idle=0.3, first_byte=0.1)
            heard = await call(pool, server.origin, body=b"x" * 30_000_000, timeouts=bounds)
            gone.set()
            assert isinstance(heard.error, TimedOut)
            assert heard.error.phase == "idle"  # the request is not sent: the first byte is not due yet

    run(loop_factory, main())


def test_a_loop_that_was_held_up_does_not_blame_the_peer(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"x"))) as server, pool_of() as pool:
            await call(pool, server.origin)
            sink = Recorder()
            send(pool, server.origin, sink, timeouts=replace(PATIENT, first_byte=0.2))
            time.sleep(0.5)
            await sink.ended.wait()
            assert sink.error is None

    run(loop_factory, main())


@pytest.mark.parametrize("moment", ["opening", "waiting", "head", "body", "ended"])
def test_a_cancelled_call_is_silent_and_its_socket_closed(loop_factory: LoopFactory, moment: str) -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            asked.set()
            if moment == "ended":
                writer.write(answer(b"x"))
            elif moment in ("head", "body"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"ab" * (moment == "body"))
            await reader.read()

        asked = asyncio.Event()
        async with peer(talk) as server, pool_of() as pool:
            sink = Recorder()
            under_way = send(pool, server.origin, sink)
            if moment == "head":
                sink.when_response = under_way.cancel
            elif moment == "body":
                sink.when_data = under_way.cancel
            elif moment == "ended":
                await sink.ended.wait()
            if moment != "opening":
                await asked.wait()
            if moment in ("opening", "waiting", "ended"):
                under_way.cancel()
                under_way.cancel()
            if moment == "ended":
                assert pool.stats()[server.origin].idle == 1  # harmless: the connection was no longer the call's
            else:
                await until(lambda: pool.stats().get(server.origin, (0, 0, 0, 0)) == (0, 0, 0, 0))
                if moment != "opening":
                    await asyncio.wait_for(server.closed.wait(), 5)
                expected = {"head": ["response"], "body": ["response", "data"]}
                assert sink.events == expected.get(moment, [])

    run(loop_factory, main())


def test_a_cancelled_call_gives_its_place_to_the_next(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"x"))) as server, pool_of(max_connections=1) as pool:
            first = send(pool, server.origin, Recorder())
            sink = Recorder()
            send(pool, server.origin, sink)
            first.cancel()  # before its connection was opened
            await sink.ended.wait()
            assert sink.body == b"x"

    run(loop_factory, main())
