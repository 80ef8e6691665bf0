"""Long work on the event loop in slices, so that no other request waits for it."""

from __future__ import annotations

import asyncio
from time import perf_counter

_SLICE_SECONDS = 0.003


class Turns:
    """Tells when a slice of work has taken long enough: `if turns.due(): await turns.take()`."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = perf_counter() + _SLICE_SECONDS

    def due(self) -> bool:
        return perf_counter() > self._until

    async def take(self) -> None:
        """Let everything else that is ready run once."""
        await asyncio.sleep(0)
        self._until = perf_counter() + _SLICE_SECONDS
