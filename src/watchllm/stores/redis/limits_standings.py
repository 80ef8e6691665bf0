"""What is left of shared limits, as clients are told it: as far as this process was told."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from watchllm.limits.limiter import Standing, Standings
from watchllm.limits.spending import Moment, month_ends
from watchllm.limits.subject import Subject
from watchllm.limits.window import SECONDS
from watchllm.stores.redis.limits_asks import Told
from watchllm.stores.redis.limits_holding import Holding


def standings(
    subject: Subject, holdings: Mapping[str, Holding], told: Mapping[tuple[str, str], Told], now: float, at: Moment
) -> Standings:
    """What is left, where least is: of what Redis said last, and of what this process holds for itself. `now` is of
    the clock of what was `told`, by id and kind."""
    requests = tokens = quota = None
    for bounds in subject.bounds:
        holding = holdings.get(bounds.id)
        if bounds.requests is not None:
            spare = 0 if holding is None or holding.slice is None else holding.slice.left
            left, reset = _of_minute(told.get((bounds.id, "r")), bounds.requests, now)
            requests = _lesser(requests, bounds.requests, left + spare, reset)
        if bounds.tokens is not None:
            left, reset = _of_minute(told.get((bounds.id, "t")), bounds.tokens, now)
            tokens = _lesser(tokens, bounds.tokens, left, reset)
        if bounds.quota is not None and (said := told.get((bounds.id, "q"))) is not None:
            spare = 0 if holding is None else holding.requests - holding.used_requests
            # Where use beyond the quota is paid for, what is left of both is less than nothing of the quota.
            left = (said.limit if said.is_over("q", at) else said.left + spare) - (said.limit - bounds.quota)
            quota = _lesser(quota, bounds.quota, left, month_ends(at.month))
    return requests, tokens, quota


def _of_minute(said: Told | None, limit: int, now: float) -> tuple[int, int]:
    """What is left of a minute, and when nothing of it is used any more: all, as far as is known, where this process
    was not told of any use."""
    return (limit, 0) if said is None else (said.left, _reset_in(said.reset - now))


def _reset_in(seconds: float) -> int:
    """Whole seconds, as clients are told them: a minute at most, though Redis counts up to a bucket longer."""
    return ceil(min(max(0.0, seconds), SECONDS))


def _lesser(least: Standing | None, limit: int, left: int, reset: int) -> Standing:
    """That of which less is left."""
    left = max(0, left)
    return (limit, left, reset) if least is None or left < least[1] else least
