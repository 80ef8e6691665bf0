"""From an origin to an open connection: resolve and check, connect, tunnel, TLS. Off the hot path: a pooled connection
is opened once for many calls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from watchllm.wire.address import Resolved, resolve
from watchllm.wire.forward_proxy import ForwardProxies, ForwardProxy, open_tunnel
from watchllm.wire.types import ConnectFailed, Origin

if TYPE_CHECKING:
    import ssl

_P = TypeVar("_P", bound=asyncio.Protocol)

_HEAD_START: Final = 0.25
"""Seconds that an address has before the next one is tried beside it (RFC 8305's connection attempt delay)."""

_MAX_ADDRESSES: Final = 8


class Dialer:
    """Opens connections under one policy.

    Behind a forward proxy the policy stays the same: an origin that must be public is resolved and checked here and the
    proxy is asked for a tunnel to the checked *address*, plain http included, so that no second resolution can lead
    elsewhere. TLS still verifies the host's name. An origin of the operator's goes to the proxy by name.
    """

    def __init__(
        self, *, allow_private: bool, proxies: ForwardProxies, tls_context: Callable[[], ssl.SSLContext] | None
    ) -> None:
        self._allow_private = allow_private
        self._proxies = proxies
        self._make_context = tls_context or _system_context
        self._context: ssl.SSLContext | None = None

    def relay(self, origin: Origin) -> ForwardProxy | None:
        """The proxy that takes `origin`'s requests in absolute form, if one does: plain http of the operator's."""
        if origin.scheme != "http" or self._guarded(origin):
            return None
        return self._proxies.of(origin)

    async def dial(self, origin: Origin, make_protocol: Callable[[], _P]) -> _P:
        """A connected protocol for `origin`. Raises ConnectFailed or AddressRefused; bounded by its caller."""
        loop = asyncio.get_running_loop()
        host = origin.host.strip("[]")
        name = host.rstrip(".")
        guarded = self._guarded(origin)
        proxy = self._proxies.of(origin)
        if proxy is None:
            addresses = await resolve(loop, host, origin.port, public_only=guarded)
        else:
            if guarded:
                checked = await resolve(loop, host, origin.port, public_only=True)
                host = checked[0][1][0]
            addresses = await resolve(loop, proxy.host, proxy.port, public_only=False)
        context = await self._tls(loop) if origin.scheme == "https" else None
        connected = await _connect_any(loop, addresses)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if proxy is None or (context is None and not guarded):
                _, protocol = await loop.create_connection(
                    make_protocol, sock=connected, ssl=context, server_hostname=name if context else None
                )
                return protocol
            return await self._tunnel(loop, connected, proxy, host, origin.port, context, name, make_protocol)
        except (OSError, EOFError) as error:  # ssl.SSLError and CertificateError are OSErrors
            connected.close()
            raise ConnectFailed(f"cannot connect to {name}: {str(error) or type(error).__name__}") from error
        except BaseException:
            connected.close()
            raise

    async def _tunnel(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket,
        proxy: ForwardProxy,
        host: str,
        port: int,
        context: ssl.SSLContext | None,
        name: str,
        make_protocol: Callable[[], _P],
    ) -> _P:
        transport, _ = await loop.create_connection(_Silent, sock=connected)
        try:
            await open_tunnel(loop, transport, host, port, proxy)
            protocol = make_protocol()
            if context is None:
                transport.set_protocol(protocol)
                protocol.connection_made(transport)
                transport.resume_reading()
            else:
                tunnelled = await loop.start_tls(transport, protocol, context, server_hostname=name)
                if tunnelled is None:
                    raise ConnectionResetError("the connection closed during the TLS handshake")
                protocol.connection_made(tunnelled)
        except BaseException:
            transport.abort()
            raise
        return protocol

    def _guarded(self, origin: Origin) -> bool:
        return not (origin.trusted or self._allow_private)

    async def _tls(self, loop: asyncio.AbstractEventLoop) -> ssl.SSLContext:
        if self._context is None:  # reading the system's certificates takes tens of milliseconds: not on the loop
            self._context = await loop.run_in_executor(None, self._make_context)
        return self._context


class _Silent(asyncio.Protocol):
    """Holds a transport until the tunnel's protocol takes it; a proxy speaks only when spoken to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport, which uvloop's do not derive from


def _system_context() -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _connect_any(loop: asyncio.AbstractEventLoop, addresses: list[Resolved]) -> socket.socket:
    """The first of the addresses that answers, each with a head start on the next. Raises ConnectFailed."""
    waiting = list(addresses[:_MAX_ADDRESSES])
    attempts: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException | None = None
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(loop.create_task(_connect(loop, *waiting.pop(0))))
            done, attempts = await asyncio.wait(
                attempts, timeout=_HEAD_START if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            winner: socket.socket | None = None
            for attempt in done:
                failure = attempt.exception() or failure
                if attempt.exception() is None:
                    if winner is not None:
                        winner.close()
                    winner = attempt.result()
            if winner is not None:
                return winner
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_discard)
    raise ConnectFailed(f"cannot connect: {failure}") from failure


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    """Close what a beaten attempt may have opened before the cancellation reached it."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect(loop: asyncio.AbstractEventLoop, family: int, address: tuple[object, ...]) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await loop.sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection
