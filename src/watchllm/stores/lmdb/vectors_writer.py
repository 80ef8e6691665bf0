"""The thread that does all writing of the vectors' file, in groups, so that the event loop never waits for a disk.

A commit is synced except for its meta page (`metasync=False`): SIGKILL loses nothing that was committed. An error is
counted and reported, never raised: what could not be written is lost, which costs hits and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import lmdb
import msgspec

from watchllm.cache.entry import InvalidationFilter
from watchllm.cache.semantic.vectors import PARTITION_LENGTH, PROJECT_LENGTH, StoredVector
from watchllm.domain.errors import Unavailable
from watchllm.stores.lmdb.vectors_layout import Databases
from watchllm.stores.lmdb.vectors_session import VectorSession, unpack

_GROUP_SECONDS = 0.02
_IDLE_SECONDS = 5.0
_HOUSEKEEPING_SECONDS = 60.0
_OPERATIONS_PER_COMMIT = 500
_SCAN = 2_000
_OVERHEAD = 400
_ATTEMPTS = 3

_T = TypeVar("_T")


class Counters(msgspec.Struct):
    """What happened in this process since the store was opened."""

    puts: int = 0
    removed: int = 0
    dropped: int = 0
    evicted: int = 0
    expired: int = 0
    commits: int = 0
    commit_errors: int = 0
    read_errors: int = 0


class Bounds(msgspec.Struct, frozen=True):
    """Vectors of a project and of one source key in it; bytes of all."""

    per_project: int
    per_source: int
    max_bytes: int


class Purging(msgspec.Struct, frozen=True):
    """`done(count, error)` is called once, from the writer's thread."""

    project: bytes
    what: InvalidationFilter
    done: Callable[[int, Exception | None], None]


class Verdict(msgspec.Struct, frozen=True):
    """What a judge said of the vector that was created then and a question."""

    created_ms: int
    question: bytes
    equal: bool


class Spent(msgspec.Struct, frozen=True):
    """What a judge did cost on a day."""

    day: int
    cost: int


Write: TypeAlias = tuple[bytes, StoredVector | Verdict | Spent | None]
"""A vector's id, and what to store there; None removes. Of what was spent, the project."""


class VectorWriter:
    """One per open store. Operations are carried out in the order in which they came."""

    def __init__(
        self, env: lmdb.Environment, db: Databases, bounds: Bounds, now_ms: Callable[[], int], pending_bytes: int
    ) -> None:
        self.counters = Counters()
        self.failing: str | None = None
        self._env = env
        self._db = db
        self._bounds = bounds
        self._now_ms = now_ms
        self._pending_bytes = pending_bytes
        self._changed = threading.Condition(threading.Lock())
        self._queue: list[Write | Purging] = []
        self._queued_bytes = 0
        self._added = self._settled = 0
        self._urgent = self._closing = self._resized = False
        self._next_housekeeping = time.monotonic() + _HOUSEKEEPING_SECONDS
        self._thread = threading.Thread(target=self._run, name="watchllm-vector-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Carry out what is queued, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def write(self, vector_id: bytes, vector: StoredVector | Verdict | Spent | None) -> bool:
        """Whether it was queued."""
        size = _OVERHEAD
        if isinstance(vector, StoredVector):
            size += len(vector.vector) + len(vector.features) + len(vector.text)
        with self._changed:
            if self._closing or self._queued_bytes + size > self._pending_bytes:
                self.counters.dropped += 1
                return False
            self._queued_bytes += size
            self._enqueue((vector_id, vector))
        return True

    def purge(self, purging: Purging) -> None:
        with self._changed:
            closing = self._closing
            if not closing:
                self._urgent = True
                self._enqueue(purging)
        if closing:
            purging.done(0, Unavailable("the semantic cache is closed"))

    def adopt_size(self) -> None:
        """Another process enlarged the file: map all of it, so that it can be read again."""
        with self._changed:
            self._resized = self._urgent = True
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all that was queued before is settled."""
        with self._changed:
            target = self._added
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._settled >= target)

    def _enqueue(self, operation: Write | Purging) -> None:
        self._queue.append(operation)
        self._added += 1
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            operations = self._take()
            try:
                if self._resized:
                    self._resized = False
                    self._env.set_mapsize(0)
                self._carry_out(operations)
                if time.monotonic() >= self._next_housekeeping:
                    self._next_housekeeping = time.monotonic() + _HOUSEKEEPING_SECONDS
                    self._keep_house()
            except Exception as error:  # noqa: BLE001  (a bug must not end the thread: it is reported)
                self._failed(error)
            finally:
                with self._changed:
                    self._settled += len(operations)
                    self._changed.notify_all()
            if self._closing and not self._queue:
                return

    def _take(self) -> list[Write | Purging]:
        with self._changed:
            if not self._queue and not self._closing and not self._urgent:
                self._changed.wait(_IDLE_SECONDS)
            if self._queue and not self._urgent and not self._closing:
                self._changed.wait_for(lambda: self._urgent or self._closing, _GROUP_SECONDS)
            self._urgent = False
            operations, self._queue, self._queued_bytes = self._queue, [], 0
            return operations

    def _carry_out(self, operations: list[Write | Purging]) -> None:
        group: list[Write] = []
        for operation in operations:
            if isinstance(operation, Purging):
                self._write_group(group)
                group = []
                self._purge(operation)
            else:
                group.append(operation)
                if len(group) >= _OPERATIONS_PER_COMMIT:
                    self._write_group(group)
                    group = []
        self._write_group(group)

    def _write_group(self, group: list[Write]) -> None:
        if not group:
            return
        done = self._commit(lambda session: self._apply(session, group))
        if done is None:
            self.counters.dropped += len(group)
            return
        puts, removed, evicted = done
        self.counters.puts += puts
        self.counters.removed += removed
        self.counters.evicted += evicted

    def _apply(self, session: VectorSession, group: list[Write]) -> tuple[int, int, int]:
        sources: set[tuple[bytes, str]] = set()
        puts = removed = 0
        for vector_id, vector in group:
            if vector is None:
                removed += session.delete(vector_id)
            elif isinstance(vector, Verdict):
                session.put_verdict(vector_id, vector.created_ms, vector.question, equal=vector.equal)
            elif isinstance(vector, Spent):
                session.spend(vector_id, vector.day, vector.cost)
            else:
                session.put(vector_id, vector)
                sources.add((vector_id[:PROJECT_LENGTH], vector.source))
                puts += 1
        evicted = sum(session.shrink_source(*source, self._bounds.per_source) for source in sources)
        evicted += sum(
            session.shrink_project(project, self._bounds.per_project) for project in {project for project, _ in sources}
        )
        evicted += session.shrink_largest(self._bounds.max_bytes, 2 * _OPERATIONS_PER_COMMIT)
        return puts, removed, evicted

    def _purge(self, purging: Purging) -> None:
        """Walk the project in steps: reading first, so that no other process's writing waits for the walk."""
        count = 0
        position: bytes | None = purging.project
        try:
            while position is not None:
                found, position = self._find(purging, position)
                gone = self._commit(lambda session, found=found: self._delete(session, found, purging.what))  # type: ignore[misc]
                if gone is None:
                    raise Unavailable(f"the vectors cannot be written ({self.failing}); send the purge again")
                count += gone
        except Unavailable as error:
            purging.done(count, error)
        except Exception as error:
            purging.done(count, Unavailable(f"the purge was cut off by {type(error).__name__}; send it again"))
            raise
        else:
            purging.done(count, None)

    def _find(self, purging: Purging, position: bytes) -> tuple[list[bytes], bytes | None]:
        """Ids of the next that match, and where to go on; None at the end."""
        found: list[bytes] = []
        with self._env.begin() as reader, reader.cursor(self._db.vectors) as cursor:
            if cursor.set_range(position):
                for scanned, (vector_id, value) in enumerate(cursor):
                    if not vector_id.startswith(purging.project):
                        break
                    if scanned >= _SCAN:
                        return found, vector_id
                    if unpack(value).is_meant(purging.what, vector_id[PARTITION_LENGTH:]):
                        found.append(vector_id)
        return found, None

    def _delete(self, session: VectorSession, found: list[bytes], what: InvalidationFilter) -> int:
        gone = 0
        for vector_id in found:
            vector = session.get(vector_id)
            if vector is not None and vector.is_meant(what, vector_id[PARTITION_LENGTH:]):
                gone += session.delete(vector_id)
        return gone

    def _keep_house(self) -> None:
        self._env.reader_check()  # A killed process's read transaction would keep freed pages from being reused.
        expired = self._commit(lambda session: session.expire(self._now_ms(), _OPERATIONS_PER_COMMIT))
        if expired:
            self.counters.expired += expired
        if expired == _OPERATIONS_PER_COMMIT:
            self._next_housekeeping = 0.0  # More of them: go on after the next group.

    def _commit(self, change: Callable[[VectorSession], _T]) -> _T | None:
        """Run `change` in a transaction of its own; None when it could not be committed."""
        for _ in range(_ATTEMPTS):
            try:
                with VectorSession(self._env, self._db) as session:
                    result = change(session)
            except lmdb.MapResizedError:
                self._env.set_mapsize(0)  # Another process opened the file with a larger bound: adopt its size.
            except lmdb.MapFullError as error:
                self._failed(error)
                self._make_room()
            except (lmdb.Error, OSError) as error:
                self._failed(error)
                return None
            else:
                self.counters.commits += 1
                self.failing = None
                return result
        return None

    def _make_room(self) -> None:
        # The file is twice as large as what it may hold: this happens when many pages are half filled.
        try:
            with VectorSession(self._env, self._db) as session:
                self.counters.evicted += session.shrink_largest(session.bytes * 15 // 16, 2 * _OPERATIONS_PER_COMMIT)
        except lmdb.Error as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.counters.commit_errors += 1
        self.failing = f"{type(error).__name__}: {error}"
