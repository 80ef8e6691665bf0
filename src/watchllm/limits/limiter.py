"""Decides whether a request may go on, in this process alone: what several processes share is in a store of theirs.

    enter      before the cache is asked: requests of the last minute, requests under way, requests of the month
    reserve    before a call upstream: calls and tokens of the last minute, money, for the most that it may cost
    settle     when the request has ended: what it really used replaces what was reserved

A step takes all that it needs from key, project and organization, or nothing. So however many requests come at once,
none of the bounds is overshot by more than what the calls really used beyond what was reserved for them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from time import monotonic, time
from typing import NamedTuple

from watchllm.domain.money import Nanos
from watchllm.limits import exceeded
from watchllm.limits.exceeded import Exceeded
from watchllm.limits.spending import DAY_SECONDS, Moment, Spending, Spent, moment, month_ends
from watchllm.limits.subject import Bounds, Subject
from watchllm.limits.window import Portion, Window

_IDLE_SECONDS = 300
_SWEEP_SECONDS = 60


class Demand(NamedTuple):
    """The most that a call may use: tokens, nano-dollars."""

    tokens: int = 0
    nanos: Nanos = 0


class Meter:
    """What one key, project or organization has used. `known`: what it used before this process began is in it."""

    __slots__ = ("known", "requests", "seen", "spending", "tokens", "under_way", "upstream")

    def __init__(self, at: Moment, now: float) -> None:
        # A minute is watched where it is bounded.
        self.requests: Window | None = None
        self.tokens: Window | None = None
        self.upstream: Window | None = None
        self.spending = Spending(at)
        self.under_way = 0
        self.known = False
        self.seen = now


class Admission:
    """A request that entered, with all that it holds; given back by `settle`, once."""

    __slots__ = ("at", "counted", "meters", "portions", "reserved", "subject")

    def __init__(self, subject: Subject, meters: tuple[Meter, ...], at: Moment, counted: bool) -> None:
        self.subject = subject
        self.meters = meters
        self.at = at
        self.counted = counted
        self.reserved = Demand()
        self.portions: tuple[tuple[Portion | None, Portion | None], ...] = ()
        """Of tokens and calls, for each meter: where what is reserved was counted."""


class Standing(NamedTuple):
    """What is left of one bound: `reset` in seconds until nothing is used (of a month: epoch seconds of its end)."""

    limit: int
    remaining: int
    reset: int


class Limiter:
    """Keeps the meters of everybody who is limited. Not for several threads. Clocks in seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic, wall: Callable[[], float] = time) -> None:
        self._clock = clock
        self._wall = wall
        self._meters: dict[str, Meter] = {}
        self._swept = 0.0

    def enter(self, subject: Subject, *, counted: bool) -> Admission:
        """Admit a request. `counted`: it is billable if it succeeds. Raises Exceeded."""
        now = self._clock()
        at = moment(self._wall())
        meters = self._of(subject, at, now)
        for bounds, meter in zip(subject.bounds, meters, strict=True):
            window, limit = meter.requests, bounds.requests
            if window is not None and limit is not None and window.used(now) >= limit:
                raise exceeded.requests(bounds, window.wait_for(limit, 1, now))
            if bounds.concurrent is not None and meter.under_way >= bounds.concurrent:
                raise exceeded.concurrent(bounds)
            if bounds.monthly is not None and counted:
                spending = meter.spending
                spending.turn(at)
                if spending.requests + spending.held_requests >= bounds.monthly:
                    raise exceeded.quota(bounds, month_ends(at.month) - self._wall())
        for meter in meters:
            if meter.requests is not None:
                meter.requests.add(now, 1)
            meter.under_way += 1
            if counted:
                meter.spending.held_requests += 1
        return Admission(subject, meters, at, counted)

    def reserve(self, admission: Admission, demand: Demand) -> None:
        """Take what a call upstream may use, beside what the request has reserved already. Raises Exceeded."""
        now = self._clock()
        at = moment(self._wall())
        tokens, nanos = demand
        for bounds, meter in zip(admission.subject.bounds, admission.meters, strict=True):
            window, limit = meter.upstream, bounds.upstream
            if window is not None and limit is not None and window.used(now) >= limit:
                raise exceeded.upstream(bounds, window.wait_for(limit, 1, now))
            window, limit = meter.tokens, bounds.tokens
            if window is not None and limit is not None and window.used(now) + tokens > limit:
                raise exceeded.tokens(bounds, tokens, window.wait_for(limit, tokens, now))
            if bounds.is_hard:
                self._check_budgets(bounds, meter.spending, at, nanos)
        before = admission.reserved
        portions = []
        for number, meter in enumerate(admission.meters):
            of_tokens = None
            if meter.tokens is not None:
                # All of a request's are remembered as one reservation, of the time of the newest.
                earlier = admission.portions[number][0] if admission.portions else None
                if earlier is not None:
                    meter.tokens.take_back(earlier, before.tokens)
                of_tokens = meter.tokens.add(now, before.tokens + tokens)
            portions.append((of_tokens, None if meter.upstream is None else meter.upstream.add(now, 1)))
            meter.spending.held += nanos
        admission.portions = tuple(portions)
        admission.reserved = Demand(before.tokens + tokens, before.nanos + nanos)

    def give_back(self, admission: Admission) -> None:
        """Undo `reserve`: no call was made after all."""
        tokens, nanos = admission.reserved
        for meter, (of_tokens, of_calls) in zip(admission.meters, admission.portions, strict=False):
            if meter.upstream is not None and of_calls is not None:
                meter.upstream.take_back(of_calls, 1)
            if meter.tokens is not None and of_tokens is not None:
                meter.tokens.take_back(of_tokens, tokens)
            meter.spending.held -= nanos
        admission.reserved, admission.portions = Demand(), ()

    def settle(self, admission: Admission, used: Demand, *, billable: bool) -> None:
        """The request has ended: `used` is what it really used, `billable` that it counts against the month."""
        tokens, nanos = admission.reserved
        over = used.tokens - tokens
        for number, meter in enumerate(admission.meters):
            meter.under_way -= 1
            if meter.tokens is not None and over:
                of_tokens = admission.portions[number][0] if admission.portions else None
                if over > 0:
                    meter.tokens.add(self._clock(), over)
                elif of_tokens is not None:
                    meter.tokens.take_back(of_tokens, -over)
            spending = meter.spending
            spending.held -= nanos
            if admission.counted:
                spending.held_requests -= 1
            if used.nanos or billable:
                spending.book(admission.at, used.nanos, int(billable))
        admission.meters, admission.portions, admission.reserved = (), (), Demand()

    def charge(self, subject: Subject, used: Demand, *, requests: int) -> None:
        """Book what was used beside all admissions: a judge's call, or `requests` that were refused before they could
        enter."""
        now = self._clock()
        at = moment(self._wall())
        for meter in self._of(subject, at, now):
            if meter.requests is not None and requests:
                meter.requests.add(now, requests)
            if meter.tokens is not None and used.tokens:
                meter.tokens.add(now, used.tokens)
            if used.nanos:
                meter.spending.book(at, used.nanos, 0)

    def unknown(self, subject: Subject) -> list[str]:
        """The ids of those of whom it has still to be learnt what they used before this process counted."""
        if not subject.needs_history:
            return []
        meters = self._of(subject, moment(self._wall()), self._clock())
        pairs = zip(subject.bounds, meters, strict=True)
        return [bounds.id for bounds, meter in pairs if not meter.known and bounds.needs_history]

    def begin_anew(self, name: str) -> None:
        """Forget what `name` has spent so far, because `learn` will be told of it; what is held stays."""
        meter = self._meters.get(name)
        if meter is not None and not meter.known:
            meter.spending.forget()

    def learn(self, name: str, at: Moment, before: Spent) -> None:
        """Add what `name` had spent, as of `at`, when `begin_anew` was called."""
        meter = self._meters.get(name)
        if meter is not None and not meter.known:
            meter.spending.add(at, before)
            meter.known = True

    def spent(self, name: str) -> Spent | None:
        """What `name` has spent as far as this process knows; None = it was never asked about."""
        meter = self._meters.get(name)
        if meter is None:
            return None
        spending = meter.spending
        spending.turn(moment(self._wall()))
        return Spent(spending.requests, spending.day, spending.month, spending.total)

    def requests(self, subject: Subject) -> Standing | None:
        """What is left of the requests of a minute, where least is; None = there is no such bound."""
        return self._least(subject, lambda bounds, meter: (bounds.requests, meter.requests))

    def tokens(self, subject: Subject) -> Standing | None:
        """As `requests`, of tokens."""
        return self._least(subject, lambda bounds, meter: (bounds.tokens, meter.tokens))

    def quota(self, subject: Subject) -> Standing | None:
        """What is left of the month's requests, where least is; None = there is no such bound."""
        at = moment(self._wall())
        least: Standing | None = None
        for bounds, meter in zip(subject.bounds, self._of(subject, at, self._clock()), strict=True):
            if bounds.quota is not None:
                spending = meter.spending
                spending.turn(at)
                left = max(0, bounds.quota - spending.requests - spending.held_requests)
                if least is None or left < least.remaining:
                    least = Standing(bounds.quota, left, month_ends(at.month))
        return least

    def _least(
        self, subject: Subject, of: Callable[[Bounds, Meter], tuple[int | None, Window | None]]
    ) -> Standing | None:
        now = self._clock()
        least: Standing | None = None
        for bounds, meter in zip(subject.bounds, self._of(subject, moment(self._wall()), now), strict=True):
            limit, window = of(bounds, meter)
            if limit is not None and window is not None:
                left = max(0, limit - window.used(now))
                if least is None or left < least.remaining:
                    least = Standing(limit, left, ceil(window.reset_in(now)))
        return least

    def _check_budgets(self, bounds: Bounds, spending: Spending, at: Moment, nanos: Nanos) -> None:
        spending.turn(at)
        held = spending.held + nanos
        if bounds.day is not None and spending.day + held > bounds.day:
            raise exceeded.budget(bounds, "day", (at.day + 1) * DAY_SECONDS - self._wall())
        if bounds.month is not None and spending.month + held > bounds.month:
            raise exceeded.budget(bounds, "month", month_ends(at.month) - self._wall())
        if bounds.total is not None and spending.total + held > bounds.total:
            raise exceeded.budget(bounds, "total", None)

    def _of(self, subject: Subject, at: Moment, now: float) -> tuple[Meter, ...]:
        if now - self._swept >= _SWEEP_SECONDS:
            self._sweep(now)
        meters = self._meters
        found = []
        for bounds in subject.bounds:
            meter = meters.get(bounds.id)
            if meter is None:
                meter = meters[bounds.id] = Meter(at, now)
            if bounds.requests is not None and meter.requests is None:
                meter.requests = Window()
            if bounds.tokens is not None and meter.tokens is None:
                meter.tokens = Window()
            if bounds.upstream is not None and meter.upstream is None:
                meter.upstream = Window()
            meter.seen = now
            found.append(meter)
        return tuple(found)

    def _sweep(self, now: float) -> None:
        """Forget who was idle and has nothing under way: what they spent is asked for again when they come back."""
        self._swept = now
        idle = [
            name for name, meter in self._meters.items() if now - meter.seen > _IDLE_SECONDS and not meter.under_way
        ]
        for name in idle:
            del self._meters[name]


__all__ = ["Admission", "Demand", "Exceeded", "Limiter", "Meter", "Standing"]
