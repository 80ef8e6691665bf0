"""Who is limited, and to what: limits of a key, its project and its organization in the form they are checked in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from watchllm.domain.limits import Limits
from watchllm.domain.money import NANOS_PER_USD, Nanos
from watchllm.domain.setting_values import HARD

if TYPE_CHECKING:
    from watchllm.limits.meter import Metered

KEY, PROJECT, ORGANIZATION = "key", "project", "organization"


class Bounds(NamedTuple):
    """What one of them may use, None = any amount; sums of money in nano-dollars.

    `monthly` is where requests are refused, `quota` what is told: the first is larger where use beyond the quota is
    paid for. `is_hard`: spent budgets refuse. `whole`: these are but one process's share of those.
    """

    id: str
    kind: str
    requests: int | None = None
    tokens: int | None = None
    concurrent: int | None = None
    upstream: int | None = None
    quota: int | None = None
    monthly: int | None = None
    day: Nanos | None = None
    month: Nanos | None = None
    total: Nanos | None = None
    is_hard: bool = True
    whole: Bounds | None = None

    @property
    def bound_calls(self) -> bool:
        """Whether calls upstream use any of it up."""
        return not (self.tokens is self.upstream is self.day is self.month is self.total is None)

    @property
    def needs_history(self) -> bool:
        """Whether what was used before this process began counts."""
        return not (self.monthly is self.day is self.month is self.total is None)


class Subject:
    """A key with all whose limits it is under. `bound_calls`: any of them bounds calls upstream; `needs_history`: what
    was used before this process began counts for any of them. `organization` is the id of that to which all of them
    belong.

    `metered` is what a limiter keeps of it at hand, so that it need not look for it on each request.
    """

    __slots__ = ("bound_calls", "bounds", "has_hard_budget", "metered", "needs_history", "organization")

    def __init__(self, bounds: tuple[Bounds, ...], organization: str = "") -> None:
        self.bounds = bounds
        self.organization = organization
        self.bound_calls = any(one.bound_calls for one in bounds)
        self.needs_history = any(one.needs_history for one in bounds)
        self.has_hard_budget = any(one.is_hard and not (one.day is one.month is one.total is None) for one in bounds)
        self.metered: Metered | None = None


def bounds_of(name: str, kind: str, limits: Limits, overage: int = 0) -> Bounds | None:
    """The bounds of `limits`; None where there are none. `overage`: requests beyond the monthly ones that are paid."""
    quota = limits.monthly_requests
    bounds = Bounds(
        name,
        kind,
        limits.requests_per_minute,
        limits.tokens_per_minute,
        limits.concurrent_requests,
        limits.upstream_per_minute,
        quota,
        None if quota is None else quota + overage,
        _nanos(limits.budget_usd_day),
        _nanos(limits.budget_usd_month),
        _nanos(limits.budget_usd_total),
        limits.budget_mode == HARD,
    )
    return bounds if any(bound is not None for bound in bounds[2:-2]) else None


def subject_of(*bounds: Bounds | None, organization: str = "") -> Subject | None:
    """A key under all of `bounds`; None = it is not limited."""
    found = tuple(one for one in bounds if one is not None)
    return Subject(found, organization) if found else None


def _nanos(usd: float | None) -> Nanos | None:
    return None if usd is None else round(usd * NANOS_PER_USD)
