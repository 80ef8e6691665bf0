"""Entries, clocks and keys for the tests of exact stores, and the adapters that the contract suite runs against."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from watchllm.cache.entry import NEVER, CacheStats, Entry, ExactStore, InvalidationFilter
from watchllm.domain.usage import TokenUsage
from watchllm.stores.lmdb.cache import LmdbExactStore
from watchllm.stores.redis.cache_in_thread import RedisStoreInThread

START_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
MAX_BYTES = 32 << 20

Opener = Callable[..., ExactStore]
"""Opens a store in the test's folder, of MAX_BYTES or of as many as it is told."""


class Clock:
    """A wall clock that only the test moves; callable, in epoch milliseconds."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: int) -> int:
        self.now_ms += ms
        return self.now_ms


class StoreFactory(Protocol):
    def __call__(self, place: Path, max_bytes: int, now_ms: Callable[[], int]) -> ExactStore: ...


def open_lmdb(place: Path, max_bytes: int, now_ms: Callable[[], int]) -> LmdbExactStore:
    return LmdbExactStore.open(place / "exact", max_bytes=max_bytes, now_ms=now_ms)


def open_redis(place: Path, max_bytes: int, now_ms: Callable[[], int]) -> RedisStoreInThread:
    """In the server whose URL is in the folder."""
    return RedisStoreInThread((place / "redis.url").read_text(), now_ms)


ADAPTERS: dict[str, StoreFactory] = {"lmdb": open_lmdb, "redis": open_redis}
"""Every adapter of the port; another one is added here and must pass the same suite."""


def project(number: int) -> bytes:
    return number.to_bytes(16, "big")


def key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def entry(
    created_ms: int = START_MS,
    *,
    body: bytes = b'{"id":"x"}',
    model: str = "gpt-4o-mini",
    kind: str = "generate",
    ttl_ms: int | None = HOUR_MS,
    usage: TokenUsage | None = None,
    cost: int | None = 1234,
) -> Entry:
    expires = NEVER if ttl_ms is None else created_ms + ttl_ms
    return Entry(created_ms, expires, kind, "openai", model, usage, cost, "key_" + "0" * 32, body)


def sealed_body(number: int, size: int) -> bytes:
    """A body that says itself whether it is whole: its SHA-256, then `size` bytes that differ by `number`."""
    content = (number.to_bytes(8, "big") * (size // 8 + 1))[:size]
    return hashlib.sha256(content).digest() + content


def is_whole(body: bytes) -> bool:
    return hashlib.sha256(body[32:]).digest() == body[:32]


def invalidate(store: ExactStore, of: bytes, what: InvalidationFilter | None = None) -> int:
    return asyncio.run(_invalidate(store, of, what or InvalidationFilter()))


def stats(store: ExactStore, of: bytes) -> CacheStats:
    return asyncio.run(_stats(store, of))


async def _invalidate(store: ExactStore, of: bytes, what: InvalidationFilter) -> int:
    return await asyncio.wait_for(store.invalidate(of, what), 30)


async def _stats(store: ExactStore, of: bytes) -> CacheStats:
    return await asyncio.wait_for(store.stats(of), 30)
