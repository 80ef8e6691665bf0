"""Limits while Redis cannot be asked, by the operator's policy.

    local-share    each proxy keeps its share, by how many there were, of each limit and of what was left of it when it
                   was last told, or of all of it where another day or month has begun since; where it was never told
                   what is left of a quota or budget, it refuses
    open           everything may go on
    closed         whoever is limited is refused

What is used meanwhile is told when Redis answers again. It counts here, too, until it is told and a minute has passed:
however often Redis comes and goes, nobody is given a share of the same minute, quota or budget twice.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from math import inf
from typing import TYPE_CHECKING

import hiredis

from watchllm.domain.errors import Unavailable
from watchllm.limits import exceeded
from watchllm.limits.limiter import Admission, Demand, Limiter
from watchllm.limits.spending import Moment, Spent, moment
from watchllm.limits.subject import Bounds, Subject
from watchllm.limits.window import SECONDS

if TYPE_CHECKING:
    from watchllm.stores.redis.limits_account import Account
    from watchllm.stores.redis.limits_asks import Told

LOCAL_SHARE, OPEN, CLOSED = "local-share", "open", "closed"

_TOLD = {
    LOCAL_SHARE: "each proxy keeps its share of the limits by itself, because Redis cannot be asked",
    OPEN: "no limits are kept, because Redis cannot be asked",
    CLOSED: "keys with limits are refused, because Redis cannot be asked",
}
_NOTHING = Spent(0, 0, 0, 0)
# How long a refusal of Redis' own is told of: with no connection lost nothing else tells of it.
_REFUSAL_SECONDS = 5.0
# How long more proxies count than were told of since.
_LIVE_SECONDS = 60.0
_KINDS_OF_A_MINUTE = "rtu"
_KINDS_OF_SPENDING = "qdma"

AllTold = Mapping[tuple[str, str], "Told"]


class Share:
    """What a request takes while Redis cannot be asked; of no limiter where nothing is limited."""

    def __init__(self, limiter: Limiter | None, admission: Admission | None) -> None:
        self._limiter = limiter
        self._admission = admission

    def reserve(self, demand: Demand) -> None:
        """Raises Exceeded."""
        if self._limiter is not None and self._admission is not None:
            self._limiter.reserve(self._admission, demand)

    def give_back(self) -> None:
        if self._limiter is not None and self._admission is not None:
            self._limiter.give_back(self._admission)

    def settle(self, used: Demand, *, billable: bool) -> None:
        if self._limiter is not None and self._admission is not None:
            self._limiter.settle(self._admission, used, billable=billable)


class Outage:
    """Who may go on. One limiter for each organization, from when Redis was first missed until nothing of what it
    counted counts any more. `clock` and `wall` as of SharedLimiter."""

    def __init__(self, policy: str, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._told = _TOLD[policy]
        self._policy = policy
        self._clock = clock
        self._wall = wall
        self._local: dict[str, _Local] = {}
        self._refusal: tuple[float, str] | None = None
        self._live, self._live_at = 1, clock()
        """The most proxies that an organization was told of lately."""

    def state(self, problem: str | None) -> str | None:
        """What is wrong, for the operator, None = nothing; `problem` is why Redis cannot be reached."""
        if problem is not None:
            return f"degraded: {self._told}"
        if self._refusal is not None and self._clock() - self._refusal[0] < _REFUSAL_SECONDS:
            return f"degraded: {self._told}: {self._refusal[1]}"
        return None

    def enter(
        self,
        account: Account,
        subject: Subject,
        told: AllTold,
        why: Exception,
        *,
        counted: bool,
        again: bool = False,
    ) -> Share:
        """`why` is what came of asking Redis. `again`: it has entered while Redis could be asked, and only its calls
        are bounded. Raises Exceeded, Unavailable."""
        if isinstance(why, hiredis.ReplyError):
            self._refusal = self._clock(), str(why)
        if self._policy == OPEN:
            return Share(None, None)
        if self._policy == CLOSED:
            raise _refused("keys with limits are refused meanwhile")
        local = self._local.get(account.organization)
        if local is None:
            local = self._local[account.organization] = _Local(self._clock, self._wall)
        # Who was not told of this organization may be one of as many as there are of others.
        parts = max(1, account.live if account.heard_at else self._live)
        return local.enter(account, subject, told, parts, counted=counted, again=again)

    def over(self, account: Account, told: AllTold) -> None:
        """Redis has answered."""
        if account.live >= self._live or self._clock() - self._live_at > _LIVE_SECONDS:
            self._live, self._live_at = account.live, self._clock()
        local = self._local.get(account.organization) if self._local else None
        if local is not None and local.may_be_forgotten(told):
            del self._local[account.organization]

    def sweep(self, accounts: Container[str], told: AllTold) -> None:
        """Forget whose account was forgotten, and who did not come for a minute: nobody would say of them `over`."""
        gone = [
            organization
            for organization, local in self._local.items()
            if organization not in accounts and local.may_be_forgotten(told)
        ]
        for organization in gone:
            del self._local[organization]


class _Local:
    """What one organization uses while Redis cannot be asked."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._limiter = Limiter(clock, wall, idle_seconds=inf)
        self._clock = clock
        self._wall = wall
        self._used_at = clock()
        self._known: dict[tuple[str, str], tuple[Told, Spent]] = {}
        """By id and kind: what was last told of it, and what had been spent here by then."""
        self._minutes: dict[tuple[str, str], Told] = {}
        """By id and kind: what was last told of it."""
        self._shares: dict[tuple[Bounds, ...], tuple[tuple[int, Moment], tuple[Told | None, ...], Subject]] = {}

    def enter(
        self, account: Account, subject: Subject, told: AllTold, parts: int, *, counted: bool, again: bool
    ) -> Share:
        self._used_at = self._clock()
        share = self._share(account, subject, told, parts)
        if again:
            # Its place is among the account's already, until it ends.
            return Share(self._limiter, self._limiter.beside(_of_calls(share)))
        for bounds, part in zip(subject.bounds, share.bounds, strict=True):
            if part.concurrent is not None and account.holding(bounds.id).used_places >= part.concurrent:
                raise exceeded.concurrent(part)
        return Share(self._limiter, self._limiter.enter(share, counted=counted))

    def may_be_forgotten(self, told: AllTold) -> bool:
        """Whether a minute has passed, and of all that was spent here something newer was told."""
        now = self._clock()
        if now - self._used_at < SECONDS:
            return False
        self._used_at = now  # It need not be looked at sooner again.
        return not self._limiter.is_under_way() and not any(
            told.get(key) is said for key, (said, _) in self._known.items()
        )

    def _share(self, account: Account, subject: Subject, told: AllTold, parts: int) -> Subject:
        said = tuple(
            told.get((bounds.id, kind))
            for bounds in subject.bounds
            for kind in (*_KINDS_OF_A_MINUTE, *_KINDS_OF_SPENDING)
        )
        before = self._shares.get(subject.bounds)
        at = moment(self._wall())
        if (
            before is not None
            and before[0] == (parts, at)
            and all(one is other for one, other in zip(before[1], said, strict=True))
        ):
            return before[2]
        share = Subject(tuple(self._part(bounds, parts, told, at) for bounds in subject.bounds), subject.organization)
        minutes = {bounds.id: self._minute(account, bounds.id, parts, told) for bounds in subject.bounds}
        self._limiter.restate_minute(share, minutes)
        self._shares[subject.bounds] = (parts, at), said, share
        return share

    def _minute(self, account: Account, name: str, parts: int, told: AllTold) -> tuple[int | None, ...]:
        """Its part of what was used of the minute as Redis says, and what Redis was not told of; None = it has said
        nothing since the last time."""
        used: list[int | None] = []
        for kind in _KINDS_OF_A_MINUTE:
            said = told.get((name, kind))
            if said is None or self._minutes.get((name, kind)) is said:
                used.append(None)
                continue
            self._minutes[name, kind] = said
            known = said.limit - said.left if self._clock() < said.at + SECONDS else 0
            used.append(-(-known // parts) + account.untold(kind, name))
        return tuple(used)

    def _part(self, bounds: Bounds, parts: int, told: AllTold, at: Moment) -> Bounds:
        def of(limit: int | None) -> int | None:
            return None if limit is None else max(min(limit, 1), limit // parts)

        def left(limit: int | None, kind: str) -> int | None:
            if limit is None or (kind != "q" and not bounds.is_hard):
                return limit
            said = told.get((bounds.id, kind))
            if said is None:
                raise _refused("it is not known how much of this key's quota or budget is left")
            known = self._known.get((bounds.id, kind))
            if known is None or known[0] is not said:
                # Redis was told of what had been used here, before it said that.
                known = self._known[bounds.id, kind] = said, self._limiter.spent(bounds.id) or _NOTHING
            if said.is_over(kind, at):
                return limit // parts  # All that was spent here counts against it: it is of the new period.
            return max(0, said.left) // parts + _of_kind(known[1], kind)

        return bounds._replace(
            whole=bounds if parts > 1 else None,
            requests=of(bounds.requests),
            tokens=of(bounds.tokens),
            concurrent=of(bounds.concurrent),
            upstream=of(bounds.upstream),
            monthly=left(bounds.monthly, "q"),
            day=left(bounds.day, "d"),
            month=left(bounds.month, "m"),
            total=left(bounds.total, "a"),
        )


def _of_kind(spent: Spent, kind: str) -> int:
    if kind == "q":
        return spent.requests
    return {"d": spent.day, "m": spent.month, "a": spent.total}[kind]


def _of_calls(share: Subject) -> Subject:
    bounds = (one._replace(requests=None, concurrent=None, monthly=None) for one in share.bounds)
    return Subject(tuple(bounds), share.organization)


def _refused(why: str) -> Unavailable:
    return Unavailable(f"The limits of this key cannot be looked up now: {why}. Try again in a moment.", retry_after=1)
