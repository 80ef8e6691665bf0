"""The exact cache as its operators use it, from a process that is no proxy: sizes, and purges that are in force on
every running proxy of the host when they return, and on others as soon as they hear of it."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Union

import lmdb

from watchllm.cache.entry import CacheStats, InvalidationFilter
from watchllm.compose.semantic import open_vectors
from watchllm.configuration import Configuration
from watchllm.control import vendors
from watchllm.domain.errors import Unavailable
from watchllm.proxy import cache_api
from watchllm.proxy.tenant import partition_of
from watchllm.routing.resolve import Router
from watchllm.stores import home
from watchllm.stores.lmdb.cache import LmdbExactStore
from watchllm.stores.lmdb.vectors import LmdbVectorStore

if TYPE_CHECKING:
    from watchllm.stores.redis.cache_in_thread import RedisStoreInThread

CACHE_FOLDER = "cache"


OperatedStore = Union[LmdbExactStore, "RedisStoreInThread"]
"""On this host, or shared."""


class CacheAdmin:
    """A project's entries are those of its live keys and, apart from them, those of its test keys."""

    def __init__(self, store: OperatedStore, vectors: LmdbVectorStore) -> None:
        self._store = store
        self._vectors = vectors

    def totals(self) -> CacheStats | str:
        """All projects together (`by_kind` is empty), or why they cannot be told just now. Where the cache is in Redis:
        all that is there."""
        if not isinstance(self._store, LmdbExactStore):
            try:
                return self._store.totals()
            except Unavailable as error:
                return str(error)
        try:
            counters = self._store.counters()
        except lmdb.Error as error:
            # A proxy may have enlarged the file: a look-up that fails makes this store adopt the new size.
            asyncio.run(self._store.stats(partition_of("", test=False)))
            return f"the cache cannot be read: {error}"
        return CacheStats(counters["entries"], counters["bytes"], {}, self._store.max_bytes)

    def stats(self, project_id: str, *, test: bool) -> CacheStats:
        return asyncio.run(self._store.stats(partition_of(project_id, test=test)))

    def purge(self, project_id: str, what: InvalidationFilter) -> int:
        """Forget what matches, of live and of test keys; the number forgotten.

        The file's own records see to the proxies: each reads them with its next look-up. Raises Unavailable.
        """

        async def both() -> int:
            count = 0
            for test in (False, True):
                project = partition_of(project_id, test=test)
                count += await self._store.invalidate(project, what)
                await self._vectors.purge(project, what)
            return count

        return asyncio.run(both())

    def forget_prompts(self, project_id: str, what: InvalidationFilter) -> int:
        """Let like questions no longer find what matches; how many. The same questions still do. Raises Unavailable."""

        async def both() -> int:
            return sum([await self._vectors.purge(partition_of(project_id, test=test), what) for test in (False, True)])

        return asyncio.run(both())


def invalidation_filter(document: dict[str, Any]) -> InvalidationFilter:
    """`{model?, kind?, before?, entry?}` as `/v1/cache/invalidate` reads it; nothing given: everything. Raises
    BadRequest."""
    known = Router(vendors.vendors(), {})
    return cache_api.invalidation_filter(document or {"all": True}, known.without_provider)


@contextmanager
def open_cache(configuration: Configuration) -> Iterator[CacheAdmin]:
    """The cache, made if it is missing. Raises HomeUnusable or StoreBroken."""
    with open_store(configuration) as store, closing(open_vectors(configuration)) as vectors:
        yield CacheAdmin(store, vectors)


@contextmanager
def open_store(configuration: Configuration) -> Iterator[OperatedStore]:
    """The cache's store, made if it is missing; what was put is written when the block ends. Raises as `open_cache`."""
    home.prepare(configuration.home)
    store: OperatedStore
    if configuration.redis_url is None:
        folder = configuration.home / CACHE_FOLDER
        store = LmdbExactStore.open(folder, max_bytes=configuration.cache_max_bytes, now_ms=now_ms)
    else:
        from watchllm.stores.redis.cache_in_thread import RedisStoreInThread  # few installations have one

        store = RedisStoreInThread(configuration.redis_url, now_ms)
    try:
        yield store
    finally:
        store.close()


def now_ms() -> int:
    """The wall clock, in epoch milliseconds."""
    return time.time_ns() // 1_000_000
