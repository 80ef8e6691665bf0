"""The exact cache's store by itself: reading, putting, committing, and opening 100,000 entries, beside bare LMDB."""

import os
import random
import time
from pathlib import Path

import lmdb
import msgspec

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from watchllm.cache.entry import Entry
from watchllm.domain.usage import TokenUsage
from watchllm.stores.lmdb.cache import LmdbExactStore

ENTRIES = 100_000
BATCH = 10_000
BODY = b"x" * 1024
PROJECT = b"p" * 16
MAX_BYTES = 1 << 30


def run(bench: Bench) -> list[Row]:
    return measure(bench.folder / "exact-store")


def measure(folder: Path) -> list[Row]:
    """The figures, from a store made in `folder`."""
    choose = random.Random(1)
    keys = [choose.randbytes(32) for _ in range(ENTRIES)]
    store = LmdbExactStore.open(folder, max_bytes=MAX_BYTES, now_ms=_now_ms)
    put_seconds, commit_seconds = [], 0.0
    for start in range(0, ENTRIES, BATCH):
        batch = [(key, _entry()) for key in keys[start : start + BATCH]]
        began = time.perf_counter()
        for key, entry in batch:
            store.put(PROJECT, key, entry, entry.created_ms)
        put_seconds.append(time.perf_counter() - began)
        store.flush()
        commit_seconds += time.perf_counter() - began
    counters = store.counters()
    on_disk = (folder / "data.mdb").stat().st_blocks * 512
    get_seconds = min(_read_all(store, keys[:BATCH]) for _ in range(5))
    busy_rate = _commit_rate_beside_reads(store, keys)
    store.close()
    bare_seconds = _bare_lmdb(folder, keys[:BATCH])
    began = time.perf_counter()
    store = LmdbExactStore.open(folder, max_bytes=MAX_BYTES, now_ms=_now_ms)
    store.get(PROJECT, keys[0])
    open_seconds = time.perf_counter() - began
    store.close()
    get_ns, bare_ns = get_seconds / BATCH * 1e9, bare_seconds / BATCH * 1e9
    return [
        Row("get, 1 KiB body, decoded", get_ns, "ns", bare_ns, "ns bare LMDB", Target("≤", 3000)),
        Row("put, on the caller's side", min(put_seconds) / BATCH * 1e6, "µs"),
        Row("entries committed", ENTRIES / commit_seconds, "1/s"),
        Row("entries committed while one thread does nothing but read", busy_rate, "1/s"),
        Row(f"open and first get, {ENTRIES:,} entries", open_seconds * 1e3, "ms", target=Target("≤", 2)),
        Row("bytes on disk for a byte accounted", on_disk / counters["bytes"], "", target=Target("≤", 2)),
    ]


def _commit_rate_beside_reads(store: LmdbExactStore, keys: list[bytes]) -> float:
    fresh = [os.urandom(32) for _ in range(BATCH)]
    began = time.perf_counter()
    for key in fresh:
        store.put(PROJECT, key, _entry(), _now_ms())
    position = 0
    while store.counters()["pending_bytes"]:
        for key in keys[position : position + 200]:
            store.get(PROJECT, key)
        position = (position + 200) % (ENTRIES - 200)
    return BATCH / (time.perf_counter() - began)


def _read_all(store: LmdbExactStore, keys: list[bytes]) -> float:
    get = store.get
    began = time.perf_counter()
    for key in keys:
        get(PROJECT, key)
    return time.perf_counter() - began


def _bare_lmdb(folder: Path, keys: list[bytes]) -> float:
    """The same entries read and decoded without the store around it; seconds."""
    decode = msgspec.msgpack.Decoder(Entry).decode
    with lmdb.open(str(folder), max_dbs=8, max_spare_txns=1, map_size=MAX_BYTES) as env:
        entries = env.open_db(b"entries", create=False)
        best = float("inf")
        for _ in range(5):
            began = time.perf_counter()
            for key in keys:
                with env.begin(entries, None, False, True) as txn:
                    value = txn.get(PROJECT + key)
                    assert value is not None
                    decode(value)
            best = min(best, time.perf_counter() - began)
    return best


def _entry() -> Entry:
    now = _now_ms()
    usage = TokenUsage(10, 20)
    return Entry(now, now + 86_400_000, "generate", "openai", "gpt-4o-mini", usage, 12_345, "key_" + "0" * 32, BODY)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
