"""What is kept of a prompt so that like ones find its answer, and the port of the store that keeps it.

A vector only points to an entry of the exact cache, which is looked up before anything is served. One that outlives its
entry (evicted, invalidated, lost in a crash between two files) therefore costs a miss and is removed when it is met; it
can never bring an answer back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from watchllm.cache.entry import NEVER, InvalidationFilter
from watchllm.domain.money import Nanos

PROJECT_LENGTH = 16
CONTEXT_LENGTH = 16
KEY_LENGTH = 32
QUESTION_LENGTH = 16
MAX_VERDICTS = 16
"""Verdicts that are kept of one vector."""
PARTITION_LENGTH = PROJECT_LENGTH + 8 + CONTEXT_LENGTH


class StoredVector(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One prompt. Times in epoch milliseconds; `source` is the id of the project key that caused it.

    `vector` holds float16, little-endian; `features` is whatever the guards computed when it was stored. `text` is the
    prompt itself where a judge may be shown it, else empty.
    """

    created_ms: int
    expires_ms: int
    model: str
    kind: str
    source: str
    vector: bytes
    features: bytes
    text: str = ""

    def is_fresh(self, now_ms: int) -> bool:
        return self.expires_ms == NEVER or now_ms < self.expires_ms

    def is_meant(self, what: InvalidationFilter, key: bytes) -> bool:
        """Whether it is to be forgotten, as the entry at `key`."""
        return what.matches(self.model, self.kind, self.created_ms, key, self.source)


class Place(NamedTuple):
    """Where a vector is: its partition, and the key of its entry."""

    partition: bytes
    key: bytes


class Changes(NamedTuple):
    """What changed up to `position`: look each place up anew with `get`. `is_whole`: nothing before them was lost; if
    not, what was read earlier must be read again."""

    position: int
    places: Sequence[Place]
    is_whole: bool


def partition_of(project: bytes, context: bytes, embedder_name: str, embedder_version: str) -> bytes:
    """The 40 bytes under which vectors that may be compared are kept: same project, same context (the exact hash of all
    but the last message), same embedder. Raises ValueError for a project or context that is not 16 bytes."""
    if len(project) != PROJECT_LENGTH or len(context) != CONTEXT_LENGTH:
        raise ValueError(f"a project and a context are 16 bytes each, not {len(project)} and {len(context)}")
    embedder = f"{embedder_name}\0{embedder_version}".encode()
    return project + hashlib.blake2b(embedder, digest_size=8).digest() + context


class VectorStore(Protocol):
    """Shared by the workers of a host. Reading is synchronous, microseconds a vector; `put` and `remove` return at once
    and are seen, here and elsewhere, when their batch is committed, milliseconds later.

    A project holds at most `max_per_project` vectors and one source key of it at most `max_per_source`: beyond, the
    oldest of that key go, or of whichever of the project's keys holds most, so that a flood displaces only its own.
    """

    def put(self, partition: bytes, key: bytes, vector: StoredVector) -> bool:
        """Store, in place of one that is there. Whether it was taken: not while too much waits to be written."""
        ...

    def remove(self, partition: bytes, key: bytes) -> bool:
        """Forget one; whether that was taken."""
        ...

    def get(self, partition: bytes, key: bytes) -> StoredVector | None:
        """It, fresh or expired, or None; None also where the store cannot be read (`health` says so)."""
        ...

    def read(self, partition: bytes, after: bytes, limit: int) -> list[tuple[bytes, StoredVector]]:
        """Up to `limit` vectors of a partition, in the order of their keys, from behind the key `after` on (b"": from
        the first). What changes meanwhile is in `changes` since a position that was taken before."""
        ...

    def verdict(self, partition: bytes, key: bytes, created_ms: int, question: bytes) -> bool | None:
        """What a judge said of the vector that was created then and a question (16 bytes); None = nothing is known."""
        ...

    def put_verdict(self, partition: bytes, key: bytes, created_ms: int, question: bytes, *, equal: bool) -> bool:
        """Keep what a judge said, as long as that vector is kept, unless it is gone; MAX_VERDICTS of one vector at
        most. Whether it was taken."""
        ...

    def spent(self, project: bytes, day: int) -> Nanos:
        """What judges cost the project on a day (of UTC, since 1970), as far as it was written."""
        ...

    def spend(self, project: bytes, day: int, cost: Nanos) -> bool:
        """Add what a judge did cost on that day; only the latest day is kept. Whether it was taken.

        No purge, expiry or eviction takes it away.
        """
        ...

    def position(self) -> int:
        """The latest change."""
        ...

    def changes(self, since: int, limit: int) -> Changes:
        """Up to `limit` places that changed after the position `since`, oldest first, changes of this process too."""
        ...

    def count(self, project: bytes, source: str | None = None) -> int:
        """Vectors of the project, or of one source key of it."""
        ...

    async def purge(self, project: bytes, what: InvalidationFilter) -> int:
        """Forget all of the project that match and were put before the call, in this process's queue too; how many.

        Raises Unavailable when the file cannot be written.
        """
        ...

    def health(self) -> str | None:
        """Why the store does not work as it should, or None."""
        ...

    def flush(self) -> None:
        """Wait until everything put so far is committed, or dropped for an error that `health` names."""
        ...

    def close(self) -> None: ...
