"""The vectors of one partition, searched in memory.

New vectors go into a small segment that is searched exactly. A full one is closed and another begun. When what is
closed has more rows than an exact search is the quicker for, or too many rows that are not wanted any more, a thread
makes one segment of several (a graph, if it is large), which then takes their place: as in a log-structured merge tree
each row is moved a logarithmic number of times. No search ever waits for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy

from watchllm.cache.semantic.segments import ExactSegment, Segment, merged

if TYPE_CHECKING:
    from watchllm.cache.semantic.embedder import Vectors

CROSSOVER = 8_192
"""Rows from which a graph is made. It is the quicker from about 4,096 on, which benchmarks/semantic/index.py finds, but
up to here comparing all takes 0.1 ms and is exact."""

SEGMENT_ROWS = 4_096
"""Rows of a segment that is still written to."""

MOST_SCANNED = 16_384
"""Rows that one search compares one by one, about 0.3 ms; older ones are not found until their graph is built, which
happens while an index of many vectors is loaded."""

_MOST_FETCHED = 256

Background = Callable[[Callable[[], None]], object]
"""Runs a function later, in another thread: `executor.submit`."""


class Index:
    """Keys of entries by vector. All methods but the merge itself are for one thread, the event loop's.

    `max_entries` bounds it: beyond, the one that was added first goes. About 0.9 KiB an entry of 256 dimensions past
    CROSSOVER, 1.4 KiB below.
    """

    def __init__(
        self,
        dimensions: int,
        *,
        max_entries: int,
        background: Background,
        crossover: int = CROSSOVER,
        segment_rows: int = SEGMENT_ROWS,
    ) -> None:
        if max_entries < 1:
            raise ValueError(f"an index holds at least one entry, not {max_entries}")
        self.dimensions = dimensions
        self.merge_error: str | None = None
        """Why the latest merge failed; it is tried again when there is more to merge."""
        self._max_entries = max_entries
        self._background = background
        self._crossover = crossover
        self._segment_rows = segment_rows
        self._open = ExactSegment(dimensions, segment_rows)
        self._closed: list[Segment] = []
        self._serials: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._next_serial = 0
        self._merging: list[Segment] = []
        self._done: list[Segment | Exception | None] = []
        self._least_closed = 0

    def __len__(self) -> int:
        return len(self._serials)

    def __contains__(self, key: bytes) -> bool:
        return key in self._serials

    @property
    def is_settled(self) -> bool:
        """Whether no merge is under way, so that every vector is found."""
        self._install()
        return not self._merging

    @property
    def nbytes(self) -> int:
        """Memory in bytes, estimated."""
        return 250 * len(self) + self._open.nbytes + sum(segment.nbytes for segment in self._closed)

    def add(self, key: bytes, vector: Vectors) -> None:
        """Add a vector of length 1. One that is there already is left alone: a key stands for one text.

        Raises ValueError for a vector of other dimensions or with values that are not numbers.
        """
        if vector.shape != (self.dimensions,) or not numpy.isfinite(vector).all():
            raise ValueError(f"expected {self.dimensions} finite numbers, not an array of shape {vector.shape}")
        if key in self._serials:
            return
        if len(self._serials) >= self._max_entries:
            self.remove(next(iter(self._serials)))
        self._serials[key] = self._next_serial
        self._keys[self._next_serial] = key
        self._open.add(vector, self._next_serial)
        self._next_serial += 1
        if self._open.is_full:
            self._closed.append(self._open)
            self._open = ExactSegment(self.dimensions, self._segment_rows)
            self._install()

    def remove(self, key: bytes) -> bool:
        """Whether it was there. Its row goes with the next merge."""
        serial = self._serials.pop(key, None)
        if serial is None:
            return False
        del self._keys[serial]
        self._install()
        return True

    def search(self, vector: Vectors, limit: int) -> list[tuple[float, bytes]]:
        """Up to `limit` pairs (cosine, key), nearest first."""
        self._install()
        found: list[tuple[float, int]] = []
        to_scan = MOST_SCANNED
        for segment in (self._open, *reversed(self._closed)):
            if isinstance(segment, ExactSegment):
                if segment.rows > to_scan:
                    continue
                to_scan -= segment.rows
            if segment.rows:
                found += self._wanted(segment, vector, limit)
        found.sort(reverse=True)
        return [(similarity, self._keys[serial]) for similarity, serial in found[:limit]]

    def _wanted(self, segment: Segment, vector: Vectors, limit: int) -> list[tuple[float, int]]:
        fetched = limit
        while True:
            found = [pair for pair in segment.search(vector, fetched) if pair[1] in self._keys]
            # Rows that are not wanted any more can hide those behind them.
            if len(found) >= limit or fetched >= min(_MOST_FETCHED, segment.rows):
                return found[:limit]
            fetched = min(4 * fetched, _MOST_FETCHED)

    # Merging

    def _install(self) -> None:
        """Put a finished merge in place, and begin another where one is due."""
        if self._done:
            made = self._done.pop()
            if isinstance(made, Exception):
                self._merging = []
                self.merge_error = f"{type(made).__name__}: {made}"
                self._least_closed = len(self._closed) + 1
                return
            self.merge_error, self._least_closed = None, 0
            first = self._closed.index(self._merging[0])
            self._closed[first : first + len(self._merging)] = [] if made is None else [made]
            # To free what was merged takes milliseconds too.
            self._background(self._merging.clear)
            self._merging = []
        if not self._merging and len(self._closed) >= self._least_closed:
            self._merging = self._due()
            if self._merging:
                self._background(self._merge)

    def _due(self) -> list[Segment]:
        """The segments to make one of: always neighbours, always the newest."""
        rows = sum(segment.rows for segment in self._closed)
        if rows + self._open.rows > len(self) * 4 // 3 + self._segment_rows:
            return list(self._closed)
        newest = len(self._closed)
        total = 0
        while newest and isinstance(self._closed[newest - 1], ExactSegment):
            newest -= 1
            total += self._closed[newest].rows
        if total < self._crossover:
            return []
        while newest and self._closed[newest - 1].rows <= total:
            newest -= 1
            total += self._closed[newest].rows
        return self._closed[newest:]

    def _merge(self) -> None:
        try:
            self._done.append(merged(self._merging, self.dimensions, self._keys.__contains__, self._crossover))
        except Exception as error:  # noqa: BLE001  (reported: the segments are still there and are searched)
            self._done.append(error)
