"""One Redis server as the hot path uses it: commands are handed over by a plain call, and answered by another.

All commands of one turn of the event loop go out in one write. Nothing waits for a server that does not answer: a
command is given up when its time has passed and the server has said nothing for as long, and a server that let several
pass in a row is not asked again before it answered a connection's greeting in time (a breaker whose probe costs no
request anything). Where hundreds ask at once, and it answers one after the other, they wait for their turn, for some
times their time. Connecting is tried again for ever, ever more rarely.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import hiredis

from watchllm.stores.redis.address import Address
from watchllm.stores.redis.link import Link, Unreachable, connect

if TYPE_CHECKING:
    import ssl

Done = Callable[[Any], None]
"""Told the reply: what Redis said, `hiredis.ReplyError` where it refused, or Unreachable."""

TIMEOUT_SECONDS = 0.05
# Replies that are here already, while this process was busy with something else, are read before they count as late.
_GRACE_SECONDS = 0.005
_CONNECT_SECONDS = 1.0
_GIVE_UP_AFTER = 3
# The longest that a command waits for those before it, in terms of its time.
_MOST_TURNS = 5
_MOST_COMMANDS = 20_000
_MOST_BYTES = 64 << 20
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


class Node:
    """`host:port`; opened by `open`, usable while `ready`."""

    def __init__(
        self,
        host: str,
        port: int,
        address: Address,
        context: ssl.SSLContext | None,
        loop: asyncio.AbstractEventLoop,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self.host, self.port = host, port
        self.ready = False
        self.problem: str | None = "not connected yet"
        """Why it is not ready; None = it is."""
        self.down_since: float | None = time.time()
        """Epoch seconds; None while it is ready."""
        self.timeouts = self.failures = self.refused = 0
        """Commands given up, connections lost or not made, commands that were not taken."""
        self.scripts: set[str] = set()
        """Digests of those that were sent on this connection."""
        self.on_ready: Callable[[], None] | None = None
        self.on_down: Callable[[], None] | None = None
        self._address = address
        self._context = context
        self._loop = loop
        self._timeout = timeout
        self._seconds = max(timeout - _GRACE_SECONDS, timeout / 2)
        self._link: Link | None = None
        self._out: list[bytes] = []
        self._waiting: deque[tuple[list[Done | None], float, float, int]] = deque()
        """What is told the reply, None = it was given up; from when it is late if the server is silent, and in any
        case; bytes."""
        self._bytes = 0
        self._heard_at = 0.0
        self._late = 0
        """How many times in a row it was silent for that long."""
        self._late_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = 0.0
        """When the timer goes off: at the first of all deadlines."""
        self._connecting: asyncio.Task[None] | None = None
        self._pause = _FIRST_PAUSE
        self._closed = False

    def open(self) -> None:
        """Begin to connect."""
        if self._connecting is None and not self._closed:
            self._connecting = self._loop.create_task(self._connect())

    def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.close("closed")

    def submit(self, command: bytes, done: Done, seconds: float | None = None) -> bool:
        """Send; False = it cannot be taken, and `done` will not be called. Else it is called once, never from here.
        `seconds` to answer in, None = the time-out."""
        if not self.ready or len(self._waiting) >= _MOST_COMMANDS or self._bytes + len(command) > _MOST_BYTES:
            self.refused += 1
            return False
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(command)
        self._bytes += len(command)
        now = self._loop.time()
        deadline = now + (self._seconds if seconds is None else seconds)
        last = now + _MOST_TURNS * self._seconds if seconds is None else deadline
        self._waiting.append(([done], deadline, last, len(command)))
        if self._timer is None or deadline < self._looks_at:
            self._look_at(deadline)
        return True

    def _look_at(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = deadline
        self._timer = self._loop.call_at(deadline, self._look_at_the_clock)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._link is not None and out:
            self._link.write(out[0] if len(out) == 1 else b"".join(out))

    def _on_reply(self, reply: Any) -> None:
        if not self._waiting:
            if self._link is not None:
                self._link.close("it answered what it was not asked")
            return
        holder, _, _, size = self._waiting.popleft()
        self._heard_at = self._loop.time()
        self._bytes -= size
        self._late = 0
        self._pause = _FIRST_PAUSE
        done = holder[0]
        if done is not None:
            done(reply)
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("READONLY") and self._link is not None:
            # It has become a replica: its name may lead to another server by now.
            self._link.close("it is a replica, which takes no writes")

    def _awaited(self) -> Iterator[tuple[list[Done | None], float]]:
        """Those that were not given up, and from when on they are late as it is now."""
        silent_at = self._heard_at + self._seconds
        for holder, deadline, last, _ in self._waiting:
            if holder[0] is not None:
                yield holder, max(deadline, min(silent_at, last))

    def _look_at_the_clock(self) -> None:
        self._timer = None
        first = min((late_at for _, late_at in self._awaited()), default=None)
        if first is None:
            return
        if first > self._loop.time():
            self._look_at(first)
        else:
            self._timer = self._loop.call_later(_GRACE_SECONDS, self._give_up_late)

    def _give_up_late(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = [holder for holder, late_at in self._awaited() if late_at <= now]
        if late:
            self.timeouts += len(late)
            if now - self._late_at >= self._seconds:
                # Of those that are asked one after the other many are late at once.
                self._late += 1
                self._late_at = now
            if self._late >= _GIVE_UP_AFTER and self._link is not None:
                self._link.close("it does not answer in time")
                return
            error = Unreachable("it did not answer in time")
            for holder in late:
                done, holder[0] = holder[0], None
                if done is not None:
                    done(error)
        self._look_at_the_clock()

    def _on_lost(self, reason: str) -> None:
        self._link = None
        self._down(reason)
        waiting, self._waiting, self._bytes, self._out = self._waiting, deque(), 0, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        error = Unreachable(reason)
        for holder, *_ in waiting:
            if holder[0] is not None:
                holder[0](error)
        if not self._closed:
            self._connecting = self._loop.create_task(self._connect())

    def _down(self, reason: str) -> None:
        self.failures += 1
        self.problem = reason
        if self.ready or self.down_since is None:
            self.down_since = time.time()
        self.ready = False
        if self.on_down is not None:
            self.on_down()

    async def _connect(self) -> None:
        while not self._closed:
            try:
                link = await connect(
                    self.host,
                    self.port,
                    self._address,
                    self._context,
                    seconds=_CONNECT_SECONDS,
                    probe_seconds=self._timeout,
                )
            except Unreachable as error:
                self._down(str(error))
            else:
                self._take(link)
                return
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311  (spreads, hides nothing)
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _take(self, link: Link) -> None:
        self._connecting = None
        if link.lost is not None:
            self._on_lost(link.lost)
            return
        self._link = link
        self.scripts.clear()
        link.on_reply, link.on_lost = self._on_reply, self._on_lost
        self._late = 0
        self.ready, self.problem, self.down_since = True, None, None
        if self.on_ready is not None:
            self.on_ready()
