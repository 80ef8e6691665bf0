"""How the client understands answers: framing, ends, and what is no answer."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wire_peers import PATIENT, LoopFactory, Recorder, answer, answers, call, peer, pool_of, run, send
from watchllm.wire.call import PooledCall
from watchllm.wire.connection import Connection
from watchllm.wire.dial import Dialer
from watchllm.wire.forward_proxy import ForwardProxies
from watchllm.wire.lane import Bounds, Lane
from watchllm.wire.types import BadMessage, Origin, PeerClosed, WireError

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def exchange(loop_factory: LoopFactory, reply: bytes, *, close: bool = False, method: bytes = b"POST") -> Recorder:
    """What a call hears from a peer that answers with `reply`."""

    async def main() -> Recorder:
        async with peer(answers(reply, then_close=close)) as server, pool_of() as pool:
            return await call(pool, server.origin, method=method)

    return run(loop_factory, main())


def test_a_length_delimited_answer(loop_factory: LoopFactory) -> None:
    heard = exchange(loop_factory, answer(b"hello", b"X-Thing:  a b \t", b"X-Empty:"))
    assert (heard.status, heard.body, heard.error) == (200, b"hello", None)
    assert heard.headers == [(b"x-thing", b"a b"), (b"x-empty", b""), (b"content-length", b"5")]
    assert heard.events == ["response", "data", "complete"]


def test_a_chunked_answer_with_extensions_and_trailers(loop_factory: LoopFactory) -> None:
    heard = exchange(
        loop_factory, CHUNKED + b"3;name=value\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\nStatus: 500\r\n\r\n"
    )
    assert heard.body == b"abcde"
    assert heard.headers == [(b"transfer-encoding", b"chunked")]
    assert heard.events == ["response", "data", "complete"]


def test_an_answer_that_ends_with_the_connection(loop_factory: LoopFactory) -> None:
    heard = exchange(loop_factory, b"HTTP/1.1 200 OK\r\n\r\nall there is", close=True)
    assert (heard.body, heard.error) == (b"all there is", None)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_answers_without_a_body_leave_the_connection_usable(loop_factory: LoopFactory, status: bytes) -> None:
    async def main() -> None:
        reply = b"HTTP/1.1 " + status + b"\r\nContent-Encoding: gzip\r\n\r\n"
        async with peer(answers(reply, answer(b"next"))) as server, pool_of() as pool:
            first = await call(pool, server.origin)
            assert first.events == ["response", "complete"]
            assert (b"content-encoding", b"gzip") in first.headers
            assert (await call(pool, server.origin)).body == b"next"
            assert server.connections == 1

    run(loop_factory, main())


@pytest.mark.parametrize("sent", [b"", b"5\r\nhello\r\n0\r\n\r\n"], ids=["nothing", "a body all the same"])
@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_the_answer_to_head_has_no_body_whatever_it_announces(
    loop_factory: LoopFactory, framing: bytes, sent: bytes
) -> None:
    heard = exchange(loop_factory, b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n" + sent, method=b"HEAD")
    assert (heard.status, heard.events) == (200, ["response", "complete"])


def test_interim_answers_are_swallowed(loop_factory: LoopFactory) -> None:
    interim = b"".join(b"HTTP/1.1 %d Soon\r\nLink: </a>\r\n\r\n" % status for status in (100, 102, 103, 104))
    heard = exchange(loop_factory, interim + answer(b"final"))
    assert (heard.status, heard.body) == (200, b"final")
    assert heard.headers == [(b"content-length", b"5")]


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ",
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\nTrailer: x\r\n",
    ],
    ids=[
        "nothing",
        "half a head",
        "interim only",
        "short",
        "cut chunk",
        "no last chunk",
        "no final line",
        "cut trailer",
    ],
)
def test_a_cut_answer_never_looks_complete(loop_factory: LoopFactory, reply: bytes) -> None:
    heard = exchange(loop_factory, reply, close=True)
    assert isinstance(heard.error, PeerClosed)
    assert "complete" not in heard.events


def test_a_reset_is_no_end_of_an_answer(loop_factory: LoopFactory) -> None:
    """Only an orderly end of the stream ends a close-delimited body."""

    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")  # its body stays unread, so that the kernel resets on close
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nsome")
            await writer.drain()
            await heard.wait()
            writer.transport.abort()

        heard = asyncio.Event()
        async with peer(talk) as server, pool_of() as pool:
            sink = Recorder()
            sink.when_data = heard.set
            send(pool, server.origin, sink, body=b"x" * 3_000_000)
            await sink.ended.wait()
            assert isinstance(sink.error, PeerClosed)

    run(loop_factory, main())


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x00\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"fffffffffffffffff\r\n",
    ],
)
def test_what_is_not_http_is_a_bad_message(loop_factory: LoopFactory, reply: bytes) -> None:
    heard = exchange(loop_factory, reply)
    assert isinstance(heard.error, BadMessage)
    assert "complete" not in heard.events


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"v" * 1000) for i in range(80)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"v" * 100_000,
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3000,
        CHUNKED + b"1;" + b"e" * 100_000,
        CHUNKED + b"0\r\nTrailer: " + b"t" * 100_000,
    ],
    ids=["many lines", "one line", "interim answers", "chunk extension", "trailer"],
)
def test_heads_trailers_and_extensions_are_bounded(loop_factory: LoopFactory, reply: bytes) -> None:
    assert isinstance(exchange(loop_factory, reply).error, BadMessage)


def test_a_head_just_within_the_bound_passes(loop_factory: LoopFactory) -> None:
    heard = exchange(loop_factory, answer(b"b" * 200_000, b"X-Big: " + b"v" * 60_000))
    assert (heard.error, len(heard.body)) == (None, 200_000)


@pytest.mark.parametrize(
    "first",
    [
        answer(b"one", b"Connection: close"),
        answer(b"one").replace(b"HTTP/1.1", b"HTTP/1.0"),
        answer(b"one") + b"garbage",
        answer(b"one") + answer(b"an answer nobody asked for"),
    ],
    ids=["close", "http/1.0", "garbage", "second answer"],
)
def test_a_connection_that_cannot_be_trusted_further_is_not_reused(loop_factory: LoopFactory, first: bytes) -> None:
    async def main() -> None:
        async with peer(answers(first)) as server, pool_of() as pool:
            for _ in range(2):
                heard = await call(pool, server.origin)
                assert (heard.error, heard.body) == (None, b"one")
            assert server.connections == 2

    run(loop_factory, main())


def test_an_unasked_answer_is_not_given_to_the_next_call(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await reader.readuntil(b"{}")
                writer.write(answer(b"mine") + answer(b"planted"))

        async with peer(talk) as server, pool_of() as pool:
            second = Recorder()
            first = Recorder()
            # The next call starts in the very moment in which the first one ends.
            first.when_complete = lambda: void(send(pool, server.origin, second))
            send(pool, server.origin, first)
            await second.ended.wait()
            assert second.body == b"mine"

    run(loop_factory, main())


def test_a_sink_that_raises_ends_its_call_and_is_reported() -> None:
    async def main() -> None:
        told: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with peer(answers(answer(b"x"))) as server, pool_of() as pool:
            sink = Recorder()
            sink.when_data = lambda: void(1 / 0)
            send(pool, server.origin, sink)
            await sink.ended.wait()
            assert isinstance(sink.error, WireError)
            assert isinstance(told[0]["exception"], ZeroDivisionError)

    asyncio.run(main())


ANSWERS = [
    answer(b"hello"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"hello", b"A: b"),
    CHUNKED + b"3;x=y\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nT: r\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nuntil the end",
    answer(b"hello") + b"garbage",
    CHUNKED + b"3\r\nabc\r\nxx\r\n",
    answer(b"hello")[:-2],
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 28\r\n\r\n"
    + bytes.fromhex("1f8b0800000000000003cb48cdc9c95728cf2fca49010085114a0d0b000000")[:28],
]


@given(reply=st.sampled_from(ANSWERS), cuts=st.sets(st.integers(1, 120), max_size=12))
def test_an_answer_means_the_same_however_it_is_cut(reply: bytes, cuts: set[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(reply)), len(reply)]
    pieces = [reply[start:end] for start, end in pairwise(edges)]
    assert asyncio.run(heard_from(pieces)) == asyncio.run(heard_from([reply]))


async def heard_from(pieces: list[bytes]) -> tuple[object, ...]:
    """What a call hears when exactly these reads happen."""
    loop = asyncio.get_running_loop()
    dialer = Dialer(allow_private=False, proxies=ForwardProxies({}), tls_context=None)
    lane = Lane(Origin("http", "peer.test", 80, True), Bounds(1, 1, 60), dialer, loop)
    connection = Connection(lane)
    connection.connection_made(_Wire())
    lane.connections.add(connection)
    sink = Recorder()
    connection.start(PooledCall(lane, b"GET", b"/", b"", None, sink, PATIENT, None, loop.time()), loop.time())
    for piece in pieces:
        if not connection.transport.is_closing():
            connection.data_received(piece)
    reusable = connection in lane.idle
    if not connection.transport.is_closing():
        connection.eof_received()
    return sink.status, sink.headers, sink.body, sink.events, type(sink.error), reusable


class _Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    abort = close


def void(_: object) -> None:
    """For callbacks written as lambdas."""
