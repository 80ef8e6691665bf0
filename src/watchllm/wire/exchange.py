"""One request and the answer to it, as a handler sees them."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from watchllm.domain.errors import GatewayError
from watchllm.wire.status import status_line

if TYPE_CHECKING:
    from watchllm.wire.server_connection import ServerConnection

# Below this size one joined write is cheaper than a second buffer for the kernel.
_JOIN_LIMIT = 16_384


class BodyMode(Enum):
    """How a request's body reaches the handler: whole in `Exchange.body`, or in pieces as it arrives."""

    BUFFER = 1
    STREAM = 2


class Handler(Protocol):
    """What a server serves. Every method is called on the event loop and must not block."""

    def body_mode(self, exchange: Exchange) -> BodyMode:
        """Asked once the head is complete, only for requests that have a body."""
        ...

    def on_request(self, exchange: Exchange) -> None:
        """The request is complete (BUFFER) or its head is (STREAM: set `on_data` and `on_end` before returning).

        A short STREAM request that was sent ahead of an earlier answer comes whole: see `body_complete`. May answer at
        once, synchronously, or keep the exchange and answer later.
        """
        ...

    def on_refusal(self, exchange: Exchange | None, error: GatewayError) -> tuple[bytes, bytes]:
        """Header lines (each ending in CRLF) and JSON body for a request that the wire itself refuses.

        `exchange` is None before its head was complete. Status, length, date and connection are added.
        """
        ...


class Exchange:
    """A request with the means to answer it: either `respond` once, or `start`, `write`…, `finish`.

    `headers` has lower-case names; lines that repeat a name are joined by `, `. `began` is `time.perf_counter` when the
    request was complete (BUFFER) or its head was (STREAM). All methods are harmless after the client has left.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_connection",
        "began",
        "body",
        "body_complete",
        "finished",
        "headers",
        "held",
        "http_1_0",
        "keep_alive",
        "method",
        "on_data",
        "on_disconnect",
        "on_end",
        "on_shut_down",
        "on_writable",
        "path",
        "query",
        "started",
        "status",
        "streaming_body",
    )

    def __init__(self, connection: ServerConnection, method: bytes, path: bytes, query: bytes) -> None:
        self._connection = connection
        self._chunked = False
        self._bodiless = method == b"HEAD"
        self.method = method
        self.path = path
        self.query = query
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.body_complete = False
        self.streaming_body = False
        self.began = 0.0
        self.keep_alive = True
        self.http_1_0 = False
        self.started = False
        self.finished = False
        self.status = 0
        self.held = 0
        self.on_data: Callable[[bytes], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self.on_disconnect: Callable[[], None] | None = None
        self.on_shut_down: Callable[[], None] | None = None
        """The server waits no longer for the answer: what can still be told has to be told inside this call."""
        self.on_writable: Callable[[], None] | None = None

    def header(self, name: bytes) -> bytes | None:
        """The value of a header by its lower-case name."""
        return self.headers.get(name)

    @property
    def peer(self) -> str:
        """The address at the other end of the connection; empty for a Unix socket."""
        return self._connection.peer

    @property
    def writable(self) -> bool:
        """False while the client reads slower than it is written to; `on_writable` tells when that ends."""
        return self._connection.writable

    @property
    def connected(self) -> bool:
        return self._connection.connected

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        """Send a whole answer. `head` is header lines, each ending in CRLF; length, date and connection are added."""
        if self.finished:
            return
        self.finished = True
        self.status = status
        connection = self._connection
        ending = self._head_ending()
        if status == 204 or status == 304:
            connection.write(b"%b%b%b\r\n" % (status_line(status), head, ending))
        elif self.method == b"HEAD" or len(body) > _JOIN_LIMIT:
            connection.write(b"%b%bContent-Length: %d\r\n%b\r\n" % (status_line(status), head, len(body), ending))
            if self.method != b"HEAD":
                connection.write(body)
        else:
            connection.write(
                b"%b%bContent-Length: %d\r\n%b\r\n%b" % (status_line(status), head, len(body), ending, body)
            )
        connection.exchange_finished(self)

    def start(self, status: int, head: bytes) -> None:
        """Send the head of an answer whose length is not known; pieces follow by `write`."""
        if self.finished:
            return
        self.started = True
        self.status = status
        if status == 204 or status == 304:
            self._bodiless = True  # a chunk, the last one too, would be taken for the next answer
        elif self.http_1_0:
            self.keep_alive = False
        else:
            self._chunked = True
            head += b"Transfer-Encoding: chunked\r\n"
        self._connection.write(b"%b%b%b\r\n" % (status_line(status), head, self._head_ending()))

    def write(self, data: bytes) -> None:
        """Send a piece of the body, not empty."""
        if self.finished or self._bodiless:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.write(data)

    def finish(self) -> None:
        """The streamed answer is complete."""
        if self.finished:
            return
        self.finished = True
        if self._chunked and not self._bodiless:
            self._connection.write(b"0\r\n\r\n")
        self._connection.exchange_finished(self)

    def abort(self) -> None:
        """Cut the connection, so that an answer which is not whole cannot look whole."""
        if not self.finished:
            self.finished = True
            self._connection.abort()

    def hold(self, size: int) -> bool:
        """Count `size` more bytes of this request against the server's bound; False = the bound is reached, or this
        request is over."""
        return self._connection.hold(self, size)

    def pause_body(self) -> None:
        """Stop reading a streamed body (back-pressure)."""
        self._connection.pause_body()

    def resume_body(self) -> None:
        self._connection.resume_body()

    def _head_ending(self) -> bytes:
        connection = self._connection
        if not self.body_complete or (connection.draining and not connection.has_waiting):
            self.keep_alive = False
        if not self.keep_alive:
            return connection.date_line + b"Connection: close\r\n"
        return connection.date_line + b"Connection: keep-alive\r\n" if self.http_1_0 else connection.date_line
