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

import os
import struct
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec

from watchllm.cache.entry import InvalidationFilter
from watchllm.stores.lmdb.environment import StoreBroken

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

FORMAT = 1
ID_LENGTH = 48
PROJECT_LENGTH = 16
DATA_FILE = "data.mdb"

_NAMES = ("info", "entries", "meta", "recency", "expiry", "projects", "invalidations", "purges")
_FORMAT_KEY = b"format"
_U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")
TOTAL_KEY = b"total"
TOTAL = struct.Struct(">QQ")
META = struct.Struct(">qqQQIH")
"""created_ms, expires_ms, written, used, cost, length of `kind`."""

_PAGE = 4096
_LARGEST_INLINE = 1980  # LMDB moves a node of half a page and more to overflow pages of its own.
_INDEX_COST = 640  # meta, recency and expiry at the fill that random keys reach: benchmarks/cache_store.py measures
_MAP_SLACK = 128 << 20


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

    def refuses(self, model: str, kind: str, created_ms: int, begun_ms: int) -> bool:
        """Whether the answer of a call that began at `begun_ms` must not be stored."""
        return begun_ms <= self.at_ms and self.what.matches(model, kind, created_ms)


def recency_key(entry_id: bytes, used: int) -> bytes:
    return entry_id[:PROJECT_LENGTH] + U64.pack(used) + entry_id[PROJECT_LENGTH:]


def expiry_key(entry_id: bytes, expires_ms: int) -> bytes:
    return U64.pack(max(expires_ms, 0)) + entry_id


def cost_of(value_length: int) -> int:
    """Bytes on disk that a value of this length is taken to cost, its key and indexes included."""
    if value_length > _LARGEST_INLINE:
        return (value_length + 16 + _PAGE - 1) // _PAGE * _PAGE + _INDEX_COST
    return (value_length + ID_LENGTH) * 8 // 5 + _INDEX_COST


def map_size_for(max_bytes: int) -> int:
    """The bound of the file: twice the entries, for pages that are free or half filled, and room for transactions."""
    return 2 * max_bytes + _MAP_SLACK


def open_file(folder: StrPath, max_bytes: int) -> tuple[lmdb.Environment, Databases, str | None]:
    """Open or create the cache in `folder`: the environment, its handles, and a note where its content was dropped.

    Raises StoreBroken.
    """
    path = os.path.join(folder, DATA_FILE)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        env = lmdb.open(
            os.fspath(folder),
            map_size=map_size_for(max_bytes),
            mode=0o600,
            metasync=False,
            readahead=False,
            max_readers=512,
            max_dbs=32,
            max_spare_txns=4,
            lib_version=0,
        )
    except (lmdb.Error, OSError) as error:
        raise StoreBroken(advice(path, error)) from error
    try:
        check_length(env, path)
        databases, note = _open_databases(env, path)
    except lmdb.Error as error:
        env.close()
        raise StoreBroken(advice(path, error)) from error
    except StoreBroken:
        env.close()
        raise
    return env, databases, note


def _open_databases(env: lmdb.Environment, path: str) -> tuple[Databases, str | None]:
    # Handles outlive only a write transaction. It changes nothing in a file that is in order, and syncs nothing then.
    with env.begin(write=True) as writer:
        found = format_of(env, writer, path)
        note = None
        if found not in (None, FORMAT):
            for name in env.dbs(writer):
                writer.drop(env.open_db(name, writer, create=False))
            note = f"the cache {path} had format {found}, this version writes {FORMAT}: it was emptied"
        databases = Databases(*(env.open_db(name.encode(), writer) for name in _NAMES))
        if found != FORMAT:
            writer.put(_FORMAT_KEY, _U32.pack(FORMAT), db=databases.info)
    return databases, note


def format_of(env: lmdb.Environment, txn: lmdb.Transaction[bytes], path: str) -> int | None:
    """The file's format, None for an empty file. Raises StoreBroken for a file that is not a cache."""
    if txn.stat()["entries"] == 0:
        return None
    try:
        value = txn.get(_FORMAT_KEY, db=env.open_db(b"info", txn, create=False))
    except (lmdb.NotFoundError, lmdb.IncompatibleError):
        value = None
    if value is None or len(value) != _U32.size:
        raise StoreBroken(f"{path} is an LMDB file of something else: choose another folder for the cache")
    return int(_U32.unpack(value)[0])


def check_length(env: lmdb.Environment, path: str) -> None:
    """Refuse a file that was cut: reading beyond the end of a mapped file kills the process (SIGBUS)."""
    expected = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if os.path.getsize(path) >= expected:
        return
    # Pages that were allocated and given back in the last transaction may lie beyond the end of a sound file.
    from lmdb.verify import VerifyError, verify

    try:
        sound = not verify(path)  # type: ignore[no-untyped-call]
    except VerifyError:
        sound = False
    if not sound:
        raise StoreBroken(advice(path, RuntimeError(f"it is shorter than its {expected} bytes")))


def advice(path: str, error: Exception) -> str:
    """What to do about a file that cannot be opened."""
    return (
        f"the cache {path} cannot be opened: {error}. If the folder's owner, permissions and disk are in order, stop "
        f"every process that uses it and delete the folder {os.path.dirname(path)}: it holds nothing but cached answers"
    )
