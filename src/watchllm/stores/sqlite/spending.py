"""The table `spending` in SQLite: added to, read and shortened in the transactions of `stores.sqlite.usage`."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator

from watchllm.analytics import spending
from watchllm.domain.ledger import Periods

_LARGEST = (1 << 63) - 1
_IN_CHUNK = 500
_DUE_AT_ONCE = 10_000

# Beyond 64 bits a sum would be a float from then on, which no reader of integers takes.
_ADD = (
    "INSERT INTO spending (subject, period, requests, nanos) VALUES (?, ?, ?, ?) "  # noqa: S608 (a number)
    "ON CONFLICT (subject, period) DO UPDATE SET requests = requests + excluded.requests, "
    f"nanos = MIN(nanos + excluded.nanos, {_LARGEST})"
)
_COUNTS_BY_ITSELF = (
    "INSERT INTO spending_due (id, key_id, project_id, at_ms, endpoint, provider, status, ended, streamed) "
    "VALUES (0, '', '', 0, '', '', 0, '', FALSE)"
)
_DUE = f"SELECT {', '.join(spending.Due._fields)}, id FROM spending_due ORDER BY id LIMIT ?"  # noqa: S608 (names)
_PERIODS = (
    "WITH RECURSIVE hop (period) AS (SELECT MIN(period) FROM spending UNION ALL "
    "SELECT (SELECT MIN(period) FROM spending WHERE period > hop.period) FROM hop WHERE hop.period IS NOT NULL) "
    "SELECT period FROM hop WHERE period IS NOT NULL"
)
_ORPHANS = (
    "SELECT subject FROM spending WHERE period = ? "
    "AND NOT EXISTS (SELECT 1 FROM keys WHERE id = subject) "
    "AND NOT EXISTS (SELECT 1 FROM projects WHERE id = subject) "
    "AND NOT EXISTS (SELECT 1 FROM organizations WHERE id = subject) LIMIT ?"
)


def begin_counting(connection: sqlite3.Connection) -> None:
    """Say that this transaction counts the rows that it writes; to be ended by `end_counting`."""
    connection.execute(_COUNTS_BY_ITSELF)


def end_counting(connection: sqlite3.Connection) -> None:
    """Rows that are written from now on are counted by whoever finds them."""
    connection.execute("DELETE FROM spending_due WHERE id = 0")


def add(connection: sqlite3.Connection, uses: spending.Uses, organization_of: Callable[[str], str | None]) -> None:
    """Count these for their keys, projects and organizations."""
    sums = spending.by_subject(uses, organization_of)
    connection.executemany(_ADD, [(*key, requests, min(nanos, _LARGEST)) for key, (requests, nanos) in sums.items()])


def add_due(connection: sqlite3.Connection, organization_of: Callable[[str], str | None]) -> int:
    """Count some of the rows that their recorder did not count; how many there were."""
    rows = connection.execute(_DUE, (_DUE_AT_ONCE,)).fetchall()
    uses: spending.Uses = {}
    for *due, _ in rows:
        spending.add_due(uses, spending.Due(*due))
    add(connection, uses, organization_of)
    connection.executemany("DELETE FROM spending_due WHERE id = ?", [(row[-1],) for row in rows])
    return len(rows)


def spent(connection: sqlite3.Connection, subjects: Iterable[str] | None, periods: Iterable[str]) -> dict[str, Periods]:
    """What these have spent in `periods`, None = everybody."""
    within = list(periods)
    query = (
        "SELECT subject, period, requests, nanos FROM spending "  # noqa: S608 (marks only)
        f"WHERE period IN ({', '.join('?' * len(within))})"
    )
    found: dict[str, Periods] = {}
    for condition, chunk in _chunks(subjects):
        for subject, period, requests, nanos in connection.execute(query + condition, within + chunk):
            found.setdefault(subject, {})[period] = (requests, nanos)
    return found


def forget(connection: sqlite3.Connection, now_ms: int, most: int) -> int:
    """Remove up to `most` rows of days and months that are long over, or those of as many keys, projects and
    organizations that are no more; how many."""
    old = spending.expired([period for (period,) in connection.execute(_PERIODS)], now_ms)
    if old:
        rows = f"SELECT rowid FROM spending WHERE period IN ({', '.join('?' * len(old))}) LIMIT ?"  # noqa: S608 (marks)
        return connection.execute(f"DELETE FROM spending WHERE rowid IN ({rows})", (*old, most)).rowcount  # noqa: S608
    orphans = connection.execute(_ORPHANS, (spending.TOTAL, most)).fetchall()
    connection.executemany("DELETE FROM spending WHERE subject = ?", orphans)
    return len(orphans)


def _chunks(subjects: Iterable[str] | None) -> Iterator[tuple[str, list[str]]]:
    """Conditions on the subject, each with its parameters; one without any for all."""
    if subjects is None:
        yield "", []
        return
    names = sorted(subjects)
    for start in range(0, len(names), _IN_CHUNK):
        chunk = names[start : start + _IN_CHUNK]
        yield f" AND subject IN ({', '.join('?' * len(chunk))})", chunk
