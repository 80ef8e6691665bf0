"""The file of the semantic cache's vectors: its tree of sub-databases, and how it is opened.

    info       name → value: `format` (u32), `state` (latest change u64, vectors u64, bytes u64)
    vectors    partition 40 B + key 32 B → number of its change (u64) + the StoredVector in MessagePack
    order      project 16 B + number → the rest of the vector's id: each project's vectors, oldest first
    sources    project + digest of the source key's id (8 B) + number → the rest of the id: the same for each source
    counts     project, or project + digest of a source → vectors (u64)
    expiry     `expires_ms` (u64) + id → nothing: vectors that expire, soonest first
    changes    number → id of the vector that was put or removed; the latest CHANGES_KEPT
    verdicts   id of a vector + digest of a question (16 B) → its `created_ms` (u64) + 1 = equal, 0 = not

Integers are big-endian, so that keys sort by them. Numbers are given in write transactions, one after another, for all
processes. All of it changes in the same transaction as the vector.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec

from watchllm.cache.semantic.vectors import KEY_LENGTH, PARTITION_LENGTH, QUESTION_LENGTH
from watchllm.stores.lmdb.cache_layout import DATA_FILE, U64, advice, check_length, format_of, map_size_for
from watchllm.stores.lmdb.environment import StoreBroken

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

FORMAT = 1
ID_LENGTH = PARTITION_LENGTH + KEY_LENGTH
CHANGES_KEPT = 65_536
STATE_KEY = b"state"
STATE = struct.Struct(">QQQ")

VERDICT = struct.Struct(">QB")
VERDICT_COST = (ID_LENGTH + QUESTION_LENGTH + VERDICT.size + 16) * 8 // 5

_NAMES = ("info", "vectors", "order", "sources", "counts", "expiry", "changes", "verdicts")
_FORMAT_KEY = b"format"
_U32 = struct.Struct(">I")
_INDEX_COST = 700  # The five small records beside a vector, at the fill that random keys reach.


class Databases(msgspec.Struct, frozen=True):
    """Handles of the sub-databases."""

    info: Any
    vectors: Any
    order: Any
    sources: Any
    counts: Any
    expiry: Any
    changes: Any
    verdicts: Any


def source_digest(source: str) -> bytes:
    return hashlib.blake2b(source.encode(errors="surrogatepass"), digest_size=8).digest()


def cost_of(value_length: int) -> int:
    """Bytes on disk that a value of this length is taken to cost, its key and indexes included."""
    if value_length > 1_980:  # LMDB moves a node of half a page and more to overflow pages of its own.
        return (value_length + 16 + 4_095) // 4_096 * 4_096 + _INDEX_COST
    return (value_length + ID_LENGTH) * 8 // 5 + _INDEX_COST


def open_file(folder: StrPath, max_bytes: int) -> tuple[lmdb.Environment, Databases]:
    """Open or create the file in `folder`; one of another format is emptied. Raises StoreBroken."""
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
            max_dbs=16,
            max_spare_txns=4,
            lib_version=0,
        )
    except (lmdb.Error, OSError) as error:
        raise StoreBroken(advice(path, error)) from error
    try:
        check_length(env, path)
        return env, _open_databases(env, path)
    except lmdb.Error as error:
        env.close()
        raise StoreBroken(advice(path, error)) from error
    except StoreBroken:
        env.close()
        raise


def _open_databases(env: lmdb.Environment, path: str) -> Databases:
    with env.begin(write=True) as writer:
        found = format_of(env, writer, path)
        if found not in (None, FORMAT):
            for name in env.dbs(writer):
                writer.drop(env.open_db(name, writer, create=False))
        databases = Databases(*(env.open_db(name.encode(), writer) for name in _NAMES))
        if found != FORMAT:
            writer.put(_FORMAT_KEY, _U32.pack(FORMAT), db=databases.info)
    return databases


def unpack_state(packed: bytes | None) -> tuple[int, int, int]:
    """Latest change, vectors, bytes."""
    return (0, 0, 0) if packed is None else STATE.unpack(packed)


def unpack_count(packed: bytes | None) -> int:
    return 0 if packed is None else int(U64.unpack(packed)[0])
