"""Decides whether a request may go on, in this process alone: what several processes share is in a store of theirs.

    enter      before the cache is asked: requests of the last minute, requests under way, requests of the month
    reserve    before a call upstream: calls and tokens of the last minute, money, for the most that it may cost
    settle     when the request has ended: what it really used replaces what was reserved

A step takes all that it needs from key, project and organization, or nothing. So however many requests come at once,
none of the bounds is overshot by more than what the calls really used beyond what was reserved for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from time import monotonic, time
from typing import NamedTuple, TypeAlias

from watchllm.domain.money import Nanos
from watchllm.limits import budgets, exceeded
from watchllm.limits.exceeded import Exceeded
from watchllm.limits.meter import Meter, Metered, Pairs
from watchllm.limits.spending import DAY_SECONDS, Moment, Spent, moment, month_ends
from watchllm.limits.subject import Bounds, Subject
from watchllm.limits.window import Portion, Window

_IDLE_SECONDS = 300
_SWEEP_SECONDS = 60
_MANY = 1 << 62
_WHOLE_MINUTE = 60
# A clock that is set right by less stays in the day that it has begun, and forgets nothing.
_SET_BACK_SECONDS = 60


class Demand(NamedTuple):
    """The most that a call may use: tokens, nano-dollars."""

    tokens: int = 0
    nanos: Nanos = 0


NOTHING = Demand()
"""What a hit uses: what is this very object takes the shortest way."""
_NOBODY = Metered(None, ())


class Admission:
    """A request that entered, with all that it holds; given back by `settle`, once."""

    __slots__ = ("at", "counted", "has_place", "metered", "portions", "reserved", "standings", "subject")

    def __init__(
        self,
        subject: Subject,
        metered: Metered,
        at: Moment,
        counted: bool,
        standings: Standings | None,
        *,
        has_place: bool = True,
    ) -> None:
        self.subject = subject
        self.metered = metered
        self.at = at
        self.counted = counted
        self.has_place = has_place
        self.standings = standings
        """What was left when it had entered."""
        self.reserved = NOTHING
        self.portions: tuple[tuple[Portion | None, Portion | None], ...] = ()
        """Of tokens and calls, for each meter: where what is reserved was counted."""

    @property
    def has_reserved(self) -> bool:
        """Whether it holds what `reserve` took."""
        return bool(self.portions)


Standing: TypeAlias = tuple[int, int, int]
"""What is left of one bound: its limit, what remains, and seconds until nothing of it is used (of a month: epoch
seconds of its end). Plain, as it is told with every answer."""
Standings: TypeAlias = tuple[Standing | None, Standing | None, Standing | None]
"""What is left of a minute's requests, of its tokens and of a month's requests, each where least is; None = there is no
such bound."""


class Limiter:
    """Keeps the meters of everybody who is limited. Not for several threads. Clocks in seconds."""

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
        *,
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        """Who was idle for `idle_seconds` is forgotten."""
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._wall = wall
        self._meters: dict[str, Meter] = {}
        self._epoch = object()
        self._sweeps_at = 0.0
        self._at = Moment(0, 0)
        self._last_day = 0
        self._day_begins = self._day_ends = 0.0

    def enter(self, subject: Subject, *, counted: bool) -> Admission:
        """Admit a request. `counted`: it is billable if it succeeds. Raises Exceeded."""
        metered = self._metered(subject)
        now = self._clock()
        at = self._moment()
        left = _left(metered, now, at, entering=1, counted=counted)
        if left is None:
            self._sweep(now)
            raise self._refusal(metered.pairs, now, at, counted)
        for _, window in metered.requests:
            window.add(now, 1)
        for meter in metered.meters:
            meter.seen = now
            meter.under_way += 1
            if counted:
                meter.spending.held_requests += 1
        if now >= self._sweeps_at:
            self._sweep(now)  # Not before: of those that it just entered by, none may be forgotten.
        return Admission(subject, metered, at, counted, left)

    def beside(self, subject: Subject) -> Admission:
        """What calls are reserved for that are made beside all requests: it is none, and takes no place."""
        return Admission(subject, self._metered(subject), self._moment(), False, None, has_place=False)

    def reserve(self, admission: Admission, demand: Demand) -> None:
        """Take one more call upstream and what it may use, beside what the request has reserved already, which all is
        booked in the periods of now: they must cover it. A call that uses no tokens, or costs nothing, is covered
        whatever was used. Raises Exceeded."""
        now = self._clock()
        at = self._moment()
        tokens, nanos = demand
        for bounds, meter in admission.metered.pairs:
            window, limit = meter.upstream, bounds.upstream
            if window is not None and limit is not None and window.used(now) >= limit:
                raise exceeded.upstream(bounds, window.wait_for(limit, 1, now))
            window, limit = meter.tokens, bounds.tokens
            if tokens and window is not None and limit is not None and window.used(now) + tokens > limit:
                raise exceeded.tokens(bounds, tokens, window.wait_for(limit, tokens, now))
            if nanos and bounds.is_hard:
                budgets.check(bounds, meter.spending, at, nanos, self._wall())
        before = admission.reserved
        portions = []
        for number, (_, meter) in enumerate(admission.metered.pairs):
            meter.seen = now
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
        admission.at = at
        admission.reserved = Demand(before.tokens + tokens, before.nanos + nanos)

    def give_back(self, admission: Admission) -> None:
        """Undo `reserve`: no call was made after all."""
        tokens, nanos = admission.reserved
        for (_, meter), (of_tokens, of_calls) in zip(admission.metered.pairs, admission.portions, strict=False):
            if meter.upstream is not None and of_calls is not None:
                meter.upstream.take_back(of_calls, 1)
            if meter.tokens is not None and of_tokens is not None:
                meter.tokens.take_back(of_tokens, tokens)
            meter.spending.held -= nanos
        admission.reserved, admission.portions = NOTHING, ()

    def settle(self, admission: Admission, used: Demand, *, billable: bool) -> None:
        """The request has ended: `used` is what it really used, `billable` that it counts against the month."""
        if admission.portions or used is not NOTHING:
            self._settle_calls(admission, used)
        at, counted = admission.at, admission.counted
        places = 1 if admission.has_place else 0
        for meter in admission.metered.meters:
            meter.under_way -= places
            if counted:
                meter.spending.held_requests -= 1
            if billable:
                meter.spending.book(at, 0, 1)
        admission.metered = _NOBODY

    def _settle_calls(self, admission: Admission, used: Demand) -> None:
        """Put what was really used in the place of what was reserved."""
        over = used.tokens - admission.reserved.tokens
        held, nanos = admission.reserved.nanos, used.nanos
        now = self._clock()
        for number, meter in enumerate(admission.metered.meters):
            meter.seen = now
            if over and meter.tokens is not None:
                of_tokens = admission.portions[number][0] if admission.portions else None
                if over > 0:
                    meter.tokens.add(now, over)
                elif of_tokens is not None:
                    meter.tokens.take_back(of_tokens, -over)
            meter.spending.held -= held
            if nanos:
                meter.spending.book(admission.at, nanos, 0)
        admission.portions, admission.reserved = (), NOTHING

    def charge(self, subject: Subject, used: Demand, *, requests: int) -> None:
        """Book what was used beside all admissions: `requests` that were refused before they could enter."""
        now = self._clock()
        for _, meter in self._metered(subject).pairs:
            meter.seen = now
            if meter.requests is not None and requests:
                meter.requests.add(now, requests)
            if meter.tokens is not None and used.tokens:
                meter.tokens.add(now, used.tokens)
            if used.nanos:
                meter.spending.book(self._moment(), used.nanos, 0)

    def restate_minute(self, subject: Subject, used: Mapping[str, tuple[int | None, ...]]) -> None:
        """Count this as used just now, in place of all that was in the last minute: requests, tokens and calls of each
        id; None = what is counted is right."""
        now = self._clock()
        for bounds, meter in self._metered(subject).pairs:
            windows = (meter.requests, meter.tokens, meter.upstream)
            for window, amount in zip(windows, used[bounds.id], strict=True):
                if window is not None and amount is not None:
                    window.clear()
                    window.add(now, amount)

    def is_under_way(self) -> bool:
        """Whether anybody who entered has not settled."""
        return any(meter.under_way for meter in self._meters.values())

    def knows(self, subject: Subject) -> bool:
        """Whether what everybody in it had used before this process counted is known."""
        # Nothing is known any more where the clock was set back over a day. No call at each request: it is asked here.
        if not self._day_begins <= self._wall() < self._day_ends:
            self._moment()
        return self._metered(subject).is_known

    def unknown(self, subject: Subject) -> list[str]:
        """The ids of those of whom that has still to be learnt."""
        pairs = self._metered(subject).pairs
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
            self._epoch = object()

    def spent(self, name: str) -> Spent | None:
        """What `name` has spent as far as this process knows; None = it was never asked about."""
        meter = self._meters.get(name)
        if meter is None:
            return None
        spending = meter.spending
        spending.turn(self._moment())
        return Spent(spending.requests, spending.day, spending.month, spending.total)

    def standings(self, subject: Subject) -> Standings:
        """What is left, where least is."""
        left = _left(self._metered(subject), self._clock(), self._moment(), entering=0, counted=False)
        assert left is not None
        return left

    def _refusal(self, pairs: Pairs, now: float, at: Moment, counted: bool) -> Exceeded:
        """Why a request may not enter: of the first of all whose bounds it is under that has no room."""
        for bounds, meter in pairs:
            window, limit = meter.requests, bounds.requests
            if window is not None and limit is not None and window.used(now) >= limit:
                return exceeded.requests(bounds, window.wait_for(limit, 1, now))
            if bounds.concurrent is not None and meter.under_way >= bounds.concurrent:
                return exceeded.concurrent(bounds)
            if (
                bounds.monthly is not None
                and counted
                and meter.spending.requests + meter.spending.held_requests >= bounds.monthly
            ):
                if meter.spending.requests < bounds.monthly:
                    return exceeded.quota_held(bounds)
                return exceeded.quota(bounds, month_ends(at.month) - self._wall())
        raise AssertionError("there was room")

    def _moment(self) -> Moment:
        wall = self._wall()
        if not self._day_begins <= wall < self._day_ends:
            self._at = moment(wall)
            begins = self._at.day * DAY_SECONDS
            self._day_begins, self._day_ends = begins - _SET_BACK_SECONDS, begins + DAY_SECONDS
            if self._at.day <= self._last_day:
                self._forget_periods()
            self._last_day = max(self._last_day, self._at.day)
        return self._at

    def _forget_periods(self) -> None:
        """A day has come again: the clock was set back, or goes on after that. What was counted of a day or a month is
        forgotten when another one comes: what was spent has to be learnt anew."""
        for meter in self._meters.values():
            meter.spending.go_back(self._at)
            meter.known = False
        self._epoch = object()

    def _metered(self, subject: Subject) -> Metered:
        metered = subject.metered
        if metered is not None and metered.epoch is self._epoch:
            return metered
        now = self._clock()
        pairs = tuple((bounds, self._meter(bounds, now)) for bounds in subject.bounds)
        subject.metered = metered = Metered(self._epoch, pairs)
        return metered

    def _meter(self, bounds: Bounds, now: float) -> Meter:
        meter = self._meters.get(bounds.id)
        if meter is None:
            meter = self._meters[bounds.id] = Meter(self._moment(), now)
        if bounds.requests is not None and meter.requests is None:
            meter.requests = Window()
        if bounds.tokens is not None and meter.tokens is None:
            meter.tokens = Window()
        if bounds.upstream is not None and meter.upstream is None:
            meter.upstream = Window()
        return meter

    def _sweep(self, now: float) -> None:
        """Forget who was idle and has nothing under way: what they spent is asked for again when they come back."""
        if now < self._sweeps_at:
            return
        self._sweeps_at = now + _SWEEP_SECONDS
        self._epoch = object()
        idle = [
            name
            for name, meter in self._meters.items()
            if now - meter.seen > self._idle_seconds and not meter.under_way and not meter.spending.held
        ]
        for name in idle:
            del self._meters[name]


def _left(metered: Metered, now: float, at: Moment, *, entering: int, counted: bool) -> Standings | None:
    """What is left, where least is, when so many more have entered, 0 or 1; None = there is no room for them.

    Room and what is told of it are found in one go, and without calls that can be spared: every hit comes by.
    """
    requests = tokens = quota = None
    tightest, fewest, most = None, _MANY, 0
    for limit, window in metered.requests:
        left = limit - window.used(now) - entering
        if left < fewest:
            tightest, fewest, most = window, left, limit
    if tightest is not None:
        if fewest < 0:
            if entering:
                return None
            fewest = 0
        requests = most, fewest, _WHOLE_MINUTE if entering else ceil(tightest.reset_in(now))
    if entering:
        for limit, meter in metered.places:
            if meter.under_way >= limit:
                return None
    tightest, fewest = None, _MANY
    for limit, window in metered.tokens:
        left = limit - window.used(now)
        if left < fewest:
            tightest, fewest, most = window, left, limit
    if tightest is not None:
        tokens = most, max(0, fewest), ceil(tightest.reset_in(now))
    fewest = _MANY
    for monthly, limit, spending in metered.months:
        spending.turn(at)
        used = spending.requests + spending.held_requests
        if counted:
            if used >= monthly:
                return None
            used += entering
        left = limit - used
        if left < fewest:
            fewest, quota = left, (limit, max(0, left), month_ends(at.month))
    return requests, tokens, quota


__all__ = ["Admission", "Demand", "Exceeded", "Limiter", "Meter", "Standing"]
