"""Turns a finished request into its usage event, exactly once, and into the process's counters."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from time import perf_counter

from watchllm.domain.usage_event import UsageEvent
from watchllm.proxy.request import Request

# Upper bounds of the latency histogram, in microseconds; the last bucket is open.
LATENCY_BOUNDS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000)


class Counters:
    """What this process has done since it started. `requests` by (endpoint, cache, status), `latency` by bucket."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.latency = [0] * (len(LATENCY_BOUNDS_US) + 1)
        self.latency_sum_us = 0
        self.overhead_sum_us = 0
        self.unauthenticated = 0
        self.refused_by_wire = 0
        self.internal_errors = 0
        self.cost_nanos = 0
        self.saved_nanos = 0

    def add(self, event: UsageEvent) -> None:
        self.requests[event.endpoint, event.cache, event.status] += 1
        latency = event.latency_us
        self.latency[bisect_left(LATENCY_BOUNDS_US, latency)] += 1
        self.latency_sum_us += latency
        self.overhead_sum_us += event.overhead_us
        self.cost_nanos += event.cost or 0
        self.saved_nanos += event.saved or 0


class Settlement:
    """Settles requests: each that was authenticated becomes one event, handed to every observer.

    An observer must not block and must not raise.
    """

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.observers: list[Callable[[UsageEvent], None]] = [counters.add]

    def settle(self, request: Request, status: int, ended: str) -> None:
        """Close the books on `request`; call it before the last byte is written. Later calls change nothing."""
        if request.settled:
            return
        if request.deferred:
            request.deferred_end = (status, ended)
            return
        request.settled = True
        principal = request.principal
        if principal is None:
            self.counters.unauthenticated += 1
            return
        now = perf_counter()
        head_sent = request.head_sent or now
        waited = min(request.spent_upstream(), head_sent - request.began)
        headers = request.exchange.headers
        event = UsageEvent(
            request.id,
            request.wall_ns,
            principal.tenant.project.id,
            principal.key.id,
            request.endpoint,
            request.target.provider if request.target is not None else "",
            request.model,
            status,
            request.cache,
            request.streamed,
            ended,
            request.error,
            request.usage,
            request.cost,
            request.saved,
            request.price,
            int((head_sent - request.began) * 1e6),
            int((head_sent - request.began - waited) * 1e6),
            int((request.first_byte - request.began) * 1e6) if request.first_byte else None,
            int((now - request.began) * 1e6),
            _text(headers.get(b"x-watchllm-user")),
            _text(headers.get(b"x-watchllm-session")),
            _text(headers.get(b"x-watchllm-tags")),
            request.upstream_request_id,
        )
        for observe in self.observers:
            observe(event)


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1")[:512] if value else None
