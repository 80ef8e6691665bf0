"""Limits that all proxies keep together: the counting of `limits.limiter`, in Redis.

    enter      at once, from a slice or a spare place that this process holds; else after a round trip
    reserve    a round trip: what a call may cost is exact over all processes
    settle     at once: told within REPORT_SECONDS, and until then what was reserved stays held

Far from a limit a process takes a slice of it, an eighth of what is left at most; near it there are none, and each
request is counted by itself. Who finds the rest of a limit in others' slices waits until these end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import count
from time import time
from typing import Any

import hiredis

from watchllm.domain.ledger import Place
from watchllm.limits.limiter import NOTHING, Demand, Standings
from watchllm.limits.spending import Moment, moment
from watchllm.limits.subject import Subject
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.limits_account import Account
from watchllm.stores.redis.limits_admission import SharedAdmission, begin, has_room
from watchllm.stores.redis.limits_asks import Ask, budgets
from watchllm.stores.redis.limits_holding import Holding, Slice, Timing
from watchllm.stores.redis.limits_outage import Outage, Share
from watchllm.stores.redis.limits_standings import standings
from watchllm.stores.redis.limits_taking import Taking
from watchllm.stores.redis.link import Unreachable

_FRESH_SECONDS = 2.0
_LARGEST_SLICE = 10_000
_LARGEST_SPARE = 1_000
_SWEEP_SECONDS = 10.0


class SharedLimiter:
    """Implements `proxy.limiting.Limits`. For one event loop. `end` is the journal's end, `series` its name.
    `wall` is the time in epoch seconds, `clock` that of the loop."""

    def __init__(
        self,
        client: Client,
        loop: asyncio.AbstractEventLoop,
        series: str,
        end: Callable[[], Place | None],
        policy: str,
        timing: Timing = Timing(),  # noqa: B008  (immutable)
        wall: Callable[[], float] = time,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._loop = loop
        self._series = series
        self._end = end
        self._outage = Outage(policy, clock or loop.time, wall)
        self._timing = timing
        self._wall = wall
        self._clock = clock or loop.time
        self._accounts: dict[str, Account] = {}
        self._incarnations = count(1)
        self._taking = Taking(client, loop, series, end, self._clock, wall)
        self._joining: set[asyncio.Task[None]] = set()
        self._swept = self._clock()

    def enter(self, subject: Subject, *, counted: bool) -> SharedAdmission | Coroutine[Any, Any, SharedAdmission]:
        """Admit a request, at once or after a wait. Raises Exceeded, Unavailable."""
        account = self._accounts.get(subject.organization)
        if account is not None and account.joined:
            now = self._clock()
            if self._taking.refused:
                self._taking.refuse_again(subject, now, counted=counted)
            if now - account.heard_at < _FRESH_SECONDS and has_room(account, subject, counted, now):
                return self._take_own(account, subject, counted)
        return self._enter(subject, counted)

    def beside(self, subject: Subject) -> SharedAdmission:
        """As of `limits.limiter.Limiter`."""
        return SharedAdmission(subject, self._account(subject), moment(self._wall()), counted=False)

    def reserve(self, admission: SharedAdmission, demand: Demand) -> Coroutine[Any, Any, None] | None:
        """Take what a call upstream may use. Raises Exceeded, Unavailable."""
        if admission.share is not None:
            self._reserve_of_share(admission, admission.share, demand)
            return None
        return self._reserve(admission, demand)

    def give_back(self, admission: SharedAdmission) -> None:
        """Undo `reserve`: no call was made after all."""
        if admission.share is not None:
            admission.share.give_back()
        for kind, name, bucket, amount in admission.uses:
            admission.account.give_back(kind, name, bucket, amount)
        for kind, name, amount, number in admission.untold:
            admission.account.use_less(kind, name, amount, number)
        self._let_go(admission)
        admission.uses, admission.untold = (), ()
        admission.reserved, admission.has_reserved = NOTHING, False

    def settle(self, admission: SharedAdmission, used: Demand, *, billable: bool) -> None:
        """The request has ended: `used` is what it really used, `billable` that it counts against the month."""
        account = admission.account
        admission.ended = True
        if admission.has_reserved or used is not NOTHING:
            self._settle_calls(admission, used)
        if admission.holds:
            self._leave(account, admission, billable)
            account.under_way -= 1
            admission.holds = False
        self._book(account, admission.subject, admission.at, used.nanos, int(billable and admission.counted))
        if admission.share is not None:
            admission.share.settle(used, billable=billable)

    def _settle_calls(self, admission: SharedAdmission, used: Demand) -> None:
        """Put what was really used of the minutes in the place of what was reserved."""
        account = admission.account
        over = used.tokens - admission.reserved.tokens
        for bounds in admission.subject.bounds:
            if bounds.tokens is not None and over > 0:
                account.use("t", bounds.id, over)
        unused: dict[str, int] = {}
        for kind, name, bucket, amount in admission.uses:
            if kind == "t" and over < 0:
                back = min(amount, unused.setdefault(name, -over))
                unused[name] -= back
                account.give_back(kind, name, bucket, back)
        for kind, name, amount, number in admission.untold:
            if kind == "t" and over < 0:
                back = min(amount, unused.setdefault(name, -over))
                unused[name] -= back
                account.use_less(kind, name, back, number)
        self._let_go(admission)
        admission.uses, admission.untold = (), ()
        admission.reserved, admission.has_reserved = NOTHING, False

    def charge(self, subject: Subject, used: Demand, *, requests: int) -> None:
        """Book what was used beside all admissions."""
        account = self._account(subject)
        for bounds in subject.bounds:
            if bounds.requests is not None and requests:
                account.use("r", bounds.id, requests)
            if bounds.tokens is not None and used.tokens:
                account.use("t", bounds.id, used.tokens)
        self._book(account, subject, moment(self._wall()), used.nanos, 0)

    def standings(self, subject: Subject) -> Standings:
        """What is left, where least is, as far as this process was told."""
        account = self._accounts.get(subject.organization)
        holdings = {} if account is None else account.holdings
        return standings(subject, holdings, self._taking.told, self._clock(), moment(self._wall()))

    def begun_anew(self, organization: str) -> None:
        """An account is begun anew: tell it what this process knows, as CHANNEL asks for."""
        account = self._open(organization)
        task = self._loop.create_task(account.settled())
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def close(self) -> None:
        """Tell the last of what was used."""
        self._taking.close()
        accounts = list(self._accounts.values())
        for account in accounts:
            account.close()
        await asyncio.gather(*(account.settled() for account in accounts))

    def state(self) -> str | None:
        """What is wrong, for the operator; None = nothing."""
        problem = self._taking.problem
        return self._outage.state(self._client.problem) or (problem and f"degraded: {problem}")

    # Entering

    async def _enter(self, subject: Subject, counted: bool) -> SharedAdmission:
        self._taking.forget_unused(self._accounts.values())
        account = self._account(subject)
        admission = SharedAdmission(subject, account, moment(self._wall()), counted)
        try:
            if subject.needs_history:
                await self._taking.know(account, subject)
            asks = self._asks_to_enter(account, subject, counted)
            sent, admission.at = self._clock(), moment(self._wall())
            told = await self._taking.take(account, asks, admission.at)
        except (Unreachable, hiredis.ReplyError) as error:
            admission.share = self._outage.enter(account, subject, self._taking.told, error, counted=counted)
            self._begin_of_share(account, subject, counted)
            admission.holds = True
            return admission
        self._outage.over(account, self._taking.told)
        until = sent + self._timing.slice / 1000
        for bounds in subject.bounds:
            account.holding(bounds.id).is_near = False
        for ask, said in zip(asks, told, strict=True):
            holding = account.holding(ask.bounds.id)
            if ask.kind == "r" and said.extra:
                account.begin_slice(ask.bounds.id, holding, Slice(said.extra, said.bucket, until))
            elif ask.kind == "q":
                holding.is_near = holding.is_near or said.is_near
                holding.granted(requests=ask.need + said.extra)
            elif ask.kind == "c":
                holding.is_near = holding.is_near or said.is_near
                holding.granted(places=ask.need + said.extra)
        begin(account, subject, counted)
        admission.holds = True
        return admission

    def _asks_to_enter(self, account: Account, subject: Subject, counted: bool) -> list[Ask]:
        asks = []
        now = self._clock()
        for bounds in subject.bounds:
            holding = account.holding(bounds.id)
            if bounds.requests is not None:
                asks.append(Ask("r", bounds, bounds.requests, 1, self._slice_wanted(holding, now)))
            if bounds.concurrent is not None:
                asks.append(Ask("c", bounds, bounds.concurrent, 1, min(holding.used_places, _LARGEST_SPARE)))
            if bounds.monthly is not None:
                more = min(4 * holding.drained, _LARGEST_SPARE) if counted else 0
                asks.append(Ask("q", bounds, bounds.monthly, int(counted), more))
            if bounds.tokens is not None:
                asks.append(Ask("t", bounds, bounds.tokens, 0))
            asks += budgets(bounds, 0)
        return asks

    def _slice_wanted(self, holding: Holding, now: float) -> int:
        """As many as are asked for in two slices' time, as it went since the last time."""
        seconds = self._timing.slice / 1000
        since = now - holding.asked_at
        if holding.slice is not None and holding.slice.until > now and holding.slice.left:
            return 0
        seen = holding.seen
        if since < seconds / 20 and holding.asked_at:
            return 0  # Others of this moment ask for themselves.
        holding.asked_at, holding.seen = now, 0
        return min(int(2 * seen * seconds / max(since, seconds / 20)), _LARGEST_SLICE) if since < 2 * seconds else 0

    def _take_own(self, account: Account, subject: Subject, counted: bool) -> SharedAdmission:
        for bounds in subject.bounds:
            if bounds.requests is not None:
                of_it = account.holdings[bounds.id].slice
                assert of_it is not None
                of_it.left -= 1
        begin(account, subject, counted)
        admission = SharedAdmission(subject, account, moment(self._wall()), counted)
        admission.holds = True
        return admission

    def _leave(self, account: Account, admission: SharedAdmission, billable: bool) -> None:
        counted = admission.counted
        for bounds in admission.subject.bounds:
            of_places, of_month = bounds.concurrent is not None, counted and bounds.monthly is not None
            if not (of_places or of_month):
                continue
            holding = account.holding(bounds.id)
            if of_places:
                holding.used_places -= 1
            if of_month:
                holding.used_requests -= 1
                if billable:
                    holding.requests -= 1
                    holding.drained += 1
            account.change(bounds.id)
            if holding.is_near:
                account.hurry()

    # Calls

    async def _reserve(self, admission: SharedAdmission, demand: Demand) -> None:
        account, subject = admission.account, admission.subject
        tokens, nanos = demand
        asks = []
        for bounds in subject.bounds:
            if bounds.upstream is not None:
                asks.append(Ask("u", bounds, bounds.upstream, 1))
            if bounds.tokens is not None and tokens:
                asks.append(Ask("t", bounds, bounds.tokens, tokens))
            must_cover = budgets(bounds, nanos) if nanos else []
            if must_cover:
                asks += [*must_cover, Ask("h", bounds, 0, nanos)]
        if not asks:
            return
        at = moment(self._wall())
        try:
            told = await self._taking.take(account, asks, at)
        except (Unreachable, hiredis.ReplyError) as error:
            if admission.ended:
                return
            told_of = self._taking.told
            admission.share = self._outage.enter(account, subject, told_of, error, counted=False, again=True)
            self._reserve_of_share(admission, admission.share, demand)
            return
        for ask, said in zip(asks, told, strict=True):
            if ask.kind == "h":
                account.holding(ask.bounds.id).granted(nanos=nanos)
            elif ask.kind in ("u", "t") and ask.need:
                admission.uses += ((ask.kind, ask.bounds.id, said.bucket, ask.need),)
        before = admission.reserved
        admission.reserved = Demand(before.tokens + tokens, before.nanos + nanos)
        admission.has_reserved, admission.at = True, at
        if admission.ended:
            # Its client left while this was asked for: nobody settles it again, and no call is made.
            self.give_back(admission)

    def _reserve_of_share(self, admission: SharedAdmission, share: Share, demand: Demand) -> None:
        """Take it here; Redis hears of it when it answers again, also while the call is under way."""
        share.reserve(demand)
        account = admission.account
        for bounds in admission.subject.bounds:
            for kind, limit, amount in (("u", bounds.upstream, 1), ("t", bounds.tokens, demand.tokens)):
                if limit is not None and amount:
                    number = account.use(kind, bounds.id, amount)
                    admission.untold += ((kind, bounds.id, amount, number),)
            if budgets(bounds, demand.nanos):
                account.holding(bounds.id).take(nanos=demand.nanos)
                account.change(bounds.id)
        before = admission.reserved
        admission.reserved = Demand(before.tokens + demand.tokens, before.nanos + demand.nanos)
        admission.has_reserved, admission.at = True, moment(self._wall())

    def _begin_of_share(self, account: Account, subject: Subject, counted: bool) -> None:
        for bounds in subject.bounds:
            if bounds.requests is not None:
                account.use("r", bounds.id, 1)
            holding = account.holding(bounds.id)
            if bounds.concurrent is not None:
                holding.take(places=1)
            if bounds.monthly is not None and counted:
                holding.take(requests=1)
        begin(account, subject, counted)

    def _let_go(self, admission: SharedAdmission) -> None:
        """Hold no more of the budgets what was reserved."""
        nanos = admission.reserved.nanos
        if nanos:
            for bounds in admission.subject.bounds:
                if budgets(bounds, nanos):
                    admission.account.holding(bounds.id).nanos -= nanos
                    admission.account.change(bounds.id)
                    admission.account.hurry()

    def _book(self, account: Account, subject: Subject, at: Moment, nanos: int, requests: int) -> None:
        if nanos or requests:
            place = self._end()
            for bounds in subject.bounds:
                if bounds.needs_history:
                    account.book(bounds.id, at, nanos, requests, place)

    # Redis

    def _account(self, subject: Subject) -> Account:
        return self._open(subject.organization)

    def _open(self, organization: str) -> Account:
        account = self._accounts.get(organization)
        if account is None:
            self._sweep()
            account = Account(
                organization, self._series, self._client, self._loop, self._timing, self._clock, self._incarnations
            )
            self._accounts[organization] = account
        account.touch()
        return account

    def _sweep(self) -> None:
        """Forget who was idle."""
        now = self._clock()
        if now - self._swept < _SWEEP_SECONDS:
            return
        self._swept = now
        for organization in [name for name, account in self._accounts.items() if account.is_idle()]:
            self._taking.forget(self._accounts.pop(organization).holdings)
        self._outage.sweep(self._accounts, self._taking.told)
