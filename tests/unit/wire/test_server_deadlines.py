"""By when a client has to go on: each wait has its own end, and none takes another's place."""

import pytest

from tests.unit.wire.test_repeated_heads import Bed, post
from tests.unit.wire.test_server_heads import head
from watchllm.wire.exchange import Exchange
from watchllm.wire.server import ServerLimits

LIMITS = ServerLimits(header_timeout=15, body_grace=30, idle_timeout=75, write_timeout=60)
UPLOAD = b"POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + b"x" * 1000


def sweep_at(bed: Bed, now: float) -> None:
    bed.loop.now = now
    bed.connection.sweep(now)


def statuses(bed: Bed) -> list[bytes]:
    return [entry[1][9:12] for entry in bed.log if entry[0] == "write"]


def answering_early(bed: Bed) -> Exchange:
    """An upload of which a part has come, and whose answer has begun."""
    kept: list[Exchange] = []
    bed.handler.on_request = kept.append  # type: ignore[assignment, method-assign]
    bed.feed(UPLOAD)
    [exchange] = kept
    exchange.start(200, b"")
    return exchange


def test_a_client_that_does_not_read_gains_nothing_by_sending_on() -> None:
    bed = Bed(LIMITS)
    bed.feed(post(b"1"))
    bed.transport.unsent = 70_000
    bed.connection.pause_writing()
    for second in range(1, 60, 10):
        bed.loop.now = 1000.0 + second
        bed.feed(head([]))
    sweep_at(bed, 1060.0)
    assert bed.log[-1] == "abort"


@pytest.mark.parametrize("held_up", [False, True])
def test_nor_does_one_whose_upload_ends_or_is_held_up(held_up: bool) -> None:
    bed = Bed(LIMITS)
    exchange = answering_early(bed)
    bed.transport.unsent = 70_000
    bed.connection.pause_writing()
    if held_up:
        exchange.pause_body()
    else:
        bed.feed(b"x" * 4000)
    sweep_at(bed, 1060.0)
    assert bed.log[-1] == "abort"


def test_nor_does_one_that_stops_reading_as_the_next_request_has_its_turn() -> None:
    bed = Bed(LIMITS)
    bed.feed(post(b"1", path=b"/later"))
    bed.feed(post(b"2"))
    bed.handler.answer_all()
    bed.transport.unsent = 70_000
    bed.connection.pause_writing()  # as uvloop does, at the end of a turn of its loop
    bed.loop.turn()
    assert statuses(bed) == [b"200"]
    sweep_at(bed, 1059.0)
    bed.connection.resume_writing()
    bed.loop.turn()
    assert statuses(bed) == [b"200"] * 2
    bed.connection.pause_writing()
    sweep_at(bed, 1119.0)
    assert bed.log[-1] == "abort"


def test_who_reads_on_has_to_go_on_with_the_body() -> None:
    bed = Bed(LIMITS)
    answering_early(bed)
    bed.connection.pause_writing()
    bed.loop.now = 1050.0
    bed.connection.resume_writing()
    sweep_at(bed, 1079.0)
    assert not bed.transport.ended
    sweep_at(bed, 1080.0)
    assert bed.transport.ended


def test_who_reads_on_need_not_go_on_with_a_body_that_we_do_not_read() -> None:
    bed = Bed(LIMITS)
    exchange = answering_early(bed)
    bed.connection.pause_writing()
    exchange.pause_body()
    bed.connection.resume_writing()
    sweep_at(bed, 2000.0)
    assert not bed.transport.ended


@pytest.mark.parametrize(("begun", "seconds"), [(b"GET /", 15), (b"", 75)])
def test_what_was_read_of_an_earlier_answer_gives_no_time_to_the_next_request(begun: bytes, seconds: int) -> None:
    bed = Bed(LIMITS)
    bed.feed(post(b"1"))
    bed.transport.unsent = 70_000
    bed.connection.pause_writing()
    bed.transport.unsent = 0
    bed.connection.resume_writing()
    if begun:
        bed.feed(begun)
    sweep_at(bed, 1000.0 + seconds)
    assert bed.transport.ended or statuses(bed)[-1] == b"408"


def test_a_refusal_behind_a_long_answer_does_not_cut_it() -> None:
    bed = Bed(LIMITS)
    bed.feed(post(b"1", path=b"/later") + b"nonsense\r\n\r\n")
    [exchange] = bed.handler.unanswered
    bed.transport.unsent = 200_000
    exchange.start(200, b"")
    bed.connection.pause_writing()
    bed.transport.unsent = 100_000
    sweep_at(bed, 1060.0)
    assert not bed.transport.ended
    sweep_at(bed, 1120.0)  # but now it has taken nothing more
    assert bed.transport.ended


def test_an_early_answer_is_not_cut_while_its_client_reads_on() -> None:
    bed = Bed(LIMITS)
    exchange = answering_early(bed)
    bed.transport.unsent = 200_000
    bed.connection.pause_writing()
    exchange.finish()
    for now, unsent in ((1002.0, 190_000), (1062.0, 100_000)):
        bed.transport.unsent = unsent
        sweep_at(bed, now)
        assert not bed.transport.ended
    sweep_at(bed, 1122.0)
    assert bed.transport.ended


def test_nor_is_its_connection_kept_long_once_it_is_read() -> None:
    bed = Bed(LIMITS)
    exchange = answering_early(bed)
    exchange.finish()
    sweep_at(bed, 1001.9)
    assert not bed.transport.ended
    sweep_at(bed, 1002.0)
    assert bed.transport.ended


@pytest.mark.parametrize("come", [0, 5, 10])
def test_an_early_answer_lingers_as_long_however_much_of_the_body_has_come(come: int) -> None:
    bed = Bed(LIMITS)
    bed.feed(b"POST /stream-refused HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n" + b"0123456789"[:come])
    assert statuses(bed) == [b"200"]
    sweep_at(bed, 1002.0)
    assert bed.log[-1] == "abort"


@pytest.mark.parametrize("cut", [0, 2])
def test_a_body_behind_an_offer_has_the_time_of_a_body(cut: int) -> None:
    bed = Bed(LIMITS)
    offer = b"POST /now HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n"
    bed.feed(offer + b"12345"[:cut])
    sweep_at(bed, 1029.0)
    bed.feed(b"12345"[cut:])
    assert statuses(bed) == [b"200"]


def test_a_connection_that_closes_ends_though_its_client_has_read_some() -> None:
    bed = Bed(LIMITS)
    bed.transport.unsent = 70_000
    bed.feed(post(b"1", b"Connection: close\r\n"))
    bed.connection.pause_writing()
    bed.transport.unsent = 10_000
    bed.connection.resume_writing()
    sweep_at(bed, 1060.0)
    sweep_at(bed, 1120.0)
    assert bed.log[-1] == "abort"


def test_so_does_one_with_an_early_answer() -> None:
    bed = Bed(LIMITS)
    exchange = answering_early(bed)
    bed.transport.unsent = 70_000
    bed.connection.pause_writing()
    exchange.finish()
    bed.transport.unsent = 0
    bed.connection.resume_writing()
    sweep_at(bed, 1002.0)
    assert bed.log[-1] == "abort"


def test_who_reads_on_is_refused_once() -> None:
    bed = Bed(LIMITS)
    bed.feed(post(b"1"))
    bed.connection.pause_writing()
    bed.feed(b"nonsense\r\n\r\n")
    bed.connection.resume_writing()
    assert statuses(bed) == [b"200", b"405"]
    assert bed.log.count("write_eof") == 1


def test_what_a_client_sends_is_dropped_while_it_is_refused() -> None:
    bed = Bed(LIMITS)
    bed.feed(post(b"1"))
    bed.feed(b"nonsense\r\n\r\n")
    bed.connection.pause_writing()  # as uvloop does, at the end of a turn of its loop
    assert "pause_reading" not in bed.log
