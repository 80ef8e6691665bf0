"""Vectors and stores of them for tests, and the adapters that the contract suite runs against."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from tests.support.exact_store import HOUR_MS, START_MS, key
from watchllm.cache.entry import NEVER, InvalidationFilter
from watchllm.cache.semantic.vectors import StoredVector, VectorStore, partition_of
from watchllm.stores.lmdb.vectors import LmdbVectorStore

VectorOpener = Callable[..., VectorStore]


def open_lmdb_vectors(
    place: Path,
    now_ms: Callable[[], int],
    *,
    max_bytes: int = 64 << 20,
    max_per_project: int = 10_000,
    max_per_source: int = 10_000,
    pending_bytes: int = 32 << 20,
) -> LmdbVectorStore:
    return LmdbVectorStore.open(
        place / "vectors",
        max_bytes=max_bytes,
        max_per_project=max_per_project,
        max_per_source=max_per_source,
        now_ms=now_ms,
        pending_bytes=pending_bytes,
    )


VECTOR_ADAPTERS: dict[str, Callable[..., VectorStore]] = {"lmdb": open_lmdb_vectors}
"""Every adapter of the port; another one is added here and must pass the same suite."""


def partition(project: int, context: int = 0, embedder: str = "static", version: str = "1") -> bytes:
    return partition_of(project.to_bytes(16, "big"), context.to_bytes(16, "big"), embedder, version)


def stored(
    number: int,
    created_ms: int = START_MS,
    *,
    source: str = "key_1",
    model: str = "gpt-4o-mini",
    kind: str = "generate",
    ttl_ms: int | None = HOUR_MS,
    size: int = 512,
) -> StoredVector:
    content = (number.to_bytes(4, "big") * (size // 4 + 1))[:size]
    expires = NEVER if ttl_ms is None else created_ms + ttl_ms
    return StoredVector(created_ms, expires, model, kind, source, content, content[:40])


def put(store: VectorStore, where: bytes, *numbers: int, **how: object) -> None:
    for number in numbers:
        assert store.put(where, key(number), stored(number, **how))  # type: ignore[arg-type]


def held(store: VectorStore, where: bytes) -> set[bytes]:
    """The keys of a partition, read in small pages."""
    found: list[bytes] = []
    while page := store.read(where, found[-1] if found else b"", 7):
        found += [entry_key for entry_key, _ in page]
    assert found == sorted(set(found))
    return set(found)


def keys(*numbers: int) -> set[bytes]:
    return {key(number) for number in numbers}


def purge(store: VectorStore, of: bytes, what: InvalidationFilter) -> int:
    async def run() -> int:
        return await asyncio.wait_for(store.purge(of, what), 30)

    return asyncio.run(run())
