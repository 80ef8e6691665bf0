"""What keeps a client's connection within its time and its memory: deadlines, back-pressure, and an end that cuts
nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from watchllm.wire.exchange import Exchange
    from watchllm.wire.server import Server

LOWEST_RATE = 1024
"""Bytes a second, averaged over a request's body, and of an answer over each `write_timeout`."""
NO_DEADLINE = float("inf")

# After an early refusal the client may still be sending; closing at once would reset the connection under the answer.
_LINGER_SECONDS = 2.0


class PacedConnection(asyncio.Protocol):
    """The transport's side of a connection, below the requests.

    `deadline` (loop time) is looked at by the server's sweep, not by a timer a request: within a head it is the end of
    `header_timeout`, within a body it moves with the bytes received, idle it is the end of keep-alive, and while the
    client does not read what we write it is the end of `write_timeout`, which begins anew while it does read on.
    """

    __slots__ = (
        "_closing",
        "_discarding",
        "_reading",
        "_server",
        "_transport",
        "_unsent",
        "connected",
        "date_line",
        "deadline",
        "draining",
        "peer",
        "refusing",
        "writable",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._unsent = 0  # when `write_timeout` began
        self._closing = False
        self._discarding = False
        self._reading = True
        self.connected = False
        self.writable = True
        self.draining = False
        self.refusing = False
        self.date_line = server.date_line
        self.deadline = NO_DEADLINE
        self.peer = ""

    def write(self, data: bytes) -> None:
        if self.connected:
            self._transport.write(data)

    def hold(self, exchange: Exchange, size: int) -> bool:
        """Count bytes of a request against the server's bound; False = the bound is reached, or the request is over and
        nothing would release them."""
        if exchange.finished or not self._server.hold(size):
            return False
        exchange.held += size
        return True

    def drain(self) -> None:
        """From now on answers end the connection, and requests that come get 503."""
        self.draining = self.refusing = True

    def retire(self) -> None:
        """From now on answers end the connection, that of a request that is still to come included."""
        self.draining = True

    def close_idle(self) -> None:
        """End the connection once what was written is sent."""
        self._closing = True
        self._await_reading()
        if self.connected:
            self._transport.close()

    def abort(self) -> None:
        self._closing = True
        if self.connected:
            self._transport.abort()

    def _end_with_linger(self) -> None:
        """Send FIN, then read and drop what the client still sends, for a while and as long as it reads on."""
        self._closing = self._discarding = True
        self._resume_reading()
        self.deadline = self._server.now() + _LINGER_SECONDS
        self._unsent = 0
        if not self.connected:
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _await_reading(self) -> None:
        """From now on the client has `write_timeout` to take what is written."""
        self.deadline = self._server.now() + self._server.limits.write_timeout
        self._unsent = self._transport.get_write_buffer_size() if self.connected else 0

    def _is_read_on(self) -> bool:
        """Whether the client has taken enough of a long answer since `write_timeout` began to be given more time."""
        left = self._transport.get_write_buffer_size()
        if self._discarding and not self._unsent:
            return left > 0  # at the end of a linger, which begins before what is written is on its way
        taken = self._unsent - left
        return taken >= max(LOWEST_RATE * self._server.limits.write_timeout, 1)

    def _release(self, exchange: Exchange) -> None:
        if exchange.held:
            self._server.release(exchange.held)
            exchange.held = 0

    def _pause_reading(self) -> None:
        if self._reading and self.connected:
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and self.connected:
            self._reading = True
            self._transport.resume_reading()
