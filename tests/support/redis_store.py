"""The shared cache as tests of any exact store use it: its loop runs in a thread, and every call waits for it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from watchllm.cache.entry import CacheStats, Entry, InvalidationFilter
from watchllm.stores.redis.address import parse
from watchllm.stores.redis.cache import RedisExactStore
from watchllm.stores.redis.cache_layout import CHANNEL
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.subscription import Subscription

T = TypeVar("T")

_SECONDS = 30.0


class RedisStoreInThread:
    """One process's view of the cache in Redis. `get` fetches first, as a proxy does."""

    is_remote = True

    def __init__(self, url: str, now_ms: Callable[[], int], *, memory_bytes: int = 1 << 20) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._closed = False
        self._run(self._open(url, now_ms, memory_bytes))

    async def _open(self, url: str, now_ms: Callable[[], int], memory_bytes: int) -> None:
        address = parse(url)
        self.client = Client(address, self._loop)
        self.store = store = RedisExactStore(self.client, self._loop, memory_bytes=memory_bytes, now_ms=now_ms)
        connected = asyncio.Event()

        def on_connected() -> None:
            store.listening(connected=True)
            connected.set()

        self.subscription = Subscription(
            address, (CHANNEL,), lambda _channel, message: store.heard(message), on_connected, self._loop
        )
        await connected.wait()
        while not store._is_in_touch():
            await asyncio.sleep(0.002)

    def get(self, project: bytes, key: bytes) -> Entry | None:
        return self._run(self._get(project, key))

    async def _get(self, project: bytes, key: bytes) -> Entry | None:
        found: asyncio.Future[Entry | None] = self._loop.create_future()

        def done() -> None:
            found.set_result(self.store.get(project, key))

        return await found if self.store.fetch(project, [key], done) else self.store.get(project, key)

    def fetch(self, project: bytes, keys: Sequence[bytes], done: Callable[[], None]) -> bool:
        return False

    def put(self, project: bytes, key: bytes, entry: Entry, begun_ms: int) -> None:
        self._call(lambda: self.store.put(project, key, entry, begun_ms))

    def remove(self, project: bytes, key: bytes) -> None:
        self._call(lambda: self.store.remove(project, key))

    def invalidated_since(self, project: bytes, model: str, kind: str, begun_ms: int) -> bool:
        self._run(self._get(project, b"no such key"))
        return self._call(lambda: self.store.invalidated_since(project, model, kind, begun_ms))

    async def invalidate(self, project: bytes, what: InvalidationFilter) -> int:
        return self._run(self.store.invalidate(project, what))

    async def stats(self, project: bytes) -> CacheStats:
        return self._run(self.store.stats(project))

    def flush(self) -> None:
        self._run(self._flush())

    async def _flush(self) -> None:
        while self.store.pending:
            await asyncio.sleep(0.002)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        await self._flush()
        self.store.close()
        self.subscription.close()
        self.client.close()
        await asyncio.sleep(0)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_SECONDS)

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._run(call())
