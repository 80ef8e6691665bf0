"""Forward proxies: which one an origin is reached through, and the CONNECT tunnel through it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from watchllm.wire.types import ConnectFailed, Origin

_MAX_REPLY: Final = 64 * 1024


class ForwardProxy(NamedTuple):
    """`authorization` is a whole header line (with its line end), or empty."""

    host: str
    port: int
    authorization: bytes


class ForwardProxies:
    """`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` as curl understands them, lower-case names first.

    Raises ValueError for a proxy URL that is not `http://[user:password@]host[:port]`: SOCKS and TLS to the proxy
    itself are not spoken.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        def read(name: str) -> str:
            return (environment.get(name) or environment.get(name.upper()) or "").strip()

        fallback = read("all_proxy")
        self._by_scheme = {
            scheme: _parse(url) for scheme in ("http", "https") if (url := read(f"{scheme}_proxy") or fallback)
        }
        self._exceptions = [entry for entry in read("no_proxy").lower().replace(",", " ").split() if entry]

    def of(self, origin: Origin) -> ForwardProxy | None:
        """The proxy to reach `origin` through, None for a direct connection."""
        proxy = self._by_scheme.get(origin.scheme)
        if proxy is None or self._excepted(origin.host.lower().strip("[]").rstrip("."), origin.port):
            return None
        return proxy

    def _excepted(self, host: str, port: int) -> bool:
        for entry in self._exceptions:
            if entry == "*":
                return True
            name, colon, entry_port = entry.rpartition(":")
            if colon and entry_port.isdigit() and (":" not in name or name.endswith("]")):
                if int(entry_port) != port:
                    continue
            else:
                name = entry
            if "/" in name:
                if _in_network(host, name):
                    return True
                continue
            name = name.strip("[]").removeprefix("*").removeprefix(".").rstrip(".")
            if name and (host == name or host.endswith("." + name)):
                return True
        return False


async def open_tunnel(
    loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, host: str, port: int, proxy: ForwardProxy
) -> None:
    """Ask the proxy at the other end of `transport` for a tunnel to `host`. Then the transport belongs to the peer.

    Raises ConnectFailed when the proxy says no, or says more than its answer.
    """
    authority = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode("ascii")
    reply = _Reply(loop)
    transport.set_protocol(reply)
    transport.resume_reading()
    transport.write(
        b"CONNECT " + authority + b" HTTP/1.1\r\nHost: " + authority + b"\r\n" + proxy.authorization + b"\r\n"
    )
    await reply.answered
    # Nothing may reach the reply's protocol any more: what follows is for the one that takes over.
    transport.pause_reading()


class _Reply(asyncio.Protocol):
    """Waits for the proxy's answer to CONNECT."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answered: asyncio.Future[None] = loop.create_future()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            if len(self._data) > _MAX_REPLY:
                self._refuse("the forward proxy's answer is too long")
            return
        words = head.split(b"\r\n", 1)[0].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            self._refuse("the forward proxy does not speak HTTP/1.1")
        elif words[1] == b"407":
            self._refuse("the forward proxy wants other credentials (407)")
        elif not words[1].startswith(b"2"):
            self._refuse(f"the forward proxy refused the tunnel with status {int(words[1])}")
        elif rest:
            self._refuse("the forward proxy sent data before the tunnel was used")
        elif not self.answered.done():
            self.answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._refuse("the forward proxy closed the connection")

    def _refuse(self, why: str) -> None:
        if not self.answered.done():
            self.answered.set_exception(ConnectFailed(why))


def _parse(url: str) -> ForwardProxy:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        # Without the URL: it may hold a password.
        raise ValueError("a forward proxy is named as http://[user:password@]host[:port]")
    authorization = b""
    if parts.username is not None:
        from base64 import b64encode

        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = b"Proxy-Authorization: Basic " + b64encode(credentials) + b"\r\n"
    return ForwardProxy(parts.hostname, parts.port or 80, authorization)


def _in_network(host: str, network: str) -> bool:
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:  # the host is a name, or the entry no network: neither says anything about the other
        return False
