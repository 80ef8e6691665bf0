"""What one key, project or organization has used, and all of it that one request has to look at, laid out for that."""

from __future__ import annotations

from typing import TypeAlias

from watchllm.limits.spending import Moment, Spending
from watchllm.limits.subject import Bounds
from watchllm.limits.window import Window


class Meter:
    """What one of them has used. `known`: what it used before this process began is in it; `seen`: when a request last
    used any of it, of the limiter's clock."""

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


Pairs: TypeAlias = tuple[tuple[Bounds, Meter], ...]


class Metered:
    """The meters of a subject, as long as `epoch` is the limiter's. `is_known`: what was spent before is in them.

    Each kind of bound has its own list of limits with what is counted against them, so that a request passes over none
    that is not set.
    """

    __slots__ = ("epoch", "is_known", "meters", "months", "pairs", "places", "requests", "tokens")

    def __init__(self, epoch: object, pairs: Pairs) -> None:
        self.epoch = epoch
        self.pairs = pairs
        self.is_known = all(meter.known or not bounds.needs_history for bounds, meter in pairs)
        self.meters = tuple(meter for _, meter in pairs)
        self.requests = tuple(
            (bounds.requests, meter.requests)
            for bounds, meter in pairs
            if bounds.requests is not None and meter.requests is not None
        )
        self.tokens = tuple(
            (bounds.tokens, meter.tokens)
            for bounds, meter in pairs
            if bounds.tokens is not None and meter.tokens is not None
        )
        self.places = tuple((bounds.concurrent, meter) for bounds, meter in pairs if bounds.concurrent is not None)
        self.months = tuple(
            (bounds.monthly, bounds.quota, meter.spending)
            for bounds, meter in pairs
            if bounds.monthly is not None and bounds.quota is not None
        )
