"""The table `spending` in PostgreSQL: added to, read and shortened in the transactions of `stores.postgres.usage`."""

from collections.abc import Callable, Iterable

from watchllm.analytics import spending
from watchllm.domain.ledger import Periods
from watchllm.stores.postgres import merging
from watchllm.stores.postgres.partitions import RawConnection

COUNTS_BY_ITSELF = "SELECT set_config('watchllm.counts_spending', 'on', true)"
"""Says that this transaction counts the rows that it writes, or that they are counted already."""

_LARGEST = (1 << 63) - 1
_DUE_AT_ONCE = 20_000

_ADD = merging.statement(
    "spending",
    {"subject": "text", "period": "text", "requests": "bigint", "nanos": "bigint"},
    "(subject, period) DO UPDATE SET requests = kept.requests + excluded.requests, "
    f"nanos = LEAST(kept.nanos::numeric + excluded.nanos, {_LARGEST})",
)
# Recorders of several hosts take it in turns: none of them then tells of less than another has taken.
_DUE_LOCK = "SELECT pg_advisory_xact_lock(2003909740, 1685415200)"
_TAKE_DUE = (
    "DELETE FROM watchllm.spending_due "  # noqa: S608 (names of our own)
    "WHERE id = ANY(ARRAY(SELECT id FROM watchllm.spending_due ORDER BY id LIMIT %s)) "
    f"RETURNING {', '.join(spending.Due._fields)}"
)
_PERIODS = (
    "WITH RECURSIVE hop (period) AS (SELECT MIN(period) FROM watchllm.spending UNION ALL "
    "SELECT (SELECT MIN(period) FROM watchllm.spending WHERE period > hop.period) FROM hop "
    "WHERE hop.period IS NOT NULL) SELECT period FROM hop WHERE period IS NOT NULL"
)
_FORGET = (
    "DELETE FROM watchllm.spending WHERE ctid = ANY(ARRAY("
    "SELECT ctid FROM watchllm.spending WHERE period = ANY(%s) LIMIT %s))"
)
_FORGET_ORPHANS = (
    "WITH gone AS MATERIALIZED (SELECT subject FROM watchllm.spending WHERE period = %s "
    "AND NOT EXISTS (SELECT 1 FROM watchllm.keys WHERE id = subject) "
    "AND NOT EXISTS (SELECT 1 FROM watchllm.projects WHERE id = subject) "
    "AND NOT EXISTS (SELECT 1 FROM watchllm.organizations WHERE id = subject) LIMIT %s), "
    "removed AS (DELETE FROM watchllm.spending USING gone WHERE spending.subject = gone.subject) "
    "SELECT count(*) FROM gone"
)


def add(connection: RawConnection, uses: spending.Uses, organization_of: Callable[[str], str | None]) -> None:
    """Count these for their keys, projects and organizations, in one order, so that nobody waits in a circle."""
    sums = spending.by_subject(uses, organization_of)
    rows = [(*key, requests, min(nanos, _LARGEST)) for key, (requests, nanos) in sorted(sums.items())]
    merging.merge(connection, _ADD, rows)


def take_due(connection: RawConnection) -> list[spending.Due]:
    """Some of the rows that their recorder did not count; whoever takes them counts them in the same transaction."""
    if connection.execute("SELECT 1 FROM watchllm.spending_due LIMIT 1").fetchone() is None:
        return []
    connection.execute(_DUE_LOCK)
    return [spending.Due(*row) for row in connection.execute(_TAKE_DUE, [_DUE_AT_ONCE]).fetchall()]


def spent(connection: RawConnection, subjects: Iterable[str] | None, periods: Iterable[str]) -> dict[str, Periods]:
    """What these have spent in `periods`, None = everybody."""
    query = "SELECT subject, period, requests, nanos FROM watchllm.spending WHERE period = ANY(%s)"
    values = [list(periods)]
    if subjects is not None:
        query += " AND subject = ANY(%s)"
        values.append(list(subjects))
    found: dict[str, Periods] = {}
    for subject, period, requests, nanos in connection.execute(query, values).fetchall():
        found.setdefault(subject, {})[period] = (requests, nanos)
    return found


def forget(connection: RawConnection, now_ms: int, most: int) -> int:
    """Remove up to `most` rows of days and months that are long over, or those of as many keys, projects and
    organizations that are no more; how many."""
    old = spending.expired([period for (period,) in connection.execute(_PERIODS).fetchall()], now_ms)
    if old:
        return connection.execute(_FORGET, [old, most]).rowcount
    found = connection.execute(_FORGET_ORPHANS, [spending.TOTAL, most]).fetchone()
    return 0 if found is None else int(found[0])
