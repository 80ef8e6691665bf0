"""One write transaction of the vectors' file: every change of a vector together with its indexes and counters."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Self

import lmdb
import msgspec

from watchllm.cache.entry import NEVER
from watchllm.cache.semantic.vectors import MAX_VERDICTS, PROJECT_LENGTH, StoredVector
from watchllm.stores.lmdb.derived_file import U64
from watchllm.stores.lmdb.vectors_layout import (
    CHANGES_KEPT,
    SPENT,
    STATE,
    STATE_KEY,
    VERDICT,
    VERDICT_COST,
    Databases,
    cost_of,
    source_digest,
    unpack_count,
    unpack_spent,
    unpack_state,
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StoredVector).decode
_NOTHING = b""


def unpack(value: bytes) -> StoredVector:
    """A value of `vectors`."""
    return _decode(memoryview(value)[U64.size :])


class VectorSession:
    """Commits at the end of its block and aborts when an exception leaves it. Raises lmdb.Error where LMDB fails."""

    def __init__(self, env: lmdb.Environment, databases: Databases) -> None:
        self._env = env
        self._db = databases

    def __enter__(self) -> Self:
        self.txn = self._env.begin(write=True)
        self._number, self.vectors, self.bytes = unpack_state(self.txn.get(STATE_KEY, db=self._db.info))
        self._first = self._number, self.bytes
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.txn.abort()
            return
        try:
            if (self._number, self.bytes) != self._first:
                self._forget_old_changes()
                self.txn.put(STATE_KEY, STATE.pack(self._number, self.vectors, self.bytes), db=self._db.info)
        except BaseException:
            self.txn.abort()
            raise
        self.txn.commit()

    def put(self, vector_id: bytes, vector: StoredVector) -> None:
        """Store, in place of what was there."""
        self.delete(vector_id)
        number = U64.pack(self._change(vector_id))
        project, rest = vector_id[:PROJECT_LENGTH], vector_id[PROJECT_LENGTH:]
        source = project + source_digest(vector.source)
        value = number + _encode(vector)
        put = self.txn.put
        put(vector_id, value, db=self._db.vectors)
        put(project + number, rest, db=self._db.order)
        put(source + number, rest, db=self._db.sources)
        if vector.expires_ms != NEVER:
            put(U64.pack(max(vector.expires_ms, 0)) + vector_id, _NOTHING, db=self._db.expiry)
        self._count(project, source, 1, cost_of(len(value)))

    def get(self, vector_id: bytes) -> StoredVector | None:
        value = self.txn.get(vector_id, db=self._db.vectors)
        return None if value is None else unpack(value)

    def delete(self, vector_id: bytes) -> bool:
        """Forget a vector; whether it was there."""
        value = self.txn.get(vector_id, db=self._db.vectors)
        if value is None:
            return False
        vector, number = unpack(value), value[: U64.size]
        project = vector_id[:PROJECT_LENGTH]
        source = project + source_digest(vector.source)
        delete = self.txn.delete
        delete(vector_id, db=self._db.vectors)
        delete(project + number, db=self._db.order)
        delete(source + number, db=self._db.sources)
        if vector.expires_ms != NEVER:
            delete(U64.pack(max(vector.expires_ms, 0)) + vector_id, db=self._db.expiry)
        verdicts = self._verdicts(vector_id)
        for key in verdicts:
            delete(key, db=self._db.verdicts)
        self._count(project, source, -1, -cost_of(len(value)) - len(verdicts) * VERDICT_COST)
        self._change(vector_id)
        return True

    def put_verdict(self, vector_id: bytes, created_ms: int, question: bytes, *, equal: bool) -> None:
        """Keep what a judge said of a vector and a question, unless that vector is gone; another verdict makes room."""
        vector = self.get(vector_id)
        if vector is None or vector.created_ms != created_ms:
            return
        key = vector_id + question
        known = self._verdicts(vector_id)
        if key not in known:
            if len(known) >= MAX_VERDICTS:
                # Questions are told by their digests, so that the first of them is any of them.
                self.txn.delete(known[0], db=self._db.verdicts)
            else:
                self.bytes += VERDICT_COST
        self.txn.put(key, VERDICT.pack(max(created_ms, 0), equal), db=self._db.verdicts)

    def spend(self, project: bytes, day: int, cost: int) -> None:
        """Add to what judges cost the project on a day, unless a later one has begun."""
        latest, spent = unpack_spent(self.txn.get(project, db=self._db.spent))
        if day >= latest:
            total = cost + (spent if day == latest else 0)
            self.txn.put(project, SPENT.pack(day, total), db=self._db.spent)

    def _verdicts(self, vector_id: bytes) -> list[bytes]:
        """The keys of a vector's verdicts."""
        found = self._from(self._db.verdicts, vector_id, MAX_VERDICTS)
        return [key for key, _ in found if key.startswith(vector_id)]

    def shrink_project(self, project: bytes, most: int) -> int:
        """Forget the oldest of whichever of its keys holds most until the project holds at most `most`; how many."""
        surplus = unpack_count(self.txn.get(project, db=self._db.counts)) - most
        if surplus <= 0:
            return 0
        largest = [(-held, source) for source, held in self._source_counts(project)]
        heapq.heapify(largest)
        for _ in range(surplus):
            held, source = largest[0]
            heapq.heapreplace(largest, (held + 1, source))
        return sum(self._shrink(project, source, -held) for held, source in largest)

    def shrink_source(self, project: bytes, source: str, most: int) -> int:
        """The same for what one source key put."""
        return self._shrink(project, project + source_digest(source), most)

    def shrink_largest(self, most_bytes: int, limit: int) -> int:
        """Forget up to `limit` of the oldest of whichever project holds most, while the file holds too much."""
        gone = 0
        while self.bytes > most_bytes and gone < limit:
            held, project = max((unpack_count(packed), key) for key, packed in self._project_counts())
            step = min(max(held // 16, 1), limit - gone)
            gone += self.shrink_project(project, held - step)
        return gone

    def expire(self, now_ms: int, limit: int) -> int:
        """Forget up to `limit` that have expired; how many."""
        bound = U64.pack(max(now_ms, 0) + 1)
        due = [key[U64.size :] for key, _ in self._from(self._db.expiry, _NOTHING, limit) if key < bound]
        for vector_id in due:
            self.delete(vector_id)
        return len(due)

    def _shrink(self, project: bytes, source: bytes, most: int) -> int:
        surplus = unpack_count(self.txn.get(source, db=self._db.counts)) - most
        if surplus <= 0:
            return 0
        oldest = [rest for key, rest in self._from(self._db.sources, source, surplus) if key.startswith(source)]
        for rest in oldest:
            self.delete(project + rest)
        return len(oldest)

    def _source_counts(self, project: bytes) -> list[tuple[bytes, int]]:
        """What a project's vectors are under in `sources`, by the key that put them, and how many they are."""
        found = []
        with self.txn.cursor(self._db.counts) as cursor:
            if cursor.set_range(project):
                for key, packed in cursor:
                    if not key.startswith(project):
                        break
                    if len(key) > PROJECT_LENGTH:
                        found.append((key, unpack_count(packed)))
        return found

    def _project_counts(self) -> Iterator[tuple[bytes, bytes]]:
        with self.txn.cursor(self._db.counts) as cursor:
            for key, packed in cursor:
                if len(key) == PROJECT_LENGTH:
                    yield key, packed

    def _from(self, database: Any, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        with self.txn.cursor(database) as cursor:
            if cursor.set_range(start) if start else cursor.first():
                for item in cursor:
                    if len(found) >= limit:
                        break
                    found.append(item)
        return found

    def _count(self, project: bytes, source: bytes, vectors: int, cost: int) -> None:
        for key in (project, source):
            count = unpack_count(self.txn.get(key, db=self._db.counts)) + vectors
            if count > 0:
                self.txn.put(key, U64.pack(count), db=self._db.counts)
            else:
                self.txn.delete(key, db=self._db.counts)
        self.vectors += vectors
        self.bytes += cost

    def _change(self, vector_id: bytes) -> int:
        self._number += 1
        self.txn.put(U64.pack(self._number), vector_id, db=self._db.changes, append=True)
        return self._number

    def _forget_old_changes(self) -> None:
        bound = U64.pack(max(self._number - CHANGES_KEPT, 0))
        with self.txn.cursor(self._db.changes) as cursor:
            while cursor.first() and cursor.key() <= bound:
                cursor.delete()
