"""Turns a finished request into its usage event, exactly once, and into the process's counters."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from time import perf_counter, time_ns
from typing import Protocol

from watchllm.domain.usage import ModelPrice
from watchllm.domain.usage_event import HIT_STALE, Attempt, OpenedCall, UsageEvent
from watchllm.proxy.request import Request

_MAX_TEXT = 512
# Clients name the endpoints that are passed through: beyond so many series, they count as one.
_MAX_SERIES = 1024
OTHER = "other"
_MAX_MODEL = 256

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
        series = (event.endpoint, event.cache, event.status)
        if len(self.requests) >= _MAX_SERIES and series not in self.requests:
            series = (OTHER, event.cache, event.status)
        self.requests[series] += 1
        latency = event.latency_us
        self.latency[bisect_left(LATENCY_BOUNDS_US, latency)] += 1
        self.latency_sum_us += latency
        self.overhead_sum_us += event.overhead_us
        self.cost_nanos += event.cost or 0
        self.saved_nanos += event.saved or 0


class UsageJournal(Protocol):
    """Where calls and events are recorded so that they survive this process. No method blocks."""

    refusal: str | None
    """Why no request may be admitted now, in words for the client; None = they may."""
    unrecorded: int
    """Records that found no room and are lost."""

    def opened(self, call: OpenedCall) -> None: ...

    def settled(self, event: UsageEvent) -> None: ...


class NoJournal:
    """Records nothing: for tests of other parts."""

    refusal: str | None = None
    unrecorded = 0

    def opened(self, call: OpenedCall) -> None:
        pass

    def settled(self, event: UsageEvent) -> None:
        pass


class Settlement:
    """Settles requests: each that was authenticated becomes one event, in the journal and then with every observer.

    An observer must not block and must not raise.
    """

    def __init__(
        self,
        counters: Counters,
        journal: UsageJournal | None = None,
        price_of: Callable[[str, str], ModelPrice | None] = lambda _provider, _model: None,
    ) -> None:
        self.counters = counters
        self.journal: UsageJournal = journal or NoJournal()
        self._price_of = price_of
        self.observers: list[Callable[[UsageEvent], None]] = [counters.add]

    def open_call(self, request: Request, input_bytes: int) -> None:
        """Record a call upstream; call it before the first byte is sent. `input_bytes`: of the body, 0 = not known."""
        principal, target = request.principal, request.target
        if principal is None or target is None:
            return
        headers = request.exchange.headers
        if not input_bytes:
            length = headers.get(b"content-length", b"")
            input_bytes = int(length) if length.isdigit() else 0
        request.price = self._price_of(target.provider, target.model)
        self.journal.opened(
            OpenedCall(
                request.id,
                time_ns(),
                request.calls,
                principal.tenant.project.id,
                principal.key.id,
                request.endpoint,
                target.provider,
                request.model[:_MAX_MODEL],
                request.cache,
                request.streamed,
                input_bytes,
                request.price,
                _text(headers.get(b"x-watchllm-user")),
                _text(headers.get(b"x-watchllm-session")),
                _text(headers.get(b"x-watchllm-tags")),
            )
        )
        request.calls += 1

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
            self.counters.unauthenticated += status == 401
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
            request.target.provider if request.target is not None else request.asked_provider,
            request.model[:_MAX_MODEL],
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
            (_attempt(request, now),) if request.calls else (),
        )
        self.journal.settled(event)
        for observe in self.observers:
            observe(event)


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1")[:_MAX_TEXT] if value else None


def _attempt(request: Request, now: float) -> Attempt:
    """The call upstream, as far as it has come."""
    target = request.target
    assert target is not None
    is_hit = request.cache == HIT_STALE
    return Attempt(
        target.provider,
        request.model[:_MAX_MODEL],
        request.upstream_status,
        int((request.upstream_began - request.began) * 1e6),
        int(((now if request.streamed else request.upstream_ended or now) - request.upstream_began) * 1e6),
        None if is_hit else request.usage,
        None if is_hit else request.cost,
        request.price,
        request.error,
    )
