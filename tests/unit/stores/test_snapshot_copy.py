"""A host's copy goes from one whole state to the next, whoever of its processes brings it there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from watchllm.control.publication import Publication
from watchllm.domain.snapshot import KeyRecord
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader
from watchllm.stores.lmdb.snapshot_copy import NOTHING, Position, SnapshotCopy
from watchllm.stores.lmdb.snapshot_writer import LmdbSnapshotWriter, entries

DIGESTS = [bytes([number]) * 32 for number in range(4)]


def records(*numbers: int) -> dict[bytes, bytes | None]:
    return dict(entries(Publication(keys={DIGESTS[number]: KeyRecord(f"key_{number}", "prj_1") for number in numbers})))


def removed(*numbers: int) -> dict[bytes, bytes | None]:
    return dict(entries(Publication(keys=dict.fromkeys(DIGESTS[number] for number in numbers))))


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[SnapshotCopy]:
    copy = SnapshotCopy(tmp_path)
    yield copy
    copy.close()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[LmdbSnapshotReader]:
    reader = LmdbSnapshotReader(tmp_path)
    yield reader
    reader.close()


def held(reader: LmdbSnapshotReader) -> set[int]:
    return {number for number in range(4) if reader.key(DIGESTS[number]) is not None}


def test_all_of_it_and_then_changes(copy: SnapshotCopy, reader: LmdbSnapshotReader) -> None:
    assert copy.position() == NOTHING
    assert copy.apply(None, Position(b"a", 10), records(0, 1))
    assert copy.apply(Position(b"a", 10), Position(b"a", 12), {**records(2), **removed(0)})
    assert (held(reader), reader.version(), copy.position()) == ({1, 2}, 12, Position(b"a", 12))


def test_changes_to_another_state_are_not_applied(copy: SnapshotCopy, reader: LmdbSnapshotReader) -> None:
    copy.apply(None, Position(b"a", 10), records(0))
    for base in (Position(b"a", 9), Position(b"b", 10), NOTHING):
        assert not copy.apply(base, Position(base.epoch or b"b", 12), records(1))
    assert (held(reader), reader.version()) == ({0}, 10)


def test_who_comes_too_late_changes_nothing(copy: SnapshotCopy, reader: LmdbSnapshotReader) -> None:
    copy.apply(None, Position(b"a", 10), records(0))
    assert copy.apply(None, Position(b"a", 9), records(1)), "it is beyond that"
    assert copy.apply(Position(b"a", 8), Position(b"a", 10), records(2))
    assert (held(reader), reader.version()) == ({0}, 10)


def test_another_history_takes_the_place_of_all(copy: SnapshotCopy, reader: LmdbSnapshotReader) -> None:
    copy.apply(None, Position(b"a", 10), records(0, 1))
    assert copy.apply(None, Position(b"b", 3), records(1, 2))
    assert (held(reader), reader.version(), copy.position()) == ({1, 2}, 3, Position(b"b", 3))


def test_what_a_host_publishes_by_itself_is_no_copy_any_more(
    copy: SnapshotCopy, reader: LmdbSnapshotReader, tmp_path: Path
) -> None:
    copy.apply(None, Position(b"a", 10), records(0))
    writer = LmdbSnapshotWriter(tmp_path)
    writer.update(lambda: Publication(keys={DIGESTS[1]: KeyRecord("key_1", "prj_1")}))
    writer.close()
    assert copy.position() == NOTHING
    assert not copy.apply(Position(b"a", 10), Position(b"a", 12), records(2))
    assert held(reader) == {0, 1}


def test_it_makes_room(tmp_path: Path) -> None:
    copy = SnapshotCopy(tmp_path, map_size=1 << 18)
    large: dict[bytes, bytes | None] = {b"s%d" % number: bytes(1000) for number in range(1000)}
    assert copy.apply(None, Position(b"a", 1000), large)
    reader = LmdbSnapshotReader(tmp_path)
    assert reader.secret("999") == bytes(1000)
    reader.close()
    copy.close()
