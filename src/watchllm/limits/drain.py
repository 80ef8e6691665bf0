"""How long calls take, for telling those that a queue cannot take when to come again.

By Little's law (J. D. C. Little, Operations Research 9, 1961): the calls that were under way, summed over time, are the
time that all of them took. Time in which there is nothing to do adds nothing, so it does not look like slowness.
"""

from __future__ import annotations

from typing import Final

CALLS: Final = 64
"""When so many have ended, what is known of them is from now on worth half as much as what comes."""
_LEAST: Final = 1.0
_MOST: Final = 60.0


class Drain:
    """The clock is the caller's, in seconds."""

    __slots__ = ("_ended", "_last", "_seconds")

    def __init__(self) -> None:
        self._ended = 0.0
        self._seconds = 0.0
        self._last = 0.0

    def passed(self, now: float, under_way: int) -> None:
        """So many calls were under way since this was last told; call it before that changes."""
        self._seconds += under_way * (now - self._last)
        self._last = now

    def ended(self) -> None:
        """One of them has ended now."""
        self._ended += 1.0
        if self._ended >= CALLS:
            self._ended /= 2
            self._seconds /= 2

    def seconds_a_call(self) -> float | None:
        """None = none has ended yet."""
        return self._seconds / self._ended if self._ended else None

    def retry_after(self, *, places: int, ahead: int, share: float) -> float:
        """Seconds until one that has `ahead` before it in its tier, which gets `share` of the turns at so many
        `places`, all of them taken, would get its own: between one second and a minute.

        While no call has ended, those under way are taken to need no more than they have had: who comes too early is
        told what is known by then.
        """
        seconds = self._seconds / (self._ended or places)
        expected = (ahead + 1) * seconds / (places * share)
        return min(max(_LEAST, expected), _MOST)
