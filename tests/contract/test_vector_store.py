"""What every store of vectors promises: partitions that never meet, bounds, purges, and a feed of what changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.exact_store import START_MS, Clock, key, project
from tests.support.vector_store import (
    VECTOR_ADAPTERS,
    VectorOpener,
    held,
    keys,
    partition,
    purge,
    put,
    stored,
)
from watchllm.cache.entry import InvalidationFilter
from watchllm.cache.semantic.vectors import MAX_VERDICTS, QUESTION_LENGTH, VectorStore, partition_of


@pytest.fixture(params=sorted(VECTOR_ADAPTERS))
def open_vectors(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[VectorOpener]:
    opened: list[VectorStore] = []

    def opener(**bounds: int) -> VectorStore:
        opened.append(VECTOR_ADAPTERS[request.param](tmp_path, clock, **bounds))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_vectors: VectorOpener) -> VectorStore:
    return open_vectors()


def test_what_was_put_is_read_as_it_was(store: VectorStore) -> None:
    assert store.put(partition(1), key(1), stored(1))
    store.flush()
    assert store.get(partition(1), key(1)) == stored(1)
    assert store.read(partition(1), b"", 10) == [(key(1), stored(1))]
    assert store.count(project(1)) == store.count(project(1), "key_1") == 1


def test_a_second_put_takes_the_first_ones_place(store: VectorStore) -> None:
    put(store, partition(1), 1)
    store.put(partition(1), key(1), stored(2, source="key_2"))
    store.flush()
    assert store.read(partition(1), b"", 10) == [(key(1), stored(2, source="key_2"))]
    assert (store.count(project(1)), store.count(project(1), "key_1"), store.count(project(1), "key_2")) == (1, 0, 1)


def test_partitions_never_meet(store: VectorStore) -> None:
    places = [partition(1), partition(1, 1), partition(2), partition(1, version="2"), partition(1, embedder="other")]
    assert len(set(places)) == len(places)
    for number, place in enumerate(places):
        put(store, place, number)
    store.flush()
    for number, place in enumerate(places):
        assert held(store, place) == keys(number)
        assert all(store.get(place, key(other)) is None for other in range(len(places)) if other != number)


def test_a_partition_is_read_in_pages(store: VectorStore) -> None:
    put(store, partition(1), *range(100))
    put(store, partition(1, 1), *range(100, 120))
    store.flush()
    assert held(store, partition(1)) == keys(*range(100))


def test_a_removed_vector_is_gone(store: VectorStore) -> None:
    put(store, partition(1), 1, 2)
    store.remove(partition(1), key(1))
    store.remove(partition(1), key(77))
    store.flush()
    assert held(store, partition(1)) == keys(2)
    assert store.count(project(1)) == 1


def test_vectors_outlive_the_process(open_vectors: VectorOpener) -> None:
    store = open_vectors()
    put(store, partition(1), *range(20))
    store.close()
    again = open_vectors()
    assert held(again, partition(1)) == keys(*range(20))
    assert again.position() == 20


def test_every_change_is_in_the_feed_in_order(store: VectorStore) -> None:
    put(store, partition(1), 1)
    store.flush()
    start = store.position()
    put(store, partition(1), 2)
    put(store, partition(2), 3)
    store.remove(partition(1), key(1))
    store.flush()
    feed = store.changes(start, 100)
    assert feed.is_whole
    assert feed.places == [(partition(1), key(2)), (partition(2), key(3)), (partition(1), key(1))]
    assert feed.position == store.position()
    assert store.changes(feed.position, 100).places == []


def test_the_feed_is_read_in_pages(store: VectorStore) -> None:
    put(store, partition(1), *range(25))
    store.flush()
    position, seen = 0, []
    while (feed := store.changes(position, 10)).places:
        position = feed.position
        seen += [place.key for place in feed.places]
    assert seen == [key(number) for number in range(25)]


def test_what_evictions_purges_and_expiry_take_is_in_the_feed(open_vectors: VectorOpener) -> None:
    store = open_vectors(max_per_project=3)
    put(store, partition(1), 1, 2, 3)
    store.flush()
    start = store.position()
    put(store, partition(1), 4)
    store.flush()
    purge(store, project(1), InvalidationFilter(keys=(key(3),)))
    changed = {place.key for place in store.changes(start, 100).places}
    assert changed == keys(1, 3, 4)


@pytest.mark.parametrize("since", [10_000_000, -100_000])
def test_a_reader_that_cannot_have_seen_all_is_told_so(store: VectorStore, since: int) -> None:
    put(store, partition(1), 1)
    store.flush()
    feed = store.changes(since, 100)
    assert not feed.is_whole
    assert feed.position == store.position()


def test_a_project_is_bounded_and_its_oldest_go_first(open_vectors: VectorOpener) -> None:
    store = open_vectors(max_per_project=10)
    put(store, partition(2), *range(500, 505))
    for number in range(50):
        put(store, partition(1, number % 3), number)
    store.flush()
    assert store.count(project(1)) == 10
    assert set().union(*(held(store, partition(1, context)) for context in range(3))) == keys(*range(40, 50))
    assert held(store, partition(2)) == keys(*range(500, 505))


def test_one_keys_flood_displaces_only_its_own(open_vectors: VectorOpener) -> None:
    store = open_vectors(max_per_project=20, max_per_source=10)
    put(store, partition(1), *range(8), source="key_quiet")
    put(store, partition(1), *range(100, 400), source="key_flood")
    store.flush()
    assert held(store, partition(1)) == keys(*range(8)) | keys(*range(390, 400))
    assert store.count(project(1), "key_flood") == 10


def test_not_even_several_keys_floods_displace_what_others_put(open_vectors: VectorOpener) -> None:
    store = open_vectors(max_per_project=20, max_per_source=10)
    for number in range(5):
        put(store, partition(1), number, source="key_a")
    for number in range(100, 150):
        for flooding in ("key_b", "key_c", "key_d"):
            put(store, partition(1), number + 1000 * ord(flooding[-1]), source=flooding)
        store.flush()
    assert store.count(project(1)) == 20
    assert [store.count(project(1), f"key_{one}") for one in "abcd"] == [5, 5, 5, 5]
    assert [store.get(partition(1), key(number)) is not None for number in range(5)] == [True] * 5


def test_the_file_is_bounded_and_whoever_holds_most_gives(open_vectors: VectorOpener) -> None:
    store = open_vectors(max_bytes=1 << 20)
    put(store, partition(1), *range(20))
    for number in range(1_000, 4_000):
        put(store, partition(2), number)
    store.flush()
    assert store.count(project(1)) == 20
    assert 100 < store.count(project(2)) < 1_000
    assert key(3_999) in held(store, partition(2))


def test_more_than_may_wait_is_refused(open_vectors: VectorOpener) -> None:
    store = open_vectors(pending_bytes=10_000)
    taken = sum(store.put(partition(1), key(number), stored(number, size=3_000)) for number in range(4))
    assert taken < 4
    store.flush()
    assert store.count(project(1)) == taken
    assert store.put(partition(1), key(9), stored(9)), "there is room again"


@pytest.mark.parametrize(
    ("what", "gone"),
    [
        (InvalidationFilter(), {0, 1, 2, 3}),
        (InvalidationFilter(keys=(key(1),)), {1}),
        (InvalidationFilter(source="key_b"), {1, 3}),
        (InvalidationFilter(before_ms=START_MS + 2), {0, 1}),
        (InvalidationFilter(after_ms=START_MS + 1, source="key_b"), {3}),
        (InvalidationFilter(model="gpt-x"), {2}),
        (InvalidationFilter(kind="completions"), {3}),
        (InvalidationFilter(source="key_none"), set()),
    ],
)
def test_a_purge_forgets_what_matches_in_its_project_alone(
    store: VectorStore, what: InvalidationFilter, gone: set[int]
) -> None:
    for where in (partition(1), partition(1, 5), partition(2)):
        for number in range(4):
            store.put(
                where,
                key(number),
                stored(
                    number,
                    START_MS + number,
                    source="key_b" if number % 2 else "key_a",
                    model="gpt-x" if number == 2 else "gpt-y",
                    kind="completions" if number == 3 else "generate",
                ),
            )
    assert purge(store, project(1), what) == 2 * len(gone)
    kept = keys(*({0, 1, 2, 3} - gone))
    assert held(store, partition(1)) == held(store, partition(1, 5)) == kept
    assert held(store, partition(2)) == keys(0, 1, 2, 3)
    assert store.count(project(1)) == 2 * len(kept)


def test_a_purge_of_many_goes_on_to_the_end(store: VectorStore) -> None:
    put(store, partition(1), *range(5_000))
    assert purge(store, project(1), InvalidationFilter()) == 5_000
    assert store.count(project(1)) == 0


@pytest.mark.parametrize(("project_id", "context"), [(b"short", bytes(16)), (bytes(16), b""), (bytes(17), bytes(16))])
def test_a_partition_of_wrong_parts_is_refused(project_id: bytes, context: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        partition_of(project_id, context, "static", "1")


def test_wrong_lengths_are_refused(store: VectorStore) -> None:
    with pytest.raises(ValueError, match="40 bytes"):
        store.put(partition(1)[:-1], key(1), stored(1))
    with pytest.raises(ValueError, match="32"):
        store.get(partition(1), b"key")


def test_a_verdict_is_kept_with_its_vector(open_vectors: VectorOpener) -> None:
    store = open_vectors()
    put(store, partition(1), 1, 2)
    assert store.put_verdict(partition(1), key(1), START_MS, question(1), equal=True)
    assert store.put_verdict(partition(1), key(1), START_MS, question(2), equal=False)
    store.close()
    store = open_vectors()
    assert store.verdict(partition(1), key(1), START_MS, question(1)) is True
    assert store.verdict(partition(1), key(1), START_MS, question(2)) is False
    assert store.verdict(partition(1), key(1), START_MS, question(3)) is None
    assert store.verdict(partition(1), key(2), START_MS, question(1)) is None
    assert store.verdict(partition(2), key(1), START_MS, question(1)) is None
    assert store.verdict(partition(1), key(1), START_MS + 1, question(1)) is None


@pytest.mark.parametrize("how", ["remove", "replace", "purge"])
def test_a_verdict_is_forgotten_with_its_vector(store: VectorStore, how: str) -> None:
    put(store, partition(1), 1)
    store.put_verdict(partition(1), key(1), START_MS, question(1), equal=True)
    store.flush()
    assert store.verdict(partition(1), key(1), START_MS, question(1)) is True
    if how == "remove":
        store.remove(partition(1), key(1))
    elif how == "replace":
        put(store, partition(1), 1)
    else:
        purge(store, project(1), InvalidationFilter(source="key_1"))
    store.flush()
    assert store.verdict(partition(1), key(1), START_MS, question(1)) is None


def test_a_verdict_on_what_is_gone_is_not_kept(store: VectorStore) -> None:
    store.put_verdict(partition(1), key(1), START_MS, question(1), equal=True)
    put(store, partition(1), 1)
    store.put_verdict(partition(1), key(1), START_MS - 1, question(1), equal=True)
    store.flush()
    assert store.verdict(partition(1), key(1), START_MS, question(1)) is None
    assert store.verdict(partition(1), key(1), START_MS - 1, question(1)) is None


def test_verdicts_of_a_vector_are_bounded(store: VectorStore) -> None:
    put(store, partition(1), 1)
    for number in range(3 * MAX_VERDICTS):
        store.put_verdict(partition(1), key(1), START_MS, question(number), equal=True)
        store.put_verdict(partition(1), key(1), START_MS, question(number), equal=False)
    store.flush()
    known = [
        store.verdict(partition(1), key(1), START_MS, question(number)) is not None
        for number in range(3 * MAX_VERDICTS)
    ]
    assert sum(known) == MAX_VERDICTS
    assert known[-1]


def test_a_question_is_told_by_sixteen_bytes(store: VectorStore) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        store.put_verdict(partition(1), key(1), START_MS, b"short", equal=True)


def question(number: int) -> bytes:
    return number.to_bytes(QUESTION_LENGTH, "big")


def test_what_judges_cost_is_added_up_by_project_and_day(open_vectors: VectorOpener) -> None:
    store = open_vectors()
    assert store.spent(project(1), 7) == 0
    for of, day, cost in ((1, 7, 5), (2, 7, 11), (1, 7, 3)):
        assert store.spend(project(of), day, cost)
    store.flush()
    assert [store.spent(project(of), 7) for of in (1, 2, 3)] == [8, 11, 0]
    assert store.spent(project(1), 8) == 0
    store.close()
    again = open_vectors()
    again.spend(project(1), 7, 1)
    again.flush()
    assert [again.spent(project(of), 7) for of in (1, 2)] == [9, 11]


def test_of_what_judges_cost_the_latest_day_is_kept(store: VectorStore) -> None:
    for day, cost in ((7, 5), (8, 2), (7, 100)):
        store.spend(project(1), day, cost)
    store.flush()
    assert [store.spent(project(1), day) for day in (7, 8, 9)] == [0, 2, 0]


def test_no_purge_gives_a_project_its_budget_back(store: VectorStore) -> None:
    put(store, partition(1), 1)
    store.spend(project(1), 7, 5)
    assert purge(store, project(1), InvalidationFilter()) == 1
    assert store.spent(project(1), 7) == 5
    with pytest.raises(ValueError, match="16 bytes"):
        store.spent(b"short", 7)
