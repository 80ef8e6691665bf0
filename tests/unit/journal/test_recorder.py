"""The recorder: every record becomes one row, once; what cannot be applied now is applied later, or kept aside."""

import os
import random
import sqlite3
from pathlib import Path

import msgspec
import pytest

from tests.support.journal import any_event, call, event, journal_in, usage_in
from watchllm.analytics.rollups import HOUR_MS
from watchllm.domain.ids import new_request_id
from watchllm.domain.usage import ModelPrice
from watchllm.domain.usage_event import Attempt, OpenedCall
from watchllm.journal import recorder, records
from watchllm.journal import series as files
from watchllm.journal.journal import Journal
from watchllm.journal.recorder import StoreUnavailable
from watchllm.journal.records import FIRST_RECORD, OPENED, SETTLED, frame, read_segment, tag_of
from watchllm.journal.recovery import aborted
from watchllm.stores.sqlite.usage import SqliteUsageStore


def die(journal: Journal) -> None:
    """End as a killed process does: nothing is sealed, the lock is gone."""
    journal._stop.set()
    journal._wake.set()
    journal._thread.join()
    os.close(journal._lock_file)


def test_every_kind_of_event_becomes_a_row_and_the_rollups_are_their_sums(tmp_path: Path) -> None:
    choose = random.Random(3)
    journal = journal_in(tmp_path)
    events = [any_event(choose) for _ in range(4000)]
    with usage_in(tmp_path) as usage:
        for index, one in enumerate(events):
            journal.settled(one)
            if index % 700 == 0:
                usage.record()
        journal.close()
        usage.record()
        assert usage.ids() == [one.request_id for one in events]
        assert usage.rollups() == usage.rollups_from_rows()
        assert usage.key_uses() == usage.key_uses_from_rows()
        assert usage.query("SELECT SUM(requests), SUM(cost_nanos) FROM usage_hourly") == [
            (4000, sum(one.cost or 0 for one in events))
        ]


def test_uses_of_a_projects_provider_keys_are_counted_by_hour_and_those_refused_beside_them(tmp_path: Path) -> None:
    hour = HOUR_MS * 470_000

    def attempt(status: int, after_ms: int, key_id: str | None, *, hedged: bool = False) -> Attempt:
        return Attempt("openai", "gpt", status, after_ms * 1000, 900, key_id=key_id, hedged=hedged)

    attempts = (attempt(401, 5, "pvk_1"), attempt(403, 10, "pvk_2"), attempt(200, 20, None))
    journal = journal_in(tmp_path)
    journal.settled(event("req_1", at_ns=hour * 10**6, attempts=attempts))
    # The second call begins in the next hour.
    attempts = (attempt(503, 5, "pvk_1"), attempt(200, HOUR_MS + 7, "pvk_1", hedged=True))
    journal.settled(event("req_2", at_ns=hour * 10**6, attempts=attempts))
    journal.settled(event("req_3", at_ns=hour * 10**6, attempts=()))
    journal.close()
    with usage_in(tmp_path) as usage:
        usage.record()
        assert usage.key_uses() == usage.key_uses_from_rows()
        assert usage.key_uses() == [
            ("pvk_1", hour, "prj_1", 2, 1, hour + 5, hour + 5, None),
            ("pvk_1", hour + HOUR_MS, "prj_1", 1, 0, hour + HOUR_MS + 7, None, hour + HOUR_MS + 7),
            ("pvk_2", hour, "prj_1", 1, 1, hour + 10, hour + 10, None),
        ]
        assert usage.query("SELECT request_id, provider_key_id, hedged FROM usage_logs ORDER BY 1") == [
            ("req_1", None, 0),
            ("req_2", "pvk_1", 1),
            ("req_3", None, 0),
        ]


def test_what_an_earlier_version_wrote_into_its_journal_is_applied(tmp_path: Path) -> None:
    """The first one's attempts knew no provider key, its open calls neither; the second one's events no meaning."""
    journal = journal_in(tmp_path)
    settled = msgspec.to_builtins(event("req_1"))[:25]
    settled[-1] = [attempt[:9] for attempt in settled[-1]]
    journal.append(SETTLED << 4 | 1, msgspec.msgpack.encode(settled))
    journal.append(SETTLED << 4 | 2, msgspec.msgpack.encode(msgspec.to_builtins(event("req_3"))[:25]))
    journal.append(OPENED << 4 | 1, msgspec.msgpack.encode(msgspec.to_builtins(call("req_2"))[:15]))
    journal.close()
    with usage_in(tmp_path) as usage:
        usage.record()
        assert usage.query("SELECT request_id, ended, provider_key_id FROM usage_logs ORDER BY 1") == [
            ("req_1", "complete", None),
            ("req_2", "aborted", None),
            ("req_3", "complete", "pvk_1"),
        ]
        assert usage.query("SELECT COUNT(*) FROM journal_set_aside") == [(0,)]
        assert usage.query("SELECT DISTINCT semantic, similarity FROM usage_logs") == [(None, None)]
        assert [use[0] for use in usage.key_uses()] == ["pvk_1"]


def test_what_a_look_up_by_meaning_came_to_is_a_part_of_the_row(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.settled(
        event("req_1", semantic="miss", similarity=0.9312, confidence=0.0, semantic_reason="negation", cache="MISS")
    )
    journal.settled(event("req_2", semantic="hit", similarity=0.75, confidence=0.9, cache="HIT-SEMANTIC"))
    journal.close()
    with usage_in(tmp_path) as usage:
        usage.record()
        columns = "request_id, semantic, similarity, confidence, semantic_reason"
        assert usage.query(f"SELECT {columns} FROM usage_logs ORDER BY 1") == [
            ("req_1", "miss", 0.9312, 0.0, "negation"),
            ("req_2", "hit", 0.75, 0.9, None),
        ]


def test_a_hit_that_failed_is_counted_as_an_error_only(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    for kind in ("HIT", "HIT-SEMANTIC", "HIT-COALESCED", "HIT-PARTIAL", "HIT-STALE"):
        journal.settled(event(cache=kind))
        for status in (400, 429, 499, 502):
            journal.settled(event(cache=kind, status=status, ended="error"))
    journal.settled(event(cache="MISS", status=502, ended="error"))
    journal.close()
    hits = "hits, hits_semantic, hits_coalesced, hits_partial, hits_stale"
    with usage_in(tmp_path) as usage:
        usage.record()
        assert usage.query(f"SELECT requests, errors, misses, {hits} FROM usage_hourly") == [(26, 21, 1, 1, 1, 1, 1, 1)]
        assert usage.rollups() == usage.rollups_from_rows()
        assert usage.key_uses() == usage.key_uses_from_rows()


def test_a_row_says_what_its_event_said(tmp_path: Path) -> None:
    journal = journal_in(tmp_path, region="eu-1")
    journal.settled(
        event("req_1", at_ns=1_700_000_000_123_456_789, saved=5, tags="team=a, stage=b", user="u", session="s")
    )
    journal.close()
    with usage_in(tmp_path) as usage:
        usage.record()
        (row,) = usage.query(
            "SELECT request_id, at_ms, region, input_tokens, cost_nanos, saved_nanos, price, tags, user_id, session_id "
            "FROM usage_logs"
        )
    assert row == (
        "req_1",
        1_700_000_000_123,
        "eu-1",
        100,
        45_000,
        5,
        '{"input":150000000,"output":600000000}',
        '{"team":"a","stage":"b"}',
        "u",
        "s",
    )


def test_applied_segments_and_finished_series_are_removed(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    with usage_in(tmp_path) as usage:
        for _ in range(3000):
            journal.settled(event())
        usage.record()
        assert len(list(journal.folder.glob("*.seg"))) <= 2
        journal.close()
        usage.record()
        assert list(journal.folder.glob("jnl_*")) == []


def test_open_calls_of_a_dead_process_are_closed_with_an_estimated_cost(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    first, second, done = new_request_id(), new_request_id(), new_request_id()
    with usage_in(tmp_path) as usage:
        journal.opened(call(first))
        journal.opened(call(done))
        usage.record()
        journal.settled(event(done))
        journal.opened(call(second, at_ns=10))
        journal.opened(call(second, attempt=1, at_ns=5, price=None))
        usage.record()
        assert usage.ids() == [done], "a call that is under way is no row"
        die(journal)
        usage.recorder = usage.new_recorder()
        usage.record()
        rows = usage.query(
            "SELECT request_id, ended, status, estimated, input_tokens, cost_nanos FROM usage_logs "
            "WHERE ended = 'aborted'"
        )
        assert sorted(rows) == sorted([(first, "aborted", 0, 1, 100, 15_000), (second, "aborted", 0, 1, 200, None)])
        assert usage.query("SELECT COUNT(*) FROM journal_opened") == [(0,)]
        assert usage.rollups() == usage.rollups_from_rows()
        assert usage.key_uses() == usage.key_uses_from_rows()


@pytest.mark.parametrize("fails_at", range(8))
def test_a_recorder_that_ends_at_any_moment_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """It fails at each statement of its transaction in turn, and before and after the files are removed."""
    journal = journal_in(tmp_path)
    events = [event() for _ in range(1200)]
    with usage_in(tmp_path) as usage:
        for one in events[:600]:
            journal.settled(one)
        usage.record()
        for one in events[600:]:
            journal.opened(call(one.request_id))
            journal.settled(one)
        lost = new_request_id()
        journal.opened(call(lost))
        die(journal)

        class Killed(BaseException):
            pass

        def killed(*_: object) -> None:
            raise Killed

        with monkeypatch.context() as broken:
            steps = ["_write", "_keep_open", "_close", "_without_known"]
            if fails_at < 3:
                broken.setattr(SqliteUsageStore, steps[fails_at], killed)
            elif fails_at == 3:
                broken.setattr(recorder.files, "remove_series", killed)
            elif fails_at == 4:
                broken.setattr(recorder.files, "remove_segments", killed)
                broken.setattr(recorder.files, "remove_series", killed)
            elif fails_at == 5:
                # The commit succeeds and the process ends before it knows.
                apply = SqliteUsageStore.apply

                def then_killed(self: SqliteUsageStore, batch: recorder.Batch) -> int:
                    apply(self, batch)
                    raise Killed

                broken.setattr(SqliteUsageStore, "apply", then_killed)
            elif fails_at == 6:
                broken.setattr(recorder.Recorder, "_remove_applied", killed)
            else:
                # A commit whose success the program did not learn of, and which it tries again.
                apply = SqliteUsageStore.apply

                def then_unavailable(self: SqliteUsageStore, batch: recorder.Batch) -> int:
                    apply(self, batch)
                    raise StoreUnavailable("gone")

                broken.setattr(SqliteUsageStore, "apply", then_unavailable)
            with pytest.raises((Killed, StoreUnavailable)):
                usage.record()
        if fails_at < 7:
            usage.recorder = usage.new_recorder()
        usage.record()
        assert usage.ids() == [*(one.request_id for one in events), lost]
        assert usage.rollups() == usage.rollups_from_rows()
        assert usage.key_uses() == usage.key_uses_from_rows()
        assert list(journal.folder.glob("jnl_*")) == []


def test_positions_that_were_lost_do_not_make_rows_twice(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    with usage_in(tmp_path) as usage:
        events = [event() for _ in range(300)]
        for one in events:
            journal.settled(one)
        usage.record()
        with usage.engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
            connection.exec_driver_sql("DELETE FROM journal_positions")
        journal.settled(event("req_new"))
        journal.close()
        usage.recorder = usage.new_recorder()
        usage.record()
        assert usage.ids() == [*(one.request_id for one in events), "req_new"]
        assert usage.rollups() == usage.rollups_from_rows()
        assert usage.key_uses() == usage.key_uses_from_rows()


def test_a_locked_database_delays_and_loses_nothing(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.settled(event("req_1"))
    with usage_in(tmp_path) as usage:
        locker = sqlite3.connect(usage.database, isolation_level=None)
        locker.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="locked"):
            usage.record()
        journal.settled(event("req_2"))
        locker.execute("ROLLBACK")
        locker.close()
        usage.record()
        assert usage.ids() == ["req_1", "req_2"]
    journal.close()


def test_newer_records_are_set_aside_and_applied_by_the_version_that_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_in(tmp_path)
    journal.opened(call("req_newer"))
    newer = msgspec.msgpack.encode([*msgspec.structs.astuple(event("req_newer")), "a field of the future"])
    journal.append(tag_of(SETTLED) + 1, newer)
    journal.append(9 << 4 | 1, msgspec.msgpack.encode(["req_other", "a kind of the future"]))
    journal.settled(event("req_1"))
    journal.close()
    with usage_in(tmp_path) as usage:
        usage.record()
        assert usage.ids() == ["req_1"], "a request whose end was set aside is not closed as aborted"
        assert [payload for (payload,) in usage.query("SELECT payload FROM journal_set_aside ORDER BY 1")] == sorted(
            [newer, msgspec.msgpack.encode(["req_other", "a kind of the future"])]
        )
        assert len(usage.reports) == 2
        assert list(journal.folder.glob("jnl_*")) == []
        usage.recorder = usage.new_recorder()
        usage.record()
        assert usage.ids() == ["req_1"]
        monkeypatch.setitem(records.VERSIONS, SETTLED, records.VERSIONS[SETTLED] + 1)
        usage.recorder = usage.new_recorder()
        usage.record()
        assert usage.ids() == ["req_1", "req_newer"]
        assert usage.query("SELECT COUNT(*) FROM journal_set_aside") == [(1,)]
        assert usage.rollups() == usage.rollups_from_rows()
        assert usage.key_uses() == usage.key_uses_from_rows()


def test_a_record_that_is_whole_but_not_understood_is_set_aside(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.append(tag_of(SETTLED), msgspec.msgpack.encode(["req_odd", "not a time"]))
    journal.settled(event("req_1"))
    journal.close()
    with usage_in(tmp_path) as usage:
        usage.record()
        assert usage.ids() == ["req_1"]
        assert usage.query("SELECT COUNT(*) FROM journal_set_aside") == [(1,)]
        assert "understood" in usage.reports[0]


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_torn_last_record_is_reported_once_and_all_before_it_is_applied(tmp_path: Path, damage: str) -> None:
    journal = journal_in(tmp_path)
    events = [event() for _ in range(20)]
    for one in events:
        journal.settled(one)
    path = journal.folder / f"{journal.series}-00000001.seg"
    last = read_segment(path).records[-1]
    die(journal)
    if damage == "cut":
        with path.open("r+b") as file:
            file.truncate(last.offset + 30)
    else:
        with path.open("r+b") as file:
            file.seek(last.offset + 30)
            file.write(b"\xff\xff")
    with usage_in(tmp_path) as usage:
        usage.record()
        usage.record()
        assert usage.ids() == [one.request_id for one in events[:-1]]
        assert len(usage.reports) == 1
        assert "no record" in usage.reports[0]
        assert usage.query("SELECT torn, finished FROM journal_positions") == [(1, 1)]
        assert list(journal.folder.glob("jnl_*")) == []


def test_damage_in_the_middle_costs_only_what_it_hit(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    events = [event() for _ in range(20)]
    for one in events:
        journal.settled(one)
    path = journal.folder / f"{journal.series}-00000001.seg"
    hit = read_segment(path).records[7]
    with path.open("r+b") as file:
        file.seek(hit.offset + 40)
        file.write(b"\xff" * 4)
    die(journal)
    with usage_in(tmp_path) as usage:
        usage.record()
        assert usage.ids() == [one.request_id for one in events if one is not events[7]]
        assert len(usage.reports) == 1


def test_damage_in_a_live_journal_is_given_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks torn may be another processor's write, not yet whole as we see it."""
    journal = journal_in(tmp_path)
    journal.settled(event("req_1"))
    current = journal._current
    assert current is not None
    whole = frame(tag_of(SETTLED), msgspec.msgpack.encode(event("req_2")))
    at = current.position
    current.map[at : at + 8] = whole[:8]
    with usage_in(tmp_path) as usage:
        usage.record()
        assert usage.ids() == ["req_1"]
        current.map[at : at + len(whole)] = whole
        current.position += len(whole)
        usage.record()
        assert usage.ids() == ["req_1", "req_2"]
        assert usage.reports == []
    journal.close()


def test_a_journal_of_a_newer_format_is_left_alone(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.settled(event("req_1"))
    journal.close()
    (path,) = journal.folder.glob("*.seg")
    data = bytearray(path.read_bytes())
    data[7:8] = b"9"
    path.write_bytes(data)
    with usage_in(tmp_path) as usage:
        usage.record()
        usage.record()
        assert usage.ids() == []
        assert path.exists()
        assert len(usage.reports) == 1


def test_a_segment_whose_header_never_reached_the_disk_is_read_all_the_same(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.settled(event("req_1"))
    journal.close()
    (path,) = journal.folder.glob("*.seg")
    path.write_bytes(bytes(FIRST_RECORD) + path.read_bytes()[FIRST_RECORD:])
    with usage_in(tmp_path) as usage:
        usage.record()
        assert usage.ids() == ["req_1"]
        assert usage.query("SELECT region FROM usage_logs") == [("",)]


def test_many_series_share_a_batch_and_none_is_starved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "BATCH_BYTES", 20_000)
    journals = [journal_in(tmp_path) for _ in range(4)]
    sent = []
    for _ in range(400):
        for journal in journals:
            sent.append(event())
            journal.settled(sent[-1])
    with usage_in(tmp_path) as usage:
        for _ in range(30):
            usage.recorder.run_once()
            busy = event()
            journals[0].settled(busy)
            sent.append(busy)
        assert usage.query("SELECT COUNT(*) FROM journal_positions") == [(4,)]
        usage.record()
        assert sorted(usage.ids()) == sorted(one.request_id for one in sent)
    for journal in journals:
        journal.close()


def test_a_series_whose_files_vanished_is_over_after_a_while(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    journal.opened(call("req_1"))
    now = [0.0]
    with usage_in(tmp_path) as usage:
        store = SqliteUsageStore(usage.engine, lambda: 0)
        usage.recorder = recorder.Recorder(usage.folder, store, usage.reports.append, monotonic=lambda: now[0])
        usage.record()
        die(journal)
        for path in journal.folder.glob("jnl_*"):
            path.unlink()
        usage.record()
        now[0] = 30.0
        usage.record()
        assert usage.ids() == []
        now[0] = 61.0
        usage.record()
        assert usage.ids() == ["req_1"]


def test_an_unpriced_call_has_no_cost_and_an_empty_one_no_tokens() -> None:
    free = OpenedCall("req_1", 5, 0, "prj_1", "key_1", "audio", "openai", "tts", "BYPASS", False)
    assert aborted([free]).cost is None
    assert aborted([msgspec.structs.replace(free, price=ModelPrice(per_request=7))]).cost == 7
    closed = aborted([free])
    assert closed.usage is not None
    assert (closed.usage.input, closed.usage.estimated) == (0, True)


def test_costs_too_large_to_be_summed_up_stop_nobodys_recording(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    for _ in range(20):
        journal.settled(event(cost=6 * 10**17))
    journal.settled(event(project_id="prj_2", cost=7))
    journal.close()
    with usage_in(tmp_path) as usage:
        usage.record()
        assert len(usage.ids()) == 21
        assert usage.query("SELECT cost_nanos FROM usage_hourly WHERE project_id = 'prj_2'") == [(7,)]


def test_a_segment_that_was_begun_while_the_folder_was_looked_at_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_in(tmp_path)
    journal.settled(event("req_1"))
    scan = files.scan
    with usage_in(tmp_path) as usage:
        usage.record()

        def late(folder: Path) -> dict[str, list[int]]:
            found = scan(folder)
            monkeypatch.setattr(files, "scan", scan)
            # Now it fills its segment, begins another, and ends.
            for number in range(600):
                journal.settled(event(f"req_late_{number:03}"))
            journal.close()
            return found

        monkeypatch.setattr(files, "scan", late)
        usage.record()
        assert len(usage.ids()) == 601
        usage.record()
    assert scan(tmp_path / "journal") == {}


def test_a_sum_of_several_batches_stays_a_whole_number(tmp_path: Path) -> None:
    journal = journal_in(tmp_path)
    with usage_in(tmp_path) as usage:
        for _ in range(3):
            journal.settled(event(cost=(1 << 63) - 1))
            usage.record()
        assert set(usage.query("SELECT nanos, typeof(nanos) FROM spending")) == {((1 << 63) - 1, "integer")}
        assert usage.query("SELECT cost_nanos, typeof(cost_nanos) FROM usage_hourly") == [((1 << 63) - 1, "integer")]
    journal.close()
