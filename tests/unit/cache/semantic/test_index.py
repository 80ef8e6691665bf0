"""An index finds what a comparison with every vector finds, whatever was added and removed before."""

from collections.abc import Callable

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.cache.semantic import index as index_module
from watchllm.cache.semantic import segments
from watchllm.cache.semantic.index import Index
from watchllm.cache.semantic.segments import ExactSegment, GraphSegment

DIMENSIONS = 16


class Later:
    """A background that runs what it was given when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, function: Callable[[], None]) -> None:
        self.waiting.append(function)

    def run(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


def _vectors(count: int, seed: int = 1, dimensions: int = DIMENSIONS) -> numpy.ndarray:
    vectors = numpy.random.default_rng(seed).standard_normal((count, dimensions)).astype(numpy.float32)
    return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)


def _key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _small(background: Callable[[Callable[[], None]], object], max_entries: int = 10_000) -> Index:
    return Index(DIMENSIONS, max_entries=max_entries, background=background, crossover=64, segment_rows=16)


def _brute_force(held: dict[bytes, numpy.ndarray], vector: numpy.ndarray, limit: int) -> list[float]:
    return sorted((float(other @ vector) for other in held.values()), reverse=True)[:limit]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 80)),
            st.tuples(st.just("remove"), st.integers(0, 80)),
            st.tuples(st.just("merge"), st.just(0)),
            st.tuples(st.just("search"), st.integers(0, 199)),
        ),
        max_size=300,
    )
)
def test_it_equals_brute_force_under_any_adding_removing_and_merging(steps: list[tuple[str, int]]) -> None:
    vectors = _vectors(200)
    later = Later()
    index = Index(DIMENSIONS, max_entries=10_000, background=later, crossover=1_000_000, segment_rows=8)
    held: dict[bytes, numpy.ndarray] = {}
    for step, number in steps:
        if step == "add":
            index.add(_key(number), vectors[number])
            held[_key(number)] = vectors[number]
        elif step == "remove":
            assert index.remove(_key(number)) == (held.pop(_key(number), None) is not None)
        elif step == "merge":
            later.run()
        else:
            found = index.search(vectors[number], 4)
            assert [pair[0] for pair in found] == pytest.approx(_brute_force(held, vectors[number], 4), abs=1e-5)
            assert all(float(held[key] @ vectors[number]) == pytest.approx(value, abs=1e-5) for value, key in found)
        assert len(index) == len(held)
        assert index.merge_error is None


def test_past_the_crossover_graphs_find_the_nearest() -> None:
    vectors = _vectors(2_000)
    index = _small(lambda merge: merge())
    for number, vector in enumerate(vectors):
        index.add(_key(number), vector)
    assert index.is_settled
    assert index.merge_error is None
    assert any(isinstance(segment, GraphSegment) for segment in index._closed)
    asked = vectors[::7] + 0.05 * _vectors(len(vectors[::7]), seed=2)
    right = sum(
        index.search(vector, 3)[0][1] == _key(int((vectors @ vector).argmax())) for vector in asked.astype("float32")
    )
    assert right >= 0.99 * len(asked)


def test_what_is_added_and_removed_while_a_merge_runs_is_found_and_not_found() -> None:
    vectors = _vectors(200)
    later = Later()
    index = _small(later)
    for number in range(100):
        index.add(_key(number), vectors[number])
    assert later.waiting, "a merge was due"
    index.remove(_key(5))
    index.add(_key(150), vectors[150])
    assert not index.is_settled
    assert index.search(vectors[6], 1)[0][1] == _key(6)
    later.run()
    index.remove(_key(7))
    assert index.search(vectors[150], 1)[0][1] == _key(150)
    for gone in (5, 7):
        assert index.search(vectors[gone], 1)[0][1] != _key(gone)
    assert all(index.search(vectors[number], 1)[0][1] == _key(number) for number in range(100) if number not in (5, 7))


def test_rows_that_are_gone_do_not_hide_those_behind_them() -> None:
    vector = _vectors(1)[0]
    index = _small(Later())
    for number in range(12):
        index.add(_key(number), vector)
    behind = _vectors(1, seed=3)[0]
    index.add(_key(99), behind)
    for number in range(12):
        index.remove(_key(number))
    assert [key for _, key in index.search(vector, 1)] == [_key(99)]


def test_rows_that_are_gone_give_their_memory_back() -> None:
    vectors = _vectors(50)
    index = _small(lambda merge: merge())
    for turn in range(400):
        for number in range(10):
            index.add(_key(number), vectors[number])
        for number in range(10):
            index.remove(_key(number))
        assert sum(segment.rows for segment in index._closed) + index._open.rows <= 64, turn
    assert len(index) == 0
    assert index.search(vectors[0], 3) == []


def test_it_is_bounded_and_the_first_added_goes_first() -> None:
    vectors = _vectors(40)
    index = _small(Later(), max_entries=10)
    for number in range(40):
        index.add(_key(number), vectors[number])
    assert len(index) == 10
    assert [number for number in range(40) if _key(number) in index] == list(range(30, 40))


def test_rows_are_moved_a_logarithmic_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = 0
    whole = segments.merged

    def counting(parts, *rest):  # type: ignore[no-untyped-def]
        nonlocal moved
        moved += sum(part.rows for part in parts)
        return whole(parts, *rest)

    monkeypatch.setattr(index_module, "merged", counting)
    index = _small(lambda merge: merge())
    for number, vector in enumerate(_vectors(4_000)):
        index.add(_key(number), vector)
    assert moved <= 4_000 * 8
    assert len(index._closed) <= 12


def test_one_search_compares_a_bounded_number_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MOST_SCANNED", 32)
    scanned: list[int] = []
    whole = ExactSegment.search

    def counting(segment: ExactSegment, vector: numpy.ndarray, limit: int) -> list[tuple[float, int]]:
        scanned.append(segment.rows)
        return whole(segment, vector, limit)

    monkeypatch.setattr(ExactSegment, "search", counting)
    index = _small(Later())  # The merge never comes.
    vectors = _vectors(200)
    for number, vector in enumerate(vectors):
        index.add(_key(number), vector)
    index.search(vectors[0], 1)
    assert sum(scanned) <= 32
    assert index.search(vectors[199], 1)[0][1] == _key(199), "the newest are found"


def test_a_merge_that_fails_is_reported_and_everything_is_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(index_module, "merged", broken)
    index = _small(lambda merge: merge())
    vectors = _vectors(100)
    for number, vector in enumerate(vectors):
        index.add(_key(number), vector)
    assert index.search(vectors[3], 1)[0][1] == _key(3)
    assert index.merge_error == "MemoryError: no room"


def test_a_merge_that_failed_once_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("no room")

    later = Later()
    index = _small(later)
    vectors = _vectors(400)
    with monkeypatch.context() as failing:
        failing.setattr(index_module, "merged", broken)
        for number, vector in enumerate(vectors[:100]):
            index.add(_key(number), vector)
        later.run()
        assert index.is_settled
        assert index.merge_error == "MemoryError: no room"
    for number, vector in enumerate(vectors[100:], 100):
        index.add(_key(number), vector)
        later.run()
    assert index.is_settled
    assert index.merge_error is None
    for number in range(300):
        index.remove(_key(number))
        later.run()
    assert sum(segment.rows for segment in index._closed) < 200, "rows of what is gone are given back"


@pytest.mark.parametrize(
    "vector",
    [numpy.zeros(3, numpy.float32), numpy.full(DIMENSIONS, numpy.nan, numpy.float32), _vectors(2)],
    ids=["dimensions", "not a number", "several"],
)
def test_a_wrong_vector_is_refused(vector: numpy.ndarray) -> None:
    index = _small(Later())
    with pytest.raises(ValueError, match="finite numbers"):
        index.add(_key(1), vector)
    assert len(index) == 0


def test_the_memory_of_many_is_about_what_is_promised() -> None:
    index = Index(256, max_entries=20_000, background=lambda merge: merge(), crossover=1_000, segment_rows=512)
    for number, vector in enumerate(_vectors(5_000, dimensions=256)):
        index.add(_key(number), vector)
    assert 700 < index.nbytes / len(index) < 1_300
