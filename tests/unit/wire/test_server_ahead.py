"""Requests that are sent ahead of an earlier answer: they are bounded however they come, and each is what it says."""

import pytest

from tests.unit.wire.test_repeated_heads import Bed, post
from tests.unit.wire.test_server_heads import head
from watchllm.wire.server import ServerLimits


def statuses(bed: Bed) -> list[bytes]:
    return [entry[1][9:12] for entry in bed.log if entry[0] == "write"]


@pytest.mark.parametrize("cut", [1, 30_000, -1])
@pytest.mark.parametrize(
    "large", [b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % (b"n" * 60_000), head([b"x: " + b"v" * 60_000])]
)
def test_what_waits_is_bounded_however_it_is_cut(large: bytes, cut: int) -> None:
    bed = Bed()
    bed.feed(post(b"first", path=b"/later"))
    fed = 0
    while "pause_reading" not in bed.log and fed < 10:
        bed.feed(large[:cut])
        bed.feed(large[cut:])
        fed += 1
    assert fed == 2


def test_nothing_more_is_read_of_a_client_that_does_not_read() -> None:
    bed = Bed()
    bed.feed(post(b"1"))
    bed.connection.pause_writing()
    assert bed.log[-1] == "pause_reading"
    bed.connection.resume_writing()
    assert bed.log[-1] == "resume_reading"


@pytest.mark.parametrize(
    ("behind", "rest", "then"),
    [
        (b"", b"", []),
        (b"GET /", head([])[5:], [b"200"]),
        (post(b"12")[:-1], b"2", [b"200"]),
        (post(b"2"), b"", [b"200"]),
        (b"nonsense\r\n\r\n", b"", [b"405"]),
    ],
    ids=["nothing", "a head", "a body", "a request", "a refusal"],
)
def test_nor_behind_an_answer_that_it_has_not_read(behind: bytes, rest: bytes, then: list[bytes]) -> None:
    bed = Bed()
    bed.feed(post(b"1", path=b"/later"))
    bed.feed(behind)
    bed.connection.pause_writing()
    assert "pause_reading" not in bed.log
    bed.handler.answer_all()
    bed.loop.turn()
    assert bed.log[-1] == "pause_reading"
    bed.connection.resume_writing()
    bed.loop.turn()
    assert "resume_reading" in bed.log
    bed.feed(rest)
    assert statuses(bed) == [b"200", *then]


def test_only_who_asks_is_asked_for_its_body() -> None:
    bed = Bed()
    bed.feed(post(b"1", path=b"/later"))
    bed.feed(post(b"2", b"Expect: 100-continue\r\n"))  # which does not wait to be asked
    bed.feed(post(b"3456")[:-2])
    bed.handler.answer_all()
    bed.loop.turn()
    bed.feed(b"56")
    assert statuses(bed) == [b"200"] * 3


def test_a_chunked_body_of_http_1_0_ends_the_connection() -> None:
    bed = Bed()
    request = b"POST /now HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    bed.feed(request)
    assert statuses(bed) == [b"200"]
    assert bed.transport.ended


@pytest.mark.parametrize("path", [b"/now", b"/later"])
@pytest.mark.parametrize("ahead", [post(b"b" * 100_000), post(b"b" * 100) * 1000], ids=["long", "many"])
@pytest.mark.parametrize("cut", [1, 5, 40, 70, -30_000, -1])
def test_the_bound_of_a_head_counts_nothing_of_what_came_ahead_of_it(cut: int, ahead: bytes, path: bytes) -> None:
    bed = Bed()
    ahead = ahead.replace(b"/now", path, 1)
    request = head([b"x: " + b"v" * 60_000])
    bed.feed(ahead + request[:cut])
    for at in (cut, cut + 1):
        bed.feed(request[at:][:1])
    bed.feed(request[cut:][2:])
    for _ in range(1001):
        bed.handler.answer_all()
        bed.loop.turn()
    assert statuses(bed)[-1] == b"200"
    assert [entry[0] for entry in bed.log].count("refusal") == 0
    assert len([entry for entry in bed.log if entry[0] == "request"]) == 1 + ahead.count(b"POST")


@pytest.mark.parametrize("cut", [1, 40, 30_000, 60_000])
def test_and_a_head_that_does_not_end_is_bounded_behind_others(cut: int) -> None:
    bed = Bed()
    endless = head([])[:-2] + b"x: " + b"v" * 200_000
    bed.feed(post(b"b" * 100_000) + endless[:cut])
    fed = cut
    while not any(entry[0] == "refusal" for entry in bed.log) and fed < len(endless):
        bed.feed(endless[fed : fed + 1000])
        fed += 1000
    assert fed < cut + 70_000
    assert bed.log[-1][0] == "after"
    assert statuses(bed)[-1] == b"431"


@pytest.mark.parametrize("size", [1, 2])
def test_small_pieces_of_a_body_take_little_more_than_their_bytes(size: int) -> None:
    import tracemalloc

    bed = Bed(ServerLimits())
    body = bytes(range(256)) * 2048
    bed.feed(b"POST /now HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunks = b"".join(b"%x\r\n%b\r\n" % (size, body[at : at + size]) for at in range(0, len(body), size))
    tracemalloc.start()
    try:
        for at in range(0, len(chunks), 65_536):
            bed.connection.data_received(chunks[at : at + 65_536])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * len(body)
    bed.feed(b"0\r\n\r\n")
    [request] = [entry[1] for entry in bed.log if entry[0] == "request"]
    assert request[4] == body


def test_a_body_whose_client_does_not_read_gives_way_like_any_that_is_slow() -> None:
    bed = Bed()
    bed.feed(post(b"1", path=b"/later"))
    bed.feed(post(b"b" * 100_000)[:-1])
    bed.connection.pause_writing()
    bed.handler.answer_all()
    assert bed.log[-1] == "pause_reading"
    assert bed.connection.arriving is not None


def test_one_that_we_do_not_read_does_not() -> None:
    bed = Bed()
    bed.feed(post(b"1", path=b"/later") + post(b"b" * 100_000) + post(b"b" * 100_000)[:-1])
    assert bed.log[-2] == "pause_reading"
    assert bed.connection.arriving is None
