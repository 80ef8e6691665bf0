"""A database that is restored from a backup while its recorder runs: what it lacks is read again from the journals."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.journal import Usage, event, journal_in, usage_in
from watchllm.journal.journal import Journal
from watchllm.journal.restored import PositionsChanged

_TABLES = ("usage_logs", "usage_hourly", "provider_key_uses", "spending", "journal_positions")


@pytest.fixture(params=["sqlite", "postgres"])
def usage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Usage]:
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_database").url
    with usage_in(tmp_path, url) as usage:
        yield usage


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return journal_in(tmp_path)


def back_up(usage: Usage) -> None:
    for table in _TABLES:
        usage.change(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}")


def restore(usage: Usage) -> None:
    for table in _TABLES:
        usage.change(f"DELETE FROM {table}")
        usage.change(f"INSERT INTO {table} SELECT * FROM kept_{table}")
    usage.change("DELETE FROM spending_due")  # Rows that are put back are no new ones.


def settle(journal: Journal, count: int) -> list[str]:
    events = [event() for _ in range(count)]
    for one in events:
        journal.settled(one)
    return [one.request_id for one in events]


def requests_spent(usage: Usage) -> list[tuple[int]]:
    return usage.query("SELECT requests FROM spending WHERE subject = 'key_1' AND period = 'total'")


def test_what_a_restored_database_lacks_is_recorded_again_and_once(usage: Usage, journal: Journal) -> None:
    before = settle(journal, 20)
    usage.record()
    back_up(usage)
    after = settle(journal, 8)
    usage.record()
    restore(usage)
    assert sorted(usage.ids()) == sorted(before)
    new = settle(journal, 1)
    with pytest.raises(PositionsChanged, match="restored from a backup"):
        usage.record()
    assert sorted(usage.ids()) == sorted(before), "nothing is written from a position that is not the database's"
    usage.record()
    assert sorted(usage.ids()) == sorted([*before, *after, *new])
    assert usage.rollups() == usage.rollups_from_rows()
    assert usage.key_uses() == usage.key_uses_from_rows()
    assert requests_spent(usage) == [(29,)]
    assert usage.reports == [], "nothing is lost"


def test_a_database_of_before_the_journal_began_is_filled_from_its_beginning(usage: Usage, journal: Journal) -> None:
    back_up(usage)
    ids = settle(journal, 8)
    usage.record()
    restore(usage)
    ids += settle(journal, 1)
    with pytest.raises(PositionsChanged):
        usage.record()
    usage.record()
    assert sorted(usage.ids()) == sorted(ids)
    assert usage.reports == []


def test_a_journal_that_ends_after_the_restoration_is_not_removed_before_it_is_read(
    usage: Usage, journal: Journal
) -> None:
    before = settle(journal, 3)
    usage.record()
    back_up(usage)
    after = settle(journal, 5)
    usage.record()
    restore(usage)
    journal.close()
    with pytest.raises(PositionsChanged):
        usage.record()
    usage.record()
    assert sorted(usage.ids()) == sorted([*before, *after])
    assert list(journal.folder.glob("jnl_*")) == []


def test_what_is_lost_because_its_segments_are_gone_is_told(usage: Usage, journal: Journal) -> None:
    before = settle(journal, 3)
    usage.record()
    back_up(usage)
    while [*journal.folder.glob("*-00000001.seg")]:
        settle(journal, 50)
        usage.record()
    restore(usage)
    new = settle(journal, 1)
    with pytest.raises(PositionsChanged):
        usage.record()
    usage.record()
    ids = usage.ids()
    assert set(ids) > {*before, *new}
    assert len(ids) == len(set(ids))
    assert usage.rollups() == usage.rollups_from_rows()
    assert [report for report in usage.reports if "is lost" in report] == usage.reports
    assert len(usage.reports) == 1
