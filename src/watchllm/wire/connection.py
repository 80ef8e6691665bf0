"""One connection to a peer: reads answers, hands them to the call's sink, and knows whether it can be used again.

The parser's callbacks run inside `data_received`. Nothing is concluded inside them: a call ends only after all that one
read brought was parsed, so that bytes behind an answer can never be taken for the answer to the next call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from httptools import HttpParserCallbackError, HttpParserError, HttpResponseParser

from watchllm.wire.call import ENDED, WAITING, PooledCall
from watchllm.wire.types import BadMessage, Headers, PeerClosed, ResponseSink, WireError

if TYPE_CHECKING:
    from watchllm.wire.decoding import Decoder
    from watchllm.wire.lane import Lane

MAX_HEAD: Final = 64 * 1024
"""Bytes of an answer's head (interim answers included), and of anything else that the peer sends between two pieces of
body: chunk extensions, trailers."""

_PIECES_A_TURN: Final = 16  # decoded pieces handed on before others on the loop have their turn
_NO_BODY: Final = frozenset((204, 304))
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"content-encoding"))


class Connection(asyncio.Protocol):
    __slots__ = (
        "_backlog",
        "_barren",
        "_decoder",
        "_deliver",
        "_done",
        "_drain_due",
        "_draining",
        "_framed",
        "_got_any",
        "_head_done",
        "_headers",
        "_keep",
        "_mid_head",
        "_parser",
        "_reused",
        "call",
        "held",
        "idle_since",
        "lane",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.call: PooledCall | None = None
        self.idle_since = 0.0
        self.write_paused = False
        self.held = False
        """Reading is paused, by the call or for its decoder."""
        self._backlog = False  # the decoder holds more than it has handed on
        self._draining = False
        self._drain_due = False
        self._reused = False
        self._decoder: Decoder | None = None
        self._headers: Headers = []
        self._deliver: Callable[[bytes], None] = self._unasked
        self._parser = HttpResponseParser(self)

    def start(self, call: PooledCall, now: float) -> None:
        """Send `call` over this connection, which has none."""
        self.call = call
        self._headers = []
        self._got_any = False
        self._mid_head = False
        self._head_done = False
        self._done = False
        self._keep = False
        self._barren = 0
        call.start(self, now)

    def abandon(self) -> None:
        """The call was cancelled: nothing more is heard, and the socket closes."""
        self._detach()
        self.transport.abort()
        self.lane.drop(self)

    def fail(self, error: WireError) -> None:
        """End the call, if there is one, with an error, and the connection."""
        call = self.call
        self.abandon()
        if call is not None:
            call.fail(error)

    def retire(self) -> None:
        """Close an idle connection."""
        self.lane.drop(self)
        self.transport.close()

    def regulate(self) -> None:
        """The call was paused or resumed."""
        call = self.call
        if self._backlog and call is not None and not call.paused:
            self._drain_soon()
        self._hold()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # what stream protocols are given
        self.lane.alive.add(self)

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:  # nobody asked: a time-out notice (408), or worse
            self.retire()
            return
        self._got_any = True
        self._barren += len(data)
        call.last_read = self.lane.now
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            if not self._done:
                self._broken(error)
                return
            self._keep = False  # garbage behind a complete answer
        if self._done:
            self._conclude()
        elif self._barren > MAX_HEAD and self.call is not None:
            self.fail(BadMessage(f"more than {MAX_HEAD} bytes of head, trailer or chunk extension"))
        elif call.phase == WAITING and self._mid_head:
            call.answering()

    def eof_received(self) -> None:
        self._keep = False
        if self.call is None:
            self.lane.drop(self)
        elif self._done:
            pass  # the decoder still hands on what came
        elif self._got_any and self._head_done and not self._framed and self._orderly_end():
            self._done = True
            self._conclude()
        else:
            self._lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._keep = False
        if self.call is not None and not self._done:
            self._lost(exc)
        self.lane.drop(self)
        self.lane.buried(self)

    def pause_writing(self) -> None:
        self.write_paused = True
        call = self.call
        if call is not None:
            call.sending(self.lane.loop.time())
            if call.upload is not None and call.uploading:
                call.upload.on_pause()

    def resume_writing(self) -> None:
        self.write_paused = False
        call = self.call
        if call is None:
            return
        if call.uploading:
            if call.phase < WAITING:
                call.due = call.total_due  # the source may take its time; the peer has taken all there was
            if call.upload is not None:
                call.upload.on_resume()
        else:
            call.sent(self.lane.loop.time())

    # The parser's callbacks. Names and headers beyond the first final head belong to trailers and are ignored.

    def on_message_begin(self) -> None:
        if self._done:
            raise BadMessage("bytes behind the answer")
        self._mid_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        call = self.call
        if call is None:
            return
        status = self._parser.get_status_code()
        headers = self._headers
        if self._barren > MAX_HEAD and sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD:
            raise BadMessage(f"the answer's head is longer than {MAX_HEAD} bytes")
        if status < 200:
            if status == 101:
                raise BadMessage("the peer switches protocols unasked")
            self._headers = []
            self._mid_head = False
            return
        self._head_done = True
        self._framed = False
        sink = call.sink
        self._deliver = sink.on_data
        coded = False
        for name, value in headers:
            if name in _FRAMING:
                if name == b"content-encoding":
                    coded = True
                else:
                    self._framed = True
                    if name == b"transfer-encoding" and value.lower() != b"chunked":
                        raise BadMessage("a transfer encoding other than chunked")
        if coded and status not in _NO_BODY and call.method != b"HEAD":
            headers = self._decoded(headers)
        call.answering()
        if call.method == b"HEAD":
            # The parser takes the announced length for that of a body that follows. It is not used again.
            self._done = True
            sink.on_response(status, headers)
            self._deliver = self._unasked  # what its peer sends all the same
            return
        sink.on_response(status, headers)

    def on_body(self, data: bytes) -> None:
        self._barren = 0
        self._deliver(data)

    def on_message_complete(self) -> None:
        if self._head_done and not self._done:
            self._done = True
            self._keep = self._parser.should_keep_alive()

    # Details.

    def _decoded(self, headers: Headers) -> Headers:
        """Set up the decoding of the body. Returns the headers as the sink may see them."""
        from watchllm.wire.decoding import decoder_for

        self._decoder = decoder_for(b",".join(value for name, value in headers if name == b"content-encoding"))
        if self._decoder is None:
            return headers
        self._deliver = self._decode
        return [(name, value) for name, value in headers if name not in (b"content-encoding", b"content-length")]

    def deliver_to(self, sink: ResponseSink) -> None:
        """The rest of the body goes to `sink`."""
        if self._decoder is None:
            self._deliver = sink.on_data

    def _unasked(self, data: bytes) -> None:
        """Body bytes that nobody waits for: the call was cancelled, or its answer had none."""

    def _decode(self, data: bytes) -> None:
        assert self._decoder is not None
        self._decoder.feed(data)
        call = self.call
        if call is not None and call.paused:
            self._backlog = True
        elif not self._backlog:
            self._hand_on()

    def _hand_on(self) -> None:
        """Decoded pieces to the sink, as long as it takes them and for no longer than a turn."""
        decoder = self._decoder
        call = self.call
        assert decoder is not None
        assert call is not None
        self._draining = True
        try:
            for _ in range(_PIECES_A_TURN):
                piece = decoder.read()
                if not piece:
                    self._backlog = False
                    return
                call.sink.on_data(piece)
                if self.call is not call:
                    return
                if call.paused:
                    break
            self._backlog = True
            self._hold()
        finally:
            self._draining = False
        if not call.paused:
            self._drain_soon()

    def _drain_soon(self) -> None:
        if not self._drain_due and not self._draining:
            self._drain_due = True
            self.lane.loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Go on with what the decoder holds, outside of any read."""
        self._drain_due = False
        call = self.call
        if call is None or not self._backlog or call.paused:
            return
        try:
            self._hand_on()
        except BadMessage as error:
            self.fail(error)
            return
        except Exception:
            self.fail(WireError("the receiver of the answer failed"))
            raise
        if self.call is call:
            self._hold()
            if self._done:
                self._conclude()

    def _hold(self) -> None:
        """Read or do not, as the call and the decoder want it."""
        held = self._backlog or (self.call is not None and self.call.paused)
        if held is not self.held and not self.transport.is_closing():
            self.held = held
            if held:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _conclude(self) -> None:
        """The answer is complete and parsed: end the call once the decoder has handed all of it on."""
        call = self.call
        if call is None or self._backlog:
            return
        if self._decoder is not None:
            try:
                self._decoder.finish()
            except BadMessage as error:
                self.fail(error)
                return
        # An answer that came before the request was sent leaves a connection with half a request on it.
        keep = self._keep and not call.uploading and not self.write_paused and not self.transport.is_closing()
        call.phase = ENDED
        call.uploading = False
        self._detach()
        if keep:
            if self.held:
                self._hold()
            self._reused = True
            self.lane.release(self)
        else:
            if self.write_paused:
                self.transport.abort()
            else:
                self.transport.close()
            self.lane.drop(self)
        call.sink.on_complete()

    def _detach(self) -> None:
        call = self.call
        if call is None:
            return
        self.call = None
        call.connection = None
        self._deliver = self._unasked
        self._decoder = None
        self._backlog = False

    def _orderly_end(self) -> bool:
        """Whether the peer itself ended the stream. Anybody on the way can end a TCP connection, so TLS has a word of
        its own for it (close_notify); asyncio announces both alike, only the TLS object tells them apart."""
        tls = self.transport.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            return not tls.read(1)
        except OSError:  # ssl.SSLError: more was to come
            return False

    def _lost(self, exc: Exception | None) -> None:
        """The connection ended before the answer did."""
        call = self.call
        assert call is not None
        if self._reused and not self._got_any and call.replayable():
            self._detach()
            self.transport.abort()
            self.lane.retry(call)
            self.lane.drop(self)
        else:
            what = "in the middle of its answer" if self._got_any else "without an answer"
            reason = f": {exc}" if exc is not None else ""
            self.fail(PeerClosed(f"the peer closed the connection {what}{reason}"))

    def _broken(self, error: HttpParserError) -> None:
        cause = error.__context__
        if not isinstance(error, HttpParserCallbackError):
            self.fail(BadMessage(f"not HTTP/1.1: {error}"))
        elif isinstance(cause, WireError):
            self.fail(cause)
        else:
            self.fail(WireError("the receiver of the answer failed"))
            if cause is not None:
                raise cause
