"""Whether an answer with status 200 is one: looked into before a byte of it is passed on, while another call may still
take its place.

A whole answer is collected and judged; of a stream that is asked for, no more is waited for than its first event. What
came in vain is kept, too: where nothing else can be called, it is passed on, and who waits for it says what is wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from watchllm.domain.errors import GatewayError, ProviderFailed
from watchllm.proxy.approach import AnswerSink
from watchllm.proxy.bad_answers import ended_too_soon, wrong_beginning
from watchllm.proxy.upstream import MAX_ANSWER_BYTES, Answer
from watchllm.wire.pieces import FOLD_EVERY, fold
from watchllm.wire.sse import EventScanner, event_data
from watchllm.wire.types import BadMessage, Headers, ResponseSink, WireError

_MOST_COMMENTS = 64 * 1024
"""Bytes of a stream without an event after which it is passed on as it is: its client wants to know that it lives."""


class Standard(NamedTuple):
    """What an answer has to be. `fault(answer)` is what is wrong with a whole one, None = nothing; `streamed`: a stream
    is asked for, so a whole answer has come in its place."""

    streamed: bool
    fault: Callable[[Answer], GatewayError | None]


class Prover(Protocol):
    """Who hears what an answer turned out to be. Nothing is heard of it twice."""

    def proved(self) -> None:
        """It is one, or has begun as one."""
        ...

    def unfit(self, fault: GatewayError) -> None:
        """It is none, or does not begin as one."""
        ...

    def broke_off(self, error: WireError) -> None: ...

    def cancel(self) -> None:
        """No more of it is wanted."""
        ...

    def misjudged(self) -> None:
        """Something of ours is wrong."""
        ...


class Kept:
    """An answer, or the beginning of one, that is not passed on yet."""

    __slots__ = ("_end", "_head", "_pieces", "size")

    def __init__(self) -> None:
        self._head: tuple[int, Headers] | None = None
        self._pieces: deque[bytes] = deque()
        self._end: Callable[[Any], None] | None = None
        self.size = 0

    def on_response(self, status: int, headers: Headers) -> None:
        self._head = status, headers

    def on_data(self, data: bytes) -> None:
        self._pieces.append(data)
        self.size += len(data)
        if len(self._pieces) % FOLD_EVERY == 0:
            pieces = list(self._pieces)
            fold(pieces)
            self._pieces = deque(pieces)

    def on_complete(self) -> None:
        self._end = lambda sink: sink.on_complete()

    def on_failure(self, error: WireError) -> None:
        self._end = lambda sink: sink.on_failure(error)

    def fail(self, error: GatewayError) -> None:
        self._end = lambda sink: sink.fail(error)

    def whole(self) -> Answer:
        """What has come, as one piece: it is the very same that will be passed on."""
        status, headers = self._head or (0, [])
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces = deque((body,) if body else ())
        return Answer(status, headers, body)

    def release(self, sink: ResponseSink) -> None:
        """Pass all of it on, to an `AnswerSink` where it failed. `clear`, called meanwhile, ends that."""
        head, self._head = self._head, None
        if head is not None:
            sink.on_response(*head)
        while self._pieces:
            sink.on_data(self._pieces.popleft())
        end, self._end = self._end, None
        if end is not None:
            end(sink)

    def clear(self) -> None:
        self._head = self._end = None
        self._pieces.clear()


class Proof:
    """Implements `AnswerSink` for the answer of one call, in the client's dialect; what is proved goes to `sink`."""

    __slots__ = ("_comments", "_kept", "_prover", "_scanner", "_standard", "sink")

    def __init__(self, standard: Standard, sink: AnswerSink, prover: Prover) -> None:
        self._standard = standard
        self.sink: AnswerSink | None = sink
        """None once it was cancelled."""
        self._prover: Prover | None = prover  # until it has heard what this answer is
        self._kept: Kept | None = Kept()
        self._scanner: EventScanner | None = None
        self._comments = 0

    @property
    def is_stream(self) -> bool:
        """Whether it begins as a stream that is passed on as it comes."""
        return self._scanner is not None

    def release(self) -> None:
        """Pass on what has come, and all that comes from now on."""
        self._prover = None
        kept, sink = self._kept, self.sink
        if kept is not None and sink is not None:
            kept.release(sink)
            self._kept = None

    def cancel(self) -> None:
        """Nothing of it is passed on any more."""
        self._prover = self.sink = None
        if self._kept is not None:
            self._kept.clear()

    # --- sink --------------------------------------------------------------------------------------------------------

    def on_response(self, status: int, headers: Headers) -> None:
        to = self._to
        if to is None:
            return
        to.on_response(status, headers)
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        if self._prover is not None and self._standard.streamed and kind.lower().startswith(b"text/event-stream"):
            self._scanner = EventScanner()

    def on_data(self, data: bytes) -> None:
        to = self._to
        if to is None:
            return
        to.on_data(data)
        kept = self._kept
        if self._prover is None or kept is None:
            return
        if self._scanner is not None:
            self._read(self._scanner, data)
        elif kept.size > MAX_ANSWER_BYTES:
            error = ProviderFailed(f"The provider's answer is longer than {MAX_ANSWER_BYTES} bytes.")
            kept.clear()
            self._prover.cancel()
            self.fail(error)

    def on_complete(self) -> None:
        if self._to is not None:
            self._to.on_complete()
        if self._prover is None or self._kept is None:
            return
        try:
            fault = ended_too_soon() if self.is_stream else self._standard.fault(self._kept.whole())
        except Exception:
            self._prover.misjudged()
            raise
        self._tell(fault)

    def on_failure(self, error: WireError) -> None:
        if self._to is not None:
            self._to.on_failure(error)
        prover, self._prover = self._prover, None
        if prover is not None:
            prover.broke_off(error)

    def fail(self, error: GatewayError) -> None:
        if self._to is not None:
            self._to.fail(error)
        self._tell(error)

    # --- verdict -----------------------------------------------------------------------------------------------------

    @property
    def _to(self) -> AnswerSink | None:
        """Where what comes goes: it is kept until it is released, and forgotten after the call was."""
        return self._kept if self._kept is not None and self.sink is not None else self.sink

    def _read(self, scanner: EventScanner, data: bytes) -> None:
        try:
            events = scanner.feed(data)
        except BadMessage as error:
            self._tell(ProviderFailed(f"The provider's stream cannot be read: {error}."))
            return
        for event in events:
            content = event_data(event)
            if content:  # an event without data is none (WHATWG HTML, 9.2.6)
                self._tell(wrong_beginning(content))
                return
            self._comments += len(event)
        if self._comments > _MOST_COMMENTS:
            self._tell(None)

    def _tell(self, fault: GatewayError | None) -> None:
        prover, self._prover = self._prover, None
        if prover is None:
            return
        if fault is None:
            prover.proved()
        else:
            prover.unfit(fault)
