"""What each key, project and organization has spent: billable requests and nano-dollars by day, by month and in all.

Kept in the transaction that writes the rows they sum up, and told to the proxies, whose limits count from there.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeAlias

from watchllm.domain.billable import counts
from watchllm.domain.usage_event import UsageEvent

TOTAL = "total"
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
