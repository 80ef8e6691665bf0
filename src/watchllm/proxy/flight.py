"""One call upstream and everybody who waits for its answer (coalescing, also known as single flight).

The request that makes the call is its first waiter and pays for it. Others that ask the same while it is under way join
it: they see a stream from its first byte, each at its own pace. A waiter that leaves takes nobody with it; the last one
that leaves ends the call. What the provider does wrong is told to all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Protocol

from watchllm.cache.entry import Entry
from watchllm.domain.errors import GatewayError, InternalError, ProviderFailed, TimedOut
from watchllm.providers.dialect import CHAT, Verdict
from watchllm.proxy import egress
from watchllm.proxy.bad_answers import no_stream, wrong_with
from watchllm.proxy.request import Request
from watchllm.proxy.shared_stream import Piece, SharedStream
from watchllm.proxy.slots import Slots, Turn
from watchllm.proxy.upstream import MAX_ANSWER_BYTES, Answer, upstream_error
from watchllm.proxy.waiter import FlightPlan, Landed, Waiter, close_books_of_absent
from watchllm.routing.target import Target
from watchllm.wire import types as wire
from watchllm.wire.types import BadMessage, Headers


class Beginning(wire.Call, Protocol):
    """The calls upstream, before the first is made. Raises GatewayError when none can be."""

    def begin(self) -> None: ...

    def spoiled(self) -> None:
        """The answer that began well turned out to be none, by the provider's fault."""
        ...


class Flight:
    """Implements `wire.types.ResponseSink`. `stream` is None when a whole answer was asked for; `labels` are what the
    answer repeats of the leader's request alone."""

    __slots__ = (
        "_body",
        "_call",
        "_headers",
        "_labels",
        "_over",
        "_paused",
        "_plan",
        "_relaying",
        "_size",
        "_status",
        "_stream",
        "_turn",
        "_waiters",
        "began_ms",
        "leader",
    )

    def __init__(self, leader: Request, plan: FlightPlan, stream: SharedStream | None, labels: bytes = b"") -> None:
        self.leader = leader
        self.began_ms = leader.wall_ms
        self._plan = plan
        self._stream = stream
        self._labels = labels
        self._waiters: dict[Waiter, None] = {}
        self._call: Beginning | None = None
        self._status = 0
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._size = 0
        self._relaying = False
        self._paused = False
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
        Who speaks another dialect, or has other labels, is not relayed the stream, but told a whole answer of its own.
        """
        stream = self._stream
        other_words = dialect != self._plan.dialect or labels != self._labels
        if self._over or (same_form and (other_words or streamed != (stream is not None))):
            return False
        if stream is None or not streamed or other_words:
            return True
        return stream.whole and (not include_usage or stream.has_usage)

    def add(self, waiter: Waiter, loop: asyncio.AbstractEventLoop) -> None:
        """Let `waiter` wait; a stream that has begun is given to it from its first byte."""
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
        if self._relaying and self._reads(waiter):
            self._start(waiter)
            self._pump(waiter)
        # Whoever comes anew does not wait for the slow readers that upstream was paused for.
        self._resume()

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
        if is_sent and not self.leader.settled and self.leader.calls > len(self.leader.attempts):
            # One is under way, not only waited for or in a queue: what was read and said so far is charged.
            self._plan.account(self.leader, self._stream.usage_so_far() if self._stream is not None else None)
        self._call = None  # which refers to this
        close_books_of_absent(self.leader, self._plan)

    # --- sink --------------------------------------------------------------------------------------------------------

    def on_response(self, status: int, headers: Headers) -> None:
        now = perf_counter()
        self._status = self.leader.upstream_status = status
        self._headers = headers
        egress.remember_upstream_id(self.leader, headers)
        for waiter in self._waiters:
            waiter.request.first_byte = now
        if self._stream is not None and status == 200:
            self._relaying = self._content_type().lower().startswith(b"text/event-stream")
            if self._relaying:
                self._start_readers()

    def on_data(self, data: bytes) -> None:
        stream = self._stream
        if not self._relaying or stream is None:
            self._collect(data)
            return
        try:
            piece = stream.feed(data)
        except BadMessage as error:
            self.fail(ProviderFailed(f"The provider's stream cannot be read: {error}."))
            return
        if piece is not None:
            self._distribute(piece)

    def on_complete(self) -> None:
        try:
            if self._relaying and self._stream is not None:
                self._conclude(self._stream)
            else:
                body = self._body
                self._land(Answer(self._status, self._headers, body[0] if len(body) == 1 else b"".join(body)))
        except Exception:
            # Whatever of ours is wrong: nobody may wait for ever for an answer that came, nor join such a call.
            self._fail_all(InternalError("Something went wrong inside the gateway with the provider's answer."))
            raise

    def _conclude(self, stream: SharedStream) -> None:
        rest = stream.finish()
        if stream.ends_well:
            if rest is not None:
                self._distribute(rest)
            if stream.error is not None and self._call is not None:
                self._call.spoiled()
            self._end_stream("complete" if stream.error is None else "error")
        else:
            # Half an event is not passed on: what is told next would be read as the rest of it.
            self.fail(ProviderFailed("The provider's stream ended before its answer was complete."))

    def on_failure(self, error: wire.WireError) -> None:
        if self._call is not None and isinstance(error, wire.TimedOut) and error.phase == "idle":
            self._call.spoiled()
        self.fail(upstream_error(error))

    # --- whole answers -----------------------------------------------------------------------------------------------

    def _collect(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_ANSWER_BYTES:
            self._body.append(data)
            return
        self._cancel_call()
        self.fail(ProviderFailed(f"The provider's answer is longer than {MAX_ANSWER_BYTES} bytes."))

    def _land(self, answer: Answer) -> None:
        verdict = None
        leader = self.leader
        if answer.status == 200 and self._stream is None:
            verdict = self._plan.judge(answer.body)
            wrong = wrong_with(answer, verdict)
            if wrong is not None:
                self.fail(wrong)
                return
            self._plan.account(leader, verdict.usage)
            if verdict.storable:
                self._plan.store(answer.body)
        elif answer.status == 200:
            self.fail(no_stream(answer.body))
            return
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
        if self._relaying:
            self._break_off(error)
        else:
            self._fail_all(error)

    def _fail_all(self, error: GatewayError) -> None:
        self._finish()
        close_books_of_absent(self.leader, self._plan)
        for waiter in list(self._waiters):
            self._remove(waiter)
            waiter.fail(error)

    # --- streams -----------------------------------------------------------------------------------------------------

    def _start_readers(self) -> None:
        for waiter in list(self._waiters):
            if self._reads(waiter):
                self._start(waiter)

    def _reads(self, waiter: Waiter) -> bool:
        """Whether it can be relayed the stream."""
        same_words = waiter.dialect == self._plan.dialect and waiter.labels == self._labels
        return waiter.request.streamed and same_words

    def _start(self, waiter: Waiter) -> None:
        request = waiter.request
        request.upstream_ended = request.first_byte = perf_counter()
        waiter.relayed = True
        exchange = request.exchange
        exchange.on_writable = lambda: self._writable_again(waiter)
        if waiter.leads:
            head = egress.answer_head(request, self._content_type().decode("latin-1"), self._headers)
        else:
            request.cost = 0
            self._adopt(request)
            head = egress.hit_head(request, egress.EVENT_STREAM)
        exchange.start(200, head)

    def _adopt(self, follower: Request) -> None:
        """Who really answered, where that is not who was asked first."""
        follower.target, follower.model = self.leader.target, self.leader.model

    def _distribute(self, piece: Piece) -> None:
        stream = self._stream
        assert stream is not None
        stream.append(piece)
        waiters = list(self._waiters)
        if len(waiters) == 1 and self._hand_on(waiters[0], piece, stream):
            return
        for waiter in waiters:
            if waiter.relayed:
                self._pump(waiter)
        self._regulate(stream)

    def _hand_on(self, waiter: Waiter, piece: Piece, stream: SharedStream) -> bool:
        """The usual case, a third cheaper: one reader that keeps up gets the new piece; False = it is not that case."""
        exchange = waiter.request.exchange
        if not waiter.relayed or waiter.position != stream.end - 1 or not exchange.writable:
            return False
        waiter.position += 1
        data = stream.as_shown(piece, include_usage=waiter.include_usage)
        if data:
            exchange.write(data)
        stream.trim(waiter.position)
        if not waiter.request.exchange.writable:  # since this write
            self._regulate(stream)
        return True

    def _pump(self, waiter: Waiter) -> None:
        """Send what this waiter has not got yet, as far as its client takes it; at the end of the stream, finish."""
        stream = self._stream
        assert stream is not None
        exchange = waiter.request.exchange
        while waiter.position < stream.end and exchange.writable:
            data, waiter.position = stream.read(waiter.position, include_usage=waiter.include_usage)
            if data:
                exchange.write(data)
        if self._over and waiter.position >= stream.end and waiter in self._waiters:
            self._finish_stream(waiter)

    def _regulate(self, stream: SharedStream) -> None:
        """Give up what nobody needs; pause upstream when nobody can follow, else cut off who lags too far behind."""
        readers = [waiter for waiter in self._waiters if waiter.relayed]
        slowest = min((waiter.position for waiter in readers), default=stream.end)
        stream.trim(slowest)
        if len(readers) == len(self._waiters) and not any(waiter.request.exchange.writable for waiter in readers):
            self._pause()
            return
        while stream.overfull and slowest < stream.end:
            for waiter in readers:
                if waiter.position == slowest:
                    self._cut_off(waiter)
            readers = [waiter for waiter in readers if waiter.position > slowest]
            slowest = min((waiter.position for waiter in readers), default=stream.end)
            stream.trim(slowest)

    def _pause(self) -> None:
        if not self._paused and not self._over and self._call is not None:
            self._paused = True
            self._call.pause()

    def _resume(self) -> None:
        if self._paused and not self._over and self._call is not None:
            self._paused = False
            self._call.resume()

    def _writable_again(self, waiter: Waiter) -> None:
        if waiter in self._waiters:
            self._pump(waiter)
            if waiter.request.exchange.writable:
                self._resume()

    def _break_off(self, error: GatewayError) -> None:
        """Something went wrong after the first byte: say so inside the stream, in the dialect's form, and end it."""
        stream = self._stream
        assert stream is not None
        self._cancel_call()
        for waiter in self._waiters:
            waiter.request.error = error.code
        event = self._plan.error_event(error)
        stream.append(Piece(event, event))
        self._end_stream("cut", error)

    def _end_stream(self, ended: str, error: GatewayError | None = None) -> None:
        stream = self._stream
        assert stream is not None
        leader = self.leader
        stream.ended = ended
        self._plan.account(leader, stream.usage if ended == "complete" else stream.usage_so_far())
        completion = stream.completion() if ended == "complete" else None
        verdict = self._plan.judge(completion) if completion is not None else None
        if completion is not None and verdict is not None and verdict.storable:
            self._plan.store(completion)
        self._finish()
        close_books_of_absent(leader, self._plan)
        for waiter in list(self._waiters):
            if waiter.relayed:
                self._pump(waiter)
                continue
            self._remove(waiter)
            if completion is not None:
                self._adopt(waiter.request)
                landed = Landed(Answer(200, self._headers, completion), verdict, leader.usage, leader.cost)
                waiter.resolve(self._plan.told_to(waiter.request, waiter.dialect, landed))
            elif ended == "complete":
                waiter.resolve(None)
            else:
                waiter.fail(error or ProviderFailed("The provider sent an error inside its stream."))

    def _finish_stream(self, waiter: Waiter) -> None:
        stream = self._stream
        assert stream is not None
        assert stream.ended is not None
        request = waiter.request
        self._remove(waiter)
        if not waiter.leads:
            request.usage, request.saved, request.cost = self.leader.usage, self.leader.cost, 0
        if stream.ended == "error":
            request.error = "provider_error"
        self._plan.settle(request, 200, stream.ended)
        request.exchange.finish()
        waiter.resolve(None)

    def _cut_off(self, waiter: Waiter) -> None:
        """A reader so slow that it would make the shared buffer grow without end loses its connection."""
        self._remove(waiter)
        waiter.request.error = "client_too_slow"
        waiter.defer()
        self._plan.settle(waiter.request, 200, "cut")
        waiter.request.exchange.abort()
        waiter.resolve(None)

    # --- ends --------------------------------------------------------------------------------------------------------

    def _expire(self, waiter: Waiter, seconds: float) -> None:
        """The waiter's own time is over; the call goes on for the others."""
        if waiter not in self._waiters or self._over:
            return  # Only the time upstream is bounded, not the client's own reading.
        error = TimedOut(f"The provider did not answer within the {seconds:g} s that X-WatchLLM-Timeout allows.")
        self.leave(waiter)
        if not waiter.relayed:
            waiter.fail(error)
            return
        request = waiter.request
        request.error = error.code
        request.exchange.write(self._plan.error_event(error))
        self._plan.settle(request, 200, "cut")
        request.exchange.finish()
        waiter.resolve(None)

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

    def _content_type(self) -> bytes:
        return next((value for name, value in self._headers if name == b"content-type"), b"")


def _not_called() -> GatewayError:
    return InternalError("Something went wrong inside the gateway before the provider was called.")
