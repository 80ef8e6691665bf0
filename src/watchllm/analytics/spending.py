"""What each key, project and organization has spent: billable requests and nano-dollars by day, by month and in all.

Kept in the transaction that writes the rows they sum up, and told to the proxies, whose limits count from there. Days
are kept for five weeks, months for two years and the one that is not over; the total stays as long as whose it is.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from watchllm.domain.billable import counts
from watchllm.domain.usage_event import UsageEvent

TOTAL = "total"
DAYS_KEPT = 35
"""How many days, today's not counted."""
MONTHS_KEPT = 25
"""How many months, the current one counted."""
_DAY_SECONDS = 86_400

Spending: TypeAlias = dict[tuple[str, str], list[int]]
"""Requests and nano-dollars by subject and period: `total`, a month as `2026-11`, a day of UTC as `2026-11-26`."""

Uses: TypeAlias = dict[tuple[str, str, int], list[int]]
"""The same by key, project and number of the day since 1970, which is what is added up for each event."""


def add(uses: Uses, event: UsageEvent) -> None:
    """Count one event."""
    key = (event.key_id, event.project_id, max(event.at_ns, 0) // (_DAY_SECONDS * 1_000_000_000))
    sums = uses.get(key)
    if sums is None:
        sums = uses[key] = [0, 0]
    sums[0] += counts(event)
    sums[1] += event.cost or 0


class Due(NamedTuple):
    """What counts of a row that its recorder did not count, named as its columns."""

    key_id: str
    project_id: str
    at_ms: int
    endpoint: str
    provider: str
    status: int
    ended: str
    streamed: bool
    first_byte_us: int | None
    cost_nanos: int | None


def add_due(uses: Uses, due: Due) -> None:
    """Count a row that its recorder did not count."""
    key = (due.key_id, due.project_id, due.at_ms // (_DAY_SECONDS * 1000))
    sums = uses.setdefault(key, [0, 0])
    sums[0] += counts(due)
    sums[1] += due.cost_nanos or 0


def by_subject(uses: Uses, organization_of: Callable[[str], str | None]) -> Spending:
    """What was counted, for each key, its project and that one's organization in each of the periods."""
    spending: Spending = {}
    for (key_id, project_id, day), (requests, nanos) in uses.items():
        if not requests and not nanos:
            continue
        for subject in (key_id, project_id, organization_of(project_id)):
            if subject is not None:
                for period in periods(day):
                    sums = spending.setdefault((subject, period), [0, 0])
                    sums[0] += requests
                    sums[1] += nanos
    return spending


@lru_cache(64)
def periods(day: int) -> tuple[str, str, str]:
    """The periods that the day of this number since 1970 belongs to: in all, its month, itself."""
    date = datetime.fromtimestamp(day * _DAY_SECONDS, UTC)
    return TOTAL, f"{date:%Y-%m}", f"{date:%Y-%m-%d}"


def expired(present: Iterable[str], now_ms: int) -> list[str]:
    """Those of the periods that need not be kept any longer."""
    now = datetime.fromtimestamp(now_ms // 1000, UTC)
    day = f"{now - timedelta(days=DAYS_KEPT):%Y-%m-%d}"
    year, month = divmod(now.year * 12 + now.month - MONTHS_KEPT, 12)
    oldest = {len("2026-11-26"): day, len("2026-11"): f"{year:04}-{month + 1:02}"}
    return [period for period in present if period < oldest.get(len(period), "")]
