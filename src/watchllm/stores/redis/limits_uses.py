"""What was used of minutes beyond what was reserved there, until Redis is told of it."""

from __future__ import annotations

from collections.abc import Iterator

_MOST_BATCHES = 64


class Uses:
    """Amounts by window, in batches. Those that may not have arrived are told again, each under its number, by which
    Redis counts it once. `numbers` grow, and nobody else tells under them."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._number = next(numbers)
        self._waiting: dict[bytes, int] = {}
        self._sent: dict[int, dict[bytes, int]] = {}
        """Those that were sent and may not have arrived, by number."""

    def __bool__(self) -> bool:
        """Whether there are any to be told."""
        return bool(self._waiting or self._sent)

    def add(self, window: bytes, amount: int) -> int:
        """The number under which that will be told."""
        _add(self._waiting, window, amount)
        return self._number

    def take_back(self, window: bytes, amount: int, number: int) -> None:
        """Undo a part of what was added under that number, unless Redis was told of it: what others use now does not
        pass at the same time, and must not make up for it."""
        batch = self._waiting if number == self._number else self._sent.get(number)
        if batch is not None:
            _add(batch, window, -amount)

    def untold(self, window: bytes) -> int:
        """What Redis may not know of yet."""
        return sum(batch.get(window, 0) for batch in (self._waiting, *self._sent.values()))

    def send(self) -> dict[int, dict[bytes, int]]:
        """All that there are, by number, in their order."""
        if self._waiting:
            self._sent[self._number] = self._waiting
            self._waiting, self._number = {}, next(self._numbers)
        if len(self._sent) > _MOST_BATCHES:
            # Some may count twice then, and none too little.
            self._sent = {max(self._sent): _sum(self._sent)}
        return self._sent

    def arrived(self) -> None:
        """Those that were sent have."""
        self._sent = {}


def _sum(batches: dict[int, dict[bytes, int]]) -> dict[bytes, int]:
    total: dict[bytes, int] = {}
    for batch in batches.values():
        for window, amount in batch.items():
            _add(total, window, amount)
    return total


def _add(amounts: dict[bytes, int], window: bytes, amount: int) -> None:
    total = amounts.get(window, 0) + amount
    if total:
        amounts[window] = total
    else:
        amounts.pop(window, None)
