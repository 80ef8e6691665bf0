"""The writing side of the journal: one series of segments per process, appended to from the event loop.

`append` copies a record into the current segment's memory map and makes no system call. A thread prepares the next
segment, syncs to disk at least each second, and notices when the folder was removed, cannot be written, or is full.

When there is no room, admission ends first (`refusal`), while the current segment still has room for what is under
way. What comes even then is kept in memory, within bounds, until there is room again.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from watchllm.domain import ids
from watchllm.domain.ledger import Place
from watchllm.domain.usage_event import OpenedCall, UsageEvent
from watchllm.journal import series as files
from watchllm.journal.records import ALIGNMENT, FRAME, MAX_PAYLOAD, OPENED, SETTLED, SegmentHeader, tag_of
from watchllm.journal.segment import SealedSegments, Segment, is_same

if TYPE_CHECKING:
    from pathlib import Path

    from watchllm.domain.paths import StrPath

REFUSE, SERVE_UNMETERED = "refuse", "serve-unmetered"

SEGMENT_BYTES = 8 << 20
_SMALLEST_SEGMENT = 128 << 10
# Its blocks are written before the first request is served; a second of full load fits in.
_FIRST_SEGMENT = 1 << 20
_RESERVED_PARTS = 8
_TEND_SECONDS = 0.25
_SYNC_SECONDS = 0.75
_PATIENCE_SECONDS = 0.05
_BACKLOG_BYTES = 4 << 20
_SERIES = "jnl_"
_REFUSAL = (
    "The gateway cannot record usage and refuses requests until it can; try again in a moment. Its operator finds the "
    "reason with `watchllm doctor`."
)

_OPENED_TAG, _SETTLED_TAG = tag_of(OPENED), tag_of(SETTLED)
_encode = msgspec.msgpack.Encoder().encode


class RecordTooLong(ValueError):
    """A record longer than MAX_PAYLOAD, which the bounds on an event's fields exclude."""


class Journal:
    """One process's journal. `opened` and `settled` are for one thread; the others may be called from any.

    `unrecorded` counts the records that found no room, neither on disk nor in memory.
    """

    def __init__(
        self,
        folder: StrPath,
        *,
        max_bytes: int,
        policy: str = REFUSE,
        role: str = "proxy",
        region: str = "local",
        segment_bytes: int = 0,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._folder = os.fspath(folder)
        self.series = ids.new_id(_SERIES)
        self.unrecorded = 0
        self._max_bytes = max_bytes
        self._policy = policy
        self._role, self._region, self._now_ns = role, region, now_ns
        self._segment_bytes = segment_bytes or max(_SMALLEST_SEGMENT, min(SEGMENT_BYTES, max_bytes // 8))
        self._lock = threading.Lock()
        self._attempted = threading.Event()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._lock_file = -1
        self._sequence = 0
        self._current: Segment | None = None
        self._next: Segment | None = None
        self._sealed = SealedSegments()
        self._limit = 0
        self._backlog: deque[tuple[int, bytes]] = deque()
        self._backlog_bytes = 0
        self._problem: str | None = None
        self._sync_problem: str | None = None
        self._misplaced = False
        self._last_sync = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self.refusal: str | None = None
        """Why no request may be admitted now; None = they may. Read on every request."""

    @classmethod
    def open(
        cls,
        folder: StrPath,
        *,
        max_bytes: int,
        policy: str = REFUSE,
        role: str = "proxy",
        region: str = "local",
        segment_bytes: int = 0,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> Journal:
        """Begin a new series in `folder`. Never raises for what is wrong with the disk: see `state`, it is retried.

        `max_bytes` bounds all journals in the folder together; `policy` is REFUSE or SERVE_UNMETERED.
        """
        journal = cls(
            folder,
            max_bytes=max_bytes,
            policy=policy,
            role=role,
            region=region,
            segment_bytes=segment_bytes,
            now_ns=now_ns,
        )
        journal._prepare()
        journal._resume()
        journal._thread.start()
        return journal

    @property
    def folder(self) -> Path:
        from pathlib import Path

        return Path(self._folder)

    def opened(self, call: OpenedCall) -> None:
        """Record a call before it goes upstream."""
        self.append(_OPENED_TAG, _encode(call))

    def settled(self, event: UsageEvent) -> None:
        """Record a request's end, before its last byte is handed to the transport."""
        self.append(_SETTLED_TAG, _encode(event))

    def append(self, tag: int, payload: bytes) -> None:
        """Put one record into the page cache. Raises RecordTooLong."""
        length = len(payload)
        word = length | tag << 24
        with self._lock:
            segment = self._current
            if segment is not None:
                position = segment.position
                start = position + ALIGNMENT
                end = start + length
                if end <= self._limit and length <= MAX_PAYLOAD:
                    memory = segment.map
                    memory[start:end] = payload
                    FRAME.pack_into(memory, position, word, crc32(payload, word))
                    segment.position = (end + 7) & -8
                    return
        if length > MAX_PAYLOAD:
            raise RecordTooLong(f"a journal record of {length} bytes; at most {MAX_PAYLOAD}")
        self._append_beyond(tag, payload)

    def end(self) -> Place | None:
        """Where the next record will be written: what was recorded up to now is before it. None = nothing can be
        written now, and some of it may wait in memory."""
        with self._lock:
            segment = self._current
            return None if segment is None or self._backlog else Place(segment.sequence, segment.position)

    def state(self) -> str | None:
        """What is wrong, in words for the operator; None = nothing."""
        problem = self._problem or self._sync_problem
        if self.unrecorded:
            counted = f"{self.unrecorded} usage records found no room since this process started"
            return f"{problem}; {counted}" if problem else counted
        return problem

    def sync(self) -> None:
        """Bring everything written so far to the disk; waits for it. Raises OSError."""
        for segment in self._segments():
            segment.sync()

    def close(self) -> None:
        """Seal and sync; the recorder then takes the series as complete."""
        self._stop.set()
        self._wake.set()
        self._thread.join()
        if self._backlog:
            self._prepare()
            self._resume()
        with self._lock:
            self._limit = 0
            self.unrecorded += len(self._backlog)
            self._backlog.clear()
            current, self._current = self._current, None
            following, self._next = self._next, None
        if following is not None:
            following.close(keep=False)
        if current is not None:
            current.seal()
            try:
                current.sync()
            finally:
                current.close()
        self._sealed.close()
        if self._lock_file >= 0:
            os.close(self._lock_file)

    def _append_beyond(self, tag: int, payload: bytes) -> None:
        """The current segment has no room: go on in the next one, made here only if the thread was too slow."""
        for _ in range(2):
            self._go_on()
            with self._lock:
                if self._current is not None and not self._backlog and self._put(tag, payload):
                    return
        with self._lock:
            if self._backlog_bytes + len(payload) > _BACKLOG_BYTES:
                self.unrecorded += 1
                return
            self._backlog.append((tag, payload))
            self._backlog_bytes += len(payload)

    def _put(self, tag: int, payload: bytes) -> bool:
        """Write into the current segment; whether there was room. The lock is held."""
        segment = self._current
        assert segment is not None
        end = segment.position + ALIGNMENT + len(payload)
        if end > self._limit:
            return False
        word = len(payload) | tag << 24
        segment.map[segment.position + ALIGNMENT : end] = payload
        FRAME.pack_into(segment.map, segment.position, word, crc32(payload, word))
        segment.position = (end + 7) & -8
        return True

    def _go_on(self) -> None:
        """The current segment is full up to its reserve, or wholly.

        Then go on in the reserve, which is what is kept for requests that were admitted; or in the next segment; or
        else write no more.
        """
        full = self._current
        if self._next is None and self._problem is None:
            # A segment was filled before the thread came to making the next: wait for it a moment, and only once.
            self._attempted.clear()
            self._wake.set()
            if not self._attempted.wait(_PATIENCE_SECONDS) and self._next is None:
                self._problem = f"the disk under {self._folder} is too slow for the traffic"
        with self._lock:
            if self._current is not full:
                return  # The thread has gone on meanwhile.
            if full is not None and 0 < self._limit < full.limit:
                self._limit = full.limit
                self._judge()
            elif self._next is not None:
                self._swap(self._next)
            else:
                # Sealed, so that the recorder can remove it: that may be the room that the next one needs.
                self._retire()
                self._limit = 0
                self._judge()
        self._wake.set()

    def _swap(self, following: Segment) -> None:
        """Make the next segment the current one. The lock is held."""
        self._retire()
        self._current, self._next = following, None
        self._limit = following.limit - following.size // _RESERVED_PARTS
        self._judge()

    def _retire(self) -> None:
        """Nothing more goes into the current segment. The lock is held."""
        if self._current is not None:
            self._sealed.add(self._current)
            self._current = None

    def _resume(self) -> None:
        """Where nothing could be written, go on now that there is a segment; first with what has waited in memory."""
        with self._lock:
            if self._limit == 0 and self._next is not None:
                self._swap(self._next)
            while self._backlog and self._current is not None and self._put(*self._backlog[0]):
                _, payload = self._backlog.popleft()
                self._backlog_bytes -= len(payload)
            if self._backlog:
                self._retire()
                self._limit = 0
            self._judge()

    def _judge(self) -> None:
        """Decide whether requests may be admitted. The lock is held."""
        problem = self._problem
        current = self._current
        in_reserve = current is None or self._limit == 0 or self._limit == current.limit
        has_room = self._next is not None or not in_reserve
        if problem is None or self._policy != REFUSE or (has_room and not self._misplaced):
            self.refusal = None
        else:
            self.refusal = _REFUSAL

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(_TEND_SECONDS)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self._tend()
            except OSError as error:
                self._problem = f"the journal {self._folder} cannot be written: {error.strerror or error}"
                with self._lock:
                    self._judge()

    def _tend(self) -> None:
        if self._lock_file >= 0 and not self._is_in_place():
            self._misplaced = True
            self._rescue()
            self._misplaced, self._problem = False, None
        if self._next is None:
            self._prepare()
        self._resume()
        now = time.monotonic()
        if now - self._last_sync >= _SYNC_SECONDS:
            self._last_sync = now
            try:
                self.sync()
                self._sync_problem = None
            except OSError as error:
                self._sync_problem = f"the journal {self._folder} cannot be synced: {error.strerror or error}"
        self._sealed.release()

    def _prepare(self) -> None:
        """Have a next segment ready, or say in `_problem` why there is none."""
        try:
            if self._next is None:
                self._make_next()
        finally:
            self._attempted.set()

    def _make_next(self) -> None:
        try:
            if self._lock_file < 0:
                self._lock_series()
            # Counted each time: other processes write here too, and the recorder removes.
            used = files.folder_bytes(self._folder)
            size = self._segment_bytes if self._sequence else min(self._segment_bytes, _FIRST_SEGMENT)
            if used + size > self._max_bytes:
                self._problem = (
                    f"the journals in {self._folder} hold {used} bytes and may hold {self._max_bytes}; "
                    "is `watchllm recorder` running?"
                )
                return
            header = SegmentHeader(
                self.series, self._sequence + 1, os.getpid(), self._role, self._region, self._now_ns()
            )
            made = Segment(self._folder, header, size)
        except OSError as error:
            self._problem = f"the journal {self._folder} cannot be written: {error.strerror or error}"
            return
        with self._lock:
            self._next = made
            self._sequence += 1
            self._problem = None

    def _lock_series(self) -> None:
        descriptor = files.make_lock(self._folder, self.series)
        if self._lock_file >= 0:
            os.close(self._lock_file)
        self._lock_file = descriptor

    def _is_in_place(self) -> bool:
        """Whether lock and segments are still where we made them (the recorder removes none of these)."""
        current, following = self._current, self._next
        if (current is not None and not current.is_in_place) or (following is not None and not following.is_in_place):
            return False
        return is_same(files.lock_path(self._folder, self.series), self._lock_file)

    def _rescue(self) -> None:
        """The folder was removed or replaced: write what we still hold open anew, under the same names.

        The recorder knows by series, sequence and offset what of it it has applied already.
        """
        self._lock_series()
        self._sealed.rescue()
        with self._lock:
            old, self._next = self._next, None
            current = self._current
            if current is not None and not current.is_in_place:
                header = SegmentHeader(
                    self.series, current.sequence, os.getpid(), self._role, self._region, self._now_ns()
                )
                copy = Segment(self._folder, header, current.size)
                copy.map[: current.position] = current.content()
                copy.position = current.position
                self._current = copy
                # The limit is as it was: both have one size.
                current.unmap()
                os.close(current.descriptor)
        if old is not None:
            self._sequence -= 1
            old.close(keep=False)

    def _segments(self) -> list[Segment]:
        with self._lock:
            current = self._current
            return [*self._sealed, current] if current is not None else list(self._sealed)
