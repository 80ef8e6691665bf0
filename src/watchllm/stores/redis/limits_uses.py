"""What was used of minutes beyond what was reserved there, until Redis is told of it."""

from __future__ import annotations


class Uses:
    """Amounts by window. Those that were added under one number are told together."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, int] = {}
        self._on_the_way: dict[bytes, int] = {}
        self._number = 1
        self._sent = 0
        """Up to which number they are on the way; 0 = none are."""
        self._told = 0

    def __bool__(self) -> bool:
        """Whether any wait to be told."""
        return bool(self._waiting)

    def add(self, window: bytes, amount: int) -> int:
        """The number under which that is."""
        _add(self._waiting, window, amount)
        return self._number

    def take_back(self, window: bytes, amount: int, number: int) -> None:
        """Undo a part of what was added under that number, unless Redis was told of it: what others use now does not
        pass at the same time, and must not make up for it."""
        if number > self._told:
            _add(self._on_the_way if number <= self._sent else self._waiting, window, -amount)

    def untold(self, window: bytes) -> int:
        """What Redis may not know of yet."""
        return self._waiting.get(window, 0) + self._on_the_way.get(window, 0)

    def send(self) -> dict[bytes, int]:
        """All that wait, which are on the way from now on until `sent`."""
        self._on_the_way, self._waiting = self._waiting, {}
        self._sent = self._number
        self._number += 1
        return self._on_the_way

    def sent(self, *, told: bool) -> None:
        """They have arrived, or wait again."""
        if told:
            self._told = self._sent
        else:
            for window, amount in self._on_the_way.items():
                _add(self._waiting, window, amount)
        self._on_the_way, self._sent = {}, 0


def _add(amounts: dict[bytes, int], window: bytes, amount: int) -> None:
    total = amounts.get(window, 0) + amount
    if total:
        amounts[window] = total
    else:
        amounts.pop(window, None)
