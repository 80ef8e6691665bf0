"""What was spent, in both databases: counted once whoever recorded it, told to the proxies, and forgotten in time."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine

from tests.support.journal import Usage, event, usage_in
from watchllm.analytics.spending import Due
from watchllm.compose.database import open_engine
from watchllm.control import private_schema, schema
from watchllm.domain.ledger import Periods, Place
from watchllm.domain.usage_event import UsageEvent
from watchllm.journal.ledgered import Ledgered
from watchllm.journal.recorder import Batch, Position, Retention
from watchllm.journal.shared_ledger import SharedLedger, SharedUsageStore
from watchllm.stores.lmdb.ledger import LmdbLedger
from watchllm.stores.postgres import spending as in_postgres
from watchllm.stores.sqlite import spending as in_sqlite

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
NOW_MS = int(NOW.timestamp()) * 1000
DAY_MS = 86_400_000


@pytest.fixture(params=["sqlite", "postgres", "postgres behind a pooler"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Of a database that has nothing in it."""
    if request.param == "sqlite":
        return None
    database = request.getfixturevalue("empty_database")
    return str(database.url if request.param == "postgres" else database.server.pooled(database.url))


@pytest.fixture
def usage(tmp_path: Path, url: str | None) -> Iterator[Usage]:
    with usage_in(tmp_path, url) as usage:
        add_owners(usage)
        usage.now_ms = NOW_MS
        yield usage


def add_owners(usage: Usage) -> None:
    usage.change("INSERT INTO organizations (id, name, created_ms) VALUES ('org_1', 'one', 1)")
    columns = "id, organization_id, name, settings, created_ms"
    usage.change(f"INSERT INTO projects ({columns}) VALUES ('prj_1', 'org_1', 'p', '{{}}', 1)")
    columns = "id, project_id, digest, prefix, name, scopes, test, expires_at, created_ms"
    usage.change(f"INSERT INTO keys ({columns}) VALUES ('key_1', 'prj_1', 'd', 'wllm', 'k', '', false, 0, 1)")


@contextmanager
def earlier_version() -> Iterator[None]:
    """Recorders write rows and rollups, and know nothing of what is spent."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("begin_counting", "end_counting", "add"):
            patched.setattr(in_sqlite, name, lambda *_: None)
        patched.setattr(in_postgres, "COUNTS_BY_ITSELF", "SELECT 1")
        patched.setattr(in_postgres, "add", lambda *_: None)
        yield


def batch(*events: UsageEvent, series: str = "jnl_1", offset: int = 0) -> Batch:
    made = Batch()
    made.settled = [(each, "local") for each in events]
    if offset:
        made.positions[series] = Position(0, offset)
    return made


def some(day: int = 0) -> list[UsageEvent]:
    """Two that count and one that does not, for 33 nano-dollars."""
    at = (NOW_MS + day * DAY_MS) * 1_000_000
    return [
        event(at_ns=at, cost=30),
        event(at_ns=at, cost=None, cache="HIT"),
        event(at_ns=at, cost=3, status=502, provider="groq"),
    ]


def totals(store: SharedUsageStore) -> dict[str, Periods]:
    return store.spent(None, ["total", "2026-11", "2026-11-26"])


def every(requests: int, nanos: int) -> dict[str, Periods]:
    periods = dict.fromkeys(("total", "2026-11", "2026-11-26"), (requests, nanos))
    return dict.fromkeys(("key_1", "prj_1", "org_1"), periods)


def test_rows_of_an_earlier_versions_recorder_are_counted_once(usage: Usage) -> None:
    store = usage.store()
    store.apply(batch(*some()))
    assert not store.catch_up(), "who counts by itself leaves nothing to be counted"
    with earlier_version():
        for _ in range(3):
            store.apply(batch(*some()))
    assert totals(store) == every(2, 33)
    store.apply(batch(*some()))
    assert totals(store) == every(4, 66)
    assert store.catch_up()
    assert totals(store) == every(10, 165)
    assert not usage.store().catch_up()
    assert usage.query("SELECT COUNT(*) FROM spending_due") == [(0,)]


def test_a_stream_that_its_client_left_counts_whoever_recorded_it(usage: Usage) -> None:
    at = NOW_MS * 1_000_000
    left: dict[str, Any] = {"at_ns": at, "cost": 1, "status": 499, "ended": "cancelled"}

    def settled() -> list[UsageEvent]:
        return [event(**left, **more) for more in ({"streamed": True, "first_byte_us": 5}, {"streamed": True}, {})]

    store = usage.store()
    store.apply(batch(*settled()))
    assert totals(store) == every(1, 3)
    with earlier_version():
        store.apply(batch(*settled()))
    store.catch_up()
    assert totals(store) == every(2, 6)


def test_much_that_is_due_is_counted_by_and_by(usage: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (in_sqlite, in_postgres):
        monkeypatch.setattr(module, "_DUE_AT_ONCE", 4)
    store = usage.store()
    with earlier_version():
        store.apply(batch(*some(), *some(), *some()))
    assert store.catch_up()
    assert totals(store) == every(6, 99)


def test_what_is_recorded_before_and_after_an_upgrade_is_in_the_sums(tmp_path: Path, url: str | None) -> None:
    engine = open_engine(url or f"sqlite:///{tmp_path}/watchllm.db")
    migrate_to(engine, "0006")
    engine.dispose()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(schema, "upgrade", lambda _: False)
        usage = Usage(tmp_path, url)
    try:
        if usage.is_postgres:
            # The journals of several hosts came with 0008.
            usage.change("ALTER TABLE journal_positions ADD COLUMN home text")
            usage.change("ALTER TABLE journal_set_aside ADD COLUMN home text")
        add_owners(usage)
        old = usage.store()
        with earlier_version():
            old.apply(batch(*some()))
        if usage.is_postgres:
            usage.change("ALTER TABLE journal_positions DROP COLUMN home")
            usage.change("ALTER TABLE journal_set_aside DROP COLUMN home")
        schema.upgrade(usage.engine)
        with earlier_version():
            old.apply(batch(*some(), *some()))
        store = usage.store()
        assert store.catch_up()
        assert totals(store) == every(6, 99)
    finally:
        usage.close()


def migrate_to(engine: Engine, version: str) -> None:
    config = Config()
    config.set_main_option("script_location", "watchllm.control:migrations")
    with engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            private_schema.enter(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, version)


def test_proxies_of_this_host_are_told_what_an_earlier_recorder_left_uncounted(usage: Usage, tmp_path: Path) -> None:
    with earlier_version():
        usage.store().apply(batch(*some(), offset=100))
    ledger = LmdbLedger(tmp_path / "ledger")
    ledgered = Ledgered(usage.store(), ledger, lambda: NOW)
    ledgered.positions()
    told = ledger.read(["key_1", "prj_1", "org_1"])
    assert told == (every(2, 33), {"jnl_1": Place(0, 100)})
    with earlier_version():
        usage.store().apply(batch(*some()))
    assert ledgered.catch_up()
    assert not ledgered.catch_up()
    told = ledger.read(["key_1", "prj_1", "org_1"])
    assert told is not None
    assert told[0] == every(4, 66)
    ledger.close()


class Accounts:
    """One organization that is kept."""

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, Periods], dict[str, Place]]] = []

    def wanted(self) -> set[str]:
        return set()

    def kept(self) -> set[str]:
        return {"org_1"}

    def write(
        self, spent: dict[str, dict[str, Periods]], places: dict[str, Place], others: dict[str, Place]
    ) -> set[str]:
        for organization, of_it in spent.items():
            self.write_all(organization, of_it, places | others)
        return set()

    def asked_for(self, _organizations: set[str]) -> set[str]:
        return set()

    def expected(self) -> set[str]:
        return set()

    def write_all(self, organization: str, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        assert organization == "org_1"
        self.told.append((spent, places))

    def counted(self, _places: dict[str, Place]) -> None:
        pass

    def knows(self, _series: set[str]) -> bool:
        return True


@pytest.mark.parametrize("this_one", ["records", "rests"])
def test_no_place_of_an_earlier_recorder_is_told_without_what_it_left_uncounted(usage: Usage, this_one: str) -> None:
    accounts = Accounts()
    ledger = SharedLedger(usage.store(), accounts, lambda: NOW)
    ledger.positions()
    ledger.tend()
    accounts.told.clear()
    with earlier_version():
        usage.store().apply(batch(*some(), series="jnl_of_another_host", offset=100))
    ledger.apply(batch(*some(), offset=200)) if this_one == "records" else ledger.catch_up()
    ledger.tend()
    expected = every(4, 66) if this_one == "records" else every(2, 33)
    assert [{name: one["total"] for name, one in spent.items()} for spent, _ in accounts.told] == [
        {name: one["total"] for name, one in expected.items()}
    ]
    ledger.tend()
    assert len(accounts.told) == 1


def periods_left(usage: Usage) -> set[str]:
    return {period for (period,) in usage.query("SELECT DISTINCT period FROM spending WHERE subject = 'key_1'")}


def test_days_and_months_that_are_long_over_are_forgotten_and_totals_are_kept(usage: Usage) -> None:
    store = usage.store()
    for days in (0, 1, 35, 36, 300, 755, 756):
        store.apply(batch(*some(-days)))
    store.apply(batch(event(at_ns=-5, cost=1)))
    assert not store.expire(Retention())
    assert periods_left(usage) == {
        "total",
        *("2026-11-26", "2026-11-25", "2026-10-22"),
        *("2026-11", "2026-10", "2026-01", "2024-11"),
    }
    assert store.spent(["org_1"], ["total"]) == {"org_1": {"total": (15, 7 * 33 + 1)}}


def test_forgetting_many_of_them_takes_several_turns(usage: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    store = usage.store()
    for days in (0, 40, 41, 42):
        store.apply(batch(*some(-days)))
    monkeypatch.setattr(f"{type(store).__module__}._FORGET_AT_ONCE", 4)
    turns = 1
    while store.expire(Retention()):
        turns += 1
    assert turns == 3  # Nine rows.
    assert periods_left(usage) == {"total", "2026-11-26", "2026-11", "2026-10"}


def test_whoever_is_not_there_any_more_is_forgotten(usage: Usage) -> None:
    store = usage.store()
    store.apply(batch(*some(), event(at_ns=NOW_MS * 10**6, project_id="prj_gone", key_id="key_gone", cost=1)))
    assert set(totals(store)) == {"key_1", "prj_1", "org_1", "key_gone", "prj_gone"}
    assert not store.expire(Retention())
    assert totals(store) == every(2, 33)
    usage.change("DELETE FROM keys")
    assert not store.expire(Retention())
    assert set(totals(store)) == {"prj_1", "org_1"}


def test_the_ledger_of_this_host_forgets_once_a_day(usage: Usage, tmp_path: Path) -> None:
    now = [NOW]
    ledger = LmdbLedger(tmp_path / "ledger")
    ledgered = Ledgered(usage.store(), ledger, lambda: now[0])
    ledgered.positions()
    ledgered.apply(batch(*some(), event(at_ns=NOW_MS * 10**6, project_id="prj_gone", key_id="key_gone", cost=1)))
    ledgered.expire(Retention())

    def told() -> dict[str, Periods]:
        found = ledger.read(["key_1", "key_gone"])
        assert found is not None
        return found[0]

    assert set(told()) == {"key_1", "key_gone"}, "not so soon"
    now[0] = datetime(2026, 12, 2, 12, tzinfo=UTC)
    ledgered.expire(Retention())
    assert told() == {"key_1": {"total": (2, 33)}}
    ledger.close()


def test_what_is_due_is_named_as_its_columns(usage: Usage) -> None:
    with earlier_version():
        usage.store().apply(batch(some()[2]))
    (row,) = usage.query(f"SELECT {', '.join(Due._fields)} FROM spending_due")
    assert Due(*row) == Due("key_1", "prj_1", NOW_MS, "chat.completions", "groq", 502, "complete", False, None, 3)
