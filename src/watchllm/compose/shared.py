"""What a proxy process shares with all others through Redis; loaded where WATCHLLM_REDIS_URL is set."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from watchllm.configuration import Configuration, ConfigurationError
from watchllm.stores.redis.address import parse
from watchllm.stores.redis.cache import RedisExactStore
from watchllm.stores.redis.cache_layout import CHANNEL as INVALIDATED
from watchllm.stores.redis.cache_layout import REPLACED
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.leases import CHANNEL as ENDED
from watchllm.stores.redis.leases import RedisLeases
from watchllm.stores.redis.limiter import SharedLimiter
from watchllm.stores.redis.limits_layout import CHANNEL as LIMITS
from watchllm.stores.redis.snapshot_follower import SnapshotFollower
from watchllm.stores.redis.snapshot_layout import CHANNEL as SNAPSHOT
from watchllm.stores.redis.subscription import Subscription

if TYPE_CHECKING:
    from watchllm.cache.entry import InvalidationFilter
    from watchllm.journal.journal import Journal
    from watchllm.proxy.flight import Flight

_SETTLE_SECONDS = 1.0
_REACH_SECONDS = 0.25
_PAUSE_SECONDS = 0.001


class Shared:
    """One connection for commands, one for what is stored, one for messages, and what lives of them. Made on the
    running loop. `on_invalidation` is told each invalidation, of whatever process."""

    def __init__(self, configuration: Configuration, loop: asyncio.AbstractEventLoop) -> None:
        assert configuration.redis_url is not None
        try:
            address = parse(configuration.redis_url)
        except ValueError as error:
            raise ConfigurationError(f"WATCHLLM_REDIS_URL is not valid; expected {error}") from None
        self.on_invalidation: Callable[[bytes, InvalidationFilter], None] = _nobody
        self.client = Client(address, loop, configuration.redis_timeout)
        self._follower = SnapshotFollower(self.client, os.path.join(configuration.directory, "snapshot"), loop)
        self._bulk = Client(address, loop, configuration.redis_timeout)
        self.cache = RedisExactStore(
            self.client, self._bulk, loop, memory_bytes=configuration.cache_memory_bytes, now_ms=_now_ms
        )
        self.flights: dict[bytes, Flight] = {}
        self.leases = RedisLeases(self.client, self._bulk, loop, self.flights.__contains__)
        self._limits: SharedLimiter | None = None
        self._limits_on_outage = configuration.limits_on_outage
        self._loop = loop
        channels = (SNAPSHOT, INVALIDATED, REPLACED, ENDED, LIMITS)
        self._subscription = Subscription(address, channels, self._on_message, self._on_connected, loop, self._on_lost)

    async def reached(self) -> None:
        """Until Redis is, for a moment: a proxy that starts beside others need not begin with misses."""
        deadline = time.monotonic() + _REACH_SECONDS
        while self.client.problem is not None and time.monotonic() < deadline:  # noqa: ASYNC110  (once, at the start)
            await asyncio.sleep(_PAUSE_SECONDS)

    def keep_limits(self, journal: Journal) -> SharedLimiter:
        """The limits that all proxies share; what is used under them is written in `journal` first."""
        self._limits = SharedLimiter(self.client, self._loop, journal.series, journal.end, self._limits_on_outage)
        return self._limits

    def state(self) -> str:
        """`ok`, or what is wrong and since when: requests are served all the same."""
        since = self.client.down_since
        if since is not None:
            told = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
            where = self.client.address.shown
            return f"degraded: Redis at {where} cannot be reached since {told} ({self.client.problem})"
        return "ok"

    def snapshot_problem(self) -> str | None:
        """Why this host's copy of the snapshot may be behind, and since when; None = it is in step."""
        return self._follower.problem

    def counters(self) -> dict[str, int]:
        """By name, for the operators."""
        cache = self.cache.counters
        of_cache = {name: getattr(cache, name) for name in cache.__struct_fields__}
        both = (self.client.counters(), self._bulk.counters())
        return of_cache | {f"command_{name}": sum(each[name] for each in both) for name in both[0]}

    async def close(self) -> None:
        """Bring away what was stored last, for a moment, and end."""
        self._subscription.close()
        await self._follower.close()
        self.leases.close()
        if self._limits is not None:
            await self._limits.close()
        await self.cache.settled(_SETTLE_SECONDS)
        self.cache.close()
        self.client.close()
        self._bulk.close()

    def _on_message(self, channel: bytes, data: bytes) -> None:
        if channel == INVALIDATED:
            self.on_invalidation(*self.cache.heard(data))
        elif channel == REPLACED:
            self.cache.heard_replaced(data)
        elif channel == ENDED:
            self.leases.heard(data)
        elif channel == LIMITS:
            if self._limits is not None:
                self._limits.begun_anew(data.decode())
        else:
            self._follower.look()

    def _on_connected(self) -> None:
        self.cache.listening(connected=True)
        self._follower.look()

    def _on_lost(self) -> None:
        self.cache.listening(connected=False)


def _nobody(_project: bytes, _what: InvalidationFilter) -> None:
    """Before the proxy says what it does with invalidations."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
