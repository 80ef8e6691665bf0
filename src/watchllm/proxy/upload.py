"""An upload: a request's body that goes up while it comes, instead of being held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from watchllm.domain.errors import GatewayError
from watchllm.wire import types as wire
from watchllm.wire.exchange import Exchange

if TYPE_CHECKING:
    from watchllm.proxy.form_watch import FormWatch


class Upload:
    """The client's body as the source of the upstream request's; what arrives before the call exists is kept.

    A watch, where there is one, has read what `beginning` gave, and reads what comes after it before it is sent."""

    def __init__(self, exchange: Exchange) -> None:
        length = exchange.header(b"content-length")
        self.content_length = None if length is None else int(length)
        self.on_pause = exchange.pause_body
        self.on_resume = exchange.resume_body
        self._exchange = exchange
        self._early: list[bytes] = []
        self._ended = False
        exchange.on_data = self._keep_early
        exchange.on_end = self._end_early
        self._early_size = 0
        self._watch: FormWatch | None = None
        self._awaited = 0
        self._arrived: asyncio.Future[None] | None = None
        exchange.pause_body()

    async def beginning(self, size: int) -> bytes:
        """At least the first `size` bytes, or all where there are fewer; they stay part of the upload."""
        if not self._ended and self._early_size < size:
            self._awaited = size
            self._arrived = asyncio.get_running_loop().create_future()
            self._exchange.resume_body()
            await self._arrived
        self._early = [b"".join(self._early)]
        return self._early[0]

    def watch_with(self, watch: FormWatch, cleared: bytes) -> None:
        """`cleared` is what may be sent of what `beginning` gave."""
        self._watch = watch
        self._early[0] = cleared

    def go_to(self, call: wire.Call, refuse: Callable[[GatewayError], None]) -> None:
        """Send what has arrived, and from now on every piece as it comes; `refuse` is told what may not be sent."""
        exchange = self._exchange
        write, end = call.write, call.end
        early = self._early
        if self._watch is not None:
            watched = self._watch.before(call, refuse)
            write, end = watched.write, watched.end
            call.write(early.pop(0))
        exchange.on_data = write
        exchange.on_end = end
        # Reading goes on when the connection is there (`on_resume`): what came before that would have to be kept.
        for piece in early:
            write(piece)
        if self._ended:
            end()

    def _keep_early(self, piece: bytes) -> None:
        self._early.append(piece)
        self._early_size += len(piece)
        if self._arrived is not None and self._early_size >= self._awaited:
            self._exchange.pause_body()
            self._beginning_arrived(self._arrived)

    def _end_early(self) -> None:
        self._ended = True
        if self._arrived is not None:
            self._beginning_arrived(self._arrived)

    def _beginning_arrived(self, arrived: asyncio.Future[None]) -> None:
        if not arrived.done():
            arrived.set_result(None)
