"""The calls upstream on behalf of one question: candidate after candidate, until one gives an answer to pass on.

What follows from a failure is decided by `routing.outcome`: the next key, the next provider, or the same one again
after a back-off. Up to the first byte of an answer another call may take its place; after it, nothing is tried again.
A hedged route begins a second call beside the first when that is slow; the first answer wins, the other is cancelled.

Each call is opened in the journal before it is sent, and becomes an attempt of its request with its own cost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from time import perf_counter

import msgspec

from watchllm.domain import json_body
from watchllm.domain.errors import GatewayError, Unavailable
from watchllm.domain.usage import TokenUsage
from watchllm.domain.usage_event import Attempt
from watchllm.proxy.approach import AnswerSink, Approach, Candidate
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.upstream import upstream_error
from watchllm.routing import backoff, outcome
from watchllm.routing.breaker import Ticket, breaker_key
from watchllm.routing.outcome import Health, Verdict
from watchllm.routing.route import Route
from watchllm.wire import types as wire
from watchllm.wire.types import Headers, Timeouts, WireError


class Attempts:
    """Implements `wire.types.Call` for whoever waits for the answer.

    `approach(candidate)` makes the request as it goes to a candidate; it raises GatewayError where the request cannot
    be put in that provider's words.
    """

    __slots__ = (
        "_approach",
        "_at",
        "_candidates",
        "_deadline",
        "_over",
        "_paused",
        "_request",
        "_retries",
        "_route",
        "_services",
        "_sink",
        "_timer",
        "_tries",
        "_winner",
    )

    def __init__(
        self,
        services: Services,
        request: Request,
        route: Route,
        candidates: tuple[Candidate, ...],
        approach: Callable[[Candidate], Approach],
        sink: AnswerSink,
    ) -> None:
        self._services = services
        self._request = request
        self._route = route
        self._candidates = candidates
        self._approach = approach
        self._sink = sink
        self._at = 0
        self._retries = 0
        self._tries: list[_Try] = []
        self._winner: _Try | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0 if route.timeout is None else perf_counter() + route.timeout
        self._over = False
        self._paused = False

    def begin(self) -> None:
        """Make the first call. Raises GatewayError when no candidate can be called at all."""
        self._call_next()
        if self._route.hedge_after is not None and self._winner is None and not self._over:
            self._timer = self._services.loop.call_later(self._route.hedge_after, self._hedge)

    # --- the call, as the waiting side sees it -----------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        raise RuntimeError("the body of a call that may be made again is sent whole")

    def end(self) -> None:
        raise RuntimeError("the body of a call that may be made again is sent whole")

    def pause(self) -> None:
        self._paused = True
        if self._winner is not None and self._winner.call is not None:
            self._winner.call.pause()

    def resume(self) -> None:
        self._paused = False
        if self._winner is not None and self._winner.call is not None:
            self._winner.call.resume()

    def cancel(self) -> None:
        """Forget all calls. The one that was to answer stays the request's last attempt; its books are the caller's."""
        self._end()
        for one in self._tries:
            one.cancel()
            one.ticket.give_back(Health.NOTHING)
            if one is not self._tries[-1] and one is not self._winner:
                self._record(one, "client_left", one.lost_usage())

    def ended(self) -> None:
        """The answer has come to its end: nothing is held any more that holds this in turn."""
        self._end()
        for one in self._tries:
            one.call = None
        self._winner = None
        self._tries = []

    # --- for the tries -----------------------------------------------------------------------------------------------

    def answered(self, one: _Try, status: int, headers: Headers) -> bool:
        """The head of an answer; whether it is passed on."""
        one.ticket.give_back(outcome.health_of_status(status))
        verdict = outcome.of_status(status)
        if verdict is not Verdict.ACCEPT:
            asked = backoff.retry_after(headers, self._services.now_ms() / 1e3)
            if self._goes_on(one, verdict, asked, status, _error_code(status)):
                one.cancel()
                return False
        self._win(one)
        return True

    def broke(self, one: _Try, error: WireError) -> None:
        """A call failed before its answer's head."""
        one.ticket.give_back(outcome.health_of_error(error))
        failure = upstream_error(error)
        if not self._goes_on(one, outcome.of_error(error), None, 0, failure.code):
            self._win(one)
            self._sink.fail(failure)

    # --- what comes next ---------------------------------------------------------------------------------------------

    def _goes_on(self, one: _Try, verdict: Verdict, asked: float | None, status: int, error: str) -> bool:
        """Whether something else is tried, or under way, in place of the call that failed."""
        others = any(other is not one for other in self._tries)
        follows = self._follows(one, verdict, asked) if not others else None
        if not others and follows is None:
            return False
        self._tries.remove(one)
        one.status = status
        self._record(one, error, one.lost_usage() if status == 0 and one.sent else None)
        if follows is not None:
            follows()
        return True

    def _follows(self, one: _Try, verdict: Verdict, asked: float | None) -> Callable[[], None] | None:
        """What to do instead, None = nothing is left to do."""
        left = self._deadline - perf_counter() if self._deadline else None
        if left is not None and left <= 0:
            return None
        following = self._following(one.candidate, verdict)
        if (verdict is Verdict.RETRY or (verdict is Verdict.NEXT and following is None)) and (
            self._retries < self._route.retries
        ):
            wait = backoff.delay(self._retries + 1, random=random.random, retry_after=asked, left=left)
            if wait is not None:
                self._retries += 1
                return lambda: self._wait(wait, one.candidate)
        if following is None:
            return None
        at = following
        return lambda: self._move_on(at)

    def _following(self, failed: Candidate, verdict: Verdict) -> int | None:
        """The place of the next candidate that is worth a call: another key does not mend a provider's trouble."""
        for at in range(self._at + 1, len(self._candidates)):
            candidate = self._candidates[at]
            same_place = verdict is Verdict.RETRY and candidate.serves_as(failed)
            if not same_place and self._services.breakers.retry_in(self._key(candidate)) == 0.0:
                return at
        return None

    def _move_on(self, at: int) -> None:
        self._at = at
        self._retries = 0
        self._try_on()

    def _wait(self, seconds: float, candidate: Candidate) -> None:
        self._cancel_timer()
        self._timer = self._services.loop.call_later(seconds, self._call_again, candidate)

    def _call_again(self, candidate: Candidate) -> None:
        ticket = self._services.breakers.admit(self._key(candidate))
        if ticket is None:
            self._at += 1
            self._try_on()
            return
        try:
            self._call(candidate, ticket)
        except GatewayError as error:
            self._sink_fails(error)

    def _try_on(self) -> None:
        try:
            self._call_next()
        except GatewayError as error:
            self._sink_fails(error)

    def _call_next(self) -> None:
        """Call the first candidate from here on that can be called. Raises GatewayError where none can."""
        first_error: GatewayError | None = None
        while self._at < len(self._candidates):
            candidate = self._candidates[self._at]
            ticket = self._services.breakers.admit(self._key(candidate))
            if ticket is not None:
                try:
                    self._call(candidate, ticket)
                    return
                except GatewayError as error:
                    ticket.give_back(Health.NOTHING)
                    first_error = first_error or error
            self._at += 1
        raise first_error or self._unavailable()

    def _unavailable(self) -> GatewayError:
        waits = (self._services.breakers.retry_in(self._key(candidate)) for candidate in self._candidates)
        names = ", ".join(dict.fromkeys(candidate.target.provider for candidate in self._candidates))
        return Unavailable(
            f"Calls to {names} have kept failing, so none is made for a moment; try again later.",
            retry_after=max(min(waits, default=0.0), 1.0),
        )

    def _hedge(self) -> None:
        """The first call is slow: begin another beside it, at the next candidate, or the same if there is none."""
        self._timer = None
        if self._winner is not None or self._over or len(self._tries) != 1:
            return
        slow = self._tries[0].candidate
        at = self._following(slow, Verdict.NEXT)
        candidate = slow if at is None else self._candidates[at]
        ticket = self._services.breakers.admit(self._key(candidate))
        if ticket is None:
            return
        try:
            self._call(candidate, ticket, hedged=True)
        except GatewayError:
            ticket.give_back(Health.NOTHING)  # The call under way goes on; what could not be begun costs nothing.
            return
        if at is not None:
            self._at = at

    # --- calls -------------------------------------------------------------------------------------------------------

    def _call(self, candidate: Candidate, ticket: Ticket, *, hedged: bool = False) -> None:
        """Raises GatewayError when the call cannot be made."""
        services, request = self._services, self._request
        approach = self._approach(candidate)
        target = candidate.target
        sink = self._sink if approach.translated is None else approach.translated(self._sink, self)
        one = _Try(self, candidate, approach, ticket, sink, hedged=hedged)
        request.target, request.model = target, target.model
        request.dropped = approach.dropped
        one.began = perf_counter()
        request.upstream_began = request.upstream_began or one.began
        services.settlement.open_call(request, len(approach.body), hedged=hedged)
        try:
            one.call = call = services.outbound.pool.send(
                candidate.destination.origin,
                b"POST",
                approach.url,
                approach.head,
                approach.body,
                one,
                self._timeouts(),
            )
        except WireError as error:
            raise upstream_error(error) from None
        self._tries.append(one)
        if self._paused:
            call.pause()

    def _timeouts(self) -> Timeouts:
        timeouts, route = self._services.timeouts, self._route
        if route.try_timeout is None and not self._deadline:
            return timeouts
        total = timeouts.total
        if self._deadline:
            total = min(total, max(self._deadline - perf_counter(), 0.001))
        first_byte = timeouts.first_byte if route.try_timeout is None else min(timeouts.first_byte, route.try_timeout)
        return msgspec.structs.replace(timeouts, first_byte=first_byte, total=total)

    def _win(self, one: _Try) -> None:
        """This call's answer, or its failure, is passed on; the others are over."""
        self._winner = one
        self._cancel_timer()
        for other in self._tries:
            if other is not one:
                other.cancel()
                other.ticket.give_back(Health.NOTHING)
                self._record(other, "hedged", other.lost_usage())
        self._tries = [one]
        request = self._request
        target = one.candidate.target
        request.target, request.model = target, target.model
        request.dropped = one.approach.dropped
        request.try_began, request.hedged = one.began, one.hedged

    def _record(self, one: _Try, error: str, usage: TokenUsage | None) -> None:
        """Make a call that came to nothing an attempt of the request; `usage` is what it may be charged for."""
        request, target = self._request, one.candidate.target
        price = self._services.tenants.price(target.provider, target.model)
        cost = 0 if usage is None else (price.cost(usage) if price is not None else None)
        request.lost_cost += cost or 0
        request.attempts = (
            *request.attempts,
            Attempt(
                target.provider,
                target.model[:256],
                one.status,
                int((one.began - request.began) * 1e6),
                int((perf_counter() - one.began) * 1e6),
                usage,
                cost,
                price,
                error,
                target.key_id,
                one.hedged,
            ),
        )

    def _sink_fails(self, error: GatewayError) -> None:
        if not self._over:
            self._end()
            self._sink.fail(error)

    def _end(self) -> None:
        self._over = True
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _key(self, candidate: Candidate) -> tuple[str, str, str, str]:
        assert self._request.principal is not None
        return breaker_key(self._request.principal.tenant.project.id, candidate.target)


class _Try:
    """One call; implements `ResponseSink`. What comes of it goes to `sink` once its answer is the one to pass on."""

    __slots__ = (
        "_attempts",
        "_passing",
        "_sink",
        "approach",
        "began",
        "call",
        "candidate",
        "hedged",
        "sent",
        "status",
        "ticket",
    )

    def __init__(
        self,
        attempts: Attempts,
        candidate: Candidate,
        approach: Approach,
        ticket: Ticket,
        sink: wire.ResponseSink,
        *,
        hedged: bool,
    ) -> None:
        self._attempts = attempts
        self._passing = False
        self._sink = sink
        self.candidate = candidate
        self.approach = approach
        self.ticket = ticket
        self.hedged = hedged
        self.call: wire.Call | None = None
        self.began = perf_counter()
        self.status = 0
        self.sent = True

    def cancel(self) -> None:
        call, self.call = self.call, None
        if call is not None:
            call.cancel()

    def lost_usage(self) -> TokenUsage:
        """What a provider may charge for a call whose answer was not waited for: what was sent, as an estimate."""
        from watchllm.providers.openai.usage import estimated_usage  # few calls are lost

        return estimated_usage(json_body.parse(self.approach.body), "")

    # --- sink --------------------------------------------------------------------------------------------------------

    def on_response(self, status: int, headers: Headers) -> None:
        self.status = status
        if self._attempts.answered(self, status, headers):
            self._passing = True
            self._sink.on_response(status, headers)

    def on_data(self, data: bytes) -> None:
        if self._passing:
            self._sink.on_data(data)

    def on_complete(self) -> None:
        if self._passing:
            self._attempts.ended()
            self._sink.on_complete()

    def on_failure(self, error: WireError) -> None:
        if self._passing:
            self._attempts.ended()
            self._sink.on_failure(error)
        else:
            self.sent = outcome.is_sent(error)
            self._attempts.broke(self, error)


def _error_code(status: int) -> str:
    """The contract's code for a provider's status, for the attempt's record."""
    if status in (401, 403):
        return "provider_auth_failed"
    return "provider_error" if status >= 500 else "upstream_refused"
