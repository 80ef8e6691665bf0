"""What gives way when memory for request bodies is short: the bodies that arrive slowest.

A body that drips is within its deadline for minutes, and some of them could hold all the memory that there is for
everyone's. So while more than half of it is taken, a body that is kept has to arrive at `PRESSED_RATE`, judged over
windows of a few seconds; those that do not are refused, the slowest first, until half is free again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from watchllm.wire.refusals import memory_full

if TYPE_CHECKING:
    from watchllm.wire.exchange import Exchange
    from watchllm.wire.server_connection import ServerConnection

PRESSED_RATE = 64 * 1024
"""Bytes a second."""

# A smaller body holds too little to be worth refusing.
_SMALLEST = 64 * 1024


class Pressure:
    """Looked at by the server's sweep. `window` in seconds."""

    __slots__ = ("_began", "_marks", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._began = 0.0
        # What each body had when the window began; empty = no window is open.
        self._marks: dict[Exchange, int] = {}

    def clear(self) -> None:
        """Memory is not short (any more)."""
        if self._marks:
            self._marks = {}

    def relieve(self, connections: Iterable[ServerConnection], now: float, excess: int) -> None:
        """Refuse bodies that arrive too slowly, until `excess` bytes are released; `now` is the loop's time."""
        seconds = now - self._began
        if self._marks and seconds < self._window:
            return
        arriving = {exchange: connection for connection in connections if (exchange := connection.arriving) is not None}
        # A body that was not there when the window began is judged by the next one.
        rates = {body: (body.held - had) / seconds for body, had in self._marks.items() if body in arriving}
        for exchange in sorted((body for body, rate in rates.items() if rate < PRESSED_RATE), key=rates.__getitem__):
            if excess <= 0:
                break
            excess -= exchange.held
            arriving.pop(exchange).refuse_arriving(memory_full())
        self._began = now
        self._marks = {exchange: exchange.held for exchange in arriving if exchange.held >= _SMALLEST}
