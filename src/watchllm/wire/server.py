"""The HTTP/1.1 server: listening sockets, the bounds that all connections share, and a drain that cuts nothing."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from watchllm.wire.exchange import BodyMode, Exchange, Handler
from watchllm.wire.pressure import Pressure
from watchllm.wire.server_connection import ServerConnection
from watchllm.wire.status import date_line

if TYPE_CHECKING:
    import ssl

__all__ = ["BodyMode", "Exchange", "Handler", "Server", "ServerLimits", "serve"]

_SWEEP_SECONDS = 0.5
_DRAIN_POLL_SECONDS = 0.02
_BACKLOG = 4096


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
        self._draining = False
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

    async def listen_tcp(
        self, host: str, port: int, *, reuse_port: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        """Raises OSError where the address cannot be had."""
        given = _bound(host, port, reuse_port=reuse_port)
        if given is not None:
            listener = await self.loop.create_server(self._connect, sock=given, ssl=tls, backlog=_BACKLOG)
        else:
            listener = await self.loop.create_server(
                self._connect, host, port, reuse_port=reuse_port or None, ssl=tls, backlog=_BACKLOG
            )
        self._listeners.append(listener)

    async def listen_unix(self, sock: socket.socket) -> None:
        """Listen on a bound Unix socket."""
        self._listeners.append(await self.loop.create_unix_server(self._connect, sock=sock))

    async def drain(self, seconds: float) -> None:
        """Finish what was accepted, refuse with 503 what comes meanwhile, then close; at most `seconds`."""
        self._draining = True
        for connection in self._connections:
            connection.drain()
        end = self.now() + seconds
        while any(connection.busy for connection in self._connections) and self.now() < end:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        await self.close()

    async def close(self) -> None:
        """Stop listening and end all connections; what is written but not sent yet gets a moment to be sent."""
        self._sweeper.cancel()
        for listener in self._listeners:
            listener.close()
        for connection in list(self._connections):
            connection.close_idle()
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


def _bound(host: str, port: int, *, reuse_port: bool) -> socket.socket | None:
    """A socket bound to an IPv4 address, None where `host` is anything else.

    The loop would ask the resolver about an address too, in threads that it starts for that: a millisecond of a start.
    Raises OSError.
    """
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return None
    bound = socket.socket(socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"{host}:{port}: {error.strerror}") from None
    bound.setblocking(False)
    return bound


async def serve(
    handler: Handler,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    limits: ServerLimits | None = None,
    reuse_port: bool = False,
    tls: ssl.SSLContext | None = None,
) -> Server:
    """Start a server on a TCP address; port 0 = any free one. Raises OSError where the address cannot be had."""
    server = Server(handler, limits or ServerLimits(), asyncio.get_running_loop())
    await server.listen_tcp(host, port, reuse_port=reuse_port, tls=tls)
    return server
