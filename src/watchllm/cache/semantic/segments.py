"""Parts of an index: vectors that are searched one by one, and vectors in a graph.

Each row has a serial number; which of them are still wanted is the index's matter, not theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import faiss
import numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from watchllm.cache.semantic.embedder import Vectors

    Serials: TypeAlias = NDArray[numpy.int64]

_FIRST_ROWS = 2  # Every conversation is a partition of its own, most of them for ever.
_LINKS = 16
_BUILD_EFFORT = 80
_SEARCH_EFFORT = 96
# faiss works without the interpreter's lock; what is done with it is done in steps of well under a millisecond. Nothing
# large is put together on the way, either: to free 100 MB takes the lock for 10 ms.
_ROWS_A_STEP = 256


class Segment(Protocol):
    """`search` gives up to `limit` pairs (cosine, serial), nearest first."""

    @property
    def rows(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    def search(self, vector: Vectors, limit: int) -> list[tuple[float, int]]: ...

    def serials(self) -> Iterator[Serials]:
        """Those of all rows, some at a time."""
        ...

    def content(self) -> Iterator[tuple[Vectors, Serials]]:
        """All rows with their serials, in the same steps."""
        ...


class ExactSegment:
    """A growing matrix of float32: recall 1, and time in proportion to its rows. Holds at most `capacity` rows."""

    def __init__(self, dimensions: int, capacity: int) -> None:
        self.capacity = capacity
        self.rows = 0
        self._matrix = numpy.empty((min(_FIRST_ROWS, capacity), dimensions), numpy.float32)
        self._serials = numpy.empty(len(self._matrix), numpy.int64)

    @classmethod
    def of(cls, dimensions: int, rows: int, content: Iterable[tuple[Vectors, Serials]]) -> ExactSegment:
        """A full one, of `rows` rows."""
        segment = cls(dimensions, rows)
        segment._matrix = numpy.empty((rows, dimensions), numpy.float32)
        segment._serials = numpy.empty(rows, numpy.int64)
        for vectors, serials in content:
            end = segment.rows + len(serials)
            segment._matrix[segment.rows : end] = vectors
            segment._serials[segment.rows : end] = serials
            segment.rows = end
        return segment

    @property
    def is_full(self) -> bool:
        return self.rows >= self.capacity

    @property
    def nbytes(self) -> int:
        return self._matrix.nbytes + self._serials.nbytes

    def add(self, vector: Vectors, serial: int) -> None:
        if self.rows == len(self._matrix):
            self._grow()
        self._matrix[self.rows] = vector
        self._serials[self.rows] = serial
        self.rows += 1

    def search(self, vector: Vectors, limit: int) -> list[tuple[float, int]]:
        similarities = self._matrix[: self.rows] @ vector
        best = numpy.argpartition(similarities, -limit)[-limit:] if limit < self.rows else numpy.arange(self.rows)
        found = zip(similarities[best].tolist(), self._serials[best].tolist(), strict=True)
        return sorted(found, reverse=True)

    def serials(self) -> Iterator[Serials]:
        return _in_steps(self._serials[: self.rows])

    def content(self) -> Iterator[tuple[Vectors, Serials]]:
        for number, serials in enumerate(self.serials()):
            start = number * _ROWS_A_STEP
            yield self._matrix[start : start + len(serials)], serials

    def _grow(self) -> None:
        size = min(2 * len(self._matrix), self.capacity)
        matrix = numpy.empty((size, self._matrix.shape[1]), numpy.float32)
        serials = numpy.empty(size, numpy.int64)
        matrix[: self.rows] = self._matrix
        serials[: self.rows] = self._serials
        self._matrix, self._serials = matrix, serials


class GraphSegment:
    """HNSW over float16 (Malkov and Yashunin, 2016; faiss): time grows with the logarithm of the rows. Never changed
    after it is built, because faiss cannot add and search at once."""

    def __init__(self, graph: faiss.IndexHNSW, serials: Serials) -> None:
        self._graph = graph
        self._serials = serials
        self.rows = len(serials)
        self.nbytes = self.rows * (graph.d * 2 + _LINKS * 2 * 4 + 16 + 8)

    @classmethod
    def build(cls, dimensions: int, content: Iterable[tuple[Vectors, Serials]]) -> GraphSegment:
        """Takes about 0.2 ms a row, most of it without the interpreter's lock: for a thread, and one core."""
        half = cast(Any, faiss.ScalarQuantizer.QT_fp16)  # An int, which faiss's types do not know.
        graph = faiss.IndexHNSWSQ(dimensions, half, _LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = _BUILD_EFFORT
        graph.hnsw.efSearch = _SEARCH_EFFORT
        graph.train(numpy.zeros((1, dimensions), numpy.float32))
        # Of this thread alone. All cores, which faiss would take, are those that requests are answered on.
        faiss.omp_set_num_threads(1)
        serials = []
        for vectors, numbers in content:
            graph.add(vectors)
            serials.append(numbers)
        return cls(graph, numpy.concatenate(serials))

    def search(self, vector: Vectors, limit: int) -> list[tuple[float, int]]:
        similarities, positions = self._graph.search(vector[None], min(limit, self.rows))
        return [
            (similarity, int(self._serials[position]))
            for similarity, position in zip(similarities[0].tolist(), positions[0].tolist(), strict=True)
            if position >= 0
        ]

    def serials(self) -> Iterator[Serials]:
        return _in_steps(self._serials)

    def content(self) -> Iterator[tuple[Vectors, Serials]]:
        for number, serials in enumerate(self.serials()):
            yield self._graph.storage.reconstruct_n(number * _ROWS_A_STEP, len(serials)), serials


def merged(
    segments: Sequence[Segment], dimensions: int, is_wanted: Callable[[int], bool], least_graph: int
) -> Segment | None:
    """One segment with the wanted rows of these, a graph if there are `least_graph` of them; None without any."""
    # Decided once: others are unwanted while the graph is built.
    masks = [[_mask(serials, is_wanted) for serials in segment.serials()] for segment in segments]
    rows = sum(int(mask.sum()) for of_segment in masks for mask in of_segment)
    if not rows:
        return None
    kept = (
        (vectors[mask], serials[mask])
        for segment, of_segment in zip(segments, masks, strict=True)
        for (vectors, serials), mask in zip(segment.content(), of_segment, strict=True)
        if mask.any()
    )
    return GraphSegment.build(dimensions, kept) if rows >= least_graph else ExactSegment.of(dimensions, rows, kept)


def _mask(serials: Serials, is_wanted: Callable[[int], bool]) -> NDArray[numpy.bool_]:
    time.sleep(0)  # Lets go of the interpreter's lock, which is kept for 5 ms otherwise.
    return numpy.fromiter(map(is_wanted, serials.tolist()), bool, len(serials))


def _in_steps(serials: Serials) -> Iterator[Serials]:
    return (serials[start : start + _ROWS_A_STEP] for start in range(0, len(serials), _ROWS_A_STEP))
