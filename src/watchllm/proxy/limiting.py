"""Limits, quotas and budgets in a request's life: what may enter, what a call may use, what was really used.

Who keeps to no limit passes here without leaving a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import lru_cache
from time import perf_counter
from types import CoroutineType
from typing import Any, Protocol, cast

from watchllm.domain.billable import INFERENCE, SIMULATOR, counts, is_billable
from watchllm.domain.errors import LimitExceeded
from watchllm.domain.usage_event import FREE_HITS, HIT, UsageEvent
from watchllm.limits.exceeded import BUDGET, Exceeded
from watchllm.limits.limiter import NOTHING, Demand, Standings
from watchllm.limits.spending import Moment
from watchllm.limits.subject import Subject
from watchllm.proxy.request import Request
from watchllm.routing.target import Target

_MISTAKEN = (400, 404, 413, 415, 422)
_EMBEDDINGS = "embeddings"
_DAY_NS = 86_400_000_000_000


class Entered(Protocol):
    """A request that was admitted, with all that it holds; of the `Limits` that admitted it."""

    subject: Subject
    counted: bool
    at: Moment
    """In which day and month it is booked: those in which it entered, or reserved last."""

    @property
    def has_reserved(self) -> bool:
        """Whether it holds what `reserve` took."""
        ...

    @property
    def standings(self) -> Standings | None:
        """What was left when it had entered; None = that has to be asked."""
        ...


class Limits(Protocol):
    """What keeps to limits: one process's own (`local_limits`), or those that all processes share (`stores.redis`).

    Methods as those of `limits.limiter.Limiter`; what has to be waited for comes as a coroutine, whose errors are the
    same: Exceeded, and Unavailable where it is not known what may go on.
    """

    def enter(self, subject: Subject, *, counted: bool) -> Entered | Coroutine[Any, Any, Entered]: ...

    def beside(self, subject: Subject) -> Entered: ...

    def reserve(self, admission: Any, demand: Demand) -> Coroutine[Any, Any, None] | None: ...

    def give_back(self, admission: Any) -> None: ...

    def settle(self, admission: Any, used: Demand, *, billable: bool) -> None: ...

    def charge(self, subject: Subject, used: Demand, *, requests: int) -> None: ...

    def standings(self, subject: Subject) -> Standings: ...

    def state(self) -> str | None:
        """What is wrong, for the operator; None = nothing."""
        ...


class Limiting:
    """The limits that requests of this process are under."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def state(self) -> str | None:
        """What is wrong, for the operator; None = nothing."""
        return self._limits.state()

    def enter(self, request: Request, targets: tuple[Target, ...] = ()) -> Coroutine[Any, Any, None] | None:
        """Admit a request whose target is known, and all the `targets` that may answer it where those are several; what
        is returned has to be awaited. Raises LimitExceeded."""
        principal, target = request.principal, request.target
        assert principal is not None
        subject = principal.subject
        if subject is None:
            return None
        began = perf_counter()
        # Whether it is billed follows from who answers: until then it counts wherever it may be.
        counted = (
            not principal.tenant.test
            and request.endpoint in INFERENCE
            and (
                target is None
                or target.provider != SIMULATOR
                or (len(targets) > 1 and any(one.provider != SIMULATOR for one in targets))
            )
        )
        try:
            entered = self._limits.enter(subject, counted=counted)
        except Exceeded as error:
            raise _refusal(request, error) from None
        if type(entered) is CoroutineType:
            return _entering(request, entered, began)
        request.admission = admission = cast("Entered", entered)
        if request.wall_ns // _DAY_NS != admission.at.day:
            _date(request, admission)
        request.limits_took = perf_counter() - began
        return None

    def reserve(self, request: Request, demand: Callable[[], Demand]) -> Coroutine[Any, Any, None] | None:
        """Take what a call upstream may use at most, where that is limited; as `enter`. Raises LimitExceeded."""
        admission = request.admission
        if admission is None or not admission.subject.bound_calls:
            return None
        began = perf_counter()
        try:
            waiting = self._limits.reserve(admission, demand())
        except Exceeded as error:
            raise _refusal(request, error) from None
        if waiting is not None:
            return _reserving(request, admission, waiting, began)
        _date(request, admission)
        request.limits_took += perf_counter() - began
        return None

    def enter_beside(self, request: Request) -> None:
        """Let a call of the gateway's own be reserved, on behalf of a client's request that has entered."""
        principal = request.principal
        assert principal is not None
        if principal.subject is not None and principal.subject.bound_calls:
            request.admission = self._limits.beside(principal.subject)

    def leave(self, request: Request) -> None:
        """No call was made after `enter_beside`."""
        admission, request.admission = request.admission, None
        if admission is not None:
            self._undo(admission)

    def count_call(self, request: Request) -> Coroutine[Any, Any, None] | None:
        """Take one call upstream that costs nothing, for a request that need not enter; as `enter`."""
        principal = request.principal
        assert principal is not None
        subject = principal.subject
        if subject is None or not subject.bound_calls:
            return None
        admission = self._limits.beside(subject)
        try:
            waiting = self._limits.reserve(admission, NOTHING)
        except Exceeded as error:
            self._undo(admission)
            raise _refusal(request, error) from None
        if waiting is not None:
            return self._counting(request, admission, waiting)
        self._limits.settle(admission, NOTHING, billable=False)
        return None

    async def _counting(self, request: Request, admission: Entered, waiting: Coroutine[Any, Any, None]) -> None:
        try:
            await waiting
        except BaseException as error:
            # Also where its client has left: what it may hold of an outage's share is let go in any case.
            self._undo(admission)
            if isinstance(error, Exceeded):
                raise _refusal(request, error) from None
            raise
        self._limits.settle(admission, NOTHING, billable=False)

    def _undo(self, admission: Entered) -> None:
        """No call was made, and none will be."""
        self._limits.give_back(admission)
        self._limits.settle(admission, NOTHING, billable=False)

    def give_back(self, request: Request) -> None:
        """No call was made after `reserve`."""
        if request.admission is not None and request.admission.subject.bound_calls:
            self._limits.give_back(request.admission)

    def settle_hit(self, request: Request, provider: str) -> None:
        """Book an answer from the cache for which nothing was reserved, and which costs nothing."""
        admission = request.admission
        if admission is not None:
            request.admission = None
            billable = admission.counted and is_billable(request.endpoint, provider, 200)
            self._limits.settle(admission, NOTHING, billable=billable)

    def settle(self, request: Request, event: UsageEvent) -> None:
        """Book what a request has used that is settled now."""
        principal, admission = request.principal, request.admission
        if principal is None or principal.subject is None:
            return
        usage, cost = event.usage, event.cost
        if event.cache in FREE_HITS and not cost:
            used = NOTHING
        else:
            bought = 0 if usage is None or event.cache in FREE_HITS else usage.input + usage.output
            used = Demand(bought + _lost_tokens(request), cost or 0)
        if admission is None:
            # A request that did not enter: what could not be read counts as one made.
            is_mistaken = request.limiting is not None and event.status in _MISTAKEN
            self._limits.charge(principal.subject, used, requests=int(is_mistaken))
            return
        request.admission = None
        if admission.has_reserved and not request.calls:
            self._limits.give_back(admission)  # It was refused in a queue, or its answer was found on the way there.
        billable = admission.counted and counts(event)
        self._limits.settle(admission, used, billable=billable)

    def lines(self, request: Request) -> str:
        """Header lines that tell what is left, and of a request that hides hits nothing that would tell of one."""
        admission = request.admission
        left = None
        if request.cache == HIT and admission is not None and not admission.has_reserved:
            left = admission.standings  # Nothing that counts has happened since.
        if left is None:
            principal = request.principal
            assert principal is not None
            assert principal.subject is not None
            left = self._limits.standings(principal.subject)
        requests, tokens, quota = left
        lines = ""
        if requests is not None:
            limit, remaining, reset = requests
            lines = (
                f"x-ratelimit-limit-requests: {limit}\r\nx-ratelimit-remaining-requests: {remaining}\r\n"
                f"x-ratelimit-reset-requests: {_duration(reset)}\r\n"
            )
        if tokens is not None and not request.hides_hits:
            limit, remaining, reset = tokens
            lines += (
                f"x-ratelimit-limit-tokens: {limit}\r\nx-ratelimit-remaining-tokens: {remaining}\r\n"
                f"x-ratelimit-reset-tokens: {_duration(reset)}\r\n"
            )
        if quota is not None:
            limit, remaining, reset = quota
            lines += f"X-Quota-Limit: {limit}\r\nX-Quota-Remaining: {remaining}\r\nX-Quota-Reset: {reset}\r\n"
        return lines


def _lost_tokens(request: Request) -> int:
    """What calls may have used whose answers were not passed on."""
    return sum(attempt.usage.input + attempt.usage.output for attempt in request.attempts if attempt.usage is not None)


async def _entering(request: Request, entering: Coroutine[Any, Any, Entered], began: float) -> None:
    try:
        request.admission = admission = await entering
    except Exceeded as error:
        raise _refusal(request, error) from None
    _date(request, admission)
    request.limits_took = perf_counter() - began


async def _reserving(request: Request, admission: Entered, reserving: Coroutine[Any, Any, None], began: float) -> None:
    try:
        await reserving
    except Exceeded as error:
        raise _refusal(request, error) from None
    _date(request, admission)
    request.limits_took += perf_counter() - began


def _date(request: Request, admission: Entered) -> None:
    """Have its record count on the day on which the limits let it on: it may have come, or waited for a slot, on the
    other side of midnight. Else it would use up a day or a month that nobody asked whether it has room."""
    day = request.wall_ns // _DAY_NS
    if day != admission.at.day:
        first = admission.at.day * _DAY_NS
        request.wall_ns = first if day < admission.at.day else first + _DAY_NS - 1


def _refusal(request: Request, error: Exceeded) -> LimitExceeded:
    message = error.to_embed if request.endpoint == _EMBEDDINGS else error.message
    refusal = LimitExceeded(message, code=error.code, retry_after=error.retry_after)
    if error.code == BUDGET:
        refusal.type = "insufficient_quota"
    return refusal


@lru_cache(128)
def _duration(seconds: int) -> str:
    """As OpenAI writes it: `12s`, `6m0s`."""
    return f"{seconds}s" if seconds < 60 else f"{seconds // 60}m{seconds % 60}s"
