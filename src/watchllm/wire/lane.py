"""The connections to one origin: idle ones, busy ones, ones being opened, and the calls that wait for any of them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from watchllm.wire.call import OPENING, PooledCall
from watchllm.wire.connection import Connection
from watchllm.wire.dial import Dialer
from watchllm.wire.types import ConnectFailed, Origin, PoolFull, WireError


class Bounds(NamedTuple):
    """Per origin: connections (open or being opened), calls that may wait for one, seconds that one may idle."""

    max_connections: int
    max_waiting: int
    keepalive_seconds: float


class LaneStats(NamedTuple):
    idle: int
    active: int
    opening: int
    waiting: int


class Lane:
    """Reuse is last in, first out, so that a lane shrinks to what its traffic needs; calls wait first in, first out."""

    __slots__ = (
        "_bounds",
        "_dialer",
        "_emptied",
        "_waiting",
        "after_target",
        "alive",
        "before_target",
        "connections",
        "idle",
        "loop",
        "now",
        "opening",
        "origin",
        "refusal",
    )

    def __init__(self, origin: Origin, bounds: Bounds, dialer: Dialer, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.loop = loop
        self.now = loop.time()
        """The time as of the last tick or send."""
        self.idle: list[Connection] = []
        self.connections: set[Connection] = set()
        self.alive: set[Connection] = set()
        """Every connection whose socket is open, the ones that close already included."""
        self.opening: set[PooledCall] = set()
        self._bounds = bounds
        self._dialer = dialer
        self._waiting: deque[PooledCall] = deque()
        self._emptied: asyncio.Future[None] | None = None
        self.refusal: WireError | None = None
        self.before_target = b" "
        self.after_target = b""
        try:
            self._prepare_lines(origin)
        except ValueError:  # of a project's making: an answer to that project, no fault of ours
            self.refusal = ConnectFailed("the origin is not a valid scheme, host and port")

    def begin(self, call: PooledCall, now: float) -> None:
        """Send `call` at once over an idle connection, or find it another."""
        self.now = now
        if self.idle:
            self.idle.pop().start(call, now)
        else:
            call.due = min(now + call.timeouts.connect, call.total_due)
            self._admit(call)

    def release(self, connection: Connection) -> None:
        """`connection` has done its call and can take another."""
        if self._waiting:
            connection.start(self._waiting.popleft(), self.loop.time())
        else:
            connection.idle_since = self.now
            self.idle.append(connection)

    def drop(self, connection: Connection) -> None:
        """`connection` takes no more calls: closed, or to be closed. Idempotent."""
        if connection not in self.connections:
            return
        self.connections.remove(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        self._open_for_waiting()

    def buried(self, connection: Connection) -> None:
        """The socket of `connection` is closed."""
        self.alive.discard(connection)
        if self._emptied is not None and not self.alive and not self._emptied.done():
            self._emptied.set_result(None)

    def retry(self, call: PooledCall) -> None:
        """A pooled connection had gone stale under `call`: open a new one, the others may be as stale. There is no
        second retry, for a connection that serves its first call is not stale."""
        call.connection = None
        call.phase = OPENING
        call.due = min(self.loop.time() + call.timeouts.connect, call.total_due)
        if call.upload is not None:
            call.upload.on_pause()
        self._open(call)

    def forget(self, call: PooledCall) -> None:
        """`call` has ended before it had a connection."""
        if call.opener is not None:
            call.opener.cancel()
            call.opener = None
            self.opening.discard(call)  # here: a task cancelled before its first step never runs
            self._open_for_waiting()
        elif call in self._waiting:
            self._waiting.remove(call)

    def overdue(self, now: float) -> list[PooledCall]:
        self.now = now
        found = [c.call for c in self.connections if c.call is not None and c.call.due <= now]
        found += [call for call in self.opening if call.due <= now]
        found += [call for call in self._waiting if call.due <= now]
        return found

    def expire_idle(self, now: float) -> None:
        stale = 0
        for connection in self.idle:  # oldest first: reuse takes from the end
            if connection.idle_since + self._bounds.keepalive_seconds > now:
                break
            stale += 1
        for connection in self.idle[:stale]:
            connection.retire()

    def stats(self) -> LaneStats:
        active = sum(connection.call is not None for connection in self.connections)
        return LaneStats(len(self.idle), active, len(self.opening), len(self._waiting))

    @property
    def quiet(self) -> bool:
        """No call is under way."""
        return len(self.idle) == len(self.connections) and not self.opening and not self._waiting

    def shut(self) -> list[asyncio.Task[None]]:
        """Fail what is under way and close everything. Returns the openers that are still ending."""
        closed = WireError("the client was closed")
        self.refusal = closed
        ended = [*self._waiting, *self.opening]
        openers = [call.opener for call in self.opening if call.opener is not None]
        self._waiting.clear()
        self.opening.clear()
        for opener in openers:
            opener.cancel()
        for call in ended:
            call.fail(closed)
        for connection in list(self.alive):
            connection.fail(closed)
        return openers

    async def emptied(self) -> None:
        """Wait until every socket is closed."""
        if self.alive:
            self._emptied = self.loop.create_future()
            await self._emptied

    def _admit(self, call: PooledCall) -> None:
        if self.refusal is not None:
            self.loop.call_soon(call.fail, self.refusal)
        elif len(self.connections) + len(self.opening) < self._bounds.max_connections:
            self._open(call)
        elif len(self._waiting) < self._bounds.max_waiting:
            self._waiting.append(call)
        else:
            full = PoolFull(f"{self._bounds.max_connections} connections to {self.origin.host} are busy, others wait")
            self.loop.call_soon(call.fail, full)
        if call.upload is not None:
            call.upload.on_pause()

    def _open(self, call: PooledCall) -> None:
        self.opening.add(call)
        call.opener = self.loop.create_task(self._opened(call))

    async def _opened(self, call: PooledCall) -> None:
        try:
            connection = await self._dialer.dial(self.origin, lambda: Connection(self))
        except Exception as error:
            self.opening.discard(call)
            call.opener = None
            call.fail(error if isinstance(error, WireError) else ConnectFailed(f"cannot connect: {error}"))
            self._open_for_waiting()
            if not isinstance(error, WireError):
                raise
            return
        self.opening.discard(call)
        call.opener = None
        if connection.transport.is_closing():  # by the peer, before this task had its turn
            call.fail(ConnectFailed(f"{self.origin.host} closed the connection at once"))
            self._open_for_waiting()
            return
        self.connections.add(connection)
        # Not ended: who ends a call that is being opened cancels this task.
        connection.start(call, self.loop.time())

    def _open_for_waiting(self) -> None:
        while self._waiting and len(self.connections) + len(self.opening) < self._bounds.max_connections:
            self._open(self._waiting.popleft())

    def _prepare_lines(self, origin: Origin) -> None:
        name = origin.host.strip("[]")
        host = name.encode("ascii") if name.isascii() else name.encode("idna")
        if not host or any(byte <= 0x20 or byte == 0x7F or byte in b"/?#@\\" for byte in host):
            raise ValueError("not a host")
        if origin.scheme not in ("http", "https") or not 0 < origin.port < 65536:
            raise ValueError("not an origin")
        authority = b"[%b]" % host if b":" in host else host
        if origin.port != (443 if origin.scheme == "https" else 80):
            authority += b":%d" % origin.port
        extra = b""
        relay = self._dialer.relay(origin)
        if relay is not None:
            self.before_target = b" http://" + authority
            extra = relay.authorization
        self.after_target = b" HTTP/1.1\r\nHost: " + authority + b"\r\n" + extra
