"""Embedding by what takes its time: a model in a thread, or an endpoint somewhere else.

A look-up waits for a vector only so long; then it is a miss, and the embedding goes on for the answer that is kept. The
same text asked for again meanwhile by the same project is embedded once, and only so many texts are under way.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from watchllm.cache.semantic.shares import Shares

if TYPE_CHECKING:
    from watchllm.cache.semantic.embedder import Vectors

SLOW, BUSY, FAILED, RESTING = "embedder_slow", "embedder_busy", "embedder_failed", "embedder_resting"
"""It took longer than a look-up waits; too many texts are under way, of all projects or of this one; it failed; it is
left alone after failures."""

MOST_AT_ONCE: Final = 64
"""Texts under way, which projects share: with so many before it, a look-up would not be in time."""


class NotEmbedded(Exception):
    """There is no vector for a text. `reason` is one of the words above; the message is for operators."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Embedded(NamedTuple):
    """A vector of length 1, shape (dimensions,), and the tokens that were charged for it."""

    vector: Vectors
    tokens: int = 0


class Awaited:
    """Belongs to the event loop of its first call. `embed` makes one vector and raises NotEmbedded.

    `name`, `version` and `dimensions` are what the port `Embedder` says of them. `seconds` is how long a look-up waits.
    """

    def __init__(
        self,
        name: str,
        version: str,
        dimensions: int,
        embed: Callable[[str], Awaitable[Embedded]],
        *,
        seconds: float,
        most_at_once: int = MOST_AT_ONCE,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.dimensions = dimensions
        self.problem: str | None = None
        """Why the latest text was not embedded in time, until one is."""
        self.counted: Counter[str] = Counter()
        """Texts by what came of them: `made`, or a NotEmbedded's reason."""
        self.tokens = 0
        """All that were charged."""
        self._embed = embed
        self._seconds = seconds
        self._places = Shares(most_at_once)
        self._on_close = on_close
        self._under_way: dict[tuple[bytes, str], asyncio.Task[Embedded]] = {}

    async def vector(self, text: str, project: bytes, *, patient: bool = False) -> Vectors:
        """The vector of `text`; `patient`: however long it takes. Raises NotEmbedded.

        What one project has under way is not shared with another, which would see by the time that it was asked.
        """
        task = self._under_way.get((project, text)) or self._begin((project, text))
        # Not `asyncio.timeout`: who looks up need not be a task.
        await asyncio.wait((task,), timeout=None if patient else self._seconds)
        if task.done():
            return task.result().vector
        self.problem = f"{self.name}: a vector took longer than {self._seconds * 1000:.0f} ms"
        self.counted[SLOW] += 1
        raise NotEmbedded(SLOW, self.problem)

    def close(self) -> None:
        for task in self._under_way.values():
            task.cancel()
        if self._on_close is not None:
            self._on_close()

    def _begin(self, whose: tuple[bytes, str]) -> asyncio.Task[Embedded]:
        if not self._places.take(whose[0]):
            self.counted[BUSY] += 1
            raise NotEmbedded(BUSY, f"{self.name}: too many texts are under way")
        task = asyncio.ensure_future(self._made(whose[1]))
        self._under_way[whose] = task
        task.add_done_callback(partial(self._ended, whose, monotonic()))
        return task

    async def _made(self, text: str) -> Embedded:
        return await self._embed(text)

    def _ended(self, whose: tuple[bytes, str], began: float, task: asyncio.Task[Embedded]) -> None:
        del self._under_way[whose]
        self._places.give_back(whose[0])
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self.counted["made"] += 1
            self.tokens += task.result().tokens
            if monotonic() - began <= self._seconds:
                self.problem = None
            return
        self.counted[error.reason if isinstance(error, NotEmbedded) else FAILED] += 1
        self.problem = f"{self.name}: {error}" if isinstance(error, NotEmbedded) else f"{type(error).__name__}: {error}"
