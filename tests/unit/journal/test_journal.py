"""The writing side: nothing that was recorded is lost, and when nothing can be recorded that is said."""

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest

from tests.support.journal import SMALL_SEGMENT, call, event, journal_in, usage_in
from tests.support.waiting import wait_for
from watchllm.journal import journal as module
from watchllm.journal.journal import SERVE_UNMETERED, Journal, RecordTooLong
from watchllm.journal.records import MAX_PAYLOAD, SETTLED, read_segment, tag_of
from watchllm.journal.segment import Segment
from watchllm.journal.series import is_live, scan


def payloads(folder: Path) -> int:
    return sum(len(read_segment(path).records) for path in sorted(folder.glob("*.seg")))


def remove(folder: Path) -> None:
    """At once: a journal that still lives would make it anew while it is emptied."""
    folder.rename(folder.with_name("gone"))
    shutil.rmtree(folder.with_name("gone"))


def test_what_is_appended_can_be_read_at_once(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    for _ in range(50):
        journal.opened(call("req_1"))
        journal.settled(event())
    assert payloads(journal.folder) == 100
    journal.close()


def test_many_segments_one_after_the_other(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    events = [event() for _ in range(3000)]
    for one in events:
        journal.settled(one)
    journal.close()
    assert len(scan(journal.folder)[journal.series]) > 3
    assert journal.unrecorded == 0
    with usage_in(tmp_path) as usage:
        usage.record()
        assert usage.ids() == [one.request_id for one in events]


def test_a_series_lives_until_it_is_closed(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    assert is_live(journal.folder, journal.series)
    journal.close()
    assert not is_live(journal.folder, journal.series)


def test_an_end_that_was_not_closed_leaves_nothing_allocated_behind(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.settled(event())
    journal.close()
    (path,) = journal.folder.glob("*.seg")
    assert path.stat().st_size < 2000


def test_a_full_journal_refuses_first_and_keeps_what_is_under_way(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, max_bytes=2 * SMALL_SEGMENT)
    admitted = 0
    while journal.refusal is None:
        journal.settled(event())
        admitted += 1
        assert admitted < 10_000
    assert "recorder" in (journal.state() or "")
    room = [event() for _ in range(30)]
    for one in room:
        journal.settled(one)
    assert journal.unrecorded == 0
    assert payloads(journal.folder) == admitted + 30
    journal.close()


@pytest.mark.parametrize("segments", [1, 2, 3])
def test_when_the_recorder_made_room_requests_are_admitted_again(tmp_path: Path, segments: int) -> None:
    journal = journal_in(tmp_path, max_bytes=segments * SMALL_SEGMENT)
    sent = 0
    while journal.refusal is None:
        journal.settled(event())
        sent += 1
    for _ in range(2000):  # More than the reserve: some wait in memory.
        journal.settled(event())
        sent += 1
    with usage_in(tmp_path) as usage:

        def recorded() -> bool:
            usage.record()
            return journal.refusal is None and len(usage.ids()) == sent

        wait_for(recorded, "everything to be recorded")
        assert journal.unrecorded == 0
        journal.close()


def test_unmetered_service_goes_on_and_says_what_was_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BACKLOG_BYTES", 10_000)
    journal = journal_in(tmp_path, max_bytes=SMALL_SEGMENT, policy=SERVE_UNMETERED)
    for _ in range(3000):
        journal.settled(event())
    assert journal.refusal is None
    assert journal.unrecorded > 0
    assert str(journal.unrecorded) in (journal.state() or "")
    journal.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_named_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr("watchllm.journal.segment._allocate", fails)
        journal = journal_in(tmp_path)
        assert os.strerror(number) in (journal.state() or "")
        assert str(tmp_path) not in (journal.refusal or str(tmp_path))
        journal.settled(event())
        # The next attempt, under way already, may have one for a moment.
        wait_for(lambda: not list(journal.folder.glob("*.new")), "the draft to be gone")
    wait_for(lambda: journal.refusal is None and payloads(journal.folder) == 1, "the disk to be found working")
    journal.close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file where the folder should be")
    journal = Journal.open(tmp_path / "journal", max_bytes=1 << 20)
    assert "journal" in (journal.state() or "")
    assert journal.refusal
    journal.settled(event())
    (tmp_path / "journal").unlink()
    wait_for(lambda: journal.refusal is None and payloads(tmp_path / "journal") == 1, "the folder to be made")
    journal.close()


def test_a_removed_folder_is_made_anew_with_all_that_was_not_applied(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    events = [event() for _ in range(1500)]
    with usage_in(tmp_path) as usage:
        for one in events[:500]:
            journal.settled(one)
        usage.record()
        for one in events[500:1000]:
            journal.settled(one)
        remove(journal.folder)
        for one in events[1000:]:
            journal.settled(one)

        def recorded() -> bool:
            usage.record()
            return len(usage.ids()) == len(events)

        wait_for(recorded, "the rescued records")
        assert usage.ids() == [one.request_id for one in events]
        journal.close()
        usage.record()
        assert usage.ids() == [one.request_id for one in events]


@pytest.mark.parametrize("what", ["moved away", "only the segments removed", "only the lock removed"])
def test_a_folder_that_lost_a_part_is_made_whole(tmp_path: Path, what: str) -> None:
    journal = journal_in(tmp_path)
    events = [event() for _ in range(1200)]
    for one in events:
        journal.settled(one)
    if what == "moved away":
        journal.folder.rename(tmp_path / "elsewhere")
    else:
        for path in journal.folder.glob("*.seg" if "segments" in what else "*.lock"):
            path.unlink()
    wait_for(lambda: journal.folder.exists() and journal._is_in_place(), "the folder to be made whole")
    late = event()
    journal.settled(late)
    journal.close()
    with usage_in(tmp_path) as usage:
        usage.record()
        assert sorted(usage.ids()) == sorted(one.request_id for one in [*events, late])


def test_a_removed_folder_that_cannot_be_made_anew_refuses(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.settled(event())
    remove(journal.folder)
    journal.folder.write_text("in the way")
    wait_for(lambda: journal.refusal, "the loss to be noticed")
    journal.folder.unlink()
    wait_for(lambda: journal.refusal is None, "the folder to be made")
    assert payloads(journal.folder) == 1
    journal.close()


def test_the_thread_syncs_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    sync = Segment.sync

    def counting(self: Segment) -> None:
        sync(self)
        synced.append(self.synced)

    monkeypatch.setattr(Segment, "sync", counting)
    journal = journal_in(tmp_path)
    journal.settled(event())
    current = journal._current
    assert current is not None
    wait_for(lambda: current.position in synced, "the sync")
    journal.close()


def test_a_failing_sync_is_reported_until_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = journal_in(tmp_path)

    def fails(_descriptor: int) -> None:
        raise OSError(errno.EIO, "I/O error")

    with monkeypatch.context() as broken:
        broken.setattr("watchllm.journal.segment._sync", fails)
        journal.settled(event())
        wait_for(lambda: "I/O error" in (journal.state() or ""), "the failure to be told")
    wait_for(lambda: journal.state() is None, "the recovery to be told")
    journal.close()


def test_no_append_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread stuck in the making of a segment: the record waits in memory, the caller does not wait."""
    journal = journal_in(tmp_path)
    stuck, go_on = threading.Event(), threading.Event()
    allocate = Segment.__init__

    def slow(self: Segment, *arguments: object) -> None:
        stuck.set()
        assert go_on.wait(20)
        allocate(self, *arguments)  # type: ignore[arg-type]

    wait_for(lambda: journal._next is not None, "the next segment")
    monkeypatch.setattr(Segment, "__init__", slow)
    sent = 0
    while not journal._backlog:
        journal.settled(event())
        sent += 1
        assert sent < 10_000
    assert stuck.wait(20)
    assert "too slow" in (journal.state() or "")
    assert journal.refusal
    go_on.set()
    wait_for(lambda: payloads(journal.folder) == sent, "the records that waited")
    journal.close()


def test_too_long_a_record_is_an_error(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.append(tag_of(SETTLED), b"x" * MAX_PAYLOAD)
    for _ in range(3):  # Whatever room the segment has.
        with pytest.raises(RecordTooLong):
            journal.append(tag_of(SETTLED), b"x" * (MAX_PAYLOAD + 1))
    journal.close()


def test_the_clock_may_jump(tmp_path: Path) -> None:
    clock = iter([10**18, -5, 0, 2 * 10**18, *([5] * 50)])
    journal = journal_in(tmp_path, now_ns=lambda: next(clock))
    events = [event(at_ns=at) for at in (10**18, -(10**18), 0, 10**18)] + [event() for _ in range(1500)]
    for one in events:
        journal.settled(one)
    journal.close()
    with usage_in(tmp_path) as usage:
        usage.record()
        assert usage.ids() == [one.request_id for one in events]
        assert usage.query("SELECT MIN(hour_ms) FROM usage_hourly") == [(0,)]
        assert usage.rollups() == usage.rollups_from_rows()
        assert usage.key_uses() == usage.key_uses_from_rows()
