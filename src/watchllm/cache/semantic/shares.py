"""Places that projects share, so that one which asks for all of them leaves some to the others."""

from __future__ import annotations

from collections import Counter


class Shares:
    """`most` places. A project may take one more while it holds fewer than are free: alone it gets half of them, and
    every other finds one (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
    1998, with a factor of one)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._held: Counter[bytes] = Counter()

    def take(self, project: bytes) -> bool:
        """Take a place for a project, if it may have one."""
        if self._held[project] >= self._most - self._taken:
            return False
        self._taken += 1
        self._held[project] += 1
        return True

    def give_back(self, project: bytes) -> None:
        """Give back a place that was taken."""
        self._taken -= 1
        self._held[project] -= 1
        if not self._held[project]:
            del self._held[project]
