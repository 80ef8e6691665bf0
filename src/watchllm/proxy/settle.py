"""Turns a finished request into its usage event, exactly once, and into the process's counters."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, NamedTuple, Protocol

from watchllm.domain.money import Nanos
from watchllm.domain.usage import ModelPrice
from watchllm.domain.usage_event import COMPLETE, HIT, HIT_STALE, Attempt, OpenedCall, UsageEvent
from watchllm.proxy.request import Request
from watchllm.routing.target import Target

if TYPE_CHECKING:
    from watchllm.proxy.limiting import Limiting
    from watchllm.proxy.semantic.looked import Looked

_MAX_TEXT = 512
# Clients name the endpoints that are passed through: beyond so many series, they count as one.
_MAX_SERIES = 1024
OTHER = "other"
_MAX_MODEL = 256

# Upper bounds of the latency histogram, in microseconds; the last bucket is open.
LATENCY_BOUNDS_US = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000)
_NOTES_A_FOLD = 512
LABELS = frozenset((b"x-watchllm-user", b"x-watchllm-session", b"x-watchllm-tags"))
"""The headers that become part of the usage event."""
_NO_LABELS = (None, None, None)
_NOT_LOOKED = (None, None, None, None)


class Counted(NamedTuple):
    """What settled requests add up to: how many by (endpoint, cache, status), and by bucket of the latency histogram.
    Sums in microseconds and nano-dollars."""

    requests: dict[tuple[str, str, int], int]
    latency: tuple[int, ...]
    latency_sum_us: int
    overhead_sum_us: int
    cost_nanos: Nanos
    saved_nanos: Nanos


class Counters:
    """What this process has done since it started. What requests add up to is to be had by `read` only."""

    def __init__(self) -> None:
        self.unauthenticated = 0
        self.refused_by_wire = 0
        self.internal_errors = 0
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._latency = [0] * (len(LATENCY_BOUNDS_US) + 1)
        self._latency_sum_us = 0
        self._overhead_sum_us = 0
        self._cost_nanos = 0
        self._saved_nanos = 0
        self._hits: list[tuple[str, int, Nanos]] = []
        self._others: list[tuple[tuple[str, str, int], int, int, Nanos, Nanos]] = []

    def hit(self, endpoint: str, latency_us: int, saved: Nanos) -> None:
        """Count an answer from the cache: noted here, added up by hundreds or when somebody reads."""
        hits = self._hits
        hits.append((endpoint, latency_us, saved))
        if len(hits) == _NOTES_A_FOLD:
            self._fold()

    def read(self) -> Counted:
        """All that was counted up to now."""
        self._fold()
        return Counted(
            dict(self._requests),
            tuple(self._latency),
            self._latency_sum_us,
            self._overhead_sum_us,
            self._cost_nanos,
            self._saved_nanos,
        )

    def _fold(self) -> None:
        """Add up what was only noted."""
        if self._hits:
            endpoints, latencies, saved = zip(*self._hits, strict=True)
            self._hits.clear()
            for endpoint, count in Counter(endpoints).items():
                self._count((endpoint, HIT, 200), count)
            self._overhead_sum_us += self._time(latencies)
            self._saved_nanos += sum(saved)
        if self._others:
            series, latencies, overheads, costs, saved = zip(*self._others, strict=True)
            self._others.clear()
            for one, count in Counter(series).items():
                self._count(one, count)
            self._time(latencies)
            self._overhead_sum_us += sum(overheads)
            self._cost_nanos += sum(costs)
            self._saved_nanos += sum(saved)

    def _time(self, latencies: Iterable[int]) -> int:
        """Add latencies to the histogram; their sum."""
        ordered = sorted(latencies)
        below = 0
        for bucket, bound in enumerate(LATENCY_BOUNDS_US):
            upto = bisect_right(ordered, bound)
            self._latency[bucket] += upto - below
            below = upto
        self._latency[-1] += len(ordered) - below
        spent = sum(ordered)
        self._latency_sum_us += spent
        return spent

    def add(self, event: UsageEvent) -> None:
        """Count any other request; noted as `hit` does."""
        others = self._others
        series = event.endpoint, event.cache, event.status
        others.append((series, event.latency_us, event.overhead_us, event.cost or 0, event.saved or 0))
        if len(others) == _NOTES_A_FOLD:
            self._fold()

    def _count(self, series: tuple[str, str, int], count: int) -> None:
        if len(self._requests) >= _MAX_SERIES and series not in self._requests:
            series = (OTHER, *series[1:])
        self._requests[series] += count


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
        self.limiting: Limiting | None = None
        """What a request has used is booked there, where its key is limited."""
        self.observers: list[Callable[[UsageEvent], None]] = []

    def open_call(self, request: Request, input_bytes: int, *, hedged: bool = False) -> None:
        """Record a call upstream; call it before the first byte is sent. `input_bytes`: of the body, 0 = not known."""
        principal, target = request.principal, request.target
        if principal is None or target is None:
            return
        headers = request.exchange.headers
        if not input_bytes:
            length = headers.get(b"content-length", b"")
            input_bytes = int(length) if length.isdigit() else 0
        user, session, tags = _labels(headers)
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
                user,
                session,
                tags,
                target.key_id,
                hedged,
            )
        )
        request.calls += 1

    def settle_hit(self, request: Request, target: Target) -> None:
        """Close the books on an exact hit without labels whose whole answer is about to be written: most of `settle` is
        about what such a request cannot have."""
        principal = request.principal
        assert principal is not None
        request.settled = True
        saved = request.saved
        latency_us = int((request.head_sent - request.began) * 1e6)
        event = UsageEvent(
            request.id,
            request.wall_ns,
            principal.tenant.project.id,
            principal.key.id,
            request.endpoint,
            target.provider,
            target.model[:_MAX_MODEL],
            200,
            HIT,
            False,
            COMPLETE,
            None,
            request.usage,
            0,
            saved,
            None,
            latency_us,
            latency_us,
            None,
            latency_us,
        )
        self.journal.settled(event)
        if request.admission is not None and self.limiting is not None:
            self.limiting.settle_hit(request, target.provider)
        self.counters.hit(request.endpoint, latency_us, saved or 0)
        for observe in self.observers:
            observe(event)

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
        began = request.began
        head_sent = request.head_sent or now
        latency_us = overhead_us = int((head_sent - began) * 1e6)
        if request.upstream_began or request.waited_for_judge:
            overhead_us -= min(int(request.spent_upstream() * 1e6), latency_us)
        headers = request.exchange.headers
        user, session, tags = _labels(headers)
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
            _cost(request),
            request.saved,
            request.price,
            latency_us,
            overhead_us,
            int((request.first_byte - began) * 1e6) if request.first_byte else None,
            int((now - began) * 1e6),
            user,
            session,
            tags,
            request.upstream_request_id,
            _attempts(request, now) if request.calls else (),
            *(_NOT_LOOKED if request.looked is None else _looked(request.looked)),
        )
        self.journal.settled(event)
        if principal.subject is not None and self.limiting is not None:
            self.limiting.settle(request, event)
        self.counters.add(event)
        for observe in self.observers:
            observe(event)


def _labels(headers: dict[bytes, bytes]) -> tuple[str | None, str | None, str | None]:
    """User, session and tags, by which the client wants its usage told apart."""
    if LABELS.isdisjoint(headers):
        return _NO_LABELS
    return (
        _text(headers.get(b"x-watchllm-user")),
        _text(headers.get(b"x-watchllm-session")),
        _text(headers.get(b"x-watchllm-tags")),
    )


def _looked(looked: Looked) -> tuple[str, float | None, float | None, str | None]:
    """What came of looking for an answer by meaning, as the usage event has it."""
    decision, reason = looked.decision, looked.reason or None
    if decision is None:
        return looked.outcome, None, None, reason
    return looked.outcome, round(decision.similarity, 4), round(decision.confidence, 4), reason


def _cost(request: Request) -> Nanos | None:
    """What all calls cost: where none brought an answer, what those that were given up may have cost."""
    if request.cost is None and request.usage is None and request.lost_cost:
        return request.lost_cost
    return request.cost


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1")[:_MAX_TEXT] if value else None


def _attempts(request: Request, now: float) -> tuple[Attempt, ...]:
    """The calls upstream, the last of them as far as it has come."""
    if request.calls == len(request.attempts):
        return request.attempts
    target = request.target
    assert target is not None
    is_hit = request.cache == HIT_STALE
    began = request.try_began or request.upstream_began
    cost = None if is_hit or request.cost is None else request.cost - request.lost_cost
    last = Attempt(
        target.provider,
        request.model[:_MAX_MODEL],
        request.upstream_status,
        int((began - request.began) * 1e6),
        int(((now if request.streamed else request.upstream_ended or now) - began) * 1e6),
        None if is_hit else request.usage,
        cost,
        request.price,
        request.error,
        target.key_id,
        request.hedged,
    )
    return (*request.attempts, last)
