"""A head that comes again is not parsed again, and nobody can tell: same requests, same answers, same ends."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from watchllm.domain.errors import GatewayError
from watchllm.wire.exchange import BodyMode, Exchange
from watchllm.wire.server import Server, ServerLimits
from watchllm.wire.server_connection import ServerConnection


class Loop:
    """The event loop as far as a server needs it; time stands still, unless a test moves `now`."""

    def __init__(self, log: list[Any]) -> None:
        self._log = log
        self.now = 1000.0
        self._soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, _seconds: float, _callback: Callable[[], None]) -> None: ...

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self._soon.append(lambda: callback(*arguments))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._log.append(("reported", repr(context["exception"])))

    def turn(self) -> None:
        due, self._soon = self._soon, []
        for callback in due:
            try:
                callback()
            except ValueError as error:
                self.call_exception_handler({"exception": error})


class Transport:
    def __init__(self, log: list[Any]) -> None:
        self._log = log
        self.ended = False
        self.unsent = 0

    def write(self, data: bytes) -> None:
        self._log.append(("write", data))

    def write_eof(self) -> None:
        self._log.append("write_eof")

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self._log.append("close")
        self.ended = True

    def abort(self) -> None:
        self._log.append("abort")
        self.ended = True

    def pause_reading(self) -> None:
        self._log.append("pause_reading")

    def resume_reading(self) -> None:
        self._log.append("resume_reading")

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        return "192.0.2.1", 1


class Handler:
    """Does what path and body say, and logs all that it is told."""

    def __init__(self, log: list[Any]) -> None:
        self._log = log
        self.unanswered: list[Exchange] = []

    def body_mode(self, exchange: Exchange) -> BodyMode:
        self._log.append(("body_mode", seen(exchange)))
        if exchange.path == b"/fail" and exchange.headers[b"content-length"] == b"4":
            raise ValueError("a fault")
        # As in the proxy, where the mode may change with the length under one and the same head.
        long = len(exchange.headers.get(b"content-length", b"")) > 1
        return BodyMode.STREAM if long and exchange.path.startswith(b"/stream") else BodyMode.BUFFER

    def on_request(self, exchange: Exchange) -> None:
        self._log.append(("request", seen(exchange), exchange.held))
        exchange.headers[b"mutated"] = b"by the handler"
        if exchange.body == b"raise":
            raise ValueError("a handler's fault")
        if exchange.path == b"/stream" and not exchange.body_complete:
            exchange.on_data = lambda data: self._take(exchange, data)
            exchange.on_end = lambda: self._answer(exchange)
        elif exchange.path == b"/later":
            exchange.on_disconnect = lambda: self._log.append("disconnect")
            self.unanswered.append(exchange)
        else:
            self._answer(exchange)  # /stream-refused: with the body still to come

    def on_refusal(self, exchange: Exchange | None, error: GatewayError) -> tuple[bytes, bytes]:
        self._log.append(("refusal", None if exchange is None else seen(exchange)))
        return b"", str(error).encode()

    def answer_all(self) -> None:
        exchanges, self.unanswered = self.unanswered, []
        for exchange in exchanges:
            self._answer(exchange)

    def _take(self, exchange: Exchange, data: bytes) -> None:
        self._log.append(("data", data))
        if data == b"raise in a stream":
            raise ValueError("a reader's fault")
        if data == b"start in a stream":
            exchange.start(200, b"")

    def _answer(self, exchange: Exchange) -> None:
        exchange.respond(200, b"X: y\r\n", exchange.path + b" " + exchange.body)


def seen(exchange: Exchange) -> tuple[Any, ...]:
    return (
        exchange.method,
        exchange.path,
        exchange.query,
        list(exchange.headers.items()),
        exchange.body,
        (exchange.body_complete, exchange.streaming_body, exchange.keep_alive, exchange.http_1_0, exchange.peer),
    )


class Bed:
    """A server connection between a handler and a transport that log what reaches them."""

    def __init__(self, limits: ServerLimits | None = None, *, memory: bool = True) -> None:
        self.log: list[Any] = []
        self.loop = Loop(self.log)
        self.handler = Handler(self.log)
        self.server = Server(self.handler, limits or ServerLimits(), cast(asyncio.AbstractEventLoop, self.loop))
        self.server.date_line = b"Date: today\r\n"
        self.connection = ServerConnection(self.server)
        if not memory:
            self.connection._memory._lessons = 0
        self.transport = Transport(self.log)
        self.connection.connection_made(cast(asyncio.Transport, self.transport))

    def feed(self, data: bytes) -> None:
        if not self.transport.ended:
            self.connection.data_received(data)
            self.loop.turn()
            if not self.transport.ended:
                self.log.append(("after", self.connection.deadline, self.connection.busy, self.server.inflight_bytes))

    def lose(self) -> None:
        """The client's end of the connection is gone."""
        self.connection.connection_lost(None)
        self.log.append(("lost", self.server.inflight_bytes, self.server.connections))

    def without_parser(self) -> None:
        """From now on nothing may be parsed."""
        self.connection._parser = None  # type: ignore[assignment]


def post(body: bytes, lines: bytes = b"", path: bytes = b"/now?a=b") -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer k\r\nContent-Length: %d\r\n%b\r\n"
    return head % (path, len(body), lines) + body


PATHS = [b"/now", b"/now?a=b?c", b"/later", b"/fail", b"/stream", b"/stream-refused"]
BODIES = [b"four", b"raise", b"of another length", b"raise in a stream", b"start in a stream", b"x" * 4000]


@pytest.mark.parametrize("lines", [b"", b"Connection: Keep-Alive\r\nX-Last: 1\r\n"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BODIES)
def test_a_repeated_head_does_what_a_parsed_one_does(path: bytes, body: bytes, lines: bytes) -> None:
    taught, parsed = Bed(), Bed(memory=False)
    for bed in (taught, parsed):
        bed.feed(post(b"first", lines, path))
        bed.handler.answer_all()
        if bed is taught:
            assert bed.connection._memory._known is not None
            bed.without_parser()
        bed.feed(post(body, lines, path))
        bed.handler.answer_all()
        bed.lose()
    assert taught.log == parsed.log


def test_a_repeated_head_is_recognised_by_its_bytes_alone() -> None:
    bed = Bed()
    bed.feed(post(b"first"))
    bed.without_parser()
    bed.feed(post(b"of another length"))
    bed.feed(post(b"x" * 4000))
    assert [entry[1] for entry in bed.log if entry[0] == "write"] == [
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: %d\r\nDate: today\r\n\r\n/now %b" % (len(body) + 5, body)
        for body in (b"first", b"of another length", b"x" * 4000)
    ]


# What may be remembered wrongly, after a usual request: (the request that may teach, the one that follows).
ODD = {
    "a length with a zero before it": (post(b"12345"), post(b"12345").replace(b": 5", b": 05")),
    "a length that is too short": (post(b"12345"), post(b"12345") + b"6"),
    "a length that is too long": (post(b"12345"), post(b"12345")[:-1]),
    "no digits": (post(b"12345"), post(b"12345").replace(b": 5", b": ")),
    "a sign": (post(b"12345"), post(b"12345").replace(b": 5", b": +5")),
    "no body": (post(b"12345"), post(b"")),
    "cut behind the digits": (post(b"12345"), post(b"").removesuffix(b"\r\n\r\n")),
    "two lengths": (post(b"12345"), post(b"12345", b"Content-Length: 5\r\n")),
    "two equal lengths before": (post(b"12345", b"Content-Length: 5\r\n"), post(b"12345", b"Content-Length: 5\r\n")),
    "chunked": (post(b"12345"), post(b"12345", b"Transfer-Encoding: chunked\r\n")),
    "another path": (post(b"12345"), post(b"12345", path=b"/else")),
    "another path, as long": (post(b"12345"), post(b"12345", path=b"/nov?a=b")),
    "another header": (post(b"12345"), post(b"12345", b"X-Y: z\r\n")),
    "the end asked for": (post(b"12345"), post(b"12345", b"Connection: close\r\n")),
    "the end asked for before": (post(b"1", b"Connection: close\r\n"), post(b"2", b"Connection: close\r\n")),
    "an expectation": (post(b"12345", b"Expect: 100-continue\r\n"), post(b"123", b"Expect: 100-continue\r\n")),
    "an upgrade": (post(b"12", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"), post(b"123")),
    "HTTP/1.0": (post(b"12").replace(b"1.1", b"1.0"), post(b"123").replace(b"1.1", b"1.0")),
    "HTTP/1.0, kept": tuple(
        post(body, b"Connection: keep-alive\r\n").replace(b"P/1.1", b"P/1.0") for body in (b"12", b"123")
    ),
    "two at once, the second as long": (post(b"1") + post(b"2"), post(b"3")),
    "a length among the values": (post(b"12345", b"X: content-length: 5\r\n"), post(b"1", b"X: content-length: 5\r\n")),
    "a folded length": (post(b"12345", b" 6\r\n"), post(b"123", b" 6\r\n")),
    "a carriage return behind the first": (post(b"12345") + b"\r", post(b"123")),
    "a line behind the first": (post(b"12345") + b"\r\n", post(b"123")),
    "lines before": (b"\r\n\r\n" + post(b"12345"), b"\r\n\r\n" + post(b"12345")),
    "half a head behind the first": (post(b"12345") + b"POST / HTTP/1.1\r\nX: ", post(b"123")),
    "garbage behind the first": (post(b"12345") + b"\0", post(b"123")),
}


@pytest.mark.parametrize("name", ODD)
def test_what_only_looks_the_same_is_left_to_the_parser(name: str) -> None:
    taught, parsed = Bed(), Bed(memory=False)
    for bed in (taught, parsed):
        for data in (*ODD[name], ODD[name][1], post(b"and on"), post(b"and on and on")):
            bed.feed(data)
    assert taught.log == parsed.log


def test_a_request_in_two_reads_is_left_to_the_parser() -> None:
    taught, parsed = Bed(), Bed(memory=False)
    for bed in (taught, parsed):
        bed.feed(post(b"taught"))
        for at in range(1, len(post(b"in parts"))):
            bed.feed(post(b"in parts")[:at])
            bed.feed(post(b"in parts")[at:])
            bed.feed(post(b"whole"))
    assert taught.log == parsed.log


@pytest.mark.parametrize(
    "limits",
    [
        ServerLimits(max_inflight_bytes=10),
        ServerLimits(max_body_bytes=10),
        ServerLimits(max_upload_bytes=10),
        ServerLimits(max_head_bytes=120),
    ],
)
def test_the_bounds_hold_for_repeated_heads(limits: ServerLimits) -> None:
    taught, parsed = Bed(limits), Bed(limits, memory=False)
    for bed in (taught, parsed):
        for size in (1, 9, 10, 11):
            bed.feed(post(bytes(size)))
    assert taught.log == parsed.log


def test_who_drains_refuses_repeated_heads_too() -> None:
    bed = Bed()
    bed.feed(post(b"1"))
    bed.connection.drain()
    bed.feed(post(b"2"))
    assert bed.log[-3][1].startswith(b"HTTP/1.1 503 ")


def test_a_connection_that_ends_takes_no_repeated_head() -> None:
    bed = Bed()
    bed.feed(post(b"1"))
    bed.connection.close_idle()
    bed.connection.data_received(post(b"2"))
    assert [entry[0] for entry in bed.log].count("request") == 1


def test_a_client_that_does_not_read_is_not_answered_further() -> None:
    taught, parsed = Bed(), Bed(memory=False)
    for bed in (taught, parsed):
        bed.feed(post(b"1"))
        bed.connection.pause_writing()
        bed.feed(post(b"2"))
        assert [entry[0] for entry in bed.log].count("request") == 1
        bed.connection.resume_writing()
        bed.loop.turn()
    assert taught.log == parsed.log
    assert [entry[0] for entry in taught.log].count("request") == 2


def test_heads_that_never_repeat_are_soon_learned_no_more() -> None:
    bed = Bed()
    for number in range(10):
        bed.feed(post(b"1", b"X-Number: %d\r\n" % number))
    memory = bed.connection._memory
    assert (memory._known, memory._lessons) == (None, 0)


def test_a_head_of_very_many_lines_is_not_learned() -> None:
    bed = Bed()
    bed.feed(post(b"1", b"".join(b"%x:\r\n" % number for number in range(200))))
    assert bed.connection._memory._known is None
    assert [entry[0] for entry in bed.log].count("request") == 1


def test_what_is_kept_of_a_connection_is_bounded() -> None:
    bed = Bed()
    bed.feed(post(b"1", b"X-Long: %b\r\n" % (b"x" * 4096)))
    bed.feed(post(b"x" * 50_000)[:-1])
    assert (bed.connection._memory._known, bed.connection._memory.read) == (None, None)


odd = st.one_of(
    st.builds(
        post,
        st.sampled_from([b"", b"a", b"bb", b"0\r\n\r\n", b"\r\n", post(b"x")]),
        st.sampled_from([b"", b"X: y\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n"]),
        st.sampled_from(PATHS),
    ),
    st.sampled_from([data for pair in ODD.values() for data in pair]),
    st.sampled_from([b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n", b"\r", b"\n", b"POST "]),
)


@st.composite
def reads(draw: st.DrawFn) -> list[bytes]:
    """What one connection brings: most reads hold one message, most messages have the same head."""
    path = draw(st.sampled_from(PATHS))
    usual = st.builds(post, st.sampled_from([b"a", b"bb", *BODIES]), st.just(b""), st.just(path))
    result: list[bytes] = []
    for _ in range(draw(st.integers(2, 10))):
        message = draw(odd if draw(st.integers(0, 5)) == 5 else usual)
        whole = result.pop() + message if result and draw(st.integers(0, 7)) == 7 else message
        cuts = sorted(draw(st.lists(st.integers(1, len(whole)), max_size=2))) if draw(st.integers(0, 7)) == 7 else []
        bounds = [0, *cuts, len(whole)]
        result += [whole[a:b] for a, b in pairwise(bounds) if a < b]
    return result


@pytest.mark.fuzz
@given(reads(), st.lists(st.integers(0, 3), min_size=30, max_size=30))
def test_however_it_comes_the_memory_makes_no_difference(pieces: list[bytes], held_up: list[int]) -> None:
    taught, parsed = Bed(), Bed(memory=False)
    for bed in (taught, parsed):
        for data, held in zip(pieces, held_up, strict=False):
            bed.feed(data)
            if held < 3:
                bed.handler.answer_all()
                bed.loop.turn()
        bed.lose()
    assert taught.log == parsed.log
    event(f"remembered: {taught.connection._memory._known is not None}")
