"""One call upstream among those that are made for a question."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from watchllm.proxy.approach import Approach, Candidate
from watchllm.routing import outcome
from watchllm.routing.breaker import Ticket
from watchllm.wire import types as wire
from watchllm.wire.types import Headers, WireError

if TYPE_CHECKING:
    from watchllm.proxy.attempts import Attempts


class Try:
    """Implements `ResponseSink` for the call to `candidate`, the one at place `at`.

    What comes of it goes to `sink` once its answer is the one to pass on. Until that is known of a refusal that came
    while another call is under way, it is `held`: no more of it is read than has come already.
    """

    __slots__ = (
        "_attempts",
        "_body",
        "_end",
        "_headers",
        "_sink",
        "approach",
        "at",
        "began",
        "call",
        "candidate",
        "hedged",
        "held",
        "sent",
        "status",
        "ticket",
    )

    def __init__(
        self,
        attempts: Attempts,
        at: int,
        candidate: Candidate,
        approach: Approach,
        ticket: Ticket,
        sink: wire.ResponseSink,
        *,
        hedged: bool,
    ) -> None:
        self._attempts: Attempts | None = attempts  # until its part is over: nothing may refer to itself in a circle
        self._sink: wire.ResponseSink | None = sink
        self.at = at
        self.candidate = candidate
        self.approach = approach
        self.ticket = ticket
        self.hedged = hedged
        self.call: wire.Call | None = None
        self.began = perf_counter()
        self.status = 0
        self.sent = False
        """Known when it has ended."""
        self.held = False

    def cancel(self) -> None:
        """End it. What its answer would have gone to may refer to the attempts, so that is forgotten."""
        self._sink = None
        self._attempts = None
        call, self.call = self.call, None
        if call is not None:
            self.sent = call.is_sent
            call.cancel()

    def hold(self, headers: Headers) -> None:
        """Keep the answer whose head came until `release` or `cancel`."""
        self.held = True
        self._headers = headers
        self._body: list[bytes] = []
        self._end: Callable[[wire.ResponseSink], None] | None = None
        if self.call is not None:
            self.call.pause()

    def release(self, *, paused: bool) -> None:
        """Pass on what was held; `paused`: who waits for it wants to read no more for now."""
        self.held = False
        self._attempts = None
        call, sink, body = self.call, self._sink, self._body
        assert call is not None
        assert sink is not None
        self._body = []
        call.pass_to(sink)
        if not paused:
            call.resume()  # which calls nobody yet
        sink.on_response(self.status, self._headers)
        for piece in body:
            sink.on_data(piece)
        if self._end is not None and self.call is not None:
            self._end(sink)

    # --- sink --------------------------------------------------------------------------------------------------------

    def on_response(self, status: int, headers: Headers) -> None:
        self.status = status
        attempts, call = self._attempts, self.call
        if attempts is not None and call is not None and attempts.answered(self, status, headers):
            self._attempts = None
            sink = self._sink
            assert sink is not None
            call.pass_to(sink)
            sink.on_response(status, headers)

    def on_data(self, data: bytes) -> None:
        assert self.held, "an answer's body goes to who it is passed on to"
        self._body.append(data)

    def on_complete(self) -> None:
        assert self.held, "an answer's end goes to who it is passed on to"
        self._end = lambda sink: sink.on_complete()

    def on_failure(self, error: WireError) -> None:
        if self.held:
            self._end = lambda sink: sink.on_failure(error)
            return
        self.sent = outcome.is_sent(error)
        attempts, self._attempts = self._attempts, None
        if attempts is not None:
            attempts.broke(self, error)
