"""What is being found out about a pair, and who waits for it."""

from __future__ import annotations

import asyncio


class Judgement:
    """Each who waits gets the reason why it is no hit, None = it is one; `late` is the reason where that takes too
    long. `confidence` is that of a yes, where who gives it knows."""

    __slots__ = ("_late", "_waiting", "confidence")

    def __init__(self, late: str) -> None:
        self._late = late
        self._waiting: list[asyncio.Future[str | None]] = []
        self.confidence: float | None = None

    async def outcome(self, loop: asyncio.AbstractEventLoop, seconds: float) -> str | None:
        """Wait for it so long, and no longer."""
        waiting: asyncio.Future[str | None] = loop.create_future()
        self._waiting.append(waiting)
        timer = loop.call_later(seconds, _resolve, waiting, self._late)
        try:
            return await waiting
        finally:
            timer.cancel()
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def end(self, reason: str | None) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            _resolve(one, reason)


def _resolve(waiting: asyncio.Future[str | None], reason: str | None) -> None:
    if not waiting.done():
        waiting.set_result(reason)
