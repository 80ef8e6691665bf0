"""Bodies on their way: content codings, back-pressure, streamed uploads, early answers."""

import asyncio
import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
from backports import zstd
from msgspec.structs import replace

from tests.support.wire_peers import (
    PATIENT,
    LoopFactory,
    Recorder,
    Source,
    answer,
    answers,
    call,
    peer,
    pool_of,
    read_request,
    run,
    send,
)
from watchllm.wire.decoding import PIECE
from watchllm.wire.types import BadMessage, TimedOut

TEXT = b"".join(b"line %d of a long answer\n" % number for number in range(20_000))


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


CODINGS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "gzip": (b"gzip", gzip.compress),
    "x-gzip": (b"X-GZip", gzip.compress),
    "gzip members": (b"gzip", lambda data: gzip.compress(data[:100]) + gzip.compress(b"") + gzip.compress(data[100:])),
    "deflate": (b"deflate", zlib.compress),
    "raw deflate": (b"deflate", raw_deflate),
    "br": (b"br", lambda data: brotli.compress(data, quality=4)),
    "zstd": (b"zstd", zstd.compress),
    "zstd frames": (b"zstd", lambda data: zstd.compress(data[:100]) + zstd.compress(data[100:])),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("chunk", [0, 1000, 1])
def test_codings_nobody_asked_for_are_taken_off(loop_factory: LoopFactory, coding: str, chunk: int) -> None:
    name, encode = CODINGS[coding]
    text = TEXT if chunk != 1 else TEXT[:300]
    encoded = encode(text)
    if chunk:
        pieces = [encoded[start : start + chunk] for start in range(0, len(encoded), chunk)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        reply = b"HTTP/1.1 200 OK\r\nContent-Encoding: " + name + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    else:
        reply = answer(encoded, b"Content-Encoding: " + name)

    async def main() -> None:
        async with peer(answers(reply)) as server, pool_of() as pool:
            for _ in range(2):
                heard = await call(pool, server.origin)
                assert (heard.error, heard.body) == (None, text)
                assert {name for name, _ in heard.headers} <= {b"transfer-encoding"}
                assert max(map(len, heard.pieces)) <= 2 * PIECE
            assert server.connections == 1

    run(loop_factory, main())


def test_a_coded_body_may_end_with_the_connection(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        reply = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(TEXT)
        async with peer(answers(reply, then_close=True)) as server, pool_of() as pool:
            assert (await call(pool, server.origin)).body == TEXT

    run(loop_factory, main())


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_an_empty_body_needs_no_decoding(loop_factory: LoopFactory, coding: bytes) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"", b"Content-Encoding: " + coding))) as server, pool_of() as pool:
            assert (await call(pool, server.origin)).events == ["response", "complete"]

    run(loop_factory, main())


@pytest.mark.parametrize("coding", [b"compress", b"gzip, br", b"identity"])
def test_an_unknown_coding_is_passed_on_as_it_is(loop_factory: LoopFactory, coding: bytes) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"abc", b"Content-Encoding: " + coding))) as server, pool_of() as pool:
            heard = await call(pool, server.origin)
            assert heard.body == b"abc"
            assert heard.headers == [(b"content-encoding", coding), (b"content-length", b"3")]

    run(loop_factory, main())


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate", "br", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "trailing"])
def test_a_broken_coding_is_a_bad_message(loop_factory: LoopFactory, coding: str, damage: str) -> None:
    name, encode = CODINGS[coding]
    encoded = encode(TEXT[:5000])
    broken = {"cut": encoded[:-6], "garbage": b"\xff\xff" + b"no such thing" * 9, "trailing": encoded + b"and more"}

    async def main() -> None:
        async with peer(answers(answer(broken[damage], b"Content-Encoding: " + name))) as server, pool_of() as pool:
            heard = await call(pool, server.origin)
            assert isinstance(heard.error, BadMessage), heard.events
            assert "complete" not in heard.events

    run(loop_factory, main())


def test_a_zstd_window_beyond_the_bound_is_refused(loop_factory: LoopFactory) -> None:
    wide = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    encoded = wide.compress(b"x", mode=zstd.ZstdCompressor.FLUSH_BLOCK) + wide.flush()

    async def main() -> None:
        async with peer(answers(answer(encoded, b"Content-Encoding: zstd"))) as server, pool_of() as pool:
            assert isinstance((await call(pool, server.origin)).error, BadMessage)

    run(loop_factory, main())


BOMBS = {name: CODINGS[name][1] for name in ("gzip", "br", "zstd")}


@pytest.mark.parametrize("coding", BOMBS)
def test_a_bomb_is_inflated_no_further_than_its_reader_takes(loop_factory: LoopFactory, coding: str) -> None:
    size = 16 * 1024 * 1024
    bomb = BOMBS[coding](bytes(size))

    async def main() -> None:
        async with peer(answers(answer(bomb, b"Content-Encoding: " + coding.encode()))) as server, pool_of() as pool:
            sink = Recorder()
            under_way = send(pool, server.origin, sink)
            paused = asyncio.Event()

            def stop() -> None:
                under_way.pause()
                paused.set()

            sink.when_data = stop
            given = 0
            for _ in range(5):  # each resume gives about one piece more, not what one read would inflate to
                await paused.wait()
                paused.clear()
                assert 0 < len(sink.body) - given <= 2 * PIECE
                given = len(sink.body)
                under_way.resume()
            sink.when_data = None
            await sink.ended.wait()
            assert (sink.error, len(sink.body)) == (None, size)
            assert max(map(len, sink.pieces)) <= 2 * PIECE
            with pytest.raises(BadMessage):
                await pool.fetch(server.origin, b"POST", b"/", b"", b"{}", PATIENT, max_bytes=100_000)

    run(loop_factory, main())


def test_the_loop_goes_on_while_a_bomb_inflates(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        bomb = answer(gzip.compress(bytes(64 * 1024 * 1024)), b"Content-Encoding: gzip")
        async with peer(answers(bomb)) as server, pool_of() as pool:
            sink = Recorder()
            turns = 0
            send(pool, server.origin, sink)
            while not sink.ended.is_set():
                turns += 1
                await asyncio.sleep(0)
            assert turns > 30

    run(loop_factory, main())


def test_a_cancelled_call_inflates_nothing_more(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        bomb = answer(gzip.compress(bytes(8_000_000)), b"Content-Encoding: gzip")
        async with peer(answers(bomb)) as server, pool_of() as pool:
            sink = Recorder()
            under_way = send(pool, server.origin, sink)
            sink.when_data = under_way.cancel
            await asyncio.wait_for(server.closed.wait(), 5)
            assert len(sink.pieces) == 1

    run(loop_factory, main())


def test_a_paused_call_holds_its_peer_back_and_is_not_idle(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        size = 60_000_000
        sent = 0

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            while sent < size:
                writer.write(b"x" * 100_000)
                sent += 100_000
                await writer.drain()
            await reader.read()

        async with peer(talk) as server, pool_of() as pool:
            sink = Recorder()
            under_way = send(pool, server.origin, sink, timeouts=replace(PATIENT, idle=0.1))
            sink.when_response = under_way.pause
            while not sink.events:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.5)  # several times the idle bound: the time itself is what is tested
            assert sink.error is None
            assert len(sink.body) <= 300_000  # what one read brought
            assert sent < size
            under_way.resume()
            await sink.ended.wait()
            assert (sink.error, len(sink.body)) == (None, size)

    run(loop_factory, main())


def test_a_connection_left_paused_by_one_call_serves_the_next(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"x"))) as server, pool_of() as pool:
            for _ in range(3):
                sink = Recorder()
                sink.when_data = send(pool, server.origin, sink).pause
                await sink.ended.wait()
            assert (server.connections, pool.stats()[server.origin].idle) == (1, 1)

    run(loop_factory, main())


@pytest.mark.parametrize("length", [None, 11])
@pytest.mark.parametrize("pooled", [True, False])
def test_a_streamed_request_body(loop_factory: LoopFactory, length: int | None, pooled: bool) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                seen.append(await read_request(reader))
                writer.write(answer(b"x"))

        async with peer(talk) as server, pool_of() as pool:
            if pooled:
                await call(pool, server.origin)
            source, sink = Source(length), Recorder()
            upload = send(pool, server.origin, sink, upload=source)
            assert source.may_write.is_set() is pooled
            upload.write(b"hello ")
            upload.write(b"")
            if not pooled:
                await source.may_write.wait()
            upload.write(b"world")
            upload.end()
            await sink.ended.wait()
            head, _, body = seen[-1].partition(b"\r\n\r\n")
            if length is None:
                assert head.endswith(b"\r\nTransfer-Encoding: chunked")
                assert body == b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"
            else:
                assert head.endswith(b"\r\nContent-Length: 11")
                assert body == b"hello world"
            assert (await call(pool, server.origin)).body == b"x"
            assert server.connections == 1

    run(loop_factory, main())


def test_an_upload_pauses_while_its_peer_does_not_keep_up(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await go.wait()
            await reader.readexactly(written)
            writer.write(answer(b"x"))

        piece, written = b"x" * 1_000_000, 0
        async with peer(talk) as server, pool_of() as pool:
            source, sink = Source(100_000_000), Recorder()
            upload = send(pool, server.origin, sink, upload=source)
            await source.may_write.wait()
            while source.may_write.is_set():
                upload.write(piece)
                written += len(piece)
                await asyncio.sleep(0)
            assert written < 100_000_000
            go.set()
            await source.may_write.wait()
            await sink.ended.wait()
            assert sink.body == b"x"

    run(loop_factory, main())


def test_a_slow_source_is_not_the_peers_silence(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with peer(answers(answer(b"x"))) as server, pool_of() as pool:
            sink = Recorder()
            bounds = replace(PATIENT, first_byte=0.1, idle=0.1)
            upload = send(pool, server.origin, sink, upload=Source(None), timeouts=bounds)
            for _ in range(3):
                upload.write(b"a")
                await asyncio.sleep(0.15)  # longer than the bounds: the time itself is what is tested
            upload.end()
            await sink.ended.wait()
            assert sink.error is None

    run(loop_factory, main())


def test_after_an_upload_the_first_byte_is_due(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            await reader.read()

        async with peer(talk) as server, pool_of() as pool:
            sink = Recorder()
            upload = send(pool, server.origin, sink, upload=Source(1), timeouts=replace(PATIENT, first_byte=0.1))
            upload.write(b"a")
            upload.end()
            await sink.ended.wait()
            assert isinstance(sink.error, TimedOut)
            assert sink.error.phase == "first_byte"

    run(loop_factory, main())


def test_an_answer_before_the_request_was_sent_counts_and_costs_the_connection(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(b"too large", status=b"413 Payload Too Large"))
            await reader.read()

        async with peer(talk) as server, pool_of() as pool:
            sink = Recorder()
            upload = send(pool, server.origin, sink, upload=Source(100))
            upload.write(b"some of it")
            await sink.ended.wait()
            assert (sink.status, sink.body, sink.error) == (413, b"too large", None)
            upload.write(b"the rest")  # its source has not heard yet: no matter
            upload.end()
            await asyncio.wait_for(server.closed.wait(), 5)
            early = await call(pool, server.origin, body=b"x" * 20_000_000)
            assert early.status == 413
            assert pool.stats()[server.origin].idle == 0

    run(loop_factory, main())


@pytest.mark.parametrize("wrong", [b"long", b"s"])
def test_a_body_of_another_length_than_announced_is_never_sent_as_whole(
    loop_factory: LoopFactory, wrong: bytes
) -> None:
    async def main() -> None:
        requests = 0

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            await read_request(reader)
            requests += 1

        async with peer(talk) as server, pool_of() as pool:
            source, sink = Source(3), Recorder()
            upload = send(pool, server.origin, sink, upload=source)
            await source.may_write.wait()
            with pytest.raises(ValueError, match="announced"):  # noqa: PT012  # which of the two raises depends on it
                upload.write(wrong)
                upload.end()
            await asyncio.wait_for(server.closed.wait(), 5)
            assert (requests, sink.events) == (0, [])

    run(loop_factory, main())
