"""One connection to a Redis server: connected, authenticated and proved by a PING, or not there at all.

It knows the framing only. Who owns it learns of each reply, in order, and once of its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import hiredis

from watchllm.stores.redis.address import Address

if TYPE_CHECKING:
    import ssl

Argument = bytes | str | int


class Unreachable(Exception):
    """Redis did not answer, or not in time; the message says which, and names no secret."""


def encode(*arguments: Argument) -> bytes:
    """A command as it goes over the wire."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class Link(asyncio.Protocol):
    """Made by `connect`. `on_reply` gets replies (errors among them, as `hiredis.ReplyError`), `on_lost` the reason."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self.on_reply: Callable[[Any], None] = _ignore
        self.on_lost: Callable[[str], None] = _ignore
        self.lost: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport always is one

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                self.on_reply(reply)
                if self.lost is not None:
                    return
        except hiredis.ProtocolError as error:
            self.close(f"it does not speak Redis' protocol: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._end("the connection was lost" if error is None else f"the connection was lost: {error}")

    def write(self, data: bytes) -> None:
        if self._transport is not None and self.lost is None:
            self._transport.write(data)

    def close(self, reason: str) -> None:
        """End it at once: what was not sent yet is not sent any more."""
        if self._transport is not None:
            self._transport.abort()
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
            self.on_lost(reason)


def _ignore(_what: object) -> None:
    """Before it has an owner."""


async def connect(
    host: str, port: int, address: Address, context: ssl.SSLContext | None, *, seconds: float, probe_seconds: float
) -> Link:
    """A connection that answers. `seconds` for connecting, `probe_seconds` for the answer to what it is greeted with.

    Raises Unreachable.
    """
    loop = asyncio.get_running_loop()
    link: Link | None = None
    try:
        async with asyncio.timeout(seconds):
            _, link = await loop.create_connection(Link, host, port, ssl=context)
        async with asyncio.timeout(probe_seconds):
            await _greet(link, _greeting(address))
    except TimeoutError:
        _abandon(link)
        raise Unreachable(f"{host}:{port} does not answer in time") from None
    except OSError as error:
        _abandon(link)
        raise Unreachable(f"{host}:{port} cannot be reached: {error.strerror or type(error).__name__}") from None
    except BaseException:
        _abandon(link)
        raise
    return link


def _abandon(link: Link | None) -> None:
    if link is not None:
        link.close("given up")


def _greeting(address: Address) -> list[bytes]:
    commands = []
    if address.password is not None:
        commands.append(encode("AUTH", *([address.user] if address.user else []), address.password))
    if address.database:
        commands.append(encode("SELECT", address.database))
    return [*commands, encode("PING")]


async def _greet(link: Link, commands: Iterable[bytes]) -> None:
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    commands = list(commands)
    left = len(commands)

    def on_reply(reply: Any) -> None:
        nonlocal left
        left -= 1
        if isinstance(reply, hiredis.ReplyError):
            _fail(answered, str(reply))
        elif not left and not answered.done():
            answered.set_result(None)

    link.on_reply = on_reply
    link.on_lost = lambda reason: _fail(answered, reason)
    if link.lost is not None:
        raise Unreachable(link.lost)
    link.write(b"".join(commands))
    await answered
    link.on_reply, link.on_lost = _ignore, _ignore


def _fail(answered: asyncio.Future[None], reason: str) -> None:
    if not answered.done():
        answered.set_exception(Unreachable(reason))
