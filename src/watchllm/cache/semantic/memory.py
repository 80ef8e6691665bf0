"""What a process has in memory of the stored prompts of its host: the partitions that were asked for lately.

A partition is read when it is first asked for: a small one at once, a large one in a thread (until then nothing is
found in it). From then on it follows the store's changes, its own process's and the others', by their numbers. Applying
a change means to look it up anew, so that to apply one twice does no harm.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

import numpy

from watchllm.cache.semantic.partition import Found, Partition, Prompt
from watchllm.cache.semantic.vectors import PROJECT_LENGTH, StoredVector, VectorStore

if TYPE_CHECKING:
    from watchllm.cache.semantic.embedder import Vectors

MAX_PARTITIONS = 1_024
POLL_SECONDS = 0.25
_FIRST_PAGE = 32
_PAGE = 64
# Changes that are applied in one turn of the loop: about a millisecond.
_CHANGES = 64
_GO_ON_AFTER_SECONDS = 0.002
# The store writes in batches: what was kept so long ago has been written.
_WRITTEN_SECONDS = 1.0
# Prompts of a partition that are forgotten one by one: a tenth of a millisecond.
_FEW = 64


class Memory:
    """Partitions by their 40 bytes. All methods are for the event loop's thread.

    `max_entries` bounds the prompts of all partitions together. Beyond, the project that holds most makes room, so that
    no project displaces what smaller ones have. Call `follow` once; it goes on until `close`.
    """

    def __init__(
        self,
        store: VectorStore,
        dimensions: int,
        *,
        max_entries: int,
        executor: Executor,
        max_partitions: int = MAX_PARTITIONS,
    ) -> None:
        self._store = store
        self._dimensions = dimensions
        self._max_entries = max_entries
        self._max_partitions = max_partitions
        self._executor = executor
        self._partitions: OrderedDict[bytes, Partition] = OrderedDict()
        self._loading: set[bytes] = set()
        self._held: Counter[bytes] = Counter()
        self._generation = 0
        self._position = store.position()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unread: str | None = None
        self._unwritten: dict[tuple[bytes, bytes], float] = {}
        """What was put here a moment ago and is not seen in the store yet, oldest first, with when that was."""

    @property
    def problem(self) -> str | None:
        """Why a partition could not be read, until one is; or why vectors of one could not be merged."""
        return self._unread or next(filter(None, (one.merge_error for one in self._partitions.values())), None)

    @property
    def entries(self) -> int:
        return self._held.total()

    @property
    def partitions(self) -> int:
        return len(self._partitions)

    @property
    def is_settled(self) -> bool:
        """Whether all that is in memory can be found, and no partition is being read."""
        return not self._loading and all(partition.is_settled for partition in self._partitions.values())

    def nearest(self, partition: bytes, vector: Vectors, limit: int) -> list[Found] | None:
        """Up to `limit` prompts of a partition, nearest first; None while it is being read."""
        found = self._partition(partition)
        if found is None:
            return None if partition in self._loading else []
        self._partitions.move_to_end(partition)
        return found.nearest(vector, limit)

    def put(self, partition: bytes, key: bytes, vector: Vectors, prompt: Prompt) -> None:
        """Add a prompt, which is seen by this process at once. A partition that is being read finds it in the store."""
        found = self._partition(partition)
        if found is None:
            if partition in self._loading:
                return
            found = self._install(partition, self._new())
        self._partitions.move_to_end(partition)
        before = len(found)
        found.put(key, vector, prompt)
        self._unwritten.pop((partition, key), None)
        self._unwritten[partition, key] = time.monotonic()
        self._count(partition, len(found) - before)
        self._make_room()

    def remove(self, partition: bytes, key: bytes) -> None:
        self._unwritten.pop((partition, key), None)
        found = self._partitions.get(partition)
        if found is not None:
            self._remove(partition, found, key)

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Keep up with the store's changes from now on."""
        self._loop = loop
        self._timer = loop.call_later(POLL_SECONDS, self._poll)

    def close(self) -> None:
        """Follow no longer. The executor is its owner's to shut down."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
        self._partitions.clear()

    # --- reading a partition -----------------------------------------------------------------------------------------

    def _partition(self, partition: bytes) -> Partition | None:
        """It, if it is in memory or small enough to be read at once; what is larger begins to be read."""
        found = self._partitions.get(partition)
        if found is not None or partition in self._loading:
            return found
        page = self._store.read(partition, b"", _FIRST_PAGE)
        if not page:
            return None
        if len(page) == _FIRST_PAGE:
            self._load(partition)
            return None
        found = self._new()
        for key, stored in page:
            _put_stored(found, key, stored, self._dimensions)
        return self._install(partition, found)

    def _load(self, partition: bytes) -> None:
        loop = self._loop
        if loop is None:
            return
        since, generation = self._position, self._generation
        reading = self._executor.submit(self._read, partition, self._room_for(partition))
        self._loading.add(partition)

        def done(future: Future[Partition]) -> None:
            try:
                loop.call_soon_threadsafe(self._loaded, partition, since, generation, future)
            except RuntimeError:
                pass  # The loop has ended, and with it everybody who asks.

        reading.add_done_callback(done)

    def _room_for(self, partition: bytes) -> int:
        """Prompts of a partition that is about to be read: what others leave, and its project's share at least."""
        others = self._held.total() - self._held[_project(partition)]
        projects = len(self._held.keys() | {_project(partition)})
        return max(self._max_entries - others, self._max_entries // projects)

    def _read(self, partition: bytes, room: int) -> Partition:
        """Read a partition, as far as there is `room`; in a thread, which lets the loop's have its turn after each
        page."""
        found = self._new()
        after = b""
        while True:
            page = self._store.read(partition, after, _PAGE)
            for key, stored in page:
                _put_stored(found, key, stored, self._dimensions)
            if len(page) < _PAGE or len(found) > room - _PAGE:
                return found
            after = page[-1][0]
            time.sleep(0)

    def _loaded(self, partition: bytes, since: int, generation: int, reading: Future[Partition]) -> None:
        self._loading.discard(partition)
        if self._loop is None or reading.cancelled() or generation != self._generation:
            return  # Nobody asks any more, or changes of the meantime were lost: who asks again has it read again.
        error = reading.exception()
        if error is not None:
            self._unread = f"{type(error).__name__}: {error}"
            return
        self._unread = None
        self._install(partition, reading.result())
        self._make_room()
        # What changed while it was read is looked at once more.
        self._position = min(self._position, since)

    def _install(self, partition: bytes, found: Partition) -> Partition:
        self._partitions[partition] = found
        self._count(partition, len(found))
        while len(self._partitions) > self._max_partitions:
            self._drop(next(iter(self._partitions)))
        return found

    def _make_room(self) -> None:
        """Of the project that holds most, the partition that was not asked for the longest goes; where little is too
        much, only its first prompts."""
        while (surplus := self._held.total() - self._max_entries) > 0:
            largest = max(self._held, key=self._held.__getitem__)
            partition = next(one for one in self._partitions if _project(one) == largest)
            found = self._partitions[partition]
            if surplus > _FEW or len(found) <= surplus:
                self._drop(partition)
                continue
            before = len(found)
            for _ in range(surplus):
                found.remove_first()
            self._count(partition, len(found) - before)

    def _drop(self, partition: bytes) -> None:
        self._count(partition, -len(self._partitions.pop(partition)))

    def _count(self, partition: bytes, more: int) -> None:
        project = _project(partition)
        self._held[project] += more
        if not self._held[project]:
            del self._held[project]

    def _new(self) -> Partition:
        return Partition(self._dimensions, self._max_entries, self._in_background)

    def _in_background(self, work: Callable[[], None]) -> object:
        return self._executor.submit(work)

    # --- following the store -----------------------------------------------------------------------------------------

    def _poll(self) -> None:
        loop = self._loop
        if loop is None:
            return
        changes = self._store.changes(self._position, _CHANGES)
        self._position = changes.position
        if not changes.is_whole:
            self._start_afresh()
        for partition, key in changes.places:
            found = self._partitions.get(partition)
            if found is not None:
                self._apply(found, partition, key)
        self._forget_written()
        seconds = POLL_SECONDS if len(changes.places) < _CHANGES else _GO_ON_AFTER_SECONDS
        self._timer = loop.call_later(seconds, self._poll)

    def _apply(self, found: Partition, partition: bytes, key: bytes, settled_ms: int | None = None) -> None:
        """Take over what the store has. A prompt that this process kept at `settled_ms` has been written, if ever."""
        stored, known = self._store.get(partition, key), found.get(key)
        if known is not None and known.created_ms != settled_ms:
            is_older = (partition, key) in self._unwritten if stored is None else stored.created_ms < known.created_ms
            if is_older:
                # What took its place waits to be written; only where it never is, the older one, or none, holds.
                assert self._loop is not None
                self._loop.call_later(_WRITTEN_SECONDS, self._look_again, partition, key, known.created_ms)
                return
        self._unwritten.pop((partition, key), None)
        if stored is None:
            self._remove(partition, found, key)
            return
        if known is None or known.created_ms != stored.created_ms or known.expires_ms != stored.expires_ms:
            before = len(found)
            _put_stored(found, key, stored, self._dimensions)
            self._count(partition, len(found) - before)
            self._make_room()

    def _look_again(self, partition: bytes, key: bytes, settled_ms: int) -> None:
        found = self._partitions.get(partition)
        if found is not None and self._loop is not None:
            self._apply(found, partition, key, settled_ms)

    def _forget_written(self) -> None:
        """What was put so long ago has been written, or never will be."""
        long_ago = time.monotonic() - _WRITTEN_SECONDS
        while self._unwritten:
            place, put_at = next(iter(self._unwritten.items()))
            if put_at > long_ago:
                return
            del self._unwritten[place]

    def _start_afresh(self) -> None:
        """Changes were lost: what is in memory is read again when it is asked for."""
        self._partitions.clear()
        self._unwritten.clear()
        self._held.clear()
        self._generation += 1

    def _remove(self, partition: bytes, found: Partition, key: bytes) -> None:
        before = len(found)
        found.remove(key)
        self._count(partition, len(found) - before)


def _project(partition: bytes) -> bytes:
    return partition[:PROJECT_LENGTH]


def _put_stored(found: Partition, key: bytes, stored: StoredVector, dimensions: int) -> None:
    """Add what the store has; what is no vector of this many numbers is passed over, like one that was lost."""
    vector = numpy.frombuffer(stored.vector, numpy.float16).astype(numpy.float32)
    length = float(numpy.dot(vector, vector)) ** 0.5
    if vector.shape == (dimensions,) and math.isfinite(length):
        if length > 0:
            vector /= length  # Written in half the precision, it is a little longer or shorter than 1.
        found.put(key, vector, Prompt(stored.created_ms, stored.expires_ms, stored.features))
