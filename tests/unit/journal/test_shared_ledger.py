"""What the recorder tells the proxies of all hosts, and when, over a real database."""

import time
from collections.abc import Iterator
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
        self.asked_for: set[str] = set()
        self.kept_ones: set[str] = set()
        self.said: list[tuple[str, dict[str, tuple[int, int]], dict[str, Place]]] = []
        self.others: dict[str, Place] = {}
        """The places of others that were told with the last of them."""
        self.is_down = False
        self.is_emptied = False

    def _look(self) -> None:
        if self.is_down:
            raise NotTold("nobody is there")

    def wanted(self) -> set[str]:
        self._look()
        return set(self.asked_for)

    def kept(self) -> set[str]:
        self._look()
        return set(self.kept_ones)

    def write(self, spent: dict[str, dict[str, Periods]], places: dict[str, Place], others: dict[str, Place]) -> None:
        self._look()
        for organization, of_it in spent.items():
            if organization in self.kept_ones:
                self.said.append((f"some of {organization}", _totals(of_it), places))
                self.others = others

    def write_all(self, organization: str, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        self._look()
        self.kept_ones.add(organization)
        self.asked_for.discard(organization)
        self.said.append((f"all of {organization}", _totals(spent), places))

    def counted(self, places: dict[str, Place]) -> None:
        self._look()
        self.said.append(("counted", {}, places))

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
    accounts.asked_for.add("org_1")
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
    accounts.asked_for.add("org_1")
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
    accounts.asked_for.add("org_1")
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
        accounts.asked_for.add("org_1")
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
