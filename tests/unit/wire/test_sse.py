"""Events keep their bytes, however the stream is split; their data is what a browser would dispatch."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.wire.sse import EventScanner, event_data
from watchllm.wire.types import BadMessage

EOLS = [b"\n", b"\r\n", b"\r"]


def scan(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    scanner = EventScanner()
    events = [event for piece in pieces for event in scanner.feed(piece)]
    return events, scanner.rest()


@pytest.mark.parametrize("first", EOLS)
@pytest.mark.parametrize("second", EOLS)
def test_every_pair_of_line_ends_ends_an_event(first: bytes, second: bytes) -> None:
    if first + second == b"\r\n":
        return  # That is one line end.
    stream = (b"data: a" + first + second) + (b"data: b" + first + second) + b"x"
    assert scan([stream]) == ([b"data: a" + first + second, b"data: b" + first + second], b"x")


def test_one_line_end_ends_no_event() -> None:
    for eol in EOLS:
        assert scan([b"data: a" + eol + b"data: b" + eol + b"x"])[0] == []


def test_what_is_cut_short_is_left_as_rest() -> None:
    assert scan([b"data: a\n\nda", b"ta: b\n"]) == ([b"data: a\n\n"], b"data: b\n")


def test_a_final_carriage_return_may_be_half_of_a_line_end() -> None:
    scanner = EventScanner()
    assert scanner.feed(b"data: a\r\r") == []
    assert scanner.rest() == b"data: a\r\r"
    assert scanner.feed(b"\ndata: b") == [b"data: a\r\r\n"]


def test_events_are_bounded() -> None:
    scanner = EventScanner(max_event=20)
    assert scanner.feed(b"data: 456789012345\n\n" * 2) == [b"data: 456789012345\n\n"] * 2
    with pytest.raises(BadMessage, match="20 bytes"):
        scanner.feed(b"data: 4567890123456\n\n")
    scanner = EventScanner(max_event=20)
    for _ in range(20):
        assert scanner.feed(b"x") == []
    with pytest.raises(BadMessage):
        scanner.feed(b"x")


lines = st.lists(
    st.tuples(st.sampled_from([b"", b"data: {}", b"data:x", b": ping", b"event: e", b"id"]), st.sampled_from(EOLS)),
    max_size=12,
)


@given(lines, st.lists(st.integers(0, 200), max_size=10))
def test_how_a_stream_is_split_does_not_matter(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(line + eol for line, eol in lines)
    at = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    pieces = [stream[a:b] for a, b in pairwise(at)]
    whole = scan([stream])
    assert scan(pieces) == whole
    assert scan([stream[i : i + 1] for i in range(len(stream))]) == whole
    assert b"".join(whole[0]) + whole[1] == stream


@given(lines)
def test_the_data_is_what_the_specification_dispatches(lines: list[tuple[bytes, bytes]]) -> None:
    stream = b"".join(line + eol for line, eol in lines)
    events, rest = scan([stream + b"\n\n"])
    found = [data for raw in [*events, rest] if (data := event_data(raw)) is not None]
    assert found == dispatched((stream + b"\n\n").decode())


def dispatched(stream: str) -> list[bytes]:
    """The specification's algorithm, line by line."""
    out, buffer = [], None
    for line in stream.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        if line == "":
            if buffer is not None:
                out.append("\n".join(buffer).encode())
            buffer = None
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            if name == "data":
                buffer = [*(buffer or []), value.removeprefix(" ")]
    return out


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"data:  x\n\n", b" x"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"event: message\r\ndata: a\r\n\r\n", b"a"),
        (b"data: a\nid: 7\n\n", b"a"),
        (b": comment\n\n", None),
        (b"\n\n", None),
        (b"database: x\n\n", None),
        (b"data\n\n", b""),
        (b"\xef\xbb\xbfdata: a\n\n", b"a"),
        (b"data: cut", b"cut"),
    ],
)
def test_data_of_an_event(raw: bytes, data: bytes | None) -> None:
    assert event_data(raw) == data


class Watched(bytearray):
    """Counts how often all of it is looked through."""

    looked_through = 0

    def __contains__(self, item: object) -> bool:
        self.looked_through += 1
        return super().__contains__(item)  # type: ignore[operator]


def test_an_event_in_many_pieces_is_not_looked_through_for_each() -> None:
    """Four megabytes in pieces of a byte would hold up everybody for minutes."""
    scanner = EventScanner()
    scanner._pending = pending = Watched()
    for _ in range(100):
        assert scanner.feed(b"x") == []
    assert pending.looked_through == 0
    assert scanner.feed(b"\n\n") == [b"x" * 100 + b"\n\n"]
