"""Limits, quotas and budgets in a request's life: what may enter, what a call may use, what was really used.

Who keeps to no limit passes here without leaving a trace. Of whoever has a quota or a budget, it has to be known first
what was spent before this process began; requests wait for that a moment, and are refused when it cannot be learnt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from time import perf_counter, time
from typing import Any

from watchllm.domain.billable import SIMULATOR, is_billable
from watchllm.domain.errors import LimitExceeded, Unavailable
from watchllm.domain.usage_event import FREE_HITS, UsageEvent
from watchllm.limits.exceeded import BUDGET, Exceeded
from watchllm.limits.limiter import Demand, Limiter, Standing
from watchllm.limits.spending import Moment, Spent, moment
from watchllm.limits.subject import Subject
from watchllm.proxy.request import Request

_PATIENCE_SECONDS = 5.0
_NOTHING = Demand()
_MISTAKEN = (400, 404, 413, 415, 422)


class Limiting:
    """The limits of one process. `history` tells what each of some subjects had spent when it was called, as of the
    moment it is given; it raises for what cannot be known."""

    def __init__(
        self,
        limiter: Limiter,
        history: Callable[[list[str], Moment], Awaitable[Mapping[str, Spent]]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.limiter = limiter
        self.problem: str | None = None
        """Why it is not known who has spent what, for the operator; None = it is."""
        self._history = history
        self._loop = loop
        self._learning: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def enter(self, request: Request) -> Coroutine[Any, Any, None] | None:
        """Admit a request whose target is known; what is returned has to be awaited. Raises LimitExceeded."""
        assert request.principal is not None
        subject = request.principal.subject
        if subject is None:
            return None
        began = perf_counter()
        if subject.needs_history and not self.limiter.knows(subject):
            return self._enter_when_known(request, subject)
        self._enter(request, subject)
        request.limits_took = perf_counter() - began
        return None

    def reserve(self, request: Request, demand: Callable[[], Demand]) -> None:
        """Take what a call upstream may use at most, where that is limited. Raises LimitExceeded."""
        admission = request.admission
        if admission is None or not admission.subject.bound_calls:
            return
        began = perf_counter()
        try:
            self.limiter.reserve(admission, demand())
        except Exceeded as error:
            raise _refusal(error) from None
        request.limits_took += perf_counter() - began

    def give_back(self, request: Request) -> None:
        """No call was made after `reserve`."""
        if request.admission is not None and request.admission.subject.bound_calls:
            self.limiter.give_back(request.admission)

    def settle(self, request: Request, event: UsageEvent) -> None:
        """Book what a request has used that is settled now."""
        principal, admission = request.principal, request.admission
        if principal is None or principal.subject is None:
            return
        usage, cost = event.usage, event.cost
        if event.cache in FREE_HITS and not cost:
            used = _NOTHING
        else:
            used = Demand(0 if usage is None or event.cache in FREE_HITS else usage.input + usage.output, cost or 0)
        if admission is None:
            # A call of the gateway's own, or a request that did not enter: what could not be read counts as one made.
            is_mistaken = request.limiting is not None and event.status in _MISTAKEN
            self.limiter.charge(principal.subject, used, requests=int(is_mistaken))
            return
        request.admission = None
        if admission.portions and not request.calls:
            self.limiter.give_back(admission)  # It was refused in a queue, or its answer was found on the way there.
        billable = admission.counted and is_billable(event.endpoint, event.provider, event.status)
        self.limiter.settle(admission, used, billable=billable)

    def lines(self, subject: Subject, *, discreet: bool) -> str:
        """Header lines that tell what is left. `discreet`: nothing that would tell whether a hit was given."""
        requests, tokens, quota = self.limiter.standings(subject)
        lines = "" if requests is None else _rate_lines("requests", requests)
        if tokens is not None and not discreet:
            lines += _rate_lines("tokens", tokens)
        if quota is not None:
            lines += (
                f"X-Quota-Limit: {quota.limit}\r\nX-Quota-Remaining: {quota.remaining}\r\n"
                f"X-Quota-Reset: {quota.reset}\r\n"
            )
        return lines

    def _enter(self, request: Request, subject: Subject) -> None:
        principal, target = request.principal, request.target
        assert principal is not None
        counted = not principal.tenant.test and (target is None or target.provider != SIMULATOR)
        try:
            request.admission = self.limiter.enter(subject, counted=counted)
        except Exceeded as error:
            raise _refusal(error) from None

    async def _enter_when_known(self, request: Request, subject: Subject) -> None:
        began = perf_counter()
        await self._know(subject)
        self._enter(request, subject)
        request.limits_took = perf_counter() - began

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
                "It is not known yet how much of this key's quota or budget is used: "
                f"{self.problem or 'the journals are being read'}. Try again in a moment.",
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
            self.problem = str(error)
        else:
            self.problem = None
            for name in names:
                self.limiter.learn(name, at, spent.get(name, Spent()))
        finally:
            for name in names:
                self._learning.pop(name, None)
            done.set_result(None)


def _refusal(error: Exceeded) -> LimitExceeded:
    refusal = LimitExceeded(error.message, code=error.code, retry_after=error.retry_after)
    if error.code == BUDGET:
        refusal.type = "insufficient_quota"
    return refusal


def _rate_lines(what: str, standing: Standing) -> str:
    limit, remaining, reset = standing
    return (
        f"x-ratelimit-limit-{what}: {limit}\r\nx-ratelimit-remaining-{what}: {remaining}\r\n"
        f"x-ratelimit-reset-{what}: {_duration(reset)}\r\n"
    )


def _duration(seconds: int) -> str:
    """As OpenAI writes it: `12s`, `6m0s`."""
    return f"{seconds}s" if seconds < 60 else f"{seconds // 60}m{seconds % 60}s"
