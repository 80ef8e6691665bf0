"""What a server looks after twice a second, and how late it comes to that."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from watchllm.wire.server import Server, ServerLimits


class Loop:
    """A clock that the test moves, and what is to be done when."""

    def __init__(self) -> None:
        self.now = 50.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.due.append((self.now + delay, callback))

    def run(self, *, late: float) -> None:
        at, callback = self.due.pop()
        self.now = at + late
        callback()


def test_whoever_wants_to_know_is_told_how_late_each_sweep_came() -> None:
    loop = Loop()
    told: list[float] = []
    Server(cast(Any, None), ServerLimits(), cast(Any, loop), told.append)
    for late in (0.0, 0.4, 0.0, 2.5):
        loop.run(late=late)
    assert told == pytest.approx([0.0, 0.4, 0.0, 2.5])
