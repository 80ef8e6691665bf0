"""One call upstream and everybody who waits for its answer (coalescing, also known as single flight).

The request that makes the call is its first waiter and pays for it. Others that ask the same while it is under way join
it. A waiter that leaves takes nobody with it; the last one that leaves ends the call. What the provider does wrong is
told to all. A stream is what `streamed_flight.py` is about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Protocol

from watchllm.cache.entry import Entry
from watchllm.domain.errors import GatewayError, InternalError, ProviderFailed, TimedOut
from watchllm.domain.usage import TokenUsage
from watchllm.providers.dialect import CHAT, Verdict
from watchllm.proxy import egress
from watchllm.proxy.bad_answers import wrong_with
from watchllm.proxy.request import Request
from watchllm.proxy.slots import Slots, Turn, not_begun_within
from watchllm.proxy.upstream import MAX_ANSWER_BYTES, Answer, upstream_error
from watchllm.proxy.waiter import FlightPlan, Landed, Waiter, close_books_of_absent
from watchllm.routing.target import Target
from watchllm.wire import types as wire
from watchllm.wire.pieces import FOLD_EVERY, fold
from watchllm.wire.types import Headers


class Beginning(wire.Call, Protocol):
    """The calls upstream, before the first is made. Raises GatewayError when none can be."""

    def begin(self) -> None: ...

    def spoiled(self) -> None:
        """The answer that began well turned out to be none, by the provider's fault."""
        ...


class Flight:
    """Implements `wire.types.ResponseSink`, for a question that wants a whole answer. `labels` are what the answer
    repeats of the leader's request alone."""

    __slots__ = (
        "_body",
        "_call",
        "_headers",
        "_labels",
        "_over",
        "_plan",
        "_size",
        "_status",
        "_turn",
        "_waiters",
        "began_ms",
        "leader",
    )

    def __init__(self, leader: Request, plan: FlightPlan, labels: bytes = b"") -> None:
        self.leader = leader
        self.began_ms = leader.wall_ms
        self._plan = plan
        self._labels = labels
        self._waiters: dict[Waiter, None] = {}
        self._call: Beginning | None = None
        self._status = 0
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._size = 0
        self._over = False
        self._turn: Turn | None = None

    def take_turn(self, slots: Slots, make: Callable[[], Beginning]) -> None:
        """Make the call in a slot, as soon as one is free. The slot is given back when this is over, however
        that comes about."""
        if slots.take():
            self._turn = slots
            self.begin(make())
            return
        try:
            self._turn = slots.enter(self.leader, partial(self._turn_came, make), self.fail)
        except GatewayError as error:
            self.fail(error)

    def _turn_came(self, make: Callable[[], Beginning]) -> None:
        now = perf_counter()
        for waiter in self._waiters:
            if not waiter.leads:
                waiter.request.leave_queue(now)
                waiter.request.upstream_began = now
        try:
            attempts = make()
        except Exception:
            self.fail(_not_called())
            raise
        self.begin(attempts)

    def begin(self, attempts: Beginning) -> None:
        """Make the call; what cannot be sent at all fails for everybody."""
        self._call = attempts
        try:
            attempts.begin()
        except GatewayError as error:
            self._call = None  # none was made
            self.fail(error)
        except Exception:
            # Whatever of ours is wrong: a call that was never made must not be joined.
            self.fail(_not_called())
            raise

    def can_be_joined(
        self,
        *,
        streamed: bool,
        include_usage: bool,
        dialect: str = CHAT,
        labels: bytes = b"",
        same_form: bool = False,
    ) -> bool:
        """Whether a request of this form can still be given the whole answer.

        `same_form`: only by a call that asked for this very form (the answer of another could not be turned into it).
        Who speaks another dialect, or has other labels, is told a whole answer of its own.
        """
        return not self._over and not (same_form and (streamed or self._has_other_words(dialect, labels)))

    def add(self, waiter: Waiter, loop: asyncio.AbstractEventLoop) -> None:
        """Let `waiter` wait."""
        request = waiter.request
        waiter.leads = request is self.leader
        self._waiters[waiter] = None
        if self.leader.queue_began:
            # It waits for the same slot, and not for the provider yet.
            request.queue_began, request.upstream_began = perf_counter(), 0.0
        request.cancel_upstream = partial(self.leave, waiter)
        timeout = request.directives.timeout if request.directives is not None else None
        if timeout is not None:
            # Counted from when it first had to wait: it may have waited for another call already.
            left = timeout - (perf_counter() - request.looked_up)
            waiter.timer = loop.call_later(left, self._expire, waiter, timeout)

    def leave(self, waiter: Waiter) -> None:
        """The waiter's client left, or its own time is over. Idempotent.

        While others wait the call goes on; the leader's books are then closed when it ends, because it pays.
        """
        if waiter not in self._waiters:
            return
        self._remove(waiter)
        if self._over:
            return  # It was still reading what had come: the books on the call are closed already.
        if self._waiters:
            waiter.defer()
            return
        self._over = True
        is_sent = self._call is not None and self._call.is_sent
        self._cancel_call()
        self._end()
        if is_sent and self._status in (0, 200):
            self._charge(self._used_so_far())
        self._call = None  # which refers to this
        close_books_of_absent(self.leader, self._plan)

    # --- sink --------------------------------------------------------------------------------------------------------

    def on_response(self, status: int, headers: Headers) -> None:
        now = perf_counter()
        self._status = self.leader.upstream_status = status
        self._headers = headers
        egress.remember_upstream_id(self.leader, headers)
        if status != 200:
            return  # A refusal is no byte of an answer: whoever leaves before it is whole was answered nothing.
        for waiter in self._waiters:
            waiter.request.first_byte = now

    def on_data(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_ANSWER_BYTES:
            self._body.append(data)
            if len(self._body) % FOLD_EVERY == 0:
                fold(self._body)
            return
        self._cancel_call()
        self.fail(ProviderFailed(f"The provider's answer is longer than {MAX_ANSWER_BYTES} bytes."))

    def on_complete(self) -> None:
        try:
            self._conclude()
        except Exception:
            # Whatever of ours is wrong: nobody may wait for ever for an answer that came, nor join such a call.
            self._fail_all(InternalError("Something went wrong inside the gateway with the provider's answer."))
            raise

    def on_failure(self, error: wire.WireError) -> None:
        if self._call is not None and isinstance(error, wire.TimedOut) and error.phase == "idle":
            self._call.spoiled()
        self.fail(upstream_error(error))

    # --- the answer --------------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        body = self._body
        self._land(Answer(self._status, self._headers, body[0] if len(body) == 1 else b"".join(body)))

    def _land(self, answer: Answer) -> None:
        verdict = None
        leader = self.leader
        if answer.status == 200:
            verdict = self._plan.judge(answer.body)
            wrong = wrong_with(answer, verdict)
            if wrong is not None:
                self._charge(verdict.usage)
                self.fail(wrong)
                return
            self._plan.account(leader, verdict.usage)
            if verdict.storable:
                self._plan.store(answer.body)
        self._resolve(Landed(answer, verdict, leader.usage, leader.cost))

    def land_stored(self, target: Target, entry: Entry) -> None:
        """Answer from what the cache holds of `target`, which would have been called next."""
        leader = self.leader
        leader.target, leader.model, leader.price = target, target.model, None
        leader.try_began = perf_counter()
        verdict = Verdict(None, (), entry.usage)
        self._resolve(Landed(Answer(200, [], entry.body), verdict, entry.usage, entry.cost, entry))

    def _resolve(self, landed: Landed) -> None:
        """Give the answer to everybody who waits. Each goes on inside this call, so what others need comes first."""
        now = perf_counter()
        # An answer that may not be stored cannot be told as a stream: those who want one ask again, for a stream.
        can_be_streamed = landed.verdict is None or landed.verdict.storable
        self._finish()
        close_books_of_absent(self.leader, self._plan)
        for waiter in list(self._waiters):
            self._remove(waiter)
            waiter.request.upstream_ended = now
            self._adopt(waiter.request)
            given = can_be_streamed or not waiter.request.streamed
            if landed.entry is not None:
                given = given and waiter.accepts(landed.entry)
            waiter.resolve(self._plan.told_to(waiter.request, waiter.dialect, landed) if given else None)

    def fail(self, error: GatewayError) -> None:
        """There will be no (further) answer: the error is everybody's, inside the stream where one has begun."""
        if self._call is not None and isinstance(error, ProviderFailed):
            self._call.spoiled()
        self._tell(error)

    def _tell(self, error: GatewayError) -> None:
        """Tell everybody, in the way in which they have been told so far."""
        if self._status == 200 and self.leader.usage is None:
            self._charge(None)  # The provider began to answer, and is paid for that.
        self._fail_all(error)

    def _charge(self, usage: TokenUsage | None) -> None:
        """Charge for the call under way, which comes to no end, if there is one: it may only be waited for, or be in a
        queue. `usage` is what was told so far."""
        leader = self.leader
        if not leader.settled and leader.calls > len(leader.attempts):
            self._plan.account_unfinished(leader, usage)

    def _fail_all(self, error: GatewayError) -> None:
        self._finish()
        close_books_of_absent(self.leader, self._plan)
        for waiter in list(self._waiters):
            self._remove(waiter)
            waiter.fail(error)

    def _used_so_far(self) -> TokenUsage | None:
        """What is known of a call that is given up."""
        return None

    # --- ends --------------------------------------------------------------------------------------------------------

    def _expire(self, waiter: Waiter, seconds: float) -> None:
        """The waiter's own time is over; the call goes on for the others."""
        if waiter not in self._waiters or self._over:
            return  # Only the time upstream is bounded, not the client's own reading.
        if waiter.request.queue_began:
            error = not_begun_within(seconds)
        else:
            error = TimedOut(f"The provider did not answer within the {seconds:g} s that X-WatchLLM-Timeout allows.")
        self.leave(waiter)
        self._dismiss(waiter, error)

    def _dismiss(self, waiter: Waiter, error: GatewayError) -> None:
        """Tell one that left for the others to go on."""
        waiter.fail(error)

    def _has_other_words(self, dialect: str, labels: bytes) -> bool:
        return dialect != self._plan.dialect or labels != self._labels

    def _adopt(self, follower: Request) -> None:
        """Who really answered, where that is not who was asked first."""
        follower.target, follower.model = self.leader.target, self.leader.model

    def _remove(self, waiter: Waiter) -> None:
        self._waiters.pop(waiter, None)
        if waiter.timer is not None:
            waiter.timer.cancel()

    def _finish(self) -> None:
        self._over = True
        self._call = None  # which refers to this
        self._end()

    def _end(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.release()
        self._plan.ended(self)

    def _cancel_call(self) -> None:
        if self._call is not None:
            self._call.cancel()


def _not_called() -> GatewayError:
    return InternalError("Something went wrong inside the gateway before the provider was called.")
