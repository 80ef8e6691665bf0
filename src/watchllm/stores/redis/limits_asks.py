"""What is asked of Redis for a request, and what it says."""

from __future__ import annotations

from typing import NamedTuple

from watchllm.limits import exceeded
from watchllm.limits.exceeded import Exceeded
from watchllm.limits.spending import DAY_SECONDS, Moment, month_ends
from watchllm.limits.subject import Bounds
from watchllm.limits.window import SECONDS

_NEAR = 16


class Ask(NamedTuple):
    """One line of TAKE: its kinds are told there. `more` is what may be taken beyond the need, for the next ones."""

    kind: str
    bounds: Bounds
    limit: int
    need: int
    more: int = 0


class Told(NamedTuple):
    """What TAKE said of an ask: what was taken beyond the need, what is left, in which bucket it counts, when nothing
    of it counts any more and when that was said, of the loop's clock; `of` are the periods in which it was asked."""

    extra: int
    left: int
    bucket: int
    reset: float
    limit: int
    at: float
    of: Moment

    def is_over(self, kind: str, now: Moment) -> bool:
        """Whether the day or month of which it was said what is left is over."""
        if kind == "d":
            return now.day > self.of.day
        return kind in "qm" and now.month > self.of.month

    @property
    def is_near(self) -> bool:
        """Whether little of the limit is left."""
        return self.left < self.limit // 4 or self.left < _NEAR


def budgets(bounds: Bounds, nanos: int) -> list[Ask]:
    """That its budgets cover `nanos` beside all that is held."""
    if not bounds.is_hard:
        return []
    limits = (("d", bounds.day), ("m", bounds.month), ("a", bounds.total))
    return [Ask(kind, bounds, limit, nanos) for kind, limit in limits if limit is not None]


def period_ends(kind: str, period: int) -> float | None:
    """When the day or month is over in which there was no room, in epoch seconds; None = of other kinds."""
    if kind == "d":
        return (period + 1) * DAY_SECONDS
    return month_ends(period) if kind in "qm" else None


_PERIODS = {"d": "day", "m": "month", "a": "total"}


def refusal(ask: Ask, wait: float | None, *, is_held: bool = False) -> Exceeded:
    """What is said to a request whose `ask` was refused; `wait` seconds for room, None = it cannot be said. `is_held`:
    there would be room but for what others hold."""
    bounds, kind = ask.bounds, ask.kind
    if kind == "q":
        if is_held:
            return exceeded.quota_held(bounds)
        assert wait is not None
        return exceeded.quota(bounds, wait)
    if kind in _PERIODS:
        period = _PERIODS[kind]
        return exceeded.budget_held(bounds, period) if is_held else exceeded.budget(bounds, period, wait)
    if wait is not None:
        # Redis counts up to a bucket longer, and some client libraries heed no `Retry-After` beyond a minute.
        wait = min(wait, SECONDS)
    if kind == "r":
        return exceeded.requests(bounds, wait)
    if kind == "c":
        return exceeded.concurrent(bounds)
    if kind == "u":
        return exceeded.upstream(bounds, wait)
    return exceeded.tokens(bounds, ask.need, wait)
