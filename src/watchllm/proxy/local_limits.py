"""Limits that one process keeps by itself. Of whoever has a quota or a budget, it has to be known first what was spent
before this process began; requests wait for that a moment, and are refused when it cannot be learnt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from time import time
from typing import Any

from watchllm.domain.errors import Unavailable
from watchllm.limits.limiter import Admission, Limiter
from watchllm.limits.spending import Moment, Spent, moment
from watchllm.limits.subject import Subject

_PATIENCE_SECONDS = 5.0


class LocalLimits:
    """Implements `proxy.limiting.Limits`. `history` tells what each of some subjects had spent when it was called, as
    of the moment it is given; it raises for what cannot be known."""

    def __init__(
        self,
        limiter: Limiter,
        history: Callable[[list[str], Moment], Awaitable[Mapping[str, Spent]]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.limiter = limiter
        # What needs no waiting is the limiter's own: a call less on every request.
        self.beside = limiter.beside
        self.reserve = limiter.reserve
        self.give_back = limiter.give_back
        self.settle = limiter.settle
        self.charge = limiter.charge
        self.standings = limiter.standings
        self._problem: str | None = None
        self._history = history
        self._loop = loop
        self._learning: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def enter(self, subject: Subject, *, counted: bool) -> Admission | Coroutine[Any, Any, Admission]:
        if subject.needs_history and not self.limiter.knows(subject):
            return self._enter_when_known(subject, counted)
        return self.limiter.enter(subject, counted=counted)

    def state(self) -> str | None:
        if self._problem is None:
            return None
        return f"degraded: keys with a quota or a budget are refused: {self._problem}"

    async def _enter_when_known(self, subject: Subject, counted: bool) -> Admission:
        await self._know(subject)
        return self.limiter.enter(subject, counted=counted)

    async def _know(self, subject: Subject) -> None:
        """Wait until it is known what everybody in `subject` has spent. Raises Unavailable."""
        missing = self.limiter.unknown(subject)
        fresh = [name for name in missing if name not in self._learning]
        if fresh:
            done: asyncio.Future[None] = self._loop.create_future()
            self._learning.update(dict.fromkeys(fresh, done))
            task = self._loop.create_task(self._learn(fresh, done))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        waits = {self._learning[name] for name in missing if name in self._learning}
        if waits:
            await asyncio.wait(waits, timeout=_PATIENCE_SECONDS)
        if not self.limiter.knows(subject):
            raise Unavailable(
                "It is not known yet how much of this key's quota or budget is used. Try again in a moment.",
                retry_after=1,
            )

    async def _learn(self, names: list[str], done: asyncio.Future[None]) -> None:
        """Find out what each has spent up to this moment."""
        at = moment(time())
        # Here, before anything is waited for: what is settled from now on is counted by the limiter itself.
        for name in names:
            self.limiter.begin_anew(name)
        try:
            spent = await self._history(names, at)
        except Exception as error:  # noqa: BLE001  (whatever it is, budgets are not served, and the operator is told)
            self._problem = str(error)
        else:
            self._problem = None
            for name in names:
                self.limiter.learn(name, at, spent.get(name, Spent()))
        finally:
            for name in names:
                self._learning.pop(name, None)
            done.set_result(None)
