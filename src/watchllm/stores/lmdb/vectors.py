"""The semantic cache's vectors of one host: an LMDB file that every process of the host may have open at once.

Each process searches its own copy in memory and follows the others' changes by their numbers; the file only keeps them.
The tree of sub-databases is described in vectors_layout.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import lmdb
import msgspec

from watchllm.cache.entry import InvalidationFilter
from watchllm.cache.semantic.vectors import (
    KEY_LENGTH,
    PARTITION_LENGTH,
    PROJECT_LENGTH,
    QUESTION_LENGTH,
    Changes,
    Place,
    StoredVector,
)
from watchllm.stores.lmdb.derived_file import U64
from watchllm.stores.lmdb.vectors_layout import (
    CHANGES_KEPT,
    STATE_KEY,
    VERDICT,
    open_file,
    source_digest,
    unpack_count,
    unpack_spent,
    unpack_state,
)
from watchllm.stores.lmdb.vectors_session import unpack
from watchllm.stores.lmdb.vectors_writer import Bounds, Purging, Spent, VectorWriter, Verdict

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

_PENDING_BYTES = 32 << 20

_T = TypeVar("_T")


class LmdbVectorStore:
    """The port `VectorStore` on LMDB. Not for use in a child forked after `open`: open it there."""

    @classmethod
    def open(
        cls,
        path: StrPath,
        *,
        max_bytes: int,
        max_per_project: int,
        max_per_source: int,
        now_ms: Callable[[], int],
        pending_bytes: int = _PENDING_BYTES,
    ) -> LmdbVectorStore:
        """Open the file in the folder `path`, made (0700, its files 0600) if it is missing. Raises StoreBroken.

        `max_bytes` bounds the vectors of all projects: beyond, the oldest of whichever holds most go. The file is at
        most twice as large plus 128 MiB. `pending_bytes` bounds what waits to be written.
        """
        return cls(path, Bounds(max_per_project, max_per_source, max_bytes), now_ms, pending_bytes)

    def __init__(self, path: StrPath, bounds: Bounds, now_ms: Callable[[], int], pending_bytes: int) -> None:
        self._env, self._db = open_file(path, bounds.max_bytes)
        self._writer = VectorWriter(self._env, self._db, bounds, now_ms, pending_bytes)
        self._pid = os.getpid()
        self._closed = False
        self._read_error: str | None = None
        self._writer.start()

    def put(self, partition: bytes, key: bytes, vector: StoredVector) -> bool:
        return self._writer.write(_checked_id(partition, key), vector)

    def remove(self, partition: bytes, key: bytes) -> bool:
        return self._writer.write(_checked_id(partition, key), None)

    def get(self, partition: bytes, key: bytes) -> StoredVector | None:
        vector_id = _checked_id(partition, key)
        value = self._reading(lambda txn: txn.get(vector_id, db=self._db.vectors), None)
        return None if value is None else unpack(value)

    def read(self, partition: bytes, after: bytes, limit: int) -> list[tuple[bytes, StoredVector]]:
        def page(txn: lmdb.Transaction[bytes]) -> list[tuple[bytes, StoredVector]]:
            found: list[tuple[bytes, StoredVector]] = []
            with txn.cursor(self._db.vectors) as cursor:
                if cursor.set_range(partition + after + b"\0" if after else partition):
                    for vector_id, value in cursor:
                        if len(found) >= limit or not vector_id.startswith(partition):
                            break
                        found.append((vector_id[PARTITION_LENGTH:], unpack(value)))
            return found

        return self._reading(page, [])

    def verdict(self, partition: bytes, key: bytes, created_ms: int, question: bytes) -> bool | None:
        name = _checked_id(partition, key) + _checked_question(question)
        value = self._reading(lambda txn: txn.get(name, db=self._db.verdicts), None)
        if value is None:
            return None
        of, equal = VERDICT.unpack(value)
        return bool(equal) if of == created_ms else None

    def put_verdict(self, partition: bytes, key: bytes, created_ms: int, question: bytes, *, equal: bool) -> bool:
        verdict = Verdict(created_ms, _checked_question(question), equal)
        return self._writer.write(_checked_id(partition, key), verdict)

    def spent(self, project: bytes, day: int) -> int:
        packed = self._reading(lambda txn: txn.get(_checked_project(project), db=self._db.spent), None)
        latest, cost = unpack_spent(packed)
        return cost if latest == day else 0

    def spend(self, project: bytes, day: int, cost: int) -> bool:
        return self._writer.write(_checked_project(project), Spent(day, cost))

    def position(self) -> int:
        return self._reading(self._state, (0, 0, 0))[0]

    def changes(self, since: int, limit: int) -> Changes:
        def read(txn: lmdb.Transaction[bytes]) -> Changes:
            latest = self._state(txn)[0]
            # A file that was deleted or emptied meanwhile counts from one again.
            if since > latest or since < latest - CHANGES_KEPT:
                return Changes(latest, (), is_whole=False)
            places: list[Place] = []
            position = since
            with txn.cursor(self._db.changes) as cursor:
                if cursor.set_range(U64.pack(since + 1)):
                    for number, vector_id in cursor:
                        if len(places) >= limit:
                            break
                        position = U64.unpack(number)[0]
                        places.append(Place(vector_id[:PARTITION_LENGTH], vector_id[PARTITION_LENGTH:]))
            return Changes(position, places, is_whole=True)

        return self._reading(read, Changes(since, (), is_whole=True))

    def count(self, project: bytes, source: str | None = None) -> int:
        key = project if source is None else project + source_digest(source)
        return unpack_count(self._reading(lambda txn: txn.get(key, db=self._db.counts), None))

    async def purge(self, project: bytes, what: InvalidationFilter) -> int:
        _checked_project(project)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()

        def done(count: int, error: Exception | None) -> None:
            try:
                loop.call_soon_threadsafe(_resolve, future, count, error)
            except RuntimeError:
                pass  # The caller's loop has ended: nobody waits for the number.

        self._writer.purge(Purging(project, what, done))
        return await future

    def health(self) -> str | None:
        if self._writer.failing is not None:
            return f"vectors cannot be stored in {self._env.path()}: {self._writer.failing}"
        if self._read_error is not None:
            return f"the vectors {self._env.path()} cannot be read: {self._read_error}"
        return None

    def counters(self) -> dict[str, Any]:
        """Vectors and bytes of the whole file, and what happened in this process since it was opened."""
        _, vectors, size = self._reading(self._state, (0, 0, 0))
        return {"vectors": vectors, "bytes": size, **msgspec.to_builtins(self._writer.counters)}

    def flush(self) -> None:
        if not self._closed:
            self._writer.flush()

    def close(self) -> None:
        """Write what is queued and close the file. Idempotent; does nothing in a forked child."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        self._writer.stop()
        self._env.close()

    def _state(self, txn: lmdb.Transaction[bytes]) -> tuple[int, int, int]:
        return unpack_state(txn.get(STATE_KEY, db=self._db.info))

    def _reading(self, read: Callable[[lmdb.Transaction[bytes]], _T], otherwise: _T) -> _T:
        try:
            with self._env.begin() as txn:
                result = read(txn)
        except lmdb.MapResizedError:
            self._writer.adopt_size()
            self._read_error = "another process enlarged the file"
            return otherwise
        except (lmdb.Error, msgspec.DecodeError) as error:
            self._writer.counters.read_errors += 1
            self._read_error = f"{type(error).__name__}: {error}"
            return otherwise
        self._read_error = None
        return result


def _checked_id(partition: bytes, key: bytes) -> bytes:
    if len(partition) != PARTITION_LENGTH or len(key) != KEY_LENGTH:
        raise ValueError(f"expected a partition of 40 bytes and a key of 32, not {len(partition)} and {len(key)}")
    return partition + key


def _checked_project(project: bytes) -> bytes:
    if len(project) != PROJECT_LENGTH:
        raise ValueError(f"a project is {PROJECT_LENGTH} bytes, not {len(project)}")
    return project


def _checked_question(question: bytes) -> bytes:
    if len(question) != QUESTION_LENGTH:
        raise ValueError(f"a question is told by {QUESTION_LENGTH} bytes, not {len(question)}")
    return question


def _resolve(future: asyncio.Future[int], count: int, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(count)
    else:
        future.set_exception(error)
