"""What the recorder tells the proxies of all hosts, and when, over a real database."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.journal import Usage, event, usage_in
from tests.support.postgres import Connected
from watchllm.domain.ledger import NotTold, Periods, Place
from watchllm.journal.recorder import Batch, Position
from watchllm.journal.shared_ledger import SharedLedger
from watchllm.stores.sqlite.usage import SqliteUsageStore


class Accounts:
    """What was told, in order; cannot be told while `is_down`."""

    def __init__(self) -> None:
        self.asked_for_ones: set[str] = set()
        self.kept_ones: set[str] = set()
        self.written: set[str] = set()
        self.said: list[tuple[str, dict[str, tuple[int, int]], dict[str, Place]]] = []
        self.others: dict[str, Place] = {}
        """The places of others that were told with the last of them."""
        self.on_write: Callable[[], None] = lambda: None
        """Happens while one is written that was not before."""
        self.series: set[str] = set()
        """Of which a place was told that is not their end."""
        self.is_down = False
        self.is_emptied = False

    def _look(self) -> None:
        if self.is_down:
            raise NotTold("nobody is there")

    def wanted(self) -> set[str]:
        self._look()
        return set(self.asked_for_ones)

    def kept(self) -> set[str]:
        self._look()
        return set(self.kept_ones)

    def write(
        self, spent: dict[str, dict[str, Periods]], places: dict[str, Place], others: dict[str, Place]
    ) -> set[str]:
        self._look()
        for organization, of_it in spent.items():
            if organization in self.written:
                self.said.append((f"some of {organization}", _totals(of_it), places))
                self.others = others
        return spent.keys() - self.written

    def asked_for(self, organizations: set[str]) -> set[str]:
        self._look()
        return organizations & (self.asked_for_ones | self.kept_ones)

    def write_all(self, organization: str, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        self._look()
        self.kept_ones.add(organization)
        self.on_write()
        self.written.add(organization)
        self.asked_for_ones.discard(organization)
        self.said.append((f"all of {organization}", _totals(spent), places))

    def counted(self, places: dict[str, Place]) -> None:
        self._look()
        self.said.append(("counted", {}, places))

    def expected(self) -> set[str]:
        self._look()
        return self.series

    def knows(self, series: set[str]) -> bool:
        self._look()
        return not self.is_emptied and all(any(one in places for _, _, places in self.said) for one in series)


def _totals(spent: dict[str, Periods]) -> dict[str, tuple[int, int]]:
    return {name: periods["total"] for name, periods in spent.items()}


class Clock:
    now = 0.0


@pytest.fixture
def usage(tmp_path: Path) -> Iterator[Usage]:
    usage = Usage(tmp_path)
    with usage.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO organizations (id, name, created_ms) VALUES ('org_1', 'one', 0)")
        project = "INSERT INTO projects (id, organization_id, name, settings, created_ms)"
        connection.exec_driver_sql(f"{project} VALUES ('prj_1', 'org_1', 'one', '{{}}', 0)")
    yield usage
    usage.engine.dispose()


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


@pytest.fixture
def ledger(usage: Usage, accounts: Accounts) -> SharedLedger:
    store = SqliteUsageStore(usage.engine, lambda: time.time_ns() // 1_000_000)
    return SharedLedger(store, accounts, monotonic=lambda: Clock.now)


def batch(offset: int, cost: int = 10, *, finished: bool = False, series: str = "jrn_1") -> Batch:
    made = Batch()
    made.settled.append((event(cost=cost), "local"))
    made.positions[series] = Position(0, offset, finished)
    if finished:
        made.finished.append(series)
    return made


def test_who_is_asked_for_is_told_of_in_full_and_then_of_what_is_new(ledger: SharedLedger, accounts: Accounts) -> None:
    ledger.positions()
    ledger.apply(batch(100))
    ledger.tend()
    assert accounts.said == [("counted", {}, {"jrn_1": Place(0, 100)})]
    accounts.asked_for_ones.add("org_1")
    ledger.tend()
    name, totals, places = accounts.said.pop()
    assert (name, places) == ("all of org_1", {"jrn_1": Place(0, 100)})
    assert totals == {"prj_1": (1, 10), "org_1": (1, 10)}
    ledger.apply(batch(200, 5))
    assert [said[0] for said in accounts.said[-2:]] == ["some of org_1", "counted"]
    assert accounts.said[-2][1:] == (
        {"prj_1": (2, 15), "org_1": (2, 15), "key_1": (2, 15)},
        {"jrn_1": Place(0, 200)},
    )


def test_what_could_not_be_told_is_told_in_full_later_and_recorded_meanwhile(
    ledger: SharedLedger, accounts: Accounts
) -> None:
    accounts.asked_for_ones.add("org_1")
    ledger.positions()
    ledger.tend()
    accounts.said.clear()
    accounts.is_down = True
    assert ledger.apply(batch(100)) == 1
    assert ledger.problem == "nobody is there"
    assert ledger.apply(batch(200)) == 1
    accounts.is_down = False
    ledger.tend()
    assert accounts.said == []  # Not so soon.
    Clock.now += 1
    ledger.tend()
    assert ledger.problem is None
    assert [said[0] for said in accounts.said] == ["all of org_1", "counted"]
    assert accounts.said[0][1]["org_1"] == (2, 20)


@pytest.mark.parametrize("how", ["a recorder starts", "a series ends"])
def test_all_is_told_anew_when_it_is_not_sure_what_was(ledger: SharedLedger, accounts: Accounts, how: str) -> None:
    accounts.asked_for_ones.add("org_1")
    ledger.positions()
    ledger.tend()
    accounts.said.clear()
    if how == "a recorder starts":
        ledger.positions()
    else:
        ledger.apply(batch(100, finished=True))
    ledger.tend()
    assert [said[0] for said in accounts.said] == ["all of org_1", "counted"]
    if how == "a series ends":
        assert accounts.said[0][2] == {"jrn_1": Place(0, 100, finished=True)}


def test_places_that_were_lost_are_told_again(ledger: SharedLedger, accounts: Accounts) -> None:
    ledger.positions()
    ledger.tend()
    ledger.apply(batch(100))
    Clock.now += 1
    ledger.tend()
    told = [("counted", {}, {"jrn_1": Place(0, 100)})]
    assert accounts.said[1:] == told
    accounts.is_emptied = True
    Clock.now += 1
    ledger.tend()
    assert accounts.said[2:] == told


def test_the_journals_of_other_hosts_count_where_they_record_in_the_same_database(
    tmp_path: Path, accounts: Accounts, postgres_database: Connected
) -> None:
    url = postgres_database.url
    with usage_in(tmp_path / "one", url, "home_1") as one, usage_in(tmp_path / "two", url, "home_2") as two:
        one.change("INSERT INTO organizations (id, name, created_ms) VALUES ('org_1', 'one', 0)")
        project = "INSERT INTO projects (id, organization_id, name, settings, created_ms)"
        one.change(f"{project} VALUES ('prj_1', 'org_1', 'one', '{{}}', 0)")
        two.store().apply(batch(100, series="jrn_2"))
        ledger = SharedLedger(one.store(), accounts, monotonic=lambda: Clock.now)
        accounts.asked_for_ones.add("org_1")
        assert ledger.positions() == {}
        # Its proxies are waited for, and what is counted of them is not counted again.
        ledger.tend()
        assert accounts.said[0] == (
            "all of org_1",
            {"prj_1": (1, 10), "org_1": (1, 10)},
            {"jrn_2": Place(0, 100)},
        )
        two.store().apply(batch(200, series="jrn_2"))
        ledger.apply(batch(300))
        some, counted = accounts.said[-2:]
        assert some[1] == {"prj_1": (3, 30), "org_1": (3, 30), "key_1": (3, 30)}
        assert (some[2], accounts.others) == ({"jrn_1": Place(0, 300)}, {"jrn_2": Place(0, 200)})
        assert counted == ("counted", {}, {"jrn_1": Place(0, 300)})


def test_what_is_recorded_while_others_write_an_account_is_told(ledger: SharedLedger, accounts: Accounts) -> None:
    ledger.positions()
    ledger.tend()
    accounts.kept_ones.add("org_1")  # Another recorder has read the totals, and is about to write them.
    ledger.apply(batch(100))
    accounts.written.add("org_1")
    ledger.tend()
    assert accounts.said[1:3] == [
        ("all of org_1", {"prj_1": (1, 10), "org_1": (1, 10)}, {"jrn_1": Place(0, 100)}),
        ("counted", {}, {"jrn_1": Place(0, 100)}),
    ]


class Slow(Accounts):
    """Two are told of at a time."""

    def write_all(self, organization: str, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        super().write_all(organization, spent, places)
        Clock.now += 0.15


def test_batches_are_recorded_while_many_are_told_of(usage: Usage) -> None:
    accounts = Slow()
    ledger = SharedLedger(SqliteUsageStore(usage.engine, lambda: 1), accounts, monotonic=lambda: Clock.now)
    accounts.kept_ones = accounts.written = {"org_1", "org_2", "org_3", "org_4", "org_5"}
    ledger.positions()
    ledger.apply(batch(100))
    ledger.tend()
    assert [said[0] for said in accounts.said] == ["all of org_1", "all of org_2"]
    ledger.apply(batch(200))
    # What others of it have used may not have been told: nothing of theirs is forgotten for it.
    name, totals, places = accounts.said[2]
    assert (name, totals["org_1"], places) == ("some of org_1", (2, 20), {})
    assert accounts.others == {"jrn_1": Place(0, 200)}
    # Somebody waits for it.
    accounts.asked_for_ones.add("org_6")
    ledger.tend()
    assert [said[0] for said in accounts.said[3:]] == ["all of org_6", "all of org_3"]
    ledger.tend()
    assert [said[0] for said in accounts.said[5:]] == ["all of org_4", "all of org_5"]
    ledger.tend()
    now = {"jrn_1": Place(0, 200)}
    assert accounts.said[7:] == [("some of org_1", {}, now), ("counted", {}, now)]
    ledger.apply(batch(300))
    assert [said[0] for said in accounts.said[9:]] == ["some of org_1", "counted"]


def test_nobody_is_told_of_in_full_again_for_what_is_recorded_all_the_time(usage: Usage) -> None:
    accounts = Slow()
    ledger = SharedLedger(SqliteUsageStore(usage.engine, lambda: 1), accounts, monotonic=lambda: Clock.now)
    accounts.kept_ones = {"org_1", "org_2", "org_3"}
    ledger.positions()
    for end in range(100, 700, 100):
        ledger.apply(batch(end))
        ledger.tend()
    assert [said[0] for said in accounts.said].count("all of org_1") == 1
    assert accounts.said[-1] == ("counted", {}, {"jrn_1": Place(0, 600)})


def test_nothing_counts_as_told_of_whose_journal_has_ended_meanwhile(usage: Usage) -> None:
    accounts = Slow()
    store = SqliteUsageStore(usage.engine, lambda: time.time_ns() // 1_000_000)
    ledger = SharedLedger(store, accounts, monotonic=lambda: Clock.now)
    accounts.kept_ones = {"org_1", "org_2", "org_3"}
    ledger.positions()
    ledger.tend()
    ledger.apply(batch(100))
    # Whom it concerns is told in the next round.
    ledger.apply(batch(100, series="jrn_2", finished=True))
    ledger.apply(batch(200))
    for _ in range(8):
        ledger.tend()
    said = [(what, places) for what, _, places in accounts.said]
    first = said.index(("counted", {"jrn_1": Place(0, 100)}))
    ends = {"jrn_1": Place(0, 200), "jrn_2": Place(0, 100, finished=True)}
    assert "counted" not in [what for what, _ in said[:first]]
    assert said[first + 1 :] == [(what, ends) for what in ("all of org_1", "all of org_2", "all of org_3", "counted")]


def test_what_of_nobody_with_limits_is_recorded_meanwhile_counts_too(usage: Usage) -> None:
    accounts = Accounts()
    ledger = SharedLedger(SqliteUsageStore(usage.engine, lambda: 1), accounts, monotonic=lambda: Clock.now)
    accounts.kept_ones = {"org_2"}

    def recorded() -> None:
        accounts.on_write = lambda: None
        ledger.apply(batch(100))

    usage.change("DELETE FROM projects")  # Nobody knows whose it is.
    accounts.on_write = recorded
    ledger.positions()
    ledger.tend()
    assert accounts.said[-1] == ("counted", {}, {"jrn_1": Place(0, 100)})


def test_ends_of_journals_that_everybody_was_told_of_are_not_told_for_days(usage: Usage, accounts: Accounts) -> None:
    began = datetime(2026, 11, 26, tzinfo=UTC)
    store = SqliteUsageStore(usage.engine, lambda: int(began.timestamp() * 1000))
    for name in ("jrn_1", "jrn_2"):
        store.apply(batch(100, series=name, finished=True))
    store.apply(batch(100, series="jrn_3"))
    accounts.asked_for_ones.add("org_1")
    accounts.series = {"jrn_2", "jrn_3"}

    def told_after(hours: int) -> set[str]:
        ledger = SharedLedger(store, accounts, lambda: began + timedelta(hours=hours), lambda: Clock.now)
        ledger.positions()
        ledger.tend()
        return set(next(places for what, _, places in reversed(accounts.said) if what == "all of org_1"))

    assert told_after(1) == {"jrn_1", "jrn_2", "jrn_3"}
    # The end of the second one has still to be told.
    assert told_after(3) == {"jrn_2", "jrn_3"}
