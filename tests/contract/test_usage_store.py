"""Usage stores of every adapter, filled by the recorder from journals: each record is one row, once, whatever fails."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection

from tests.support.journal import Usage, any_event, call, event, journal_in, usage_in
from tests.support.postgres import Connected
from watchllm.analytics.export import rows
from watchllm.domain.ids import new_request_id
from watchllm.domain.usage_log import COLUMNS, row_of
from watchllm.journal import recorder, records
from watchllm.journal.journal import Journal
from watchllm.journal.recorder import Batch, Retention, StoreUnavailable
from watchllm.journal.records import SETTLED, tag_of

DAY_MS = 86_400_000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2

Opener = Callable[[], AbstractContextManager[Usage]]


@pytest.fixture(params=["sqlite", "postgres", "postgres behind a pooler"])
def url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "sqlite":
        return None
    database = request.getfixturevalue("postgres_database")
    return str(database.url if request.param == "postgres" else database.server.pooled(database.url))


@pytest.fixture
def usage(tmp_path: Path, url: str | None) -> Iterator[Usage]:
    with usage_in(tmp_path, url) as usage:
        yield usage


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return journal_in(tmp_path)


def die(journal: Journal) -> None:
    """End as a killed process does: nothing is sealed, the lock is gone."""
    journal._stop.set()
    journal._wake.set()
    journal._thread.join()
    os.close(journal._lock_file)


def reading(usage: Usage) -> Callable[[], AbstractContextManager[Connection]]:
    @contextmanager
    def begun() -> Iterator[Connection]:
        with usage.engine.connect() as connection, connection.begin():
            yield connection

    return begun


def test_every_kind_of_event_becomes_a_row_and_the_sums_are_those_of_the_rows(usage: Usage, journal: Journal) -> None:
    choose = random.Random(3)
    events = [any_event(choose) for _ in range(3000)]
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
        (3000, sum(one.cost or 0 for one in events))
    ]


HOSTILE = [
    "None",
    "\\N",
    "\\",
    "a\tb",
    "a\nb\r\nc",
    "'; DROP TABLE",
    "%s",
    '"',
    "ünïcödé 🎈",
    "",
    "\\.",
    "N\\one",
    "\x7f",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_row_says_what_its_event_said_whatever_clients_wrote(usage: Usage, journal: Journal, text: str) -> None:
    one = event(model=text, user=text, session=text, tags=f"t={text}", error=text or None, similarity=0.1)
    others = [event(model=f"gpt-{number}") for number in range(3)]
    for each in (others[0], one, *others[1:]):
        journal.settled(each)
    journal.close()
    usage.record()
    stored = {row[0]: row for page in rows(reading(usage)) for row in page}
    assert stored == {each.request_id: row_of(each, "local") for each in (one, *others)}
    assert usage.rollups() == usage.rollups_from_rows()


def test_the_character_zero_is_stored_or_replaced_and_stops_nothing(usage: Usage, journal: Journal) -> None:
    for model in ("gpt\0", "gpt\0", "gpt\ufffd"):
        journal.settled(event(model=model, user="a\0b"))
    journal.close()
    usage.record()
    assert len(usage.ids()) == 3
    assert sum(row[4] for row in usage.rollups()) == 3


def test_a_sum_beyond_64_bits_stops_nobody(usage: Usage, journal: Journal) -> None:
    for _ in range(3):
        journal.settled(event(cost=1 << 62, at_ns=NOON_MS * 10**6))
        usage.record()
    journal.settled(event("req_after"))
    journal.close()
    usage.record()
    assert len(usage.ids()) == 4
    (spent,) = usage.query("SELECT MAX(cost_nanos), MAX(saved_nanos) FROM usage_hourly")
    assert spent[0] >= (1 << 63) - 1
    assert usage.query("SELECT SUM(requests) FROM usage_hourly") == [(4,)]


def test_an_export_has_every_row_once_in_the_order_of_time(
    usage: Usage, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchllm.analytics.export.PAGE", 7)
    times = [NOON_MS + offset for offset in (0, 0, 0, 5, -3 * DAY_MS, DAY_MS, DAY_MS, *[9] * 20)]
    events = [event(at_ns=at * 10**6, project_id=f"prj_{index % 2}") for index, at in enumerate(times)]
    for one in events:
        journal.settled(one)
    journal.close()
    usage.record()
    exported = [row for page in rows(reading(usage)) for row in page]
    assert [row[COLUMNS.index("at_ms")] for row in exported] == sorted(times)
    assert sorted(row[0] for row in exported) == sorted(one.request_id for one in events)
    some = rows(reading(usage), since_ms=NOON_MS, until_ms=NOON_MS + DAY_MS, project_id="prj_1")
    wanted = {
        one.request_id
        for one, at in zip(events, times, strict=True)
        if one.project_id == "prj_1" and NOON_MS <= at < NOON_MS + DAY_MS
    }
    assert {row[0] for page in some for row in page} == wanted


STEPS = ["_write", "_keep_open", "_close", "after it committed, unknown", "after it committed", "files"]


@pytest.mark.parametrize("step", STEPS)
def test_a_recorder_that_ends_at_any_moment_repeats_nothing(
    usage: Usage, journal: Journal, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    events = [event() for _ in range(1200)]
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

    def killed(*_: object, **__: object) -> None:
        raise Killed

    store = type(usage.store())
    apply = store.apply
    with monkeypatch.context() as broken:
        if step == "files":
            broken.setattr("watchllm.journal.recorder.files.remove_series", killed)
        elif step.startswith("after"):

            def then(self: object, batch: Batch) -> int:
                apply(self, batch)  # type: ignore[arg-type]
                raise StoreUnavailable("gone") if step.endswith("unknown") else Killed

            broken.setattr(store, "apply", then)
        else:
            broken.setattr(store, step, killed)
        with pytest.raises((Killed, StoreUnavailable)):
            usage.record()
    if not step.endswith("unknown"):
        usage.recorder = usage.new_recorder()
    usage.record()
    assert usage.ids() == [*(one.request_id for one in events), lost]
    assert usage.rollups() == usage.rollups_from_rows()
    assert usage.key_uses() == usage.key_uses_from_rows()
    assert usage.query("SELECT COUNT(*) FROM journal_opened") == [(0,)]
    assert list(journal.folder.glob("jnl_*")) == []


def test_positions_that_were_lost_do_not_make_rows_twice(usage: Usage, journal: Journal) -> None:
    events = [event() for _ in range(300)]
    for one in events:
        journal.settled(one)
    usage.record()
    usage.change("DELETE FROM journal_positions")
    journal.settled(event("req_new"))
    journal.close()
    usage.recorder = usage.new_recorder()
    usage.record()
    assert usage.ids() == [*(one.request_id for one in events), "req_new"]
    assert usage.rollups() == usage.rollups_from_rows()
    assert usage.key_uses() == usage.key_uses_from_rows()


def test_a_request_that_was_settled_is_not_closed_again_at_another_time(usage: Usage, journal: Journal) -> None:
    settled = event(at_ns=(NOON_MS - 2 * DAY_MS) * 10**6)
    journal.settled(settled)
    usage.record()
    journal.opened(call(settled.request_id, at_ns=NOON_MS * 10**6))
    die(journal)
    usage.recorder = usage.new_recorder()
    usage.record()
    assert usage.ids() == [settled.request_id]
    assert usage.rollups() == usage.rollups_from_rows()


def test_what_keys_projects_and_organizations_spend_is_summed_up_once(usage: Usage, journal: Journal) -> None:
    usage.change("INSERT INTO organizations (id, name, created_ms) VALUES ('org_1', 'one', 1)")
    for project in ("prj_1", "prj_2"):
        columns = "id, organization_id, name, settings, created_ms"
        usage.change(f"INSERT INTO projects ({columns}) VALUES ('{project}', 'org_1', 'p', '{{}}', 1)")
    at = NOON_MS * 10**6
    for project, cost in (("prj_1", 10), ("prj_2", 5), ("prj_unknown", 3)):
        journal.settled(event(at_ns=at, project_id=project, key_id=f"key_of_{project}", cost=cost))
    usage.record()
    journal.settled(event(at_ns=at, key_id="key_of_prj_1", cost=(1 << 62)))
    journal.settled(event(at_ns=at, key_id="key_of_prj_1", cost=(1 << 62) - 100))
    journal.close()
    usage.record()
    store = usage.store()
    large = (1 << 63) - 100
    assert store.spent(None, ["2024-10-04"]) == {
        "key_of_prj_1": {"2024-10-04": (3, large + 10)},
        "prj_1": {"2024-10-04": (3, large + 10)},
        "key_of_prj_2": {"2024-10-04": (1, 5)},
        "prj_2": {"2024-10-04": (1, 5)},
        "org_1": {"2024-10-04": (4, large + 15)},
        "key_of_prj_unknown": {"2024-10-04": (1, 3)},
        "prj_unknown": {"2024-10-04": (1, 3)},
    }
    assert store.spent(["org_1", "org_2"], ["total", "2024-10"]) == {
        "org_1": {"total": (4, large + 15), "2024-10": (4, large + 15)}
    }
    assert store.spent([], ["total"]) == {}
    assert store.organizations_of(["prj_1", "prj_2", "prj_unknown"]) == {"prj_1": "org_1", "prj_2": "org_1"}
    assert store.organizations_of([]) == {}


def test_who_belongs_to_whom_is_known(usage: Usage) -> None:
    for organization, project, key in (
        ("org_1", "prj_1", "key_1"),
        ("org_1", "prj_2", "key_2"),
        ("org_2", "prj_3", "key_3"),
    ):
        usage.change(
            "INSERT INTO organizations (id, name, created_ms) "
            f"VALUES ('{organization}', '{organization}', 1) ON CONFLICT DO NOTHING"
        )
        usage.change(
            "INSERT INTO projects (id, organization_id, name, settings, created_ms) "
            f"VALUES ('{project}', '{organization}', '{project}', '{{}}', 1)"
        )
        usage.change(
            "INSERT INTO keys (id, project_id, digest, prefix, name, scopes, test, expires_at, created_ms) "
            f"VALUES ('{key}', '{project}', '{key}', 'wllm', 'k', '', false, 0, 1)"
        )
    store = usage.store()
    assert store.organizations_of(["prj_3", "prj_1", "prj_unknown"]) == {"prj_1": "org_1", "prj_3": "org_2"}
    assert store.organizations_of([]) == {}
    assert store.members("org_1") == {"org_1", "prj_1", "prj_2", "key_1", "key_2"}
    assert store.members("org_3") == {"org_3"}


def test_newer_records_are_set_aside_and_applied_by_the_version_that_knows_them(
    usage: Usage, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = msgspec.msgpack.encode([*msgspec.structs.astuple(event("req_newer")), "a field of the future"])
    journal.opened(call("req_newer"))
    journal.append(tag_of(SETTLED) + 1, newer)
    journal.append(9 << 4 | 1, b"\x91\xa3\0\xff\0")
    journal.settled(event("req_1"))
    journal.close()
    usage.record()
    assert usage.ids() == ["req_1"], "a request whose end was set aside is not closed as aborted"
    assert {bytes(payload) for (payload,) in usage.query("SELECT payload FROM journal_set_aside")} == {
        newer,
        b"\x91\xa3\0\xff\0",
    }
    monkeypatch.setitem(records.VERSIONS, SETTLED, records.VERSIONS[SETTLED] + 1)
    usage.recorder = usage.new_recorder()
    usage.record()
    assert usage.ids() == ["req_1", "req_newer"]
    assert usage.query("SELECT COUNT(*) FROM journal_set_aside") == [(1,)]
    assert usage.rollups() == usage.rollups_from_rows()


def test_rows_older_than_their_time_are_forgotten_by_whole_days_and_sums_are_kept(
    usage: Usage, journal: Journal
) -> None:
    usage.now_ms = NOON_MS
    today = NOON_MS - NOON_MS % DAY_MS
    times = {"old": today - 3 * DAY_MS - 1, "edge": today - 3 * DAY_MS, "yesterday": today - 1, "now": NOON_MS}
    for project in ("prj_1", "prj_2"):
        for name, at in times.items():
            journal.settled(event(f"req_{project}_{name}", at_ns=at * 10**6, project_id=project))
    journal.close()
    usage.recorder = usage.new_recorder()
    usage.record()
    sums = usage.rollups()
    store = usage.store()

    def left() -> set[str]:
        return {name.removeprefix("req_") for name in usage.ids()}

    everything = left()
    assert not store.expire(Retention())
    assert left() == everything
    assert not store.expire(Retention(3))
    assert left() == {name for name in everything if not name.endswith("old")}
    assert not store.expire(Retention(3, {"prj_2": 0}))
    assert left() == {"prj_1_edge", "prj_1_yesterday", "prj_1_now", "prj_2_now"}
    assert usage.rollups() == sums
    # A row that comes late finds its place again.
    late = journal_in(usage.folder.parent)
    late.settled(event("req_late", at_ns=times["old"] * 10**6))
    late.close()
    usage.record()
    assert "late" in left()
    assert not store.expire(Retention(3))
    assert "late" not in left()


def test_forgetting_much_takes_several_turns(usage: Usage, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    usage.now_ms = NOON_MS
    for _ in range(25):
        journal.settled(event(at_ns=(NOON_MS - 9 * DAY_MS) * 10**6, project_id="prj_2"))
    journal.settled(event("req_other", at_ns=(NOON_MS - 9 * DAY_MS) * 10**6))
    journal.close()
    usage.record()
    store = usage.store()
    monkeypatch.setattr(f"{type(store).__module__}._FORGET_AT_ONCE", 10)
    turns = 1
    while store.expire(Retention(None, {"prj_2": 7})):
        turns += 1
    assert turns == 3
    assert usage.ids() == ["req_other"]


def test_recorders_of_several_hosts_share_the_database_and_leave_each_others_journals_alone(
    tmp_path: Path, postgres_database: Connected
) -> None:
    with ExitStack() as stack:
        hosts = []
        for name in ("home_1", "home_2"):
            folder = tmp_path / name
            folder.mkdir()
            hosts.append((stack.enter_context(usage_in(folder, postgres_database.url, name)), journal_in(folder)))
        for usage, journal in hosts:
            for number in range(200):
                journal.settled(event(f"req_{usage.folder.parent.name}_{number}"))
            journal.opened(call(f"req_{usage.folder.parent.name}_open"))
        for usage, _ in hosts:
            usage.record()
        (first, one), (second, other) = hosts
        # The other host's files are nothing that the first has ever seen: not gone, and not over.
        clock = iter([0.0, 1e6, 2e6, 3e6, 4e6, 5e6])
        first.recorder = recorder.Recorder(first.folder, first.store(), print, monotonic=lambda: next(clock))
        for _ in range(3):
            first.recorder.run_once()
        assert first.query("SELECT COUNT(*) FROM journal_opened") == [(2,)]
        # Of limits that are shared it matters what all hosts have applied.
        of_each = first.store().positions(), second.store().positions()
        assert first.store().positions_everywhere() == of_each[0] | of_each[1]
        assert len(of_each[0] | of_each[1]) == len(of_each[0]) + len(of_each[1]) == 2
        die(other)
        second.recorder = second.new_recorder()
        second.record()
        assert second.query("SELECT request_id FROM usage_logs WHERE ended = 'aborted'") == [("req_home_2_open",)]
        # Who has ended is told of for a while only, unless he is asked for.
        everywhere = first.store().positions_everywhere
        assert everywhere().keys() == of_each[0].keys()
        assert everywhere(0).keys() == everywhere(also=of_each[1]).keys() == of_each[0].keys() | of_each[1].keys()
        assert everywhere(1 << 60).keys() == of_each[0].keys()
        one.settled(event("req_home_1_open"))
        one.close()
        first.record()
        assert len(first.ids()) == 402
        assert first.rollups() == first.rollups_from_rows()
        assert first.key_uses() == first.key_uses_from_rows()


def test_positions_of_homes_that_are_no_more_are_forgotten_after_a_month(
    tmp_path: Path, postgres_database: Connected
) -> None:
    with usage_in(tmp_path / "one", postgres_database.url, "home_1") as usage:
        for home, days in (("home_1", 2), ("home_2", 2), ("home_3", 31)):
            at = NOON_MS - days * DAY_MS
            values = (
                f"('jnl_of_{home}', 0, 0, true, 0, {at}, '{home}'), ('jnl_live_{home}', 0, 0, false, 0, {at}, '{home}')"
            )
            columns = 'series, sequence, "offset", finished, torn, updated_ms, home'
            usage.change(f"INSERT INTO journal_positions ({columns}) VALUES {values}")
        usage.now_ms = NOON_MS
        batch = Batch()
        batch.finished.append("jnl_new")
        usage.store().apply(batch)
        left = {series for (series,) in usage.query("SELECT series FROM journal_positions WHERE finished")}
        assert left == {"jnl_of_home_2"}
        assert usage.query("SELECT COUNT(*) FROM journal_positions WHERE NOT finished") == [(3,)]
