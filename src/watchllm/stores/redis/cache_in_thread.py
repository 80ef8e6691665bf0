"""The shared cache for who has no event loop: commands, the console, an import. Its loop runs in a thread of its own,
and every call waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import hiredis

from watchllm.cache.entry import CacheStats, Entry, InvalidationFilter
from watchllm.domain.errors import Unavailable
from watchllm.stores.redis.address import parse
from watchllm.stores.redis.cache import RedisExactStore
from watchllm.stores.redis.cache_layout import CHANNEL, GENERATION, REPLACED
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.link import Unreachable
from watchllm.stores.redis.purge import number_in
from watchllm.stores.redis.subscription import Subscription

T = TypeVar("T")

_SECONDS = 60.0
_OPEN_SECONDS = 2.0
# No request waits for a command: what Redis, or a busy machine, answers late is still an answer.
_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 0.002


class RedisStoreInThread:
    """One process's view of the cache in Redis; the port `cache.entry.ExactStore`. `get` fetches first.

    Opens within two seconds whether or not Redis can be reached: then nothing is found and nothing is stored. Raises
    ValueError for a URL that cannot be read.
    """

    is_remote = True

    def __init__(self, url: str, now_ms: Callable[[], int], *, memory_bytes: int = 1 << 20) -> None:
        address = parse(url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="watchllm-redis", daemon=True)
        self._thread.start()
        self._closed = False

        async def begin() -> None:
            self._client = Client(address, self._loop, _ANSWER_SECONDS)
            self.store = store = RedisExactStore(
                self._client, self._client, self._loop, memory_bytes=memory_bytes, now_ms=now_ms
            )

            def on_message(channel: bytes, message: bytes) -> None:
                if channel == CHANNEL:
                    store.heard(message)
                else:
                    store.heard_replaced(message)

            self._subscription = Subscription(
                address,
                (CHANNEL, REPLACED),
                on_message,
                lambda: store.listening(connected=True),
                self._loop,
                lambda: store.listening(connected=False),
            )
            await _until(lambda: store.is_in_touch, _OPEN_SECONDS)

        self._run(begin())

    def get(self, project: bytes, key: bytes) -> Entry | None:
        return self._run(self._get(project, key))

    async def _get(self, project: bytes, key: bytes) -> Entry | None:
        found: asyncio.Future[Entry | None] = self._loop.create_future()

        def done() -> None:
            found.set_result(self.store.get(project, key))

        return await found if self.store.fetch(project, [key], done) else self.store.get(project, key)

    def fetch(self, project: bytes, keys: Sequence[bytes], done: Callable[[], None]) -> bool:
        """`get` has seen to it."""
        return False

    def put(self, project: bytes, key: bytes, entry: Entry, begun_ms: int) -> None:
        self._call(lambda: self.store.put(project, key, entry, begun_ms))

    def remove(self, project: bytes, key: bytes) -> None:
        self._call(lambda: self.store.remove(project, key))

    def invalidated_since(self, project: bytes, model: str, kind: str, begun_ms: int, key: bytes | None = None) -> bool:
        self._run(self._get(project, b"no such key"))
        return self._call(lambda: self.store.invalidated_since(project, model, kind, begun_ms, key))

    async def invalidate(self, project: bytes, what: InvalidationFilter) -> int:
        return self._run(self.store.invalidate(project, what))

    async def stats(self, project: bytes) -> CacheStats:
        return self._run(self.store.stats(project))

    def flush(self) -> None:
        self._run(self.store.settled(_SECONDS / 2))

    def totals(self) -> CacheStats:
        """Of the whole Redis, whatever it holds: keys, bytes of memory, and their bound. Raises Unavailable."""
        return self._run(self._totals())

    async def _totals(self) -> CacheStats:
        try:
            keys = await self._client.call(GENERATION, "DBSIZE", seconds=_OPEN_SECONDS)
            memory = await self._client.call(GENERATION, "INFO", "memory", seconds=_OPEN_SECONDS)
        except (Unreachable, hiredis.ReplyError) as error:
            raise Unavailable(f"the cache in Redis cannot be read ({error}); try again") from None
        return CacheStats(keys, number_in(memory, b"used_memory"), {}, number_in(memory, b"maxmemory"))

    def health(self) -> str | None:
        return self.store.health()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        await self.store.settled(_OPEN_SECONDS)
        self.store.close()
        self._subscription.close()
        self._client.close()
        await asyncio.sleep(0)  # What was cancelled ends.

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_SECONDS)

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._run(call())


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Until `condition`, or that time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition() and loop.time() < deadline:  # noqa: ASYNC110  (once, where a command begins)
        await asyncio.sleep(_PAUSE_SECONDS)
