"""The tiers of service: who goes first, and by how much, when there is not enough for all.

Data: a further tier is a further row. A tier's weight is its part of the turns while every tier waits, so the lowest
one always has a part, too.
"""

from __future__ import annotations

from typing import NamedTuple


class Tier(NamedTuple):
    """`rank` is its place in `TIERS`, 0 is served best. `is_shed_first`: others may be let in where it is refused."""

    name: str
    rank: int
    weight: int
    is_shed_first: bool


TIERS = (
    Tier("enterprise", 0, 8, is_shed_first=False),
    Tier("self-hosted", 1, 8, is_shed_first=False),
    Tier("pro", 2, 4, is_shed_first=True),
    Tier("starter", 3, 2, is_shed_first=True),
    Tier("free", 4, 1, is_shed_first=True),
)
"""From the one that is served best down."""

TIERS_BY_NAME = {tier.name: tier for tier in TIERS}
SELF_HOSTED = TIERS_BY_NAME["self-hosted"]
"""Of whoever runs this gateway."""
