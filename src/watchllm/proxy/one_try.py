"""One call upstream among those that are made for a question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from watchllm.domain.errors import GatewayError
from watchllm.proxy.approach import AnswerSink, Approach, Candidate
from watchllm.proxy.proof import Kept, Proof, Standard
from watchllm.routing import outcome
from watchllm.routing.breaker import Ticket
from watchllm.wire import types as wire
from watchllm.wire.types import Headers, TimedOut, WireError

if TYPE_CHECKING:
    from watchllm.proxy.attempts import Attempts
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services


class Try:
    """Implements `ResponseSink` for the call to `candidate`, the one at place `at`, and `Prover` for its answer.

    What comes of it goes to a sink that it is given by `answers_to`, once its answer is the one to pass on; a `proof`,
    where there is one, is what such a sink leads to. Until that is known of a refusal that came while another call is
    under way, it is `held`: no more of it is read than has come already.
    """

    __slots__ = (
        "_attempts",
        "_kept",
        "_sink",
        "_timer",
        "approach",
        "at",
        "began",
        "call",
        "candidate",
        "hedged",
        "held",
        "proof",
        "sent",
        "status",
        "ticket",
    )

    def __init__(
        self, attempts: Attempts, at: int, candidate: Candidate, approach: Approach, ticket: Ticket, *, hedged: bool
    ) -> None:
        self._attempts: Attempts | None = attempts  # until its part is over: nothing may refer to itself in a circle
        self._sink: wire.ResponseSink | None = None
        self._kept: Kept | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.at = at
        self.candidate = candidate
        self.approach = approach
        self.ticket = ticket
        self.hedged = hedged
        self.call: wire.Call | None = None
        self.proof: Proof | None = None
        self.began = perf_counter()
        self.status = 0
        self.sent = False
        """Known when it has ended."""
        self.held = False

    def answers_to(self, sink: AnswerSink, standard: Standard | None) -> None:
        """Name who gets the answer: only after it was found to be one, where there is a `standard`."""
        if standard is not None:
            sink = self.proof = Proof(standard, sink, self)
        translated = self.approach.translated
        self._sink = sink if translated is None else translated(sink, self)

    @property
    def on_trial(self) -> bool:
        """Whether its answer has to prove that it is one."""
        return self.proof is not None and self.status == 200

    @property
    def relays(self) -> bool:
        """Whether it begins as a stream, whose books are kept by who relays it."""
        return self.proof is not None and self.proof.is_stream

    def stand_for(self, request: Request, services: Services) -> None:
        """Be what the request tells of: who answers, or would have."""
        target = self.candidate.target
        request.target, request.model = target, target.model
        request.price = services.tenants.price(target.provider, target.model)
        request.dropped = self.approach.dropped
        request.try_began, request.hedged = self.began, self.hedged

    def bound(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Give it up unless its answer has proved to be one so long after it began."""
        left = max(self.began + seconds - perf_counter(), 0.0)
        self._timer = loop.call_later(left, self._expire, seconds)

    def cancel(self) -> None:
        """End the call, for whoever cannot read its answer and goes on to say so."""
        if self.call is not None:
            self.call.cancel()

    def forget(self) -> None:
        """End it. What its answer would have gone to may refer to the attempts, so that is forgotten."""
        self._sink = None
        self._attempts = None
        self._cancel_timer()
        if self._kept is not None:
            self._kept.clear()
        proof, self.proof = self.proof, None
        if proof is not None:
            proof.cancel()
        call, self.call = self.call, None
        if call is not None:
            self.sent = self.sent or call.is_sent
            call.cancel()

    def hold(self, headers: Headers | None = None) -> None:
        """Keep the answer until `release` or `forget`. Of a refusal the head has come, with `headers`; what came of an
        answer on trial is kept already."""
        self.held = True
        if headers is not None:
            self._kept = Kept()
            self._kept.on_response(self.status, headers)
        if self.call is not None:
            self.call.pause()

    def release(self, *, paused: bool) -> None:
        """Pass on what was kept and what comes from now on; `paused`: who waits wants to read no more for now."""
        was_held, self.held = self.held, False
        self._attempts = None
        self._cancel_timer()
        call, sink, kept, proof = self.call, self._sink, self._kept, self.proof
        assert call is not None
        assert sink is not None
        call.pass_to(self._shortest_way(sink))
        if was_held and not paused:
            call.resume()  # which calls nobody yet
        if proof is not None:
            proof.release()
        if kept is not None:
            kept.release(sink)
            self._kept = None

    def _shortest_way(self, sink: wire.ResponseSink) -> wire.ResponseSink:
        """Where the rest of the answer goes: past a proof that has nothing more to say."""
        proof = self.proof
        return proof.sink if proof is not None and proof is sink and proof.sink is not None else sink

    # --- proof -------------------------------------------------------------------------------------------------------

    def proved(self) -> None:
        if self._attempts is not None:
            self._attempts.proved(self)

    def unfit(self, fault: GatewayError) -> None:
        self._end_trial(lambda attempts: attempts.unfit(self, fault))

    def broke_off(self, error: WireError) -> None:
        self._end_trial(lambda attempts: attempts.broke(self, error))

    def misjudged(self) -> None:
        self._end_trial(lambda attempts: attempts.give_up(self))

    def _end_trial(self, tell: Callable[[Attempts], None]) -> None:
        self.sent = True
        self._cancel_timer()
        attempts, self._attempts = self._attempts, None
        if attempts is not None:
            tell(attempts)

    def _expire(self, seconds: float) -> None:
        self._timer = None
        if self.call is not None and self.proof is not None:
            self.call.cancel()
            self._sink = self.proof  # what translates is told nothing any more, and refers to this
            self.proof.on_failure(TimedOut("try", seconds))

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    # --- sink --------------------------------------------------------------------------------------------------------

    def on_response(self, status: int, headers: Headers) -> None:
        self.status = status
        attempts, call = self._attempts, self.call
        if attempts is None or call is None or not attempts.answered(self, status, headers):
            return
        sink, proof = self._sink, self.proof
        assert sink is not None
        if self.on_trial:
            call.pass_to(sink)
        else:
            self._attempts = None
            call.pass_to(self._shortest_way(sink))
            if proof is not None:
                proof.release()
        sink.on_response(status, headers)

    def on_data(self, data: bytes) -> None:
        assert self._kept is not None, "an answer's body goes to who it is passed on to"
        self._kept.on_data(data)

    def on_complete(self) -> None:
        assert self._kept is not None, "an answer's end goes to who it is passed on to"
        self._kept.on_complete()

    def on_failure(self, error: WireError) -> None:
        if self._kept is not None:
            self._kept.on_failure(error)
            return
        self.sent = outcome.is_sent(error)
        attempts, self._attempts = self._attempts, None
        if attempts is not None:
            attempts.broke(self, error)
