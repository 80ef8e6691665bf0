"""Whether what is left of somebody's budgets covers a call."""

from __future__ import annotations

from watchllm.domain.money import Nanos
from watchllm.limits import exceeded
from watchllm.limits.spending import DAY_SECONDS, Moment, Spending, month_ends
from watchllm.limits.subject import Bounds


def check(bounds: Bounds, spending: Spending, at: Moment, nanos: Nanos, wall: float) -> None:
    """Raise Exceeded unless `nanos` are covered beside all that was spent and all that is held; `wall` is the time in
    epoch seconds. A budget that was spent goes before one that is only held: that one is worth another try."""
    spending.turn(at)
    held = spending.held + nanos
    short = [
        (period, spent, limit)
        for period, spent, limit in (
            ("day", spending.day, bounds.day),
            ("month", spending.month, bounds.month),
            ("total", spending.total, bounds.total),
        )
        if limit is not None and spent + held > limit
    ]
    for period, spent, limit in short:
        if spent + nanos > limit:
            raise exceeded.budget(bounds, period, _ends_in(period, at, wall))
    if short:
        raise exceeded.budget_held(bounds, short[0][0])


def _ends_in(period: str, at: Moment, wall: float) -> float | None:
    """Seconds until a period of budgets is over, None = never."""
    if period == "total":
        return None
    ends = (at.day + 1) * DAY_SECONDS if period == "day" else month_ends(at.month)
    return ends - wall
