"""The calls upstream on behalf of one question: candidate after candidate, until one gives an answer to pass on.

What follows from a failure is decided by `routing.outcome`: the next key, the next provider, or the same one again
after a back-off. An answer with status 200 is on trial first (`proof`). Up to the first byte that is passed on another
call may take its place; after it, nothing is tried again. Where none can be made, what the last one said is passed on.
A hedged route begins a second call beside the first when that is slow, if there is a slot for it; the first good answer
wins, the other is cancelled. A refusal is kept meanwhile and passed on only if the other fails.

Each call is opened in the journal before it is sent, and becomes an attempt of its request with its own cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from watchllm.domain.errors import GatewayError, InternalError
from watchllm.proxy.allowance import Allowance
from watchllm.proxy.approach import AnswerSink, Approach, Candidate, FromCache, unavailable
from watchllm.proxy.further_calls import FurtherCalls
from watchllm.proxy.lost_calls import LostCalls, lost_usage, refusal_code
from watchllm.proxy.one_try import Try
from watchllm.proxy.proof import Standard
from watchllm.proxy.request import Request
from watchllm.proxy.sent_whole import SentWhole
from watchllm.proxy.services import Services
from watchllm.proxy.upstream import upstream_error
from watchllm.routing import backoff, outcome
from watchllm.routing.outcome import Health, Verdict
from watchllm.routing.route import Route
from watchllm.wire.types import Headers, WireError

MOST_CALLS = 32
"""Calls upstream for one request: a route of many models, each with keys and retries, could come to hundreds."""


class Attempts(SentWhole):
    """Implements `wire.types.Call` for whoever waits for the answer.

    `approach(candidate)` makes the request as it goes to a candidate; it raises GatewayError where the request cannot
    be put in that provider's words. `standard` is what an answer has to be, None = any of status 200 is passed on.
    `stored` gives answers of other candidates than the first that are known already.
    """

    __slots__ = (
        "__weakref__",
        "_allowance",
        "_approach",
        "_at",
        "_candidates",
        "_further",
        "_has_called",
        "_holds_second_slot",
        "_lost",
        "_paused",
        "_request",
        "_route",
        "_said",
        "_services",
        "_sink",
        "_standard",
        "_stored",
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
        standard: Standard | None = None,
        stored: FromCache | None = None,
    ) -> None:
        self._services = services
        self._request = request
        self._route = route
        self._candidates = candidates
        self._approach = approach
        self._sink = sink
        self._standard = standard
        self._stored = stored
        self._at = 0
        self._tries: list[Try] = []
        self._winner: Try | None = None
        self._said: Try | GatewayError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._allowance = Allowance(route)
        self._paused = False
        self._has_called = False
        self._holds_second_slot = False
        self._further = FurtherCalls(services, request)
        self._lost = LostCalls(services, request)

    def begin(self) -> None:
        """Make the first call. Raises GatewayError when no candidate can be called at all."""
        first_error: GatewayError | None = None
        for at in range(len(self._candidates)):
            try:
                if self._is_stored(at) or self._called(at):
                    break
            except GatewayError as error:
                first_error = first_error or error
        else:
            raise first_error or unavailable(self._services, self._candidates)
        if self._route.hedge_after is not None and self._tries:
            self._timer = self._services.loop.call_later(self._route.hedge_after, self._hedge)

    # --- the call, as the waiting side sees it -----------------------------------------------------------------------

    @property
    def is_sent(self) -> bool:
        return any(one.call is not None and one.call.is_sent for one in self._tries)

    def pause(self) -> None:
        self._paused = True
        if self._winner is not None and self._winner.call is not None:
            self._winner.call.pause()

    def resume(self) -> None:
        self._paused = False
        if self._winner is not None and self._winner.call is not None:
            self._winner.call.resume()

    def spoiled(self) -> None:
        """The answer that is passed on turned out to be none."""
        if self._winner is not None:
            self._winner.ticket.recant()

    def cancel(self) -> None:
        """Forget all calls. The one that was to answer stays the request's last attempt; its books are the caller's."""
        self._cancel_planned()
        self._give_back_second_slot()
        self._forget_said()
        for one in self._tries:
            one.forget()
            one.ticket.give_back(Health.NOTHING)
        for one in self._tries[:-1]:
            if one is not self._winner:
                self._lost.ended(one, self._request.error or "client_left")

    # --- for the tries -----------------------------------------------------------------------------------------------

    def answered(self, one: Try, status: int, headers: Headers) -> bool:
        """The head of an answer; whether it is passed on, or on trial."""
        if one.on_trial:
            if self._route.try_timeout is not None:
                one.bound(self._services.loop, self._route.try_timeout)
            return True
        try:
            passed_on = self._is_passed_on(one, status, headers)
        except Exception:
            self.give_up(one)
            raise
        if not passed_on:
            self._release_held()
        return passed_on

    def proved(self, one: Try) -> None:
        """An answer on trial is the one to pass on."""
        one.ticket.give_back(Health.WORKED)
        self._win(one)
        one.release(paused=self._paused)

    def unfit(self, one: Try, fault: GatewayError) -> None:
        """An answer on trial is none: the provider's trouble."""
        self._fails(one, Health.FAILED, Verdict.RETRY, fault)

    def broke(self, one: Try, error: WireError) -> None:
        """A call failed before its answer was passed on."""
        health = Health.NOTHING if self._allowance.ended(error) else outcome.health_of_error(error)
        self._fails(one, health, outcome.of_error(error), upstream_error(error))

    def give_up(self, *failed: Try) -> None:
        """Something of ours is wrong: nobody may wait for ever for an answer that does not come."""
        self._cancel_planned()
        self._give_back_second_slot()
        self._forget_said()
        for one in (*failed, *self._tries):
            one.forget()
            one.ticket.give_back(Health.NOTHING)
        self._sink.fail(InternalError("Something went wrong inside the gateway between two calls of a provider."))

    # --- what comes next ---------------------------------------------------------------------------------------------

    def _is_passed_on(self, one: Try, status: int, headers: Headers) -> bool:
        if status == 200:
            one.ticket.give_back(Health.WORKED)
            self._win(one)
            return True
        one.ticket.give_back(outcome.health_of_status(status))
        verdict = outcome.of_status(status)
        if verdict is not Verdict.ACCEPT:
            asked = backoff.retry_after(headers, self._services.now_ms() / 1e3)
            if self._goes_on(one, verdict, asked, refusal_code(status)):
                self._keep_in_mind(one, headers)
                return False
        elif any(not other.held for other in self._tries if other is not one):
            self._hold(one, headers)
            return False
        self._win(one)
        return True

    def _fails(self, one: Try, health: Health, verdict: Verdict, failure: GatewayError) -> None:
        """Go on without a call that came to nothing, or tell of it who waits."""
        one.ticket.give_back(health)
        try:
            goes_on = self._goes_on(one, verdict, None, failure.code)
        except Exception:
            self.give_up(one)
            raise
        if goes_on:
            if one.on_trial:
                self._keep_in_mind(one)
            else:
                self._said = failure
            self._release_held()
            return
        self._win(one)
        if one.sent and not one.relays:
            # It may be charged for as much as those before it were; written down, it is among them.
            self._lost.record(one, failure.code, lost_usage(self._request, one.approach))
        if one.on_trial:
            one.release(paused=self._paused)
        else:
            self._sink.fail(failure)

    def _keep_in_mind(self, one: Try, headers: Headers | None = None) -> None:
        """What is planned may turn out impossible: then this is what is passed on."""
        if self._tries or (self._timer is None and not self._further.is_pending):
            one.forget()
        else:
            self._said = one
            one.hold(headers)

    def _hold(self, one: Try, headers: Headers) -> None:
        """Keep a refusal while another call is under way, which the request tells of from now on."""
        self._tries.remove(one)
        self._tries.insert(0, one)
        self._tries[-1].stand_for(self._request, self._services)
        one.hold(headers)

    def _release_held(self) -> None:
        """Pass on the refusal that was kept, if all other calls have failed."""
        if self._tries and self._tries[-1].held:
            one = self._tries[-1]
            self._win(one)
            one.release(paused=self._paused)

    def _goes_on(self, one: Try, verdict: Verdict, asked: float | None, error: str) -> bool:
        """Whether something else is tried, or under way, in place of the call that failed."""
        self._tries.remove(one)
        usage = lost_usage(self._request, one.approach) if one.status in (0, 200) and one.sent else None
        if self._tries:
            self._give_back_second_slot()
            self._tries[-1].stand_for(self._request, self._services)
        elif not self._further.is_pending:
            self._further.after(one, usage)
            if not self._follows(one, verdict, asked):
                self._tries.append(one)
                return False
        self._lost.record(one, error, usage)
        return True

    def _follows(self, one: Try, verdict: Verdict, asked: float | None) -> bool:
        """Begin, or plan, what is done instead; False = nothing is left to do."""
        left = self._allowance.left
        if (left is not None and left <= 0) or self._request.calls >= MOST_CALLS:
            return False
        if verdict is Verdict.RETRY and self._waits(one, asked, left):
            return True
        if self._moves_on(one.candidate, verdict):
            return True
        return verdict is Verdict.NEXT and self._waits(one, asked, left)

    def _waits(self, one: Try, asked: float | None, left: float | None) -> bool:
        """Plan another try at the same target, if the route has one left and there is time."""
        wait = self._allowance.retry_in(asked, left)
        if wait is None:
            return False
        self._cancel_planned()
        self._timer = self._services.loop.call_later(wait, self._call_again, one.at)
        return True

    def _moves_on(self, failed: Candidate, verdict: Verdict) -> bool:
        """Call the next candidate that is worth it and can be: another key does not mend a provider's trouble."""
        for at in range(self._at + 1, len(self._candidates)):
            if verdict is Verdict.RETRY and self._candidates[at].serves_as(failed):
                continue
            if self._is_stored(at):
                return True
            try:
                if self._called(at):
                    self._allowance.moved_on()
                    return True
            except GatewayError:
                continue  # It has no words for the request, which is not what the client has to hear of.
        return False

    def _is_stored(self, at: int) -> bool:
        """Plan to give what is stored of the candidate there in place of calling it, if there is something."""
        give = self._stored(self._candidates[at]) if self._stored is not None else None
        if give is None:
            return False
        self._cancel_planned()
        self._timer = self._services.loop.call_later(0, self._give_stored, give)
        return True

    def _give_stored(self, give: Callable[[], None]) -> None:
        self._timer = None
        self._forget_said()
        try:
            give()
        except Exception:
            self.give_up()
            raise

    def _call_again(self, at: int) -> None:
        self._timer = None
        try:
            error = self._refused_again(at)
        except Exception:
            self.give_up()
            raise
        if error is not None:
            self._tell_what_was_said(error)

    def _tell_what_was_said(self, error: GatewayError) -> None:
        """Pass on what the last call came to, because no other is made; `error` where there was none."""
        said, self._said = self._said, None
        if isinstance(said, Try):
            if said.relays:
                self._lost.take_back()  # who relays it accounts for it
            self._win(said)
            said.release(paused=self._paused)
        else:
            self._sink.fail(said or error)

    def _refused_again(self, at: int) -> GatewayError | None:
        """Call once more, or who is next; the error where nobody can be called."""
        try:
            if self._called(at):
                return None
            error: GatewayError = unavailable(self._services, self._candidates)
        except GatewayError as refusal:
            error = refusal
        return None if self._moves_on(self._candidates[at], Verdict.RETRY) else error

    def _hedge(self) -> None:
        """The first call is slow: begin another beside it, at the next candidate, or the same if there is none."""
        self._timer = None
        if len(self._tries) != 1 or self._request.calls >= MOST_CALLS:
            return
        if not self._services.slots.take():
            return  # Where there is too much to do, doing it twice makes nobody quicker.
        self._holds_second_slot = True
        for at in (*range(self._at + 1, len(self._candidates)), self._tries[0].at):
            try:
                if self._called(at, hedged=True):
                    return
            except GatewayError:
                continue  # The call under way goes on; what could not be begun costs nothing.
        self._give_back_second_slot()

    def _give_back_second_slot(self) -> None:
        """The first belongs to who made this."""
        if self._holds_second_slot:
            self._holds_second_slot = False
            self._services.slots.release()

    # --- calls -------------------------------------------------------------------------------------------------------

    def _called(self, at: int, *, hedged: bool = False) -> bool:
        """Call the candidate there, unless its breaker is open. Raises GatewayError where it has no words for this."""
        candidate = self._candidates[at]
        ticket = self._services.breakers.admit(candidate.breaker)
        if ticket is None:
            return False
        try:
            one = Try(self, at, candidate, self._approach(candidate), ticket, hedged=hedged)
            is_free = not self._has_called or self._further.take(one, self._send_taken, self._not_taken)
        except Exception:
            ticket.give_back(Health.NOTHING)
            raise
        if is_free:
            self._send(one)
        return True

    def _send_taken(self, one: Try) -> None:
        """A further call may be made, as had to be found out."""
        one.began = perf_counter()
        try:
            self._send(one)
        except Exception:
            self.give_up(one)
            raise

    def _not_taken(self, one: Try, error: GatewayError) -> None:
        """A further call may not be made: the limits leave no room for it."""
        if one.hedged:
            self._give_back_second_slot()
        if not self._tries:
            self._tell_what_was_said(error)

    def _forget_said(self) -> None:
        said, self._said = self._said, None
        if isinstance(said, Try):
            said.forget()

    def _send(self, one: Try) -> None:
        self._has_called = True
        self._at = max(self._at, one.at)
        self._forget_said()
        one.answers_to(self._sink, self._standard)
        services, request, approach = self._services, self._request, one.approach
        one.stand_for(request, services)
        request.upstream_began = request.upstream_began or one.began
        services.settlement.open_call(request, len(approach.body), hedged=one.hedged)
        one.call = call = services.outbound.pool.send(
            one.candidate.destination.origin,
            approach.method,
            approach.url,
            approach.head,
            approach.body,
            one,
            self._allowance.timeouts(services.timeouts),
        )
        self._tries.append(one)
        if self._paused:
            call.pause()

    def _win(self, one: Try) -> None:
        """This call's answer, or its failure, is passed on; the others are over."""
        self._winner = one
        self._cancel_planned()
        self._give_back_second_slot()
        if len(self._tries) == 1:
            return  # what the request tells of already
        others = [other for other in self._tries if other is not one]
        self._tries = [one]
        one.stand_for(self._request, self._services)
        for other in others:
            other.forget()
            other.ticket.give_back(Health.NOTHING)
        for other in others:
            self._lost.ended(other, "hedged")

    def _cancel_planned(self) -> None:
        self._further.forget()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
