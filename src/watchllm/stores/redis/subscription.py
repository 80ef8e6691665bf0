"""Messages that others publish, on a connection of its own that is made again whenever it is lost.

Messages sent meanwhile are gone: who subscribes is told of every (re)connection, and asks Redis itself for what it
may have missed. A connection that is silent is proved by PING, so that a cut cable is noticed within two seconds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from watchllm.stores.redis.address import Address
from watchllm.stores.redis.link import Link, Unreachable, connect, encode

if TYPE_CHECKING:
    import ssl

_CONNECT_SECONDS = 1.0
_PROOF_SECONDS = 0.5
_SILENCE_SECONDS = 1.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Subscription:
    """To `channels`. `on_message(channel, data)`; `on_connected()` each time from which on messages arrive, and
    `on_lost()` when they no longer do."""

    def __init__(
        self,
        address: Address,
        channels: tuple[bytes, ...],
        on_message: Callable[[bytes, bytes], None],
        on_connected: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self.connected = False
        self._on_lost = on_lost
        self._address = address
        self._context: ssl.SSLContext | None = address.tls_context()
        self._channels = channels
        self._on_message = on_message
        self._on_connected = on_connected
        self._loop = loop
        self._heard = 0.0
        self._link: Link | None = None
        self._task = loop.create_task(self._run())

    def close(self) -> None:
        self._task.cancel()
        if self._link is not None:
            self._link.close("closed")

    async def _run(self) -> None:
        pause = _FIRST_PAUSE
        attempt = 0
        while True:
            host, port = self._address.seeds[attempt % len(self._address.seeds)]
            attempt += 1
            try:
                link = await connect(
                    host, port, self._address, self._context, seconds=_CONNECT_SECONDS, probe_seconds=_PROOF_SECONDS
                )
            except Unreachable:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (spreads, hides nothing)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            await self._listen(link)

    async def _listen(self, link: Link) -> None:
        """Until the connection is lost."""
        lost = asyncio.Event()
        self._link = link
        link.on_reply = self._on_reply
        link.on_lost = lambda _reason: lost.set()
        if link.lost is not None:
            return
        self._heard = self._loop.time()
        link.write(encode("SUBSCRIBE", *self._channels))
        try:
            while not lost.is_set():
                try:
                    # Not `asyncio.wait_for`: before Python 3.12 it forgets that it was cancelled when it is lost then.
                    async with asyncio.timeout(_PROOF_SECONDS):
                        await lost.wait()
                except TimeoutError:
                    if self._loop.time() - self._heard > _SILENCE_SECONDS:
                        link.close("it is silent")
                    link.write(encode("PING"))
        finally:
            self.connected = False
            if self._on_lost is not None:
                self._on_lost()

    def _on_reply(self, reply: Any) -> None:
        self._heard = self._loop.time()
        if not isinstance(reply, list):
            if isinstance(reply, Exception) and self._link is not None:
                self._link.close(str(reply))
            return
        kind = reply[0]
        if kind == b"message":
            self._on_message(reply[1], reply[2])
        elif kind == b"subscribe" and reply[2] == len(self._channels):
            self.connected = True
            self._on_connected()
