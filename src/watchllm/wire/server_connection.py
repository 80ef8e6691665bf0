"""One client's connection: parses requests, hands them to the handler in order, keeps the bounds of the wire."""

from __future__ import annotations

import asyncio
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, cast

import httptools

from watchllm.domain.errors import GatewayError, Unavailable
from watchllm.wire.exchange import BodyMode, Exchange
from watchllm.wire.pacing import LOWEST_RATE, NO_DEADLINE, PacedConnection
from watchllm.wire.refusals import (
    body_too_large,
    head_refusal,
    head_size,
    head_too_large,
    memory_full,
    refusal_of,
    too_slow,
)
from watchllm.wire.repeated import HeadMemory
from watchllm.wire.status import CONTINUE, status_line
from watchllm.wire.target import path_and_query

if TYPE_CHECKING:
    from watchllm.wire.server import Server

# What a client may send ahead (pipelined) while an earlier request of its is under way, before we stop reading.
_READ_AHEAD_BYTES = 65_536


class ServerConnection(PacedConnection):
    """Parser callbacks and transport callbacks of one connection."""

    __slots__ = (
        "_active",
        "_body",
        "_body_began",
        "_body_bytes",
        "_continue_due",
        "_fed",
        "_head_bytes",
        "_memory",
        "_next_headers",
        "_parser",
        "_receiving",
        "_refusal",
        "_url",
        "_waiting",
        "_waiting_bytes",
    )

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._next_headers: dict[bytes, bytes] = {}
        self._receiving: Exchange | None = None  # its head is complete, its body is not
        self._active: Exchange | None = None  # given to the handler and not answered yet
        self._waiting: deque[Exchange] = deque()  # complete, behind the active one
        self._waiting_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_began = 0.0
        self._continue_due = False
        self._head_bytes = 0
        self._fed = 0
        self._refusal: GatewayError | None = None
        self._memory = HeadMemory()

    # --- transport ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.connected = True
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self.deadline = self._server.now() + self._server.limits.header_timeout
        if not self._server.admit(self):
            self._refuse(Unavailable("Too many connections; try again in a moment.", retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:
        self.connected = False
        self.deadline = NO_DEADLINE
        self._server.forget(self)
        self._closing = True
        left = [exchange for exchange in (self._active, self._receiving, *self._waiting) if exchange is not None]
        self._active = self._receiving = None
        self._waiting.clear()
        for exchange in left:
            self._release(exchange)
            if not exchange.finished:
                exchange.finished = True
                if exchange.on_disconnect is not None:
                    exchange.on_disconnect()

    def eof_received(self) -> bool:
        return False  # a client that stops sending has left: the transport closes, connection_lost tells the handler

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        size = len(data)
        if self._may_be_repeated(size):
            found = self._memory.recall(self, data)
            if found is not None:
                self._take_repeated(*found)
                return
        self._fed = size
        self._head_bytes += size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # no upgrade is offered: the request is answered as it stands, then the connection ends
        except httptools.HttpParserCallbackError as error:
            self._server.report(error.__context__ or error)
            self.abort()
            return
        except httptools.HttpParserError as error:
            if not self._closing:
                self._refuse_in_turn(refusal_of(error), self._receiving)
            return
        self._memory.read = None
        if self._refusal is not None:
            return
        if self._receiving is not None and self._reading:
            self._move_body_deadline()
        if self._head_bytes > self._server.limits.max_head_bytes:  # of a head, of trailers or between chunks
            self._refuse_in_turn(head_too_large(), self._receiving)
        elif self._waiting and self._waiting_bytes > _READ_AHEAD_BYTES:
            self._pause_reading()

    def pause_writing(self) -> None:
        self.writable = False
        self._await_reading()

    def resume_writing(self) -> None:
        self.writable = True
        active = self._active
        if active is None:
            self._turn_to_next()
            return
        self.deadline = NO_DEADLINE
        if active.on_writable is not None:
            active.on_writable()

    # --- parser ------------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._next_headers = {}
        self._head_bytes = self._fed
        if self._active is None:
            self.deadline = self._server.now() + self._server.limits.header_timeout

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._receiving is not None:
            return  # a trailer
        headers = self._next_headers
        name = name.lower()
        if name in headers:
            value = headers[name] + b", " + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        if self._closing or self._refusal is not None:
            return
        path, query = path_and_query(self._url)
        exchange = Exchange(self, self._parser.get_method(), path, query)
        headers = exchange.headers = self._next_headers
        version = self._parser.get_http_version()
        exchange.http_1_0 = version == "1.0"
        exchange.keep_alive = self._parser.should_keep_alive() and b"upgrade" not in headers
        limits = self._server.limits
        if self._fed > limits.max_head_bytes and head_size(self._url, headers) > limits.max_head_bytes:
            refusal: GatewayError | None = head_too_large()
        else:
            refusal = head_refusal(exchange, version, limits.max_upload_bytes, draining=self.draining)
        if refusal is not None:
            self._refuse_in_turn(refusal, exchange)
            return
        self._receiving = exchange
        self._head_bytes = 0
        if b"content-length" in headers or b"transfer-encoding" in headers:
            self._begin_body(exchange, self._server.handler.body_mode(exchange))

    def on_body(self, data: bytes) -> None:
        exchange = self._receiving
        if exchange is None:
            return
        self._body_bytes += len(data)
        self._head_bytes = 0
        if self._body_bytes > self._server.limits.max_body(exchange.streaming_body):
            self._refuse_in_turn(body_too_large(self._server.limits.max_body(exchange.streaming_body)), exchange)
        elif exchange.streaming_body:
            if exchange.on_data is not None and not exchange.finished:
                exchange.on_data(data)
        elif not self.hold(exchange, len(data)):
            self._refuse_in_turn(memory_full(), exchange)
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        exchange = self._receiving
        read, self._memory.read = self._memory.read, None
        self._receiving = None
        self._head_bytes = 0
        if exchange is None or self._refusal is not None:
            return
        exchange.body_complete = True
        if exchange.streaming_body:
            self.deadline = NO_DEADLINE
            self._resume_reading()  # whoever paused it did so for this body's sake
            if exchange.finished:
                self._turn_to_next()
            elif exchange.on_end is not None:
                exchange.on_end()
            return
        body = self._body
        if body:
            exchange.body = body[0] if len(body) == 1 else b"".join(body)
            self._body = []
            self._body_bytes = 0
            if read is not None:
                self._memory.learn(exchange, read)
        if self._active is None and self.writable:
            self._dispatch(exchange)
        else:
            self._waiting.append(exchange)
            self._waiting_bytes += self._fed

    # --- for exchanges -----------------------------------------------------------------------------------------------

    def exchange_finished(self, exchange: Exchange) -> None:
        """The answer was handed to the transport: go on with the next request, or end the connection."""
        self._release(exchange)
        if not self.connected:
            return
        if not exchange.body_complete:
            self._end_with_linger()
        elif not exchange.keep_alive or self._closing:
            self.close_idle()
        elif exchange is self._active:
            self._turn_to_next()

    def pause_body(self) -> None:
        if self._receiving is None or self._receiving is not self._active:
            return  # all of it is here
        self.deadline = NO_DEADLINE
        self._pause_reading()

    def resume_body(self) -> None:
        self._body_began = self._server.now()
        self._move_body_deadline()
        self._resume_reading()

    # --- for the server ----------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Called about twice a second: act on a deadline that has passed."""
        if now < self.deadline or not self.connected:
            return
        if not self._discarding and self._is_read_on():
            self._await_reading()
        elif self._closing or not self.writable or not self.busy:
            self.abort()
        elif self._receiving is not None:
            self._refuse_in_turn(too_slow("body"), self._receiving)
        else:
            self._refuse_in_turn(too_slow("head"))

    @property
    def arriving(self) -> Exchange | None:
        """The request whose body is being received and kept in memory now."""
        exchange = self._receiving
        return None if exchange is None or exchange.streaming_body or not self._reading else exchange

    def refuse_arriving(self, error: GatewayError) -> None:
        self._refuse_in_turn(error, self._receiving)

    @property
    def busy(self) -> bool:
        """Whether a request has begun to arrive or is not answered yet."""
        return bool(self._active or self._receiving or self._head_bytes or self._waiting)

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    # --- details -----------------------------------------------------------------------------------------------------

    def _may_be_repeated(self, size: int) -> bool:
        """Whether a read of `size` bytes begins a request that would be dispatched at once and is within all bounds."""
        ready = self.writable and not self.draining and not self._closing
        return ready and not self.busy and size <= self._server.largest_repeated

    def _take_repeated(self, exchange: Exchange, body: bytes) -> None:
        """What the parser's callbacks do with a request, for a whole one whose head they have accepted before."""
        try:
            mode = self._server.handler.body_mode(exchange)
            if mode is BodyMode.BUFFER and self.hold(exchange, len(body)):
                exchange.body = body
                exchange.body_complete = True
                self._dispatch(exchange)
            else:
                self._receiving = exchange
                self._begin_body(exchange, mode)
                self.on_body(body)
                self.on_message_complete()
        except Exception as error:  # noqa: BLE001  (whatever a handler raises, as in the parser's callbacks)
            self._server.report(error)
            self.abort()

    def _begin_body(self, exchange: Exchange, mode: BodyMode) -> None:
        self._body_bytes = 0
        self._body_began = self._server.now()
        streaming = mode is BodyMode.STREAM
        length = exchange.headers.get(b"content-length")
        if length is not None and int(length) > self._server.limits.max_body(streaming):
            self._refuse_in_turn(body_too_large(self._server.limits.max_body(streaming)), exchange)
            return
        if b"expect" in exchange.headers and not exchange.http_1_0 and length != b"0":
            self._continue_due = True
            self._continue()
        if streaming and self._active is None and self.writable:
            exchange.streaming_body = True
            self._dispatch(exchange)

    def _dispatch(self, exchange: Exchange) -> None:
        self._active = exchange
        exchange.began = perf_counter()
        if exchange.body_complete:
            self.deadline = NO_DEADLINE
        self._server.handler.on_request(exchange)

    def _turn_to_next(self) -> None:
        self._active = None
        if not self.writable:
            return  # resume_writing comes back here: answers must not pile up for a client that does not read
        if self._waiting:
            self._active = exchange = self._waiting.popleft()
            if not self._waiting:
                self._waiting_bytes = 0
                self._resume_reading()
            self._server.loop.call_soon(self._dispatch_waiting, exchange)
        elif self._refusal is not None:
            self._refuse(self._refusal)
        elif self._receiving is not None:
            self._body_began = self._server.now()
            self._move_body_deadline()
            self._continue()
        elif self._head_bytes:
            self.deadline = self._server.now() + self._server.limits.header_timeout
        else:
            self.deadline = self._server.now() + self._server.limits.idle_timeout

    def _dispatch_waiting(self, exchange: Exchange) -> None:
        if self.connected and not exchange.finished:
            self._dispatch(exchange)

    def _refuse_in_turn(self, error: GatewayError, exchange: Exchange | None = None) -> None:
        """Answer with `error` once all earlier requests of this connection are answered; nothing more is read."""
        if self._refusal is not None:
            return
        self._refusal = error
        self._receiving = None
        self._body = []
        if exchange is not None and exchange is self._active:
            self._active = None  # its body turned out too large or too slow while it was streamed to the handler
            if exchange.on_disconnect is not None:
                exchange.on_disconnect()
            if exchange.started:
                self.abort()
                return
        if exchange is not None:
            self._release(exchange)
            exchange.finished = True
        if self._active is None and not self._waiting:
            self._refuse(error, exchange)
        else:
            self._discarding = True

    def _refuse(self, error: GatewayError, exchange: Exchange | None = None) -> None:
        head, body = self._server.handler.on_refusal(exchange, error)
        head = b"%bConnection: close\r\nContent-Length: %d\r\n" % (head, len(body))
        if exchange is not None and exchange.method == b"HEAD":
            body = b""
        self.write(b"%b%b%b\r\n%b" % (status_line(error.status), self._server.date_line, head, body))
        self._end_with_linger()

    def _continue(self) -> None:
        """Ask for the body of a request that waits to be asked, unless an earlier answer is still being written."""
        if self._continue_due and self._active is None:
            self._continue_due = False
            self.write(CONTINUE)

    def _move_body_deadline(self) -> None:
        """A body has to keep coming and to reach a lowest average rate, so that dripping holds nothing for long: one
        that is kept has a time in which to arrive besides, else megabytes sent at once would earn hours."""
        receiving = self._receiving
        if self.writable and (self._active is None or self._active is receiving):
            limits = self._server.limits
            allowed = self._body_bytes / LOWEST_RATE
            if receiving is None or not receiving.streaming_body:
                allowed = min(allowed, limits.body_timeout)
            latest = self._body_began + limits.body_grace + allowed
            self.deadline = min(latest, self._server.now() + limits.body_grace)
