"""The journal's format: whatever happens to a segment's bytes, what is before the damage is read, and nothing else."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.journal import records
from watchllm.journal.records import (
    ALIGNMENT,
    FIRST_RECORD,
    MAX_PAYLOAD,
    SEAL,
    SETTLED,
    SegmentHeader,
    frame,
    head_of,
    next_frame,
    read_header,
    read_segment,
    tag_of,
)

HEADER = SegmentHeader("jnl_1", 7, 4711, "proxy", "eu-1", 123)
PAYLOADS = [b"first", b"x" * 64, b"the last one, which is damaged"]


def segment(path: Path, payloads: list[bytes], *, after: bytes = bytes(4096)) -> Path:
    path.write_bytes(head_of(HEADER) + b"".join(frame(tag_of(SETTLED), payload) for payload in payloads) + after)
    return path


def test_records_are_read_back_in_their_order(tmp_path: Path) -> None:
    path = segment(tmp_path / "a.seg", PAYLOADS)
    reading = read_segment(path)
    assert [record.payload for record in reading.records] == PAYLOADS
    assert {record.tag for record in reading.records} == {tag_of(SETTLED)}
    assert (reading.sealed, reading.torn) == (False, False)
    assert read_header(path) == HEADER


def test_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = segment(tmp_path / "a.seg", PAYLOADS[:2])
    first = read_segment(path)
    segment(path, PAYLOADS)
    again = read_segment(path, first.next_offset)
    assert [record.payload for record in again.records] == PAYLOADS[2:]


def test_a_seal_says_that_the_segment_is_complete(tmp_path: Path) -> None:
    reading = read_segment(segment(tmp_path / "a.seg", PAYLOADS, after=SEAL + bytes(64)))
    assert reading.sealed
    assert len(reading.records) == 3


def test_truncated_at_every_byte_of_the_last_record(tmp_path: Path) -> None:
    whole = segment(tmp_path / "a.seg", PAYLOADS, after=b"").read_bytes()
    last = len(frame(tag_of(SETTLED), PAYLOADS[-1]))
    padding = -len(PAYLOADS[-1]) % ALIGNMENT
    path = tmp_path / "cut.seg"
    for missing in range(1, last + 1):
        path.write_bytes(whole[:-missing])
        reading = read_segment(path)
        complete = 3 if missing <= padding else 2
        assert [record.payload for record in reading.records] == PAYLOADS[:complete], missing
        assert reading.torn == (complete == 2 and missing < last), missing
        assert not reading.sealed


@pytest.mark.parametrize("after", [b"", bytes(256)], ids=["at the file's end", "within an allocated segment"])
def test_every_flipped_bit_of_the_last_record_is_noticed(tmp_path: Path, after: bytes) -> None:
    whole = segment(tmp_path / "a.seg", PAYLOADS, after=after).read_bytes()
    end = len(whole) - len(after)
    padding = -len(PAYLOADS[-1]) % ALIGNMENT
    begin = end - len(frame(tag_of(SETTLED), PAYLOADS[-1]))
    path = tmp_path / "flipped.seg"
    for position in range(begin, end - padding):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            reading = read_segment(path)
            assert [record.payload for record in reading.records] == PAYLOADS[:2], (position, bit)
            assert reading.torn
            assert reading.next_offset == begin


def test_damage_in_the_middle_is_stepped_over_to_the_next_whole_record(tmp_path: Path) -> None:
    path = segment(tmp_path / "a.seg", PAYLOADS)
    data = bytearray(path.read_bytes())
    second = FIRST_RECORD + len(frame(tag_of(SETTLED), PAYLOADS[0]))
    data[second + 20] ^= 1
    path.write_bytes(data)
    reading = read_segment(path)
    assert (reading.torn, reading.next_offset) == (True, second)
    after = next_frame(path, second)
    assert after is not None
    assert [record.payload for record in read_segment(path, after).records] == PAYLOADS[2:]


def test_behind_a_torn_last_record_is_nothing(tmp_path: Path) -> None:
    path = segment(tmp_path / "a.seg", PAYLOADS, after=bytes(512))
    data = bytearray(path.read_bytes())
    last = len(data) - 512 - len(frame(tag_of(SETTLED), PAYLOADS[-1]))
    data[last + 10] ^= 1
    path.write_bytes(data)
    assert next_frame(path, last) is None


def test_segments_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    choose = random.Random(5)
    payloads = [choose.randbytes(choose.randrange(1, MAX_PAYLOAD)) for _ in range(120)]
    path = segment(tmp_path / "a.seg", payloads)
    assert [record.payload for record in read_segment(path).records] == payloads
    taken, offset = 0, FIRST_RECORD
    while taken < len(payloads):
        reading = read_segment(path, offset, limit=100_000)
        assert reading.records, "a limit must not stop the reading for good"
        assert [record.payload for record in reading.records] == payloads[taken : taken + len(reading.records)]
        taken, offset = taken + len(reading.records), reading.next_offset


def test_a_file_without_a_header_has_none(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("zeros", bytes(4096)), ("other", b"not a journal" * 50)):
        (tmp_path / name).write_bytes(content)
        assert read_header(tmp_path / name) is None
        reading = read_segment(tmp_path / name)
        assert reading.records == []


@given(noise=st.binary(max_size=400))
def test_noise_is_never_a_record(noise: bytes) -> None:
    found: list[records.Record] = []
    taken, _ = records._parse(noise, 0, found, whole=True)
    assert taken <= len(noise)
    assert found == []
