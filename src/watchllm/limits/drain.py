"""How quickly a queue drains, for telling those that it cannot take when to come again."""

from __future__ import annotations

from math import exp
from typing import Final

SPAN: Final = 10.0
"""Seconds; what was longer ago counts for little."""
_LEAST: Final = 1.0
_MOST: Final = 60.0


class DrainRate:
    """An exponentially weighted rate of turns. The clock is the caller's."""

    __slots__ = ("_began", "_last", "_turns")

    def __init__(self) -> None:
        self._turns = 0.0
        self._began = self._last = 0.0

    def turn(self, now: float) -> None:
        """Somebody got a turn."""
        self._fade(now)
        self._turns += 1.0

    def per_second(self, now: float) -> float:
        """0 where nobody got one lately."""
        self._fade(now)
        # A rate that has been measured for a part of the span only is not lower for that.
        measured = SPAN * (1.0 - exp(-max(now - self._began, 0.1) / SPAN))
        return self._turns / measured

    def retry_after(self, now: float, *, ahead: int, share: float, unknown: float) -> float:
        """Seconds until one that has `ahead` before it in its tier, which gets `share` of the turns, would get its own:
        between one second and a minute; `unknown` where nobody got one lately."""
        rate = self.per_second(now) * share
        return min(max(_LEAST, (ahead + 1) / rate if rate else unknown), _MOST)

    def _fade(self, now: float) -> None:
        self._turns *= exp(-(now - self._last) / SPAN) if self._turns else 0.0
        if self._turns < 0.001:
            self._turns = 0.0
            self._began = now
        self._last = now
