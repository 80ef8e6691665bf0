"""The HTTP/1.1 client: keep-alive pools per origin, bounds in number and time, one write per request.

A call over an idle connection is sent inside `send`, without a task or a future; its answer runs from the parser's
callbacks straight into the caller's sink. What is slower (opening, waiting, retrying, expiring) is off it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from watchllm.wire.call import TICK, PooledCall, Upload
from watchllm.wire.dial import Dialer
from watchllm.wire.forward_proxy import ForwardProxies
from watchllm.wire.lane import Bounds, Lane, LaneStats
from watchllm.wire.pieces import FOLD_EVERY, fold
from watchllm.wire.types import BadMessage, Call, Headers, Origin, ResponseSink, Timeouts, WireError

if TYPE_CHECKING:
    import ssl

__all__ = ["ClientPool", "LaneStats", "Response", "Upload"]

_QUIET_TICKS: Final = 40  # ticks without a call until the clock slows down
_SLOW_TICK: Final = 1.0  # seconds; only idle connections are left to look after


class Response(NamedTuple):
    status: int
    headers: Headers
    body: bytes


class ClientPool:
    """Belongs to the event loop of its first call.

    `max_connections` and `max_waiting` are per origin; an idle connection is closed after `keepalive_seconds`.
    `allow_private` lets untrusted origins have any address. `proxy_env` is read for HTTPS_PROXY and its kin.
    `tls_context` makes the context for https when it is first needed, in a thread; the default trusts what the system
    trusts. Raises ValueError for a proxy URL it cannot use.
    """

    def __init__(
        self,
        *,
        max_connections: int = 512,
        max_waiting: int = 4096,
        keepalive_seconds: float = 60.0,
        allow_private: bool = False,
        proxy_env: Mapping[str, str] | None = None,
        tls_context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._bounds = Bounds(max_connections, max_waiting, keepalive_seconds)
        self._dialer = Dialer(
            allow_private=allow_private, proxies=ForwardProxies(proxy_env or {}), tls_context=tls_context
        )
        self._lanes: dict[Origin, Lane] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_tick = 0.0
        self._quiet_ticks = 0
        self._excused = False
        self._closed = False

    def send(
        self,
        origin: Origin,
        method: bytes,
        target: bytes,
        head: bytes,
        body: bytes | None,
        sink: ResponseSink,
        timeouts: Timeouts,
        *,
        upload: Upload | None = None,
    ) -> Call:
        """Begin a request. `head` is header lines, each with its line end, without Host, Content-Length,
        Transfer-Encoding and Connection. A body that comes bit by bit is sent with `body=None` and an `upload`, through
        the call's `write` and `end`. Every outcome goes to `sink`, and never before this has returned.

        A call that a kept-alive connection loses before anything of the answer came is sent once more over a new
        connection (unless bytes of a streamed body are gone).
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        now = loop.time()
        if self._quiet_ticks or self._timer is None:
            self._wake(loop, now)
        lane = self._lanes.get(origin)
        if lane is None:
            lane = self._lanes[origin] = Lane(origin, self._bounds, self._dialer, loop)
            if self._closed:
                lane.shut()
        call = PooledCall(lane, method, target, head, body, sink, timeouts, upload, now)
        lane.begin(call, now)
        return call

    async def fetch(
        self,
        origin: Origin,
        method: bytes,
        target: bytes,
        head: bytes,
        body: bytes | None,
        timeouts: Timeouts,
        *,
        max_bytes: int,
    ) -> Response:
        """The whole answer at once. Raises a WireError; BadMessage when the body exceeds `max_bytes`."""
        collector = _Collector(asyncio.get_running_loop(), max_bytes)
        call = collector.call = self.send(origin, method, target, head, body, collector, timeouts)
        try:
            return await collector.response
        finally:
            call.cancel()

    def stats(self) -> dict[Origin, LaneStats]:
        return {origin: lane.stats() for origin, lane in self._lanes.items()}

    async def close(self) -> None:
        """Fail what is under way, close every connection, and wait until the sockets are closed. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        openers = [opener for lane in self._lanes.values() for opener in lane.shut()]
        if openers:
            await asyncio.wait(openers)
        for lane in self._lanes.values():
            await lane.emptied()

    def _wake(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """The clock ticks at full pace as long as calls are under way."""
        slow = self._quiet_ticks >= _QUIET_TICKS
        self._quiet_ticks = 0
        if self._timer is None or slow:
            if self._timer is not None:
                self._timer.cancel()
            self._last_tick = now
            self._timer = loop.call_later(TICK, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for every time-out of every call: cheaper than four timers per call, and exact enough."""
        now = loop.time()
        lanes = list(self._lanes.values())
        quiet = all(lane.quiet for lane in lanes)
        self._quiet_ticks = self._quiet_ticks + 1 if quiet else 0
        slow = self._quiet_ticks >= _QUIET_TICKS
        # Before anything of the callers' runs: what they raise must not stop the clock.
        self._timer = loop.call_later(_SLOW_TICK if slow else TICK, self._tick, loop) if lanes else None
        # A loop that was held up has not read its sockets yet: the peers' silence is ours until it has (for one tick: a
        # loop that is always late must still expire).
        self._excused = held_up = now - self._last_tick > 4 * TICK and not self._excused
        self._last_tick = now
        for lane in lanes:
            overdue = lane.overdue(now)
            if not held_up:
                for call in overdue:
                    if call.due <= now:
                        call.expire(now)
            if lane.idle:
                lane.expire_idle(now)
            if not lane.alive and lane.quiet:
                del self._lanes[lane.origin]  # origins are named by projects: none may stay for good


class _Collector:
    """Gathers an answer."""

    call: Call

    def __init__(self, loop: asyncio.AbstractEventLoop, max_bytes: int) -> None:
        self.response: asyncio.Future[Response] = loop.create_future()
        self._left = max_bytes
        self._status = 0
        self._headers: Headers = []
        self._pieces: list[bytes] = []

    def on_response(self, status: int, headers: Headers) -> None:
        self._status = status
        self._headers = headers

    def on_data(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self.call.cancel()
            self.on_failure(BadMessage("the answer is larger than its reader allows"))
        else:
            self._pieces.append(data)
            if len(self._pieces) % FOLD_EVERY == 0:
                fold(self._pieces)

    def on_complete(self) -> None:
        if not self.response.done():
            self.response.set_result(Response(self._status, self._headers, b"".join(self._pieces)))

    def on_failure(self, error: WireError) -> None:
        if not self.response.done():
            self.response.set_exception(error)
