"""One request of the client: what is sent, how far it is, and by when the next thing has to happen."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from watchllm.wire.types import ResponseSink, TimedOut, Timeouts, WireError

if TYPE_CHECKING:
    from watchllm.wire.connection import Connection
    from watchllm.wire.lane import Lane

TICK: Final = 0.05
"""Seconds between two looks at the clock: time-outs are exact to about two of them, never early."""

# Phases. Compared on every read: plain integers.
OPENING: Final = 0  # no connection yet: queued, or being opened
SENDING: Final = 1  # the request is not wholly sent: a streamed body, or a peer that does not take it
WAITING: Final = 2  # sent; nothing of the answer has come
READING: Final = 3
ENDED: Final = 4

_COPIED: Final = 64 * 1024  # bodies up to this size are copied behind their head, for one write; larger ones follow it
_EXPECTED_BODY: Final = frozenset((b"POST", b"PUT", b"PATCH"))


class Upload(Protocol):
    """The source of a streamed request body."""

    content_length: int | None
    """Bytes that will be written in all, None when unknown (the body is then sent chunked)."""

    def on_pause(self) -> None:
        """The peer does not keep up: write no more (what is written all the same is buffered)."""
        ...

    def on_resume(self) -> None: ...


class PooledCall:
    """A `Call`. The pool and the connection drive it through the methods below `cancel`."""

    __slots__ = (
        "_buffered",
        "_remaining",
        "_unsent",
        "body",
        "connection",
        "due",
        "head",
        "lane",
        "last_read",
        "method",
        "opener",
        "paused",
        "phase",
        "sink",
        "target",
        "timeouts",
        "total_due",
        "upload",
        "uploading",
        "written",
    )

    def __init__(
        self,
        lane: Lane,
        method: bytes,
        target: bytes,
        head: bytes,
        body: bytes | None,
        sink: ResponseSink,
        timeouts: Timeouts,
        upload: Upload | None,
        now: float,
    ) -> None:
        self.lane = lane
        self.method = method
        self.target = target
        self.head = head
        self.body = body
        self.sink = sink
        self.timeouts = timeouts
        self.upload = upload
        self.uploading = upload is not None
        self.paused = False
        self.total_due = now + timeouts.total
        self.due = self.total_due
        self.phase = OPENING
        self.connection: Connection | None = None
        self.opener: asyncio.Task[None] | None = None
        if upload is not None:
            self.written = False
            self._remaining = upload.content_length
            self._buffered: list[bytes] = []

    # The caller's side.

    @property
    def is_sent(self) -> bool:
        return OPENING < self.phase < ENDED

    def write(self, data: bytes) -> None:
        """Raises ValueError, after the call was cancelled, when the body grows longer than announced."""
        if not self.uploading or not data:
            return
        if self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0:
                self.cancel()
                raise ValueError("the request body is longer than its announced length")
        elif len(data) < _COPIED:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        else:
            self._send(b"%x\r\n" % len(data))
            self._send(data)
            data = b"\r\n"
        self._send(data)

    def end(self) -> None:
        """Raises ValueError, after the call was cancelled, when the body is shorter than announced."""
        if not self.uploading:
            return
        if self._remaining:
            self.cancel()
            raise ValueError("the request body is shorter than its announced length")
        if self._remaining is None:
            self._send(b"0\r\n\r\n")
        self.uploading = False
        connection = self.connection
        if connection is not None and not connection.write_paused:
            self.sent(connection.lane.loop.time())

    def pause(self) -> None:
        """What one read brought may still come, but no more than that is decoded."""
        if not self.paused:
            self.paused = True
            if self.connection is not None:
                self.connection.regulate()

    def resume(self) -> None:
        """Never calls the sink before it returns."""
        if self.paused:
            self.paused = False
            if self.connection is not None:
                self.last_read = self.lane.loop.time()
                self.connection.regulate()

    def cancel(self) -> None:
        if self.phase == ENDED:
            return
        self.phase = ENDED
        self.uploading = False
        if self.connection is not None:
            self.connection.abandon()
        else:
            self.lane.forget(self)

    def pass_to(self, sink: ResponseSink) -> None:
        self.sink = sink
        if self.connection is not None:
            self.connection.deliver_to(sink)

    # The connection's side.

    def start(self, connection: Connection, now: float) -> None:
        """Write the request. For one without a streamed body this is all there is to sending it."""
        lane = self.lane
        body = self.body
        self.connection = connection
        self.last_read = now
        self.sent(now)
        write = connection.transport.write
        if body is not None:
            if len(body) <= _COPIED:
                write(
                    b"%b%b%b%b%bContent-Length: %d\r\n\r\n%b"
                    % (self.method, lane.before_target, self.target, lane.after_target, self.head, len(body), body)
                )
            else:
                write(self._head(b"Content-Length: %d\r\n\r\n" % len(body)))
                write(body)
        elif self.upload is None:
            write(self._head(b"Content-Length: 0\r\n\r\n" if self.method in _EXPECTED_BODY else b"\r\n"))
        else:
            self._start_upload(self.upload, connection)
        if self.paused:
            connection.regulate()

    def sent(self, now: float) -> None:
        """The peer's turn begins: the time to the first byte runs."""
        if self.phase < WAITING:
            self.phase = WAITING
            self.due = min(now + self.timeouts.first_byte, self.total_due)

    def sending(self, now: float) -> None:
        """The transport's buffer is full: the request is on its way, and the peer has to take it bit by bit."""
        if self.phase <= WAITING:
            self.phase = SENDING
            self.last_read = now
            self._unsent = self.connection.transport.get_write_buffer_size() if self.connection is not None else 0
            self.due = min(now + self.timeouts.idle, self.total_due)

    def answering(self) -> None:
        """The answer's first bytes are here: from now on the peer must not fall silent."""
        self.phase = READING
        self.due = min(self.lane.now + TICK + self.timeouts.idle, self.total_due)

    def replayable(self) -> bool:
        """Whether the request can be sent once more, from its first byte."""
        return self.upload is None or not self.written

    def fail(self, error: WireError) -> None:
        if self.phase != ENDED:
            self.phase = ENDED
            self.uploading = False
            self.sink.on_failure(error)

    def expire(self, now: float) -> None:
        """`due` has passed. Either the peer did something meanwhile and `due` moves on, or the call fails."""
        timeouts = self.timeouts
        if now >= self.total_due:
            self._time_out(TimedOut("total", timeouts.total))
        elif self.phase == OPENING:
            self._time_out(TimedOut("connect", timeouts.connect))
        else:
            connection = self.connection
            assert connection is not None
            if self.phase == SENDING:
                alive_at = self._sending_progress(connection, now)
            elif connection.held:
                alive_at = now  # it is we who do not read
            elif self.phase == WAITING:
                self._time_out(TimedOut("first_byte", timeouts.first_byte))
                return
            else:
                alive_at = self.last_read + TICK  # noted as of the tick before
            if alive_at + timeouts.idle <= now:
                self._time_out(TimedOut("idle", timeouts.idle))
            else:
                self.due = min(alive_at + timeouts.idle, self.total_due)

    # Details.

    def _sending_progress(self, connection: Connection, now: float) -> float:
        """When the peer last took something, as far as the fill of the transport's buffer tells."""
        unsent = connection.transport.get_write_buffer_size() if connection.write_paused else 0
        took = unsent == 0 or unsent < self._unsent
        self._unsent = unsent
        if took:
            self.last_read = now
        return self.last_read

    def _time_out(self, error: TimedOut) -> None:
        connection = self.connection
        if connection is not None:
            connection.fail(error)
        else:
            self.lane.forget(self)
            self.fail(error)

    def _head(self, framing: bytes) -> bytes:
        lane = self.lane
        return b"".join((self.method, lane.before_target, self.target, lane.after_target, self.head, framing))

    def _start_upload(self, upload: Upload, connection: Connection) -> None:
        self.phase = SENDING
        self._unsent = 0
        self.due = self.total_due
        length = upload.content_length
        framing = b"Transfer-Encoding: chunked\r\n\r\n" if length is None else b"Content-Length: %d\r\n\r\n" % length
        connection.transport.write(self._head(framing))
        buffered, self._buffered = self._buffered, []
        if buffered:
            self.written = True
            connection.transport.write(b"".join(buffered))
        if not self.uploading and not connection.write_paused:
            self.sent(connection.lane.loop.time())
        if not connection.write_paused and self.uploading:
            upload.on_resume()

    def _send(self, data: bytes) -> None:
        connection = self.connection
        if connection is None:
            self._buffered.append(data)
        else:
            self.written = True
            connection.transport.write(data)
