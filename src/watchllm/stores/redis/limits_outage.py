"""Limits while Redis cannot be asked, by the operator's policy.

    local-share    each proxy keeps its share, by how many there were, of each limit and of what was left of quotas and
                   budgets when it was last told; what it was never told of is refused
    open           everything may go on
    closed         whoever is limited is refused

What is used meanwhile is told when Redis answers again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from watchllm.domain.errors import Unavailable
from watchllm.limits.limiter import Admission, Demand, Limiter
from watchllm.limits.subject import Bounds, Subject

if TYPE_CHECKING:
    from watchllm.stores.redis.limits_account import Account
    from watchllm.stores.redis.limits_asks import Told

LOCAL_SHARE, OPEN, CLOSED = "local-share", "open", "closed"

_TOLD = {
    LOCAL_SHARE: "each proxy keeps its share of the limits by itself, because Redis cannot be asked",
    OPEN: "no limits are kept, because Redis cannot be asked",
    CLOSED: "keys with limits are refused, because Redis cannot be asked",
}


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
    """Who may go on. One limiter for each organization, from when Redis was first missed until it answers again."""

    def __init__(self, policy: str) -> None:
        self.told = _TOLD[policy]
        self._policy = policy
        self._limiters: dict[str, tuple[Limiter, dict[tuple[Bounds, ...], Subject]]] = {}

    def enter(
        self, account: Account, subject: Subject, told: Mapping[tuple[str, str], Told], *, counted: bool
    ) -> Share:
        """Raises Exceeded, Unavailable."""
        if self._policy == OPEN:
            return Share(None, None)
        if self._policy == CLOSED:
            raise _refused("keys with limits are refused meanwhile")
        limiter, shares = self._limiters.setdefault(account.organization, (Limiter(), {}))
        share = shares.get(subject.bounds)
        if share is None:
            share = shares[subject.bounds] = _share(subject, max(1, account.live), told)
        return Share(limiter, limiter.enter(share, counted=counted))

    def over(self, account: Account) -> None:
        """Redis has answered."""
        if self._limiters:
            self._limiters.pop(account.organization, None)


def _share(subject: Subject, parts: int, told: Mapping[tuple[str, str], Told]) -> Subject:
    return Subject(tuple(_part(bounds, parts, told) for bounds in subject.bounds), subject.organization)


def _part(bounds: Bounds, parts: int, told: Mapping[tuple[str, str], Told]) -> Bounds:
    def of(limit: int | None) -> int | None:
        return None if limit is None else max(min(limit, 1), limit // parts)

    def left(limit: int | None, kind: str) -> int | None:
        if limit is None or (kind != "q" and not bounds.is_hard):
            return limit
        said = told.get((bounds.id, kind))
        if said is None:
            raise _refused("it is not known how much of this key's quota or budget is left")
        return max(0, said.left) // parts

    return bounds._replace(
        requests=of(bounds.requests),
        tokens=of(bounds.tokens),
        concurrent=of(bounds.concurrent),
        upstream=of(bounds.upstream),
        monthly=left(bounds.monthly, "q"),
        day=left(bounds.day, "d"),
        month=left(bounds.month, "m"),
        total=left(bounds.total, "a"),
    )


def _refused(why: str) -> Unavailable:
    return Unavailable(f"The limits of this key cannot be looked up now: {why}. Try again in a moment.", retry_after=1)
