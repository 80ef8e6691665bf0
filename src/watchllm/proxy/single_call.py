"""The one call upstream for a question that has nothing else to try, which most routes are.

What `attempts` does for such a route, without what it needs to go on elsewhere: a third of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from watchllm.proxy.approach import AnswerSink, Approach, Candidate, unavailable
from watchllm.proxy.attempts import Attempts
from watchllm.proxy.lost_calls import LostCalls, lost_usage
from watchllm.proxy.proof import Standard
from watchllm.proxy.request import Request
from watchllm.proxy.sent_whole import SentWhole
from watchllm.proxy.services import Services
from watchllm.proxy.upstream import upstream_error
from watchllm.routing import outcome
from watchllm.routing.breaker import Ticket
from watchllm.routing.outcome import Health
from watchllm.routing.route import Route
from watchllm.wire import types as wire
from watchllm.wire.types import Headers, WireError


def calls_for(
    services: Services,
    request: Request,
    route: Route,
    candidates: tuple[Candidate, ...],
    approach: Callable[[Candidate], Approach],
    sink: AnswerSink,
    standard: Standard | None = None,
) -> SingleCall | Attempts:
    """What puts a question to `candidates`; its `begin` makes the (first) call. As `Attempts`."""
    if has_one_try(route, candidates):
        return SingleCall(services, request, candidates[0], approach, sink)
    return Attempts(services, request, route, candidates, approach, sink, standard)


def has_one_try(route: Route, candidates: tuple[Candidate, ...]) -> bool:
    """Whether there is nothing else to try when a call fails."""
    return len(candidates) == 1 and route.tries_once


class SingleCall(SentWhole):
    """Implements `wire.types.Call` for whoever waits for the answer, and `ResponseSink` up to the answer's head."""

    __slots__ = (
        "__weakref__",
        "_call",
        "_make",
        "_request",
        "_services",
        "_sink",
        "_ticket",
        "_waiting",
        "approach",
        "began",
        "candidate",
        "hedged",
        "status",
    )

    def __init__(
        self,
        services: Services,
        request: Request,
        candidate: Candidate,
        approach: Callable[[Candidate], Approach],
        sink: AnswerSink,
    ) -> None:
        self._services = services
        self._request = request
        self._make = approach
        self._waiting: AnswerSink | None = sink
        self._sink: wire.ResponseSink | None = None
        self._call: wire.Call | None = None
        self.candidate = candidate

    def begin(self) -> None:
        """Make the call. Raises GatewayError when it cannot be made."""
        services, request, candidate, waiting = self._services, self._request, self.candidate, self._waiting
        assert waiting is not None
        ticket = services.breakers.admit(candidate.breaker)
        if ticket is None:
            raise unavailable(services, (candidate,))
        self._ticket: Ticket = ticket
        try:
            approach = self._make(candidate)
        except Exception:
            ticket.give_back(Health.NOTHING)
            raise
        self.approach = approach
        self._sink = waiting if approach.translated is None else approach.translated(waiting, self)
        target = candidate.target
        request.target, request.model = target, target.model
        request.dropped = approach.dropped
        self.began = request.upstream_began = perf_counter()
        services.settlement.open_call(request, len(approach.body))
        self._call = services.outbound.pool.send(
            candidate.destination.origin,
            approach.method,
            approach.url,
            approach.head,
            approach.body,
            self,
            services.timeouts,
        )

    # --- the call, as the waiting side sees it -----------------------------------------------------------------------

    @property
    def is_sent(self) -> bool:
        return self._call is not None and self._call.is_sent

    def pause(self) -> None:
        if self._call is not None:
            self._call.pause()

    def resume(self) -> None:
        if self._call is not None:
            self._call.resume()

    def cancel(self) -> None:
        """Forget the call; the request's books are the caller's. What waited may refer to this, so it is let go."""
        self._waiting = self._sink = None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
            self._ticket.give_back(Health.NOTHING)

    def spoiled(self) -> None:
        """The answer that began well turned out to be none."""
        self._ticket.recant()

    # --- sink, until the head of an answer is here -------------------------------------------------------------------

    def on_response(self, status: int, headers: Headers) -> None:
        self._ticket.give_back(Health.WORKED if status == 200 else outcome.health_of_status(status))
        call, sink = self._call, self._sink
        assert call is not None
        assert sink is not None
        self._waiting = self._sink = None
        call.pass_to(sink)
        sink.on_response(status, headers)

    def on_data(self, data: bytes) -> None:
        raise AssertionError("an answer's body goes to who waits for it")

    def on_complete(self) -> None:
        raise AssertionError("an answer's end goes to who waits for it")

    def on_failure(self, error: WireError) -> None:
        waiting, self._waiting, self._sink, self._call = self._waiting, None, None, None
        self._ticket.give_back(outcome.health_of_error(error))
        failure = upstream_error(error)
        if outcome.is_sent(error):
            # It may be charged for, though nobody knows what came of it.
            self.status, self.hedged = 0, False
            request = self._request
            LostCalls(self._services, request).record(self, failure.code, lost_usage(request, self.approach))
        if waiting is not None:
            waiting.fail(failure)
