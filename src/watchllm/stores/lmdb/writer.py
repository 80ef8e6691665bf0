"""The thread that does all writing of the exact cache, so that neither the event loop nor a hit ever waits for a disk.

It groups pending writes into one transaction, evicts before the bound is passed, applies recency in batches, carries
out invalidations in small steps between the writes, and keeps house. A commit is synced to disk except for its meta
page (`metasync=False`): SIGKILL at any moment loses nothing that was committed, power loss at most the last commit, and
neither leaves the file inconsistent. An error is counted and reported, never raised: what could not be written is lost,
what is stored can still be read, and the next write tries again.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import lmdb
import msgspec

from watchllm.domain.errors import Unavailable
from watchllm.stores.lmdb.cache_layout import PROJECT_LENGTH, Databases, Invalidation
from watchllm.stores.lmdb.cache_session import WriteSession, read_records
from watchllm.stores.lmdb.eviction import evict, is_stale, sweep
from watchllm.stores.lmdb.invalidation import Purge, is_useless, prune
from watchllm.stores.lmdb.pending import PendingWrites, Write

MOST_TOUCHED = 16_384
"""Hits remembered until the writer notes them; beyond, a hit does not count as a use."""

_GROUP_SECONDS = 0.004
_TICK_SECONDS = 0.5
_TOUCH_SECONDS = 15.0
# A touch costs as much as half a hit: under full load on many entries they must not be applied with every tick.
_TOUCH_SECONDS_WHEN_FULL = 5.0
_HOUSEKEEPING_SECONDS = 60.0
_ADOPT_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_WRITES_PER_COMMIT = 500
_BYTES_PER_COMMIT = 8 << 20
_DELETES_PER_COMMIT = 500
_HIGH, _LOW = 0.98, 0.95  # of max_bytes: eviction ahead of need starts and ends there
_MAP_GROWTH = 64 << 20
_ATTEMPTS = 5

_T = TypeVar("_T")


class Counters(msgspec.Struct):
    """What happened in this process since the store was opened."""

    puts: int = 0
    dropped: int = 0
    refused: int = 0
    evicted: int = 0
    expired: int = 0
    commits: int = 0
    commit_errors: int = 0
    read_errors: int = 0
    last_error: str | None = None


class CacheWriter:
    """One per open store. `purges` is read by the event loop: entries that one of them hides must not be seen."""

    def __init__(
        self, env: lmdb.Environment, databases: Databases, max_bytes: int, now_ms: Callable[[], int], pending_bytes: int
    ) -> None:
        self.pending = PendingWrites(pending_bytes)
        self.counters = Counters()
        self.touched: set[bytes] = set()
        self.purges: tuple[Purge, ...] = ()
        self.failing: str | None = None
        self.latest_ms = self.highest_ms = now_ms()
        self._env = env
        self._db = databases
        self._max_bytes = max_bytes
        self._now_ms = now_ms
        self._purges_lock = threading.Lock()
        self._own: tuple[Purge, ...] = ()
        self._foreign: dict[tuple[bytes, int], tuple[float, Purge]] = {}
        self._over = False
        self._retry_at = 0.0
        # Nothing is due at once: a starting process has better things to do with its processor.
        self._next_tick = self._next_housekeeping = time.monotonic() + _TICK_SECONDS
        self._touches_applied = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="watchllm-cache-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what is pending, then end. Purges that are not finished are left to the next process."""
        self.pending.close()
        self._thread.join()
        for purge in self._own:
            purge.report(Unavailable("the cache was closed before the invalidation was finished; send it again"))

    def submit(self, purge: Purge) -> None:
        """Hide what matches at once and delete it."""
        self._set_own(add=purge)
        self.pending.hurry()

    def _run(self) -> None:
        while True:
            closing = self.pending.closed
            if not closing:
                self.pending.wait(0.0 if self._has_more() else _TICK_SECONDS, _GROUP_SECONDS)
            self._cycle(closing=closing)
            if closing and not self.pending.fresh:
                return

    def _cycle(self, *, closing: bool) -> None:
        try:
            self._write_pending()
            now = time.monotonic()
            if now >= self._retry_at:
                self._work_on_purges()
                if self._over:
                    self._evict_ahead()
            if self.touched and (closing or now >= self._touches_due()):
                self._touches_applied = now
                self._write(self._apply_touches)
            if now >= self._next_tick:
                self._next_tick = now + _TICK_SECONDS
                self._tick(now)
        except Exception as error:  # noqa: BLE001  (a bug must not end the thread: it is reported and the cache goes on)
            self._failed(error)
            self.counters.dropped += len(self.pending.taken)
            self.pending.settle()

    def _touches_due(self) -> float:
        full = len(self.touched) >= MOST_TOUCHED
        return self._touches_applied + (_TOUCH_SECONDS_WHEN_FULL if full else _TOUCH_SECONDS)

    def _has_more(self) -> bool:
        return bool(self._own or self._over) and time.monotonic() >= self._retry_at

    # Writing

    def _write(self, change: Callable[[WriteSession], _T]) -> _T | None:
        """Run `change` in a transaction of its own; None when it could not be committed."""
        for attempt in range(_ATTEMPTS):
            try:
                with WriteSession(self._env, self._db) as session:
                    result = change(session)
                    over = session.bytes > self._max_bytes * _HIGH
            except lmdb.MapFullError as error:
                self._failed(error)
                self._make_room(attempt)
            except lmdb.MapResizedError:
                self._env.set_mapsize(0)
            except (lmdb.Error, OSError) as error:
                self._failed(error)
                return None
            else:
                self.counters.commits += 1
                self.failing = None
                self._over = self._over or over
                return result
        return None

    def _make_room(self, attempt: int) -> None:
        # Pages that a commit frees can be reused from the next but one on; deleting needs some free pages itself.
        try:
            with WriteSession(self._env, self._db) as session:
                expired, evicted = evict(session, session.bytes * 15 // 16, self._now_ms(), _DELETES_PER_COMMIT)
        except lmdb.MapFullError:
            self._env.set_mapsize(self._env.info()["map_size"] + _MAP_GROWTH)
        else:
            self.counters.expired += expired
            self.counters.evicted += evicted
            if attempt >= 2:
                self._env.set_mapsize(self._env.info()["map_size"] + _MAP_GROWTH)

    def _failed(self, error: Exception) -> None:
        self.counters.commit_errors += 1
        self.failing = self.counters.last_error = f"{type(error).__name__}: {error}"
        self._retry_at = time.monotonic() + _RETRY_SECONDS

    def _write_pending(self) -> None:
        writes = self.pending.take()
        if not writes:
            return
        rest = iter(writes.items())
        while chunk := _next_chunk(rest):
            done = self._write(lambda session, chunk=chunk: self._apply(session, chunk))  # type: ignore[misc]
            if done is None:
                self.counters.dropped += sum(write.entry is not None for _, write in chunk)
            else:
                stored, refused, expired, evicted = done
                self.counters.puts += stored
                self.counters.refused += refused
                self.counters.expired += expired
                self.counters.evicted += evicted
        self.pending.settle()

    def _apply(self, session: WriteSession, chunk: list[tuple[bytes, Write]]) -> tuple[int, int, int, int]:
        stored = refused = 0
        for entry_id, write in chunk:
            entry = write.entry
            if entry is None:
                session.delete(entry_id)
            elif any(
                record.refuses_entry(entry_id[PROJECT_LENGTH:], entry, write.begun_ms)
                for record in session.invalidations(entry_id[:PROJECT_LENGTH])
            ):
                refused += 1
            else:
                session.put(entry_id, entry)
                stored += 1
        expired = evicted = 0
        if session.bytes > self._max_bytes:
            self._apply_touches(session)
            expired, evicted = evict(session, self._max_bytes, self._now_ms())
        return stored, refused, expired, evicted

    def _apply_touches(self, session: WriteSession) -> None:
        # A hit that is noted in the old set after the swap is lost, which an approximation may do.
        touched, self.touched = self.touched, set()
        for entry_id in list(touched):
            session.touch(entry_id)

    def _evict_ahead(self) -> None:
        def change(session: WriteSession) -> tuple[int, int, bool]:
            self._apply_touches(session)
            target = int(self._max_bytes * _LOW)
            expired, evicted = evict(session, target, self._now_ms(), _DELETES_PER_COMMIT)
            return expired, evicted, session.bytes <= target

        done = self._write(change)
        if done is not None:
            self.counters.expired += done[0]
            self.counters.evicted += done[1]
            self._over = not done[2]

    # Invalidations

    def _work_on_purges(self) -> None:
        for purge in self._own:
            if purge.record is None:
                purge.record = self._write(purge.record_in)
            finished = purge.record is not None and self._purge_step(purge)
            if finished:
                self._set_own(remove=purge)
                purge.report()
            elif self.failing is not None:
                purge.report(Unavailable(f"the cache cannot be written ({self.failing}); the invalidation is in force "
                                         "in this process and is tried again, but is not on disk yet"))  # fmt: skip

    def _purge_step(self, purge: Purge) -> bool:
        try:
            batch, position = purge.next_batch(self._env, self._db)
        except lmdb.Error as error:
            self._failed(error)
            return False
        if batch or position is None:
            gone = self._write(lambda session: purge.delete_in(session, batch, final=position is None))
            if gone is None:
                return False
            purge.advance(gone, position)
        else:
            purge.advance(set(), position)
        return position is None

    def _set_own(self, *, add: Purge | None = None, remove: Purge | None = None) -> None:
        with self._purges_lock:  # The event loop adds, this thread removes.
            kept = tuple(purge for purge in self._own if purge is not remove)
            self._own = kept if add is None else (*kept, add)
            self.purges = (*self._own, *(purge for _, purge in self._foreign.values()))

    # Housekeeping

    def _tick(self, now: float) -> None:
        self.latest_ms = self._now_ms()
        self.highest_ms = max(self.highest_ms, self.latest_ms)
        try:
            with self._env.begin() as reader:
                unfinished = read_records(reader, self._db.purges)
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)  # Another process enlarged the file: adopt its size, for the readers too.
            return
        except lmdb.Error as error:
            self._failed(error)
            return
        self._adopt(unfinished, now)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + _HOUSEKEEPING_SECONDS
            self._env.reader_check()  # A killed process's read transaction would keep freed pages from being reused.
            self._sweep()
            self._prune()

    def _adopt(self, unfinished: list[tuple[bytes, Invalidation]], now: float) -> None:
        """Hide what other processes invalidate; finish it when they seem to have died."""
        own = {(purge.project, purge.record.at) for purge in self._own if purge.record is not None}
        known, self._foreign = self._foreign, {}
        for project, record in unfinished:
            key = (project, record.at)
            since, purge = known.get(key) or (now, Purge.resumed(project, record))
            if key not in own and now - since < _ADOPT_SECONDS:
                self._foreign[key] = since, purge
            elif key not in own:
                self._set_own(add=purge)
        if known or self._foreign:
            self._set_own()

    def _sweep(self) -> None:
        with self._env.begin() as reader, reader.cursor(self._db.expiry) as cursor:
            if not cursor.first() or not is_stale(cursor.key(), self._now_ms()):
                return
        swept = self._write(lambda session: sweep(session, self._now_ms(), _DELETES_PER_COMMIT))
        if swept is not None:
            self.counters.expired += swept
            if swept == _DELETES_PER_COMMIT:
                self._next_housekeeping = 0.0  # More of them: go on at the next tick.

    def _prune(self) -> None:
        with self._env.begin() as reader:
            records = read_records(reader, self._db.invalidations)
        useless = [(project, record) for project, record in records if is_useless(record, self._now_ms())]
        if useless:
            self._write(lambda session: prune(session, useless))


def _next_chunk(rest: Iterator[tuple[bytes, Write]]) -> list[tuple[bytes, Write]]:
    """The next writes that go into one transaction."""
    chunk: list[tuple[bytes, Write]] = []
    size = 0
    for item in rest:
        chunk.append(item)
        size += item[1].size
        if len(chunk) >= _WRITES_PER_COMMIT or size >= _BYTES_PER_COMMIT:
            break
    return chunk
