"""What was used in the last minute, in constant space and time, never too little.

A ring of whole seconds. Any 60 s touch at most 61 of them, so where the sum of the last 61 stays within a limit, so does
every 60 s; whoever always uses all there is gets 60/61 of it, 98.4 %.
"""

from __future__ import annotations

SECONDS = 61


class Window:
    """Counts by second; seconds are whole numbers of any one clock that does not go back."""

    __slots__ = ("_counts", "_newest", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * SECONDS
        self._sum = 0
        self._newest = 0

    def used(self, second: int) -> int:
        """What was used in the `SECONDS` that end with `second`."""
        gap = second - self._newest
        if gap > 0:
            self._newest = second
            if self._sum:
                counts = self._counts
                if gap >= SECONDS:
                    self._counts = [0] * SECONDS
                    self._sum = 0
                else:
                    for passed in range(second - gap + 1, second + 1):
                        place = passed % SECONDS
                        if counts[place]:
                            self._sum -= counts[place]
                            counts[place] = 0
        return self._sum

    def add(self, second: int, amount: int) -> None:
        """Use `amount` at `second`, which is not before any that was told earlier."""
        self.used(second)
        self._counts[second % SECONDS] += amount
        self._sum += amount

    def take_back(self, second: int, amount: int, now: int) -> None:
        """Undo a part of what was added at `second`, unless that has passed out of the window."""
        self.used(now)
        if now - second < SECONDS:
            self._counts[second % SECONDS] -= amount
            self._sum -= amount

    def has_room_at(self, limit: int, amount: int, now: int) -> int | None:
        """The first second, from `now` on, at which `amount` more stays within `limit` if nothing else is used; None =
        never."""
        if amount > limit:
            return None
        left = self.used(now)
        if left + amount <= limit:
            return now
        for second in range(now - SECONDS + 1, now + 1):
            left -= self._counts[second % SECONDS]
            if left + amount <= limit:
                return second + SECONDS
        raise AssertionError("an empty window has room")

    def is_empty_at(self, now: int) -> int:
        """The first second, from `now` on, at which nothing of what was used counts any more."""
        if self.used(now):
            for second in range(now, now - SECONDS, -1):
                if self._counts[second % SECONDS]:
                    return second + SECONDS
        return now
