"""What the stages of a request work with; one object a process, put together by the composition root."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from watchllm.cache.entry import ExactStore
from watchllm.proxy.flight import Flight
from watchllm.proxy.settle import Counters, Settlement
from watchllm.proxy.tenants import Tenants
from watchllm.proxy.upstream import Destinations
from watchllm.wire.client import ClientPool
from watchllm.wire.server import ServerLimits
from watchllm.wire.types import Timeouts

# Of a client's request only these lines go upstream: its credentials, cookies and addresses never do.
_PASSED_UP = (b"accept", b"content-type", b"idempotency-key", b"openai-beta")
# These name the client's own account at the provider: they fit a provider key of the project's own only.
_PASSED_UP_WITH_OWN_KEY = (b"openai-organization", b"openai-project")
_COMMON_LINES = b"accept-encoding: identity\r\nuser-agent: watchllm\r\n"
_UNUSUAL = frozenset((*_PASSED_UP, *_PASSED_UP_WITH_OWN_KEY)) - {b"accept", b"content-type"}
_USUAL_LINES = b"accept: application/json\r\ncontent-type: application/json\r\n" + _COMMON_LINES


@dataclass(slots=True)
class Services:
    """Stores, pools, clocks and bounds of one proxy process."""

    loop: asyncio.AbstractEventLoop
    tenants: Tenants
    cache: ExactStore
    pool: ClientPool
    destinations: Destinations
    settlement: Settlement
    counters: Counters
    limits: ServerLimits
    timeouts: Timeouts
    flights: dict[bytes, Flight]
    """Calls under way that may be joined, by partition and key."""
    dependencies: Callable[[], dict[str, str]]
    """The state of each dependency by name: `ok`, or what is wrong with it."""
    recorder_lag: Callable[[], float | None] = lambda: None
    """Seconds by which usage is late in the database; None = nobody brings it there."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def forwarded(self, headers: dict[bytes, bytes], *, own_key: bool) -> bytes:
        """The header lines of a client's request that go upstream, and our own."""
        usual = headers.get(b"content-type") == headers.get(b"accept") == b"application/json"
        if usual and _UNUSUAL.isdisjoint(headers):
            return _USUAL_LINES
        lines = [b"%b: %b\r\n" % (name, headers[name]) for name in _PASSED_UP if name in headers]
        if own_key:
            lines += [b"%b: %b\r\n" % (name, headers[name]) for name in _PASSED_UP_WITH_OWN_KEY if name in headers]
        return b"".join(lines) + _COMMON_LINES
