"""A call upstream whose answer is a stream, relayed to everybody who waits for it as it comes.

Whoever joins sees it from its first byte, each at its own pace: upstream is paused when nobody can follow, and who lags
too far behind the others is cut off. Those who want the answer whole, or in other words, get it at the end.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from watchllm.domain.errors import GatewayError, ProviderFailed
from watchllm.domain.usage import TokenUsage
from watchllm.providers.dialect import CHAT
from watchllm.proxy import egress
from watchllm.proxy.bad_answers import no_stream
from watchllm.proxy.flight import Flight
from watchllm.proxy.request import Request
from watchllm.proxy.shared_stream import Piece, SharedStream
from watchllm.proxy.upstream import Answer
from watchllm.proxy.waiter import FlightPlan, Landed, Waiter, close_books_of_absent
from watchllm.wire.types import BadMessage, Headers


class StreamedFlight(Flight):
    """A flight for a question that wants a stream. What is answered with another status than 200 is a whole answer."""

    __slots__ = ("_paused", "_relaying", "_stream")

    def __init__(self, leader: Request, plan: FlightPlan, stream: SharedStream, labels: bytes = b"") -> None:
        super().__init__(leader, plan, labels)
        self._stream = stream
        self._relaying = False
        self._paused = False

    def can_be_joined(
        self,
        *,
        streamed: bool,
        include_usage: bool,
        dialect: str = CHAT,
        labels: bytes = b"",
        same_form: bool = False,
    ) -> bool:
        """As of any flight. Who speaks another dialect, or has other labels, is not relayed the stream."""
        stream = self._stream
        told_whole = not streamed or self._has_other_words(dialect, labels)
        if self._over or (same_form and told_whole):
            return False
        return told_whole or (stream.whole and (not include_usage or stream.has_usage))

    def add(self, waiter: Waiter, loop: asyncio.AbstractEventLoop) -> None:
        """Let `waiter` wait; a stream that has begun is given to it from its first byte."""
        super().add(waiter, loop)
        if self._relaying and self._reads(waiter):
            self._start(waiter)
            self._pump(waiter)
        # Whoever comes anew does not wait for the slow readers that upstream was paused for.
        self._resume()

    # --- sink --------------------------------------------------------------------------------------------------------

    def on_response(self, status: int, headers: Headers) -> None:
        super().on_response(status, headers)
        if status == 200:
            self._relaying = self._content_type().lower().startswith(b"text/event-stream")
            if self._relaying:
                self._start_readers()

    def on_data(self, data: bytes) -> None:
        if not self._relaying:
            super().on_data(data)
            return
        try:
            piece = self._stream.feed(data)
        except BadMessage as error:
            self.fail(ProviderFailed(f"The provider's stream cannot be read: {error}."))
            return
        if piece is not None:
            self._distribute(piece)

    def _conclude(self) -> None:
        if not self._relaying:
            super()._conclude()
            return
        stream = self._stream
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

    def _land(self, answer: Answer) -> None:
        if answer.status == 200:
            self.fail(no_stream(answer.body))
        else:
            super()._land(answer)

    # --- readers -----------------------------------------------------------------------------------------------------

    def _start_readers(self) -> None:
        for waiter in list(self._waiters):
            if self._reads(waiter):
                self._start(waiter)

    def _reads(self, waiter: Waiter) -> bool:
        """Whether it can be relayed the stream."""
        return waiter.request.streamed and not self._has_other_words(waiter.dialect, waiter.labels)

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

    def _distribute(self, piece: Piece) -> None:
        stream = self._stream
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

    def _cut_off(self, waiter: Waiter) -> None:
        """A reader so slow that it would make the shared buffer grow without end loses its connection."""
        self._remove(waiter)
        waiter.request.error = "client_too_slow"
        waiter.defer()
        self._plan.settle(waiter.request, 200, "cut")
        waiter.request.exchange.abort()
        waiter.resolve(None)

    # --- ends --------------------------------------------------------------------------------------------------------

    def _tell(self, error: GatewayError) -> None:
        if self._relaying:
            self._break_off(error)
        else:
            super()._tell(error)

    def _break_off(self, error: GatewayError) -> None:
        """Something went wrong after the first byte: say so inside the stream, in the dialect's form, and end it."""
        stream = self._stream
        self._cancel_call()
        for waiter in self._waiters:
            waiter.request.error = error.code
        event = self._plan.error_event(error)
        stream.append(Piece(event, event))
        self._end_stream("cut", error)

    def _end_stream(self, ended: str, error: GatewayError | None = None) -> None:
        stream = self._stream
        leader = self.leader
        stream.ended = ended
        if ended == "cut":
            self._plan.account_unfinished(leader, stream.usage_so_far())
        else:
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

    def _dismiss(self, waiter: Waiter, error: GatewayError) -> None:
        if not waiter.relayed:
            super()._dismiss(waiter, error)
            return
        request = waiter.request
        request.error = error.code
        request.exchange.write(self._plan.error_event(error))
        self._plan.settle(request, 200, "cut")
        request.exchange.finish()
        waiter.resolve(None)

    def _used_so_far(self) -> TokenUsage | None:
        return self._stream.usage_so_far()

    def _content_type(self) -> bytes:
        return next((value for name, value in self._headers if name == b"content-type"), b"")
