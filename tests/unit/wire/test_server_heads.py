"""What a connection keeps of the heads that come, and what becomes of it when a handler fails."""

import gc
import sys
from types import FunctionType, ModuleType

import pytest

from tests.unit.wire.test_repeated_heads import Bed, Transport, post
from watchllm.wire.server import Server
from watchllm.wire.server_connection import ServerConnection

# What belongs to the process or to the test, not to one connection.
_ELSEWHERE = (Server, Transport, type, ModuleType, FunctionType)


def held_by(connection: ServerConnection) -> int:
    """Bytes of all objects that only the connection leads to."""
    seen: dict[int, object] = {}
    ahead: list[object] = [connection]
    while ahead:
        thing = ahead.pop()
        if id(thing) not in seen and not isinstance(thing, _ELSEWHERE):
            seen[id(thing)] = thing
            ahead += gc.get_referents(thing)
    return sum(sys.getsizeof(thing) for thing in seen.values())


def head(lines: list[bytes], end: bytes = b"\r\n") -> bytes:
    return b"GET /now HTTP/1.1\r\nHost: a\r\n" + b"".join(line + b"\r\n" for line in lines) + end


@pytest.mark.parametrize(
    "request_bytes",
    [
        head([b"x-%d: %b" % (number, b"v" * 240) for number in range(240)]),
        head([b"x: " + b"v" * 60_000]),
        b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"n" * 60_000),
        post(b"body", b"".join(b"%x:\r\n" % number for number in range(240))),
        post(b"b" * 60_000, b"x: %b\r\n" % (b"v" * 3_000)),
    ],
    ids=["many lines", "a long line", "a long path", "many short lines", "a head to learn from"],
)
def test_a_connection_that_waits_for_its_next_request_keeps_little_of_the_last(request_bytes: bytes) -> None:
    bed = Bed()
    before = held_by(bed.connection)
    bed.feed(request_bytes)
    assert [entry[0] for entry in bed.log].count("request") == 1
    assert held_by(bed.connection) - before < 16_384


def status_of(bed: Bed) -> bytes:
    [written] = [entry[1] for entry in bed.log if entry[0] == "write"]
    return bytes(written.split(b" ")[1])


@pytest.mark.parametrize("names", ["different", "the same"])
@pytest.mark.parametrize("end", [b"\r\n", b""], ids=["whole", "not yet whole"])
def test_a_head_of_too_many_lines_is_refused(names: str, end: bytes) -> None:
    bed = Bed()
    before = held_by(bed.connection)
    bed.feed(head([b"%x:" % (number if names == "different" else 7) for number in range(10_000)], end))
    assert status_of(bed) == b"431"
    assert "write_eof" in bed.log
    assert held_by(bed.connection) - before < 65_536


def test_as_many_lines_as_are_taken_are_taken_of_each_request() -> None:
    bed = Bed()
    for _ in range(3):
        bed.feed(head([b"%x:" % number for number in range(255)]))
    assert [entry[1][9:12] for entry in bed.log if entry[0] == "write"] == [b"200"] * 3
    bed.feed(head([b"%x:" % number for number in range(256)]))
    assert [entry[1][9:12] for entry in bed.log if entry[0] == "write"] == [b"200"] * 3 + [b"431"]


@pytest.mark.parametrize("cut", [1, 20, 30_000, 65_000, 66_000, -30_000, -1])
@pytest.mark.parametrize("ahead", [b"", head([])], ids=["alone", "behind another"])
@pytest.mark.parametrize("body", [b"", b"POST"], ids=["no body", "body"])
@pytest.mark.parametrize(("size", "status"), [(65_000, b"200"), (66_000, b"431")])
def test_a_head_has_the_same_bound_however_it_comes(
    size: int, status: bytes, body: bytes, ahead: bytes, cut: int
) -> None:
    bed = Bed()
    request = post(b"body", b"x: %b\r\n" % (b"v" * size)) if body else head([b"x: " + b"v" * size])
    bed.feed(ahead + request[:cut])
    bed.feed(request[cut:] + head([]))
    statuses = [entry[1][9:12] for entry in bed.log if entry[0] == "write"]
    behind = [b"200"] if status == b"200" else []
    assert statuses == [b"200"] * bool(ahead) + [status, *behind]


@pytest.mark.parametrize("cut", [0, 30_000, -20, -2, -1])
@pytest.mark.parametrize("body", [b"", b"POST"], ids=["no body", "body"])
@pytest.mark.parametrize("beyond", [-1, 0, 1, 2, 20])
def test_to_the_byte(beyond: int, body: bytes, cut: int) -> None:
    def sized(fill: int) -> bytes:
        line = b"x: " + b"v" * fill
        return post(b"", line + b"\r\n") if body else head([line])

    request = sized(65_536 + beyond - len(sized(0)))
    assert len(request) == 65_536 + beyond
    bed = Bed()
    bed.feed(request[:cut])
    bed.feed(request[cut:] + head([]))
    statuses = [entry[1][9:12] for entry in bed.log if entry[0] == "write"]
    assert statuses == ([b"200"] * 2 if beyond <= 0 else [b"431"])


@pytest.mark.parametrize("blank", [[b"\r\n"], [b"\r", b"\n"], [b"\n"], [b"\r\n\r\n", b"\r\n"]])
@pytest.mark.parametrize("path", [b"/now", b"/later"])
def test_blank_lines_behind_a_request_begin_none(blank: list[bytes], path: bytes) -> None:
    bed = Bed()
    bed.feed(post(b"1", path=path))
    for piece in blank:
        bed.feed(piece)
    bed.handler.answer_all()
    assert not bed.connection.busy
    bed.feed(head([]))
    bed.feed(post(b"2", path=path))
    bed.handler.answer_all()
    assert [entry[1][9:12] for entry in bed.log if entry[0] == "write"] == [b"200"] * 3


def test_one_within_a_head_does_not_hide_that_it_has_begun() -> None:
    bed = Bed()
    for piece in (b"GET /now HTTP/1.1", b"\r\n", b"Host: a", b"\r", b"\n"):
        bed.feed(piece)
        assert bed.connection.busy
    bed.feed(b"\r\n")
    assert not bed.connection.busy
    assert [entry[1][9:12] for entry in bed.log if entry[0] == "write"] == [b"200"]


def test_trailers_are_no_lines_of_the_next_head() -> None:
    bed = Bed()
    chunked = b"POST /now HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n%b\r\n"
    bed.feed(chunked % b"".join(b"t%x: y\r\n" % number for number in range(300)))
    bed.feed(head([]))
    assert [entry[1][9:12] for entry in bed.log if entry[0] == "write"] == [b"200"] * 2


@pytest.mark.parametrize("path", [b"/now", b"/later"])
def test_a_handler_that_raises_for_a_request_sent_ahead_ends_the_connection(path: bytes) -> None:
    bed = Bed()
    bed.feed(post(b"first", path=path) + post(b"raise", path=path) + post(b"third", path=path))
    bed.handler.answer_all()
    bed.loop.turn()
    assert ("reported", repr(ValueError("a handler's fault"))) in bed.log
    assert bed.transport.ended
    assert bed.log.count("abort") == 1
    assert [entry[1][4] for entry in bed.log if entry[0] == "request"] == [b"first", b"raise"]
    bed.lose()
    assert bed.log[-1] == ("lost", 0, 0)
