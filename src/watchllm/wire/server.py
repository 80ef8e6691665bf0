"""The HTTP/1.1 server: listening sockets, the bounds that all connections share, and ends that cut nothing."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from watchllm.wire.exchange import BodyMode, Exchange, Handler
from watchllm.wire.listening import BACKLOG, bind
from watchllm.wire.pressure import Pressure
from watchllm.wire.server_connection import ServerConnection
from watchllm.wire.status import date_line

if TYPE_CHECKING:
    import socket
    import ssl

__all__ = ["BodyMode", "Exchange", "Handler", "Server", "ServerLimits", "serve"]

_SWEEP_SECONDS = 0.5
_DRAIN_POLL_SECONDS = 0.02
# A client whose handshake is under way has been accepted, and is no connection yet.
_HANDSHAKE_SECONDS = 1.0


class ServerLimits(msgspec.Struct, frozen=True):
    """Bounds of a server: bytes a request and in all, seconds, connections.

    A body that is kept must arrive within `body_grace` + `body_timeout`, and sooner while more than half of
    `max_inflight_bytes` is taken: then its rate is judged over each `pressed_window`.
    """

    max_head_bytes: int = 64 * 1024
    max_body_bytes: int = 32 * 1024 * 1024
    max_upload_bytes: int = 512 * 1024 * 1024
    max_inflight_bytes: int = 256 * 1024 * 1024
    max_connections: int = 10_000
    header_timeout: float = 15.0
    body_grace: float = 30.0
    body_timeout: float = 300.0
    pressed_window: float = 5.0
    idle_timeout: float = 75.0
    write_timeout: float = 60.0

    def max_body(self, streaming: bool) -> int:
        return self.max_upload_bytes if streaming else self.max_body_bytes


class Server:
    """A running server; made by `serve`. `on_sweep` is told twice a second by how many seconds that came late."""

    def __init__(
        self,
        handler: Handler,
        limits: ServerLimits,
        loop: asyncio.AbstractEventLoop,
        on_sweep: Callable[[float], None] = lambda _late: None,
    ) -> None:
        self.handler = handler
        self.limits = limits
        self.loop = loop
        self.now = loop.time
        self.largest_repeated = min(limits.max_head_bytes, limits.max_body_bytes, limits.max_upload_bytes)
        """Bytes of a read that is within every bound of a head and of a body, whatever is in it."""
        self.date_line = date_line(time.time())
        self._connections: set[ServerConnection] = set()
        self._listeners: list[asyncio.Server] = []
        self._inflight_bytes = 0
        self._pressure = Pressure(limits.pressed_window)
        self._draining = self._retiring = self._takes_tls = False
        self._ends = math.inf
        self._on_sweep = on_sweep
        self._sweep_due = loop.time() + _SWEEP_SECONDS
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)

    @property
    def port(self) -> int:
        """The TCP port that is listened on (the one the kernel chose, where 0 was asked for)."""
        return int(self._listeners[0].sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def inflight_bytes(self) -> int:
        """Bytes of request bodies held in memory now."""
        return self._inflight_bytes

    async def listen_tcp(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        """Raises OSError where the address cannot be had."""
        await self.listen_on(bind(host, port), tls=tls)

    async def listen_on(self, sockets: Sequence[socket.socket], *, tls: ssl.SSLContext | None = None) -> None:
        """Listen on bound TCP sockets."""
        self._takes_tls = tls is not None
        for given in sockets:
            self._listeners.append(await self.loop.create_server(self._connect, sock=given, ssl=tls, backlog=BACKLOG))

    async def listen_unix(self, sock: socket.socket) -> None:
        """Listen on a bound Unix socket."""
        self._listeners.append(await self.loop.create_unix_server(self._connect, sock=sock))

    async def drain(self, seconds: float) -> None:
        """Finish what was accepted, refuse with 503 what comes meanwhile, then close; at most `seconds`."""
        self._draining = True
        for connection in self._connections:
            connection.drain()
        self.hurry(seconds)
        while any(connection.busy for connection in self._connections) and self.now() < self._ends:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        await self.close()

    async def retire(self, seconds: float, idle_seconds: float) -> None:
        """Accept nothing more: what waits to be accepted, and comes later, is for whoever else holds the listening
        sockets. Serve the connections that there are: each ends with its next answer, or when nothing has come for
        `idle_seconds`; at most `seconds`."""
        self._retiring = True
        for listener in self._listeners:
            listener.close()
        for connection in self._connections:
            connection.retire()
        began = self.now()
        settled = began + (_HANDSHAKE_SECONDS if self._takes_tls else _DRAIN_POLL_SECONDS)
        self.hurry(seconds)
        while (self._connections or self.now() < settled) and self.now() < self._ends:
            if self.now() > began + idle_seconds:
                for connection in [known for known in self._connections if not known.busy]:
                    connection.close_idle()
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        await self.close()

    def hurry(self, seconds: float) -> None:
        """What drains or retires, now or later, takes no longer than `seconds` from here on."""
        self._ends = min(self._ends, self.now() + seconds)

    async def close(self) -> None:
        """Stop listening and end all connections: who waits for an answer is told that there will be none, and what is
        written but not sent yet gets a moment to be sent."""
        self._sweeper.cancel()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.shut_down()
        end = self.now() + 1.0
        while self._connections and self.now() < end:  # noqa: ASYNC110  (as in `drain`: rare, and bounded)
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        for connection in list(self._connections):
            connection.abort()
        for listener in self._listeners:
            await listener.wait_closed()

    # --- for connections ---------------------------------------------------------------------------------------------

    def admit(self, connection: ServerConnection) -> bool:
        """Take a new connection in; False = one too many (it is still known, so that it is swept and closed)."""
        connection.date_line = self.date_line
        if self._draining:
            connection.drain()
        elif self._retiring:
            connection.retire()
        self._connections.add(connection)
        return len(self._connections) <= self.limits.max_connections

    def forget(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)

    def hold(self, size: int) -> bool:
        if self._inflight_bytes + size > self.limits.max_inflight_bytes:
            return False
        self._inflight_bytes += size
        return True

    def release(self, size: int) -> None:
        self._inflight_bytes -= size

    def report(self, error: BaseException) -> None:
        """A handler raised: that is a bug, and the loop's exception handler is told."""
        self.loop.call_exception_handler({"message": "a request handler raised", "exception": error})

    # --- details -----------------------------------------------------------------------------------------------------

    def _connect(self) -> ServerConnection:
        return ServerConnection(self)

    def _sweep(self) -> None:
        self.date_line = date_line(time.time())
        now = self.now()
        for connection in list(self._connections):
            connection.date_line = self.date_line
            connection.sweep(now)
        excess = self._inflight_bytes - self.limits.max_inflight_bytes // 2
        if excess > 0:
            self._pressure.relieve(self._connections, now, excess)
        else:
            self._pressure.clear()
        self._on_sweep(now - self._sweep_due)
        self._sweep_due = now + _SWEEP_SECONDS
        self._sweeper = self.loop.call_later(_SWEEP_SECONDS, self._sweep)


async def serve(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    limits: ServerLimits | None = None,
    tls: ssl.SSLContext | None = None,
) -> Server:
    """Start a server on a TCP address; port 0 = any free one. Raises OSError where the address cannot be had."""
    server = Server(handler, limits or ServerLimits(), asyncio.get_running_loop())
    await server.listen_tcp(host, port, tls=tls)
    return server
