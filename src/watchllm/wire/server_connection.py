"""One client's connection: parses requests, and keeps the bounds of what may arrive."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from watchllm.domain.errors import GatewayError, Unavailable
from watchllm.wire.exchange import BodyMode, Exchange
from watchllm.wire.ordered import OrderedConnection
from watchllm.wire.pacing import NO_DEADLINE
from watchllm.wire.pieces import FOLD_EVERY, fold
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
from watchllm.wire.target import path_and_query

if TYPE_CHECKING:
    from watchllm.wire.server import Server

# What a client may send ahead (pipelined) while an earlier request of its is under way, before we stop reading.
_READ_AHEAD_BYTES = 65_536
MOST_LINES = 256
"""Header lines of a request. In memory the shortest take more than ten times their bytes."""


class ServerConnection(OrderedConnection):
    """Parser callbacks and transport callbacks of one connection."""

    __slots__ = (
        "_before",
        "_fed",
        "_lines",
        "_memory",
        "_next_headers",
        "_parser",
        "_upgrading",
        "_url",
    )

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._next_headers: dict[bytes, bytes] = {}
        self._lines = 0
        self._fed = 0
        self._before = 0  # of `_head_bytes`, how many may be of a message ahead of the head in its first read
        self._memory = HeadMemory()
        self._upgrading: Exchange | None = None  # its head offers another protocol, its body is to come

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
        behind_offer = -1
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            # It is not taken up: the request is answered as it stands, then the connection ends.
            behind_offer = offer.args[0]
        except httptools.HttpParserCallbackError as error:
            self._server.report(error.__context__ or error)
            self.abort()
            return
        except httptools.HttpParserError as error:
            if not self._closing:
                self._refuse_in_turn(refusal_of(error), self._receiving)
            return
        if behind_offer >= 0:
            if self._upgrading is not None:
                self._read_body_of(self._upgrading, data[behind_offer:])
            return
        self._memory.read = None
        if self._refusal is not None:
            return
        if self._receiving is not None and self._reading:
            self._move_body_deadline()
        if self._head_bytes - self._before > self._server.limits.max_head_bytes or self._lines > MOST_LINES:
            self._refuse_in_turn(head_too_large(), self._receiving)
        elif self._waiting and self._waiting_bytes > _READ_AHEAD_BYTES:
            self._pause_reading()
        elif self._head_bytes == size and self._receiving is None and not data.strip(b"\r\n"):
            self._head_bytes = 0  # blank lines behind a body are the beginning of nothing (RFC 9112, 2.2)

    def pause_writing(self) -> None:
        self.writable = False
        self._await_reading()
        if self._active is None and not self._closing:
            self._pause_reading()

    def resume_writing(self) -> None:
        self.writable = True
        if self._closing:
            return  # it has its end already
        self._unsent = 0
        active = self._active
        if active is None:
            self._turn_to_next()
            return
        self.deadline = NO_DEADLINE
        if active is self._receiving and self._reading:
            self.resume_body()  # its client may have had to read on before it could send on
        if active.on_writable is not None:
            active.on_writable()

    # --- parser ------------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._next_headers = {}
        self._lines = 0
        self._before = 0 if self._head_bytes else self._fed
        self._head_bytes = self._fed
        if self._active is None and self.writable:
            self.deadline = self._server.now() + self._server.limits.header_timeout

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._receiving is not None:
            return  # a trailer
        self._lines += 1
        if self._lines > MOST_LINES:
            return  # refused at the end of the head, or of what has come of it
        headers = self._next_headers
        name = name.lower()
        if name in headers:
            value = headers[name] + b", " + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        if self._closing or self._refusal is not None:
            return
        url, headers = self._url, self._next_headers
        # They are the exchange's from here on: a connection may stay for hours, and keeps nothing of what is answered.
        self._url, self._next_headers = b"", {}
        path, query = path_and_query(url)
        exchange = Exchange(self, self._parser.get_method(), path, query)
        exchange.headers = headers
        version = self._parser.get_http_version()
        exchange.http_1_0 = version == "1.0"
        exchange.keep_alive = self._parser.should_keep_alive() and b"upgrade" not in headers
        if exchange.http_1_0 and b"transfer-encoding" in headers:
            exchange.keep_alive = False  # whoever passed it on may not know where it ends (RFC 9112, 6.1)
        limits = self._server.limits
        most = limits.max_head_bytes
        too_large = self._head_bytes > most and head_size(exchange.method, url, headers) > most
        if too_large or self._lines > MOST_LINES:
            refusal: GatewayError | None = head_too_large()
        else:
            refusal = head_refusal(exchange, version, limits.max_upload_bytes, draining=self.refusing)
        if refusal is not None:
            self._refuse_in_turn(refusal, exchange)
            return
        self._head_bytes = self._before = self._lines = 0
        has_body = b"content-length" in headers or b"transfer-encoding" in headers
        if self._parser.should_upgrade():  # for CONNECT, too
            exchange.keep_alive = False
            if has_body:
                self._upgrading = exchange
                return
        self._receiving = exchange
        if has_body:
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
            body = self._body
            body.append(data)
            if len(body) % FOLD_EVERY == 0:
                fold(body)

    def on_message_complete(self) -> None:
        exchange = self._receiving
        read, self._memory.read = self._memory.read, None
        self._receiving = None
        self._head_bytes = 0
        if exchange is None or exchange.finished or self._refusal is not None:
            return
        exchange.body_complete = True
        if exchange.streaming_body:
            if self.writable:
                self.deadline = NO_DEADLINE
            self._resume_reading()  # whoever paused it did so for this body's sake
            if exchange.on_end is not None:
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
            # Of its head only the end may have been in this read.
            head = head_size(exchange.method, exchange.path + exchange.query, exchange.headers)
            self._waiting_bytes += max(self._fed, head)

    # --- for the server ----------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Called about twice a second: act on a deadline that has passed."""
        if now < self.deadline or not self.connected:
            return
        if self._is_read_on():
            self._await_reading()
        elif self._closing or not self.writable or not self.busy:
            self.abort()
        elif self._receiving is not None:
            self._refuse_in_turn(too_slow("body"), self._receiving)
        else:
            self._refuse_in_turn(too_slow("head"))

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

    def _read_body_of(self, exchange: Exchange, rest: bytes) -> None:
        """Go on behind the head of a request whose offer of another protocol is not taken up."""
        from watchllm.wire.upgrade import body_parser  # few clients offer any

        self._upgrading = None
        self._receiving = exchange
        try:
            self._begin_body(exchange, self._server.handler.body_mode(exchange))
            self._parser = body_parser(self, exchange.headers)
        except Exception as error:  # noqa: BLE001  (whatever a handler raises, as in the parser's callbacks)
            self._server.report(error)
            self.abort()
            return
        if rest:
            self.data_received(rest)
        elif not self._closing and self._reading:
            self._move_body_deadline()

    def _begin_body(self, exchange: Exchange, mode: BodyMode) -> None:
        self._body_bytes = 0
        self._body_began = self._server.now()
        streaming = mode is BodyMode.STREAM
        length = exchange.headers.get(b"content-length")
        if length is not None and int(length) > self._server.limits.max_body(streaming):
            self._refuse_in_turn(body_too_large(self._server.limits.max_body(streaming)), exchange)
            return
        self._continue_due = b"expect" in exchange.headers and not exchange.http_1_0 and length != b"0"
        self._continue()
        if streaming and self._active is None and self.writable:
            exchange.streaming_body = True
            self._dispatch(exchange)
