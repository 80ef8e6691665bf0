"""The file of the semantic cache's vectors: its tree of sub-databases, and how it is opened.

    info       name → value: `format` (u32), `state` (latest change u64, vectors u64, bytes u64)
    vectors    partition 40 B + key 32 B → number of its change (u64) + the StoredVector in MessagePack
    order      project 16 B + number → the rest of the vector's id: each project's vectors, oldest first
    sources    project + digest of the source key's id (8 B) + number → the rest of the id: the same for each source
    counts     project, or project + digest of a source → vectors (u64)
    expiry     `expires_ms` (u64) + id → nothing: vectors that expire, soonest first
    changes    number → id of the vector that was put or removed; the latest CHANGES_KEPT
    verdicts   id of a vector + digest of a question (16 B) → its `created_ms` (u64) + 1 = equal, 0 = not
    spent      project → day of UTC since 1970 (u64) + what judges cost it on that day, in nano-dollars (u64)

Integers are big-endian, so that keys sort by them. Numbers are given in write transactions, one after another, for all
processes. All of it but `spent` changes in the same transaction as the vector.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec

from watchllm.cache.semantic.vectors import KEY_LENGTH, PARTITION_LENGTH, QUESTION_LENGTH
from watchllm.stores.lmdb.derived_file import U64, open_derived, value_cost

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

FORMAT = 1
ID_LENGTH = PARTITION_LENGTH + KEY_LENGTH
CHANGES_KEPT = 65_536
STATE_KEY = b"state"
STATE = struct.Struct(">QQQ")

SPENT = struct.Struct(">QQ")
VERDICT = struct.Struct(">QB")
VERDICT_COST = (ID_LENGTH + QUESTION_LENGTH + VERDICT.size + 16) * 8 // 5

_NAMES = ("info", "vectors", "order", "sources", "counts", "expiry", "changes", "verdicts", "spent")
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
    spent: Any


def source_digest(source: str) -> bytes:
    return hashlib.blake2b(source.encode(errors="surrogatepass"), digest_size=8).digest()


def cost_of(value_length: int) -> int:
    """Bytes on disk that a value of this length is taken to cost, its key and indexes included."""
    return value_cost(value_length, ID_LENGTH) + _INDEX_COST


def open_file(folder: StrPath, max_bytes: int) -> tuple[lmdb.Environment, Databases]:
    """Open or create the file in `folder`; one of another format is emptied. Raises StoreBroken."""
    env, handles, _ = open_derived(folder, max_bytes, _NAMES, FORMAT)
    return env, Databases(*handles)


def unpack_state(packed: bytes | None) -> tuple[int, int, int]:
    """Latest change, vectors, bytes."""
    return (0, 0, 0) if packed is None else STATE.unpack(packed)


def unpack_spent(packed: bytes | None) -> tuple[int, int]:
    """Day and nano-dollars."""
    return (0, 0) if packed is None else SPENT.unpack(packed)


def unpack_count(packed: bytes | None) -> int:
    return 0 if packed is None else int(U64.unpack(packed)[0])
