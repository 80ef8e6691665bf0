"""A public internet that is all on this host: names resolve as a test says, public addresses lead to its servers."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.support.wire_peers import Peer, peer, read_request

Site = Callable[[str], bytes]
"""The whole answer to a GET of this path."""


class Internet:
    """Nothing but what a test opens can be reached, and nothing leaves this host. With `loopback`, loopback addresses
    lead where they say.

    `asked` are the names looked up and `connected` the addresses connected to, in order; `requests` the heads received.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, loopback: bool = False) -> None:
        self.asked: list[str] = []
        self.connected: list[str] = []
        self.requests: list[bytes] = []
        self._names: dict[str, list[list[str]]] = {}
        self._ports: dict[str, int] = {}
        genuine_lookup = asyncio.BaseEventLoop.getaddrinfo
        genuine_connect = asyncio.SelectorEventLoop.sock_connect

        async def getaddrinfo(loop: Any, host: str, port: int, **options: Any) -> list[Any]:
            self.asked.append(host)
            if host not in self._names:
                return list(await genuine_lookup(loop, host, port, **options))
            turns = self._names[host]
            return [_found(ip, port) for ip in (turns.pop(0) if len(turns) > 1 else turns[0])]

        async def sock_connect(loop: Any, connection: Any, address: Any) -> None:
            self.connected.append(address[0])
            if loopback and address[0] == "127.0.0.1":
                await genuine_connect(loop, connection, address)
                return
            if address[0] not in self._ports:
                raise ConnectionRefusedError(f"nobody is at {address[0]}")
            await genuine_connect(loop, connection, ("127.0.0.1", self._ports[address[0]]))

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect)

    def name(self, host: str, *turns: list[str]) -> None:
        """`host` has these addresses, one list per look-up, the last one from then on."""
        self._names[host] = list(turns)

    def lead(self, ip: str, port: int) -> None:
        """What listens on `port` of this host is at `ip`."""
        self._ports[ip] = port

    @contextlib.asynccontextmanager
    async def open(self, site: Site, *, ip: str = "8.8.8.8", host: str = "images.test") -> AsyncIterator[Peer]:
        """A server at `ip`, and a name for it."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await read_request(reader)
                self.requests.append(head)
                writer.write(site(head.split(b" ")[1].decode()))
                await writer.drain()

        async with peer(talk) as server:
            self.name(host, [ip])
            self.lead(ip, server.port)
            yield server


def _found(ip: str, port: int) -> Any:
    if ":" in ip:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (ip, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))
