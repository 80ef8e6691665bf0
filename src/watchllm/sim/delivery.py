"""How an answer reaches the client: after a while, piece by piece, spoiled, cut or never."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from watchllm.sim.encoding import Encoder, encode, encoder
from watchllm.sim.knobs import Knobs
from watchllm.sim.ledger import Ledger, Received
from watchllm.sim.reply import Answer, Reply, StreamReply

# An aborted socket drops what the kernel has not taken yet; this lets what was written before a cut arrive.
_FLUSH_SECONDS = 0.01
# Written before others have their turn: a client that reads as fast as this writes never makes it pause, and that it
# has left is told between turns only.
_EVENTS_A_TURN = 256
_PAGE = b"<!DOCTYPE html>\n<html><head><title>Just a moment</title></head><body><h1>Gateway</h1></body></html>\n"


class Outlet(Protocol):
    """The part of a wire exchange that delivery needs."""

    on_disconnect: Callable[[], None] | None
    on_writable: Callable[[], None] | None

    @property
    def writable(self) -> bool: ...
    def respond(self, status: int, head: bytes, body: bytes) -> None: ...
    def start(self, status: int, head: bytes) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...


class Timer(Protocol):
    def cancel(self) -> None: ...


class Scheduler(Protocol):
    """`loop.call_later`, or a test's own clock."""

    def __call__(self, delay: float, callback: Callable[[], None], /) -> Timer: ...


def loop_scheduler(delay: float, callback: Callable[[], None], /) -> Timer:
    """The running loop's timers."""
    return asyncio.get_running_loop().call_later(delay, callback)


def spoil(answer: Answer, knobs: Knobs) -> Answer:
    """The answer with the garbage that was asked for."""
    if isinstance(answer, Reply):
        if knobs.html:
            return Reply(_PAGE, answer.status, b"text/html; charset=utf-8", answer.head)
        if knobs.empty:
            return Reply(b"", answer.status, answer.content_type, answer.head)
        if knobs.half_json or knobs.short >= 0:
            return Reply(answer.body[: len(answer.body) // 2], answer.status, answer.content_type, answer.head)
        if knobs.wrong_type:
            return Reply(answer.body, answer.status, b"text/plain", answer.head)
        return answer
    if knobs.html:
        return Reply(_PAGE, content_type=b"text/html; charset=utf-8")
    content_type = b"text/plain" if knobs.wrong_type else answer.content_type
    if knobs.empty:
        return StreamReply([], status=answer.status, content_type=content_type)
    if knobs.half_json:
        events = answer.events[: len(answer.events) // 2 + 1]
        events[-1] = events[-1][: len(events[-1]) // 2]
        return StreamReply(events, status=answer.status, content_type=content_type)
    if knobs.short >= 0:
        return StreamReply(answer.events[: knobs.short], status=answer.status, content_type=content_type)
    events, usage, done = answer.events, answer.usage, b"" if knobs.no_done else answer.done
    if knobs.duplicate == 0:
        events, usage, done = [event for event in events for _ in range(2)], usage * 2, done * 2
    elif 0 < knobs.duplicate <= len(events):
        events = [*events[: knobs.duplicate], *events[knobs.duplicate - 1 :]]
    return StreamReply(
        events, usage, done, answer.status, content_type, answer.head, usage_in_done=answer.usage_in_done
    )


def split(answer: Answer, size: int, *, with_end: bool) -> StreamReply:
    """The answer in pieces of `size` bytes, wherever they fall; the events of a stream's end too, if `with_end`."""
    if isinstance(answer, Reply):
        return StreamReply(_pieces(answer.body, size), b"", b"", answer.status, answer.content_type, answer.head)
    data, usage, done = b"".join(answer.events), answer.usage, answer.done
    if with_end:
        data, usage, done = data + usage + done, b"", b""
    return StreamReply(
        _pieces(data, size),
        usage,
        done,
        answer.status,
        answer.content_type,
        answer.head,
        usage_in_done=answer.usage_in_done,
    )


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


class Delivery:
    """One answer on its way. `head` is the header lines that every answer has, without its content type."""

    __slots__ = (
        "_answer", "_encoder", "_error_event", "_exchange", "_head", "_knobs", "_ledger", "_limit", "_position",
        "_received", "_scheduler", "_timer", "_usage_waited",
    )  # fmt: skip

    def __init__(
        self,
        exchange: Outlet,
        received: Received,
        ledger: Ledger,
        answer: Answer,
        knobs: Knobs,
        head: bytes,
        error_event: bytes,
        scheduler: Scheduler,
    ) -> None:
        self._exchange = exchange
        self._received = received
        self._ledger = ledger
        self._answer = spoil(answer, knobs)
        self._knobs = knobs
        self._head = head
        self._error_event = error_event
        self._scheduler = scheduler
        self._timer: Timer | None = None
        self._encoder: Encoder | None = None
        self._position = 0
        self._usage_waited = False
        self._limit = max(knobs.cut, knobs.stall, knobs.stream_error)
        if knobs.split:
            # What may be late or kept back is not mixed with the rest.
            with_end = self._limit < 0 and knobs.late_usage == 0
            self._answer = split(self._answer, knobs.split, with_end=with_end)

    def start(self) -> None:
        """Begin, now or after the latency asked for."""
        self._ledger.enter(self._received)
        self._exchange.on_disconnect = self._left
        if self._knobs.hang:
            return
        if self._knobs.latency > 0:
            self._after(self._knobs.latency, self._begin)
        else:
            self._begin()

    def _begin(self) -> None:
        if self._knobs.reset:
            self._cut()
            return
        answer = self._answer
        head = b"Content-Type: %b\r\n%b%b" % (answer.content_type, self._head, answer.head)
        if self._knobs.encoding:
            head += b"Content-Encoding: %b\r\n" % self._knobs.encoding.encode()
        if isinstance(answer, Reply):
            self._whole(answer, head)
            return
        self._received.status = answer.status
        if self._knobs.encoding:
            self._encoder = encoder(self._knobs.encoding)
        self._exchange.start(self._received.status, head)
        self._pump()

    def _whole(self, reply: Reply, head: bytes) -> None:
        self._received.status = reply.status
        body = encode(self._knobs.encoding, reply.body) if self._knobs.encoding else reply.body
        if self._knobs.cut < 0 and self._knobs.stall < 0:
            self._over("answered")
            self._exchange.respond(reply.status, head, body)
            return
        self._exchange.start(reply.status, head)
        if len(body) > 1:
            self._exchange.write(body[: len(body) // 2])
        if self._knobs.cut >= 0:
            self._after(_FLUSH_SECONDS, self._cut)

    def _pump(self) -> None:
        """Write events until the end, the next pause, or the client's limit."""
        self._timer = None
        assert isinstance(self._answer, StreamReply)
        events = self._answer.events
        turn_ends = self._position + _EVENTS_A_TURN
        while self._position < len(events):
            if self._position == self._limit:
                break
            if self._position == turn_ends:
                self._after(0, self._pump)
                return
            if not self._exchange.writable:
                self._exchange.on_writable = self._writable
                return
            self._write(events[self._position])
            self._position += 1
            # Pieces of an event leave one by one: the loop would join what is written in one turn of it.
            if (self._knobs.chunk_time > 0 or self._knobs.split) and self._position < len(events):
                self._after(self._knobs.chunk_time, self._pump)
                return
        if self._limit >= 0:
            self._break_off()
        else:
            self._conclude()

    def _break_off(self) -> None:
        if self._knobs.cut >= 0:
            self._after(_FLUSH_SECONDS, self._cut)
        elif self._knobs.stream_error >= 0:
            self._write(self._error_event)
            self._finish()
        # A stall ends only when the client leaves.

    def _conclude(self) -> None:
        assert isinstance(self._answer, StreamReply)
        if self._answer.usage or self._answer.usage_in_done:
            if self._knobs.late_usage > 0 and not self._usage_waited:
                self._usage_waited = True
                self._after(self._knobs.late_usage, self._conclude)
                return
            if self._answer.usage:
                self._write(self._answer.usage)
        if self._answer.done:
            self._write(self._answer.done)
        self._finish()

    def _write(self, data: bytes) -> None:
        self._exchange.write(data if self._encoder is None else self._encoder.feed(data))

    def _finish(self) -> None:
        if self._encoder is not None:
            self._exchange.write(self._encoder.end())
        self._over("answered")
        self._exchange.finish()

    def _writable(self) -> None:
        self._exchange.on_writable = None
        self._pump()

    def _after(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timer = self._scheduler(seconds, callback)

    def _cut(self) -> None:
        self._over("cut")
        self._exchange.abort()

    def _left(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._received in self._ledger.open:
            self._over("cancelled")

    def _over(self, outcome: str) -> None:
        self._exchange.on_disconnect = None
        self._exchange.on_writable = None
        self._ledger.leave(self._received, outcome)
