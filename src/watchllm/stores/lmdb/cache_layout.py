"""The file of the exact cache: its tree of sub-databases, their records, and how it is opened.

    info           name → value: `format` (u32), `total` (entries u64, bytes u64)
    entries        project 16 B + key 32 B → the Entry in MessagePack
    meta           the same key → META, kind, model: all that eviction and invalidation need without touching a body
    recency        project + `used` (u64) + key → nothing: each project's entries, least recently used first
    expiry         `expires_ms` (u64) + project + key → nothing: entries that expire, soonest first
    projects       project → {kind: [entries, bytes]} in MessagePack
    invalidations  project + `at` (u64) → Invalidation: refuses the puts of calls that began earlier; kept 2 h
    purges         the same key → Invalidation: its deletions are not finished

Integers are big-endian, so that keys sort by them. `used`, `written` and `at` are ids of write transactions: unlike
a clock they never go backwards, and all processes share them. Counters change in the same transaction as what they
count. Bytes are an estimate of what an entry costs on disk, indexes included.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec

from watchllm.cache.entry import Entry, InvalidationFilter
from watchllm.stores.lmdb.derived_file import DATA_FILE, U64, open_derived, value_cost

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

FORMAT = 1
ID_LENGTH = 48
PROJECT_LENGTH = 16

_NAMES = ("info", "entries", "meta", "recency", "expiry", "projects", "invalidations", "purges")
TOTAL_KEY = b"total"
TOTAL = struct.Struct(">QQ")
META = struct.Struct(">qqQQIH")
"""created_ms, expires_ms, written, used, cost, length of `kind`."""

_INDEX_COST = 640  # meta, recency and expiry at the fill that random keys reach: benchmarks/cache_store.py measures


class Databases(msgspec.Struct, frozen=True):
    """Handles of the sub-databases."""

    info: Any
    entries: Any
    meta: Any
    recency: Any
    expiry: Any
    projects: Any
    invalidations: Any
    purges: Any


class Meta(msgspec.Struct, frozen=True):
    """What is known of an entry without its body."""

    created_ms: int
    expires_ms: int
    written: int
    used: int
    cost: int
    kind: str
    model: str

    def pack(self) -> bytes:
        kind = self.kind.encode()
        fixed = META.pack(self.created_ms, self.expires_ms, self.written, self.used, self.cost, len(kind))
        return b"".join((fixed, kind, self.model.encode()))

    @classmethod
    def unpack(cls, data: bytes) -> Meta:
        created, expires, written, used, cost, kind_length = META.unpack_from(data)
        kind_end = META.size + kind_length
        return cls(created, expires, written, used, cost, data[META.size : kind_end].decode(), data[kind_end:].decode())


class Invalidation(msgspec.Struct, frozen=True, array_like=True):
    """One call of `invalidate`: what matches is void if written before transaction `at` or begun by `at_ms`."""

    at: int
    at_ms: int
    what: InvalidationFilter

    def refuses(self, model: str, kind: str, created_ms: int, begun_ms: int, key: bytes | None) -> bool:
        """Whether the answer of a call that began at `begun_ms` must not be given to others."""
        return begun_ms <= self.at_ms and self.what.matches(model, kind, created_ms, key)

    def refuses_entry(self, key: bytes, entry: Entry, begun_ms: int) -> bool:
        """Whether the answer of a call that began at `begun_ms` must not be stored at `key`."""
        return begun_ms <= self.at_ms and self.what.matches(
            entry.model, entry.kind, entry.created_ms, key, entry.key_id
        )


def recency_key(entry_id: bytes, used: int) -> bytes:
    return entry_id[:PROJECT_LENGTH] + U64.pack(used) + entry_id[PROJECT_LENGTH:]


def expiry_key(entry_id: bytes, expires_ms: int) -> bytes:
    return U64.pack(max(expires_ms, 0)) + entry_id


def cost_of(value_length: int) -> int:
    """Bytes on disk that a value of this length is taken to cost, its key and indexes included."""
    return value_cost(value_length, ID_LENGTH) + _INDEX_COST


def open_file(folder: StrPath, max_bytes: int) -> tuple[lmdb.Environment, Databases, str | None]:
    """Open or create the cache in `folder`: the environment, its handles, and a note where its content was dropped.

    Raises StoreBroken.
    """
    env, handles, found = open_derived(folder, max_bytes, _NAMES, FORMAT)
    note = None
    if found is not None:
        note = f"the cache {env.path()}/{DATA_FILE} had format {found}, this version writes {FORMAT}: it was emptied"
    return env, Databases(*handles), note
