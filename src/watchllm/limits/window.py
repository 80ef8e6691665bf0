"""What was used in the last minute, never too little, in at most 61 portions.

What is used within a second is one portion, which counts until 60 s after its last use. So where the sum of the
portions stays within a limit, so does every 60 s; whoever always uses all there is gets 60/61 of it, 98.4 %, and
whoever was idle may use all of it at once.
"""

from __future__ import annotations

from collections import deque

SECONDS = 60.0
_PORTION_SECONDS = 1.0
_LONG_AGO = float("-inf")


class Portion:
    """What was used between `first` and `last`, in seconds of the window's clock."""

    __slots__ = ("amount", "counts", "first", "last")

    def __init__(self, now: float, amount: int) -> None:
        self.first = self.last = now
        self.amount = amount
        self.counts = True


class Window:
    """Uses of the last minute. Times are seconds of one clock that does not go back."""

    __slots__ = ("_newest", "_passes", "_portion_ends", "_portions", "_sum")

    def __init__(self) -> None:
        self._portions: deque[Portion] = deque()
        self._sum = 0
        self._newest = Portion(_LONG_AGO, 0)
        # Until then nothing passes, and the newest portion is added to.
        self._passes = self._portion_ends = _LONG_AGO

    def used(self, now: float) -> int:
        """What was used in the last 60 s."""
        if now >= self._passes:
            self._clear(now)
        return self._sum

    def add(self, now: float, amount: int) -> Portion:
        """Use `amount`; what it is now a part of, for `take_back`."""
        self._sum += amount
        newest = self._newest
        if now < self._portion_ends:
            newest.last = now
            newest.amount += amount
            return newest
        self._newest = newest = Portion(now, amount)
        self._portion_ends = now + _PORTION_SECONDS
        self._portions.append(newest)
        return newest

    def clear(self) -> None:
        """Nothing was used."""
        for portion in self._portions:
            portion.counts = False
        self._portions.clear()
        self._sum = 0
        self._newest = Portion(_LONG_AGO, 0)
        self._passes = self._portion_ends = _LONG_AGO

    def take_back(self, portion: Portion, amount: int) -> None:
        """Undo a part of what was added, unless that does not count any more."""
        if portion.counts:
            portion.amount -= amount
            self._sum -= amount

    def wait_for(self, limit: int, amount: int, now: float) -> float | None:
        """Seconds until `amount` more stays within `limit` if nothing else is used, 0 = it does now; None = never."""
        if amount > limit:
            return None
        left = self.used(now)
        if left + amount <= limit:
            return 0.0
        for portion in self._portions:
            left -= portion.amount
            if left + amount <= limit:
                return SECONDS - (now - portion.last)
        raise AssertionError("an empty window has room")

    def reset_in(self, now: float) -> float:
        """Seconds until nothing of what was used counts any more."""
        return SECONDS - (now - self._newest.last) if self.used(now) else 0.0

    def _clear(self, now: float) -> None:
        """Count no more what has passed."""
        portions = self._portions
        while portions and portions[0].last + SECONDS <= now:
            passed = portions.popleft()
            passed.counts = False
            self._sum -= passed.amount
        # What is used from now on passes no earlier; the oldest may be used once more, and then this looks again.
        self._passes = portions[0].last + SECONDS if portions else now + SECONDS
