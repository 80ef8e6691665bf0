"""Uses of projects' provider keys by hour, kept in the transaction that writes the rows they are counted from.

Each call upstream counts, retries and hedges too, in the hour in which it began. The operator's own keys are nobody's
but the operator's, and are not counted here.
"""

from typing import TypeAlias

from watchllm.analytics.rollups import HOUR_MS
from watchllm.domain.usage_event import UsageEvent

KEY = ("provider_key_id", "hour_ms")
MEASURES = ("project_id", "uses", "refused", "last_ms", "last_refused_ms", "last_worked_ms")
"""`refused` counts the answers 401 and 403. `last_refused_ms` and `last_worked_ms`, the latest answer 2xx, tell whether
the provider takes the key now; None = none in this hour."""

REFUSALS = frozenset((401, 403))

KeyUses: TypeAlias = dict[tuple[str, int], tuple[str, int, int, int, int | None, int | None]]


def add(uses: KeyUses, event: UsageEvent) -> None:
    """Count the calls upstream of one event."""
    for attempt in event.attempts:
        if attempt.key_id is None:
            continue
        # From the whole milliseconds that the row holds, so that the sums can be computed again from the rows.
        at_ms = max(event.at_ns, 0) // 1_000_000 + attempt.began_us // 1000
        key = (attempt.key_id, at_ms - at_ms % HOUR_MS)
        _, count, refused, last, last_refused, last_worked = uses.get(key, ("", 0, 0, 0, None, None))
        if attempt.status in REFUSALS:
            refused += 1
            last_refused = max(at_ms, last_refused or 0)
        elif 200 <= attempt.status < 300:
            last_worked = max(at_ms, last_worked or 0)
        uses[key] = event.project_id, count + 1, refused, max(at_ms, last), last_refused, last_worked
