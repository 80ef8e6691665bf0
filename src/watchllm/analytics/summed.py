"""All that a batch of events adds to the sums that are kept beside the rows, in one pass."""

from collections.abc import Iterable
from typing import NamedTuple

from watchllm.analytics import key_uses, rollups, spending
from watchllm.domain.usage_event import UsageEvent


class Summed(NamedTuple):
    """By hour, by provider key, and by who has spent it."""

    rollup: rollups.Rollup
    uses: key_uses.KeyUses
    spent: spending.Uses


def summed(events: Iterable[tuple[UsageEvent, str]]) -> Summed:
    """Of events with their regions."""
    found = Summed({}, {}, {})
    for event, _ in events:
        rollups.add(found.rollup, event)
        spending.add(found.spent, event)
        if event.attempts:
            key_uses.add(found.uses, event)
    return found
