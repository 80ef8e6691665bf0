"""What is asked of Redis for a request, and what it says."""

from __future__ import annotations

from typing import NamedTuple

from watchllm.limits import exceeded
from watchllm.limits.exceeded import Exceeded
from watchllm.limits.spending import DAY_SECONDS, moment, month_ends
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
    of it counts any more and when that was said, of the loop's clock."""

    extra: int
    left: int
    bucket: int
    reset: float
    limit: int
    at: float

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


def refusal(ask: Ask, wait: float | None, wall: float) -> Exceeded:
    """What is said to a request whose `ask` was refused; `wait` as Redis said it, None = it cannot be said."""
    bounds, kind, at = ask.bounds, ask.kind, moment(wall)
    if wait is not None:
        # Redis counts up to a bucket longer, and some client libraries heed no `Retry-After` beyond a minute.
        wait = min(wait, SECONDS)
    if kind == "r":
        return exceeded.requests(bounds, wait)
    if kind == "c":
        return exceeded.concurrent(bounds)
    if kind == "q":
        return exceeded.quota(bounds, month_ends(at.month) - wall)
    if kind == "u":
        return exceeded.upstream(bounds, wait)
    if kind == "t":
        return exceeded.tokens(bounds, ask.need, wait)
    if kind == "d":
        return exceeded.budget(bounds, "day", (at.day + 1) * DAY_SECONDS - wall)
    if kind == "m":
        return exceeded.budget(bounds, "month", month_ends(at.month) - wall)
    return exceeded.budget(bounds, "total", None)
