"""The exact cache of one host: an LMDB file that every process of the host may have open at once.

`get` is a memory-mapped read of microseconds on the event loop; `put` goes to an overlay that `get` looks at first and
that a thread commits in groups (writer.py says what survives what). Nothing is loaded when it is opened. The tree of
sub-databases is described in cache_layout.py.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec

from watchllm.cache.entry import CacheStats, Entry, InvalidationFilter
from watchllm.stores.lmdb.cache_layout import ID_LENGTH, PROJECT_LENGTH, Invalidation, open_file
from watchllm.stores.lmdb.cache_session import read_counts, read_invalidations, read_total
from watchllm.stores.lmdb.invalidation import Purge
from watchllm.stores.lmdb.pending import ENTRY_OVERHEAD, Write
from watchllm.stores.lmdb.writer import MOST_TOUCHED, CacheWriter

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

MIN_BYTES = 1 << 20
"""Smallest bound that a store accepts."""

_PENDING_BYTES = 64 << 20
_LARGEST_ENTRY = 8 << 20
_LARGEST_SHARE = 16
_CLOCK_TOLERANCE_MS = 60_000
_CLOCK_STEP_MS = 15 * 60_000
_READ_ERROR_SECONDS = 60.0
_STATS_SECONDS = 1.0

# What is assumed where the records cannot be read: better a miss than an answer that was to be forgotten.
_REFUSE_ALL = (Invalidation(0, sys.maxsize, InvalidationFilter()),)

_decode = msgspec.msgpack.Decoder(Entry).decode


def largest_entry(max_bytes: int) -> int:
    """Bytes of the longest body that a store with this bound keeps."""
    return min(_LARGEST_ENTRY, max_bytes // _LARGEST_SHARE)


class LmdbExactStore:
    """The port `ExactStore` on LMDB. Not for use in a child forked after `open`: open it there.

    `max_bytes` bounds the sum of all entries, keys and indexes included; the file is at most twice as large plus
    128 MiB. `note` says so when the content had to be dropped at opening.
    """

    is_remote = False

    @classmethod
    def open(cls, path: StrPath, *, max_bytes: int, now_ms: Callable[[], int]) -> LmdbExactStore:
        """Open the cache in the folder `path`, made (0700, its files 0600) if it is missing. `now_ms`: the wall clock.

        Raises StoreBroken, whose message names the file and says what to do, and ValueError below MIN_BYTES.
        """
        return cls(path, max_bytes, now_ms, _PENDING_BYTES)

    def __init__(self, path: StrPath, max_bytes: int, now_ms: Callable[[], int], pending_bytes: int) -> None:
        if max_bytes < MIN_BYTES:
            raise ValueError(f"the cache needs at least {MIN_BYTES} bytes, not {max_bytes}")
        self._env, self._db, self.note = open_file(path, max_bytes)
        self.max_bytes = max_bytes
        self._now_ms = now_ms
        self._pid = os.getpid()
        self._largest = largest_entry(max_bytes)
        self._writer = CacheWriter(self._env, self._db, max_bytes, now_ms, pending_bytes)
        self._pending = self._writer.pending
        self._begin = self._env.begin
        self._entries = self._db.entries
        self._newest_begun_ms = 0
        self._read_error: tuple[float, str] | None = None
        self._closed = False
        self._writer.start()

    def get(self, project: bytes, key: bytes) -> Entry | None:
        """The entry, fresh or expired, or None; None also where the store cannot be read (`health` says so)."""
        entry_id = project + key
        writer = self._writer
        pending = self._pending
        if pending.fresh or pending.taken:
            write = pending.find(entry_id)
            if write is not None and not self._is_void(project, key, write):
                return write.entry
        purges = writer.purges  # Before the read: a purge that ends meanwhile has deleted what it hid.
        try:
            txn = self._begin(self._entries, None, False, True)
            try:
                value = txn.get(entry_id)
                if value is None:
                    return None
                entry = _decode(value)
            finally:
                txn.abort()
        except (lmdb.Error, msgspec.DecodeError) as error:
            self._note_read_error(error)
            return None
        if purges and any(purge.hides(project, key, entry) for purge in purges):
            return None
        if entry.created_ms > writer.latest_ms and self._is_from_the_future(entry):
            return None
        touched = writer.touched
        if len(touched) < MOST_TOUCHED:
            touched.add(entry_id)
        return entry

    def fetch(self, project: bytes, keys: Sequence[bytes], done: Callable[[], None]) -> bool:
        """All there is on this host is at hand."""
        return False

    def put(self, project: bytes, key: bytes, entry: Entry, begun_ms: int) -> None:
        """Store, unless an invalidation that matches came at or after `begun_ms`. One that is too large to keep (8 MiB,
        or a sixteenth of the bound) takes away what was there instead. Dropped while 64 MiB wait to be written."""
        entry_id = _checked_id(project, key)
        if len(entry.body) > self._largest:
            self._writer.counters.dropped += 1
            self.remove(project, key)
            return
        now = self._now_ms()
        # A call that began in the future: the clock was set back meanwhile, so every invalidation may be later.
        begun_ms = begun_ms if begun_ms <= now else 0
        self._newest_begun_ms = max(self._newest_begun_ms, begun_ms)
        if any(purge.refuses_entry(project, key, entry, begun_ms) for purge in self._writer.purges):
            self._writer.counters.refused += 1
        elif not self._pending.add(entry_id, Write(entry, begun_ms, len(entry.body) + ENTRY_OVERHEAD)):
            self._writer.counters.dropped += 1

    def remove(self, project: bytes, key: bytes) -> None:
        """Forget one entry. Like a put it is seen here at once, and elsewhere when it is committed."""
        if not self._pending.add(_checked_id(project, key), Write(None, 0, ENTRY_OVERHEAD)):
            self._writer.counters.dropped += 1

    def invalidated_since(self, project: bytes, model: str, kind: str, begun_ms: int, key: bytes | None = None) -> bool:
        """Whether an invalidation that may match such an entry, if it were created now, came at or after `begun_ms`."""
        now = self._now_ms()
        begun = begun_ms if begun_ms <= now else 0
        return any(purge.refuses(project, model, kind, now, begun, key) for purge in self._writer.purges) or any(
            record.refuses(model, kind, now, begun, key) for record in self._records(project)
        )

    async def invalidate(self, project: bytes, what: InvalidationFilter) -> int:
        """Forget all that matches; the number forgotten. Hidden from `get` here from the call on; when it returns no
        process of the host sees or stores what began before. Deletes in small steps, other writing goes on.

        Raises Unavailable when the file cannot be written; in this process it is in force even then.
        """
        if len(project) != PROJECT_LENGTH:
            raise ValueError(f"a project is {PROJECT_LENGTH} bytes, not {len(project)}")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()

        def done(count: int, error: Exception | None) -> None:
            try:
                loop.call_soon_threadsafe(_resolve, future, count, error)
            except RuntimeError:
                pass  # The caller's loop has ended: nobody waits for the number.

        at_ms = self._invalidation_time()

        def matches(entry_id: bytes, write: Write) -> bool:
            entry = write.entry
            return (
                entry is not None
                and entry_id.startswith(project)
                and what.matches(entry.model, entry.kind, entry.created_ms, entry_id[PROJECT_LENGTH:], entry.key_id)
            )

        # What an earlier invalidation had refused already was not there to be forgotten.
        records = self._records(project)
        forgotten = self._pending.drop(matches, partial(_is_refused_by, records))
        self._writer.submit(Purge(project, what, at_ms, forgotten, done))
        return await future

    async def stats(self, project: bytes) -> CacheStats:
        """What the project holds, this process's pending writes included unless they take longer than a second."""
        if self._pending.fresh or self._pending.taken:
            await asyncio.to_thread(self._pending.flush, _STATS_SECONDS)
        try:
            with self._env.begin() as txn:
                counts = read_counts(txn, self._db, project)
        except lmdb.Error as error:
            self._note_read_error(error)
            counts = {}
        return CacheStats(
            entries=sum(row[0] for row in counts.values()),
            bytes=sum(row[1] for row in counts.values()),
            by_kind={kind: row[0] for kind, row in counts.items()},
            max_bytes=self.max_bytes,
        )

    def health(self) -> str | None:
        """Why the cache does not work as it should, or None."""
        failing = self._writer.failing
        if failing is not None:
            return f"new answers cannot be stored in the cache {self._env.path()}: {failing}"
        if self._read_error is not None and time.monotonic() - self._read_error[0] < _READ_ERROR_SECONDS:
            return f"the cache {self._env.path()} cannot be read: {self._read_error[1]}"
        return None

    def counters(self) -> dict[str, Any]:
        """Entries and bytes of the whole file, and what happened in this process since it was opened."""
        with self._env.begin() as txn:
            entries, size = read_total(txn, self._db)
        return {
            "entries": entries,
            "bytes": size,
            "pending_bytes": self._pending.size(),
            **msgspec.to_builtins(self._writer.counters),
        }

    def audit(self, *, mend: bool = False) -> list[str]:
        """What a recount of the whole file finds wrong (nothing, unless there is a bug or the disk is broken); with
        `mend` the counters are then set right. Walks all entries: not for the event loop. Raises lmdb.Error."""
        from watchllm.stores.lmdb.audit import audit, repair

        with self._env.begin(write=mend) as txn:
            problems = audit(txn, self._db)
            if problems and mend:
                repair(txn, self._db)
        return problems

    def flush(self) -> None:
        """Wait until everything put so far is committed, or dropped for an error that `health` names."""
        if not self._closed:
            self._pending.flush()

    def close(self) -> None:
        """Write what is pending and close the file. Idempotent; does nothing in a forked child."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        self._writer.stop()
        self._env.close()

    def _is_void(self, project: bytes, key: bytes, write: Write) -> bool:
        """Whether a pending entry was invalidated, here or by another process, before it could be committed."""
        entry = write.entry
        return entry is not None and (
            any(purge.refuses_entry(project, key, entry, write.begun_ms) for purge in self._writer.purges)
            or any(record.refuses_entry(key, entry, write.begun_ms) for record in self._records(project))
        )

    def _records(self, project: bytes) -> Sequence[Invalidation]:
        try:
            with self._env.begin() as txn:
                return read_invalidations(txn, self._db, project)
        except (lmdb.Error, msgspec.DecodeError) as error:
            self._note_read_error(error)
            return _REFUSE_ALL

    def _is_from_the_future(self, entry: Entry) -> bool:
        # Created by a clock that has been set back since: its expiry cannot be trusted, and could be years away.
        return entry.created_ms > self._now_ms() + _CLOCK_TOLERANCE_MS

    def _invalidation_time(self) -> int:
        # After a small step back of the clock, calls that began before the step must count as begun before this, too.
        now = self._now_ms()
        newest = max(self._newest_begun_ms, self._writer.highest_ms)
        return newest if now < newest <= now + _CLOCK_STEP_MS else now

    def _note_read_error(self, error: Exception) -> None:
        self._writer.counters.read_errors += 1
        self._read_error = time.monotonic(), f"{type(error).__name__}: {error}"
        if isinstance(error, lmdb.MapResizedError):
            self._pending.hurry()  # Another process enlarged the file; the writer adopts its size.


def _is_refused_by(records: Sequence[Invalidation], entry_id: bytes, write: Write) -> bool:
    entry, key = write.entry, entry_id[PROJECT_LENGTH:]
    return entry is None or any(record.refuses_entry(key, entry, write.begun_ms) for record in records)


def _checked_id(project: bytes, key: bytes) -> bytes:
    if len(project) != PROJECT_LENGTH or len(project) + len(key) != ID_LENGTH:
        raise ValueError(f"expected a project of 16 bytes and a key of 32, not {len(project)} and {len(key)}")
    return project + key


def _resolve(future: asyncio.Future[int], count: int, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(count)
    else:
        future.set_exception(error)
