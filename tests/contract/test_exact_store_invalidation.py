"""What an exact store forgets when it is told to, and what it then refuses to take (CONTRACT.md, section 6)."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.support.exact_store import (
    HOUR_MS,
    START_MS,
    Clock,
    Opener,
    entry,
    invalidate,
    key,
    project,
    stats,
)
from tests.support.waiting import wait_for
from watchllm.cache.entry import ExactStore, InvalidationFilter


@pytest.mark.parametrize(
    ("what", "left"),
    [
        (InvalidationFilter(), set()),
        (InvalidationFilter(model="m1"), {2, 3}),
        (InvalidationFilter(kind="embeddings"), {1, 2}),
        (InvalidationFilter(before_ms=START_MS + 2), {2, 3}),
        (InvalidationFilter(after_ms=START_MS + 2), {1, 2}),
        (InvalidationFilter(after_ms=START_MS + 1, before_ms=START_MS + 3), {1, 3}),
        (InvalidationFilter(model="m2", kind="generate"), {1, 3}),
        (InvalidationFilter(model="m1", kind="embeddings"), {1, 2, 3}),
    ],
)
def test_invalidate_forgets_exactly_what_matches(
    store: ExactStore, settle: Callable[[], None], clock: Clock, what: InvalidationFilter, left: set[int]
) -> None:
    clock.advance(10)
    for number, model, kind in ((1, "m1", "generate"), (2, "m2", "generate"), (3, "m2", "embeddings")):
        store.put(project(1), key(number), entry(START_MS + number, model=model, kind=kind), START_MS)
    settle()
    assert invalidate(store, project(1), what) == 3 - len(left)
    store.flush()
    assert {number for number in (1, 2, 3) if store.get(project(1), key(number))} == left
    assert stats(store, project(1)).entries == len(left)


@pytest.mark.parametrize(
    ("what", "left"),
    [
        (InvalidationFilter(keys=(key(2),)), {1, 3}),
        (InvalidationFilter(keys=(key(1), key(3), key(9))), {2}),
        (InvalidationFilter(keys=(key(1), key(3)), model="m2"), {1, 2}),
        (InvalidationFilter(keys=()), {1, 2, 3}),
        (InvalidationFilter(source="key_a"), {2, 3}),
        (InvalidationFilter(source="key_b", model="m2"), {1}),
        (InvalidationFilter(source="key_b", keys=(key(1), key(2))), {1, 3}),
        (InvalidationFilter(source="key_b", before_ms=START_MS + 3), {1, 3}),
        (InvalidationFilter(source="key_c"), {1, 2, 3}),
    ],
)
def test_entries_are_forgotten_by_their_key_and_by_whose_request_caused_them(
    store: ExactStore, settle: Callable[[], None], clock: Clock, what: InvalidationFilter, left: set[int]
) -> None:
    clock.advance(10)
    for number, model, source in ((1, "m1", "key_a"), (2, "m2", "key_b"), (3, "m2", "key_b")):
        stored = replace(entry(START_MS + number, model=model), key_id=source)
        for of in (1, 2):
            store.put(project(of), key(number), stored, START_MS)
    settle()
    assert invalidate(store, project(1), what) == 3 - len(left)
    for _ in ("at once", "when committed"):
        assert {number for number in (1, 2, 3) if store.get(project(1), key(number))} == left
        assert all(store.get(project(2), key(number)) for number in (1, 2, 3))
        store.flush()
    assert stats(store, project(1)).entries == len(left)


def test_a_call_begun_before_its_entry_was_forgotten_is_not_stored_and_others_are(
    store: ExactStore, clock: Clock
) -> None:
    begun = clock()
    clock.advance(10)
    invalidate(store, project(1), InvalidationFilter(keys=(key(1),)))
    invalidate(store, project(1), InvalidationFilter(source="key_b"))
    clock.advance(10)
    for number, source in ((1, "key_a"), (2, "key_a"), (3, "key_b")):
        store.put(project(1), key(number), replace(entry(clock()), key_id=source), begun)
    for _ in ("at once", "when committed"):
        assert [store.get(project(1), key(number)) is not None for number in (1, 2, 3)] == [False, True, False]
        store.flush()


def test_a_call_for_another_entry_may_be_joined(store: ExactStore, clock: Clock) -> None:
    begun = clock()
    clock.advance(10)
    invalidate(store, project(1), InvalidationFilter(keys=(key(1),)))
    assert store.invalidated_since(project(1), "m1", "generate", begun, key(1))
    assert not store.invalidated_since(project(1), "m1", "generate", begun, key(2))
    # Whose request is under way is not known: it may be the one whose answers are forgotten.
    invalidate(store, project(1), InvalidationFilter(source="key_b"))
    assert store.invalidated_since(project(1), "m1", "generate", begun, key(2))


def test_invalidate_of_thousands_counts_each_once(store: ExactStore, clock: Clock) -> None:
    for number in range(2500):
        store.put(project(1), key(number), entry(model="m1" if number % 2 else "m2"), START_MS)
    store.flush()
    for number in range(100):
        store.put(project(1), key(number), entry(model="m1" if number % 2 else "m2"), START_MS)
    clock.advance(1)
    assert invalidate(store, project(1), InvalidationFilter(model="m1")) == 1250
    assert stats(store, project(1)).entries == 1250
    assert not any(store.get(project(1), key(number)) for number in range(1, 2500, 2))


def test_forgetting_a_replacement_does_not_bring_back_what_it_replaced(store: ExactStore, clock: Clock) -> None:
    store.put(project(1), key(1), entry(clock(), body=b"old"), clock())
    store.flush()
    replaced_at = clock.advance(10)
    store.put(project(1), key(1), entry(replaced_at, body=b"new"), replaced_at)
    assert invalidate(store, project(1), InvalidationFilter(after_ms=replaced_at - 1)) == 1
    for _ in ("at once", "when committed"):
        assert store.get(project(1), key(1)) is None
        store.flush()


def test_a_call_begun_before_an_invalidation_is_not_stored(store: ExactStore, clock: Clock) -> None:
    begun = clock()
    clock.advance(10)
    invalidate(store, project(1), InvalidationFilter(model="m1"))
    clock.advance(10)
    store.put(project(1), key(1), entry(clock(), model="m1"), begun)
    store.put(project(1), key(2), entry(clock(), model="m2"), begun)
    store.put(project(1), key(3), entry(clock(), model="m1"), clock())
    store.put(project(2), key(4), entry(clock(), model="m1"), begun)
    for _ in ("at once", "when committed"):
        assert store.get(project(1), key(1)) is None
        assert store.get(project(1), key(2)) is not None
        assert store.get(project(1), key(3)) is not None
        assert store.get(project(2), key(4)) is not None
        store.flush()


def test_a_call_begun_in_the_same_millisecond_counts_as_before(store: ExactStore, clock: Clock) -> None:
    invalidate(store, project(1))
    store.put(project(1), key(1), entry(), clock())
    assert store.get(project(1), key(1)) is None


def test_invalidated_since_tells_which_calls_may_not_be_joined(store: ExactStore, clock: Clock) -> None:
    begun = clock()
    assert not store.invalidated_since(project(1), "m1", "generate", begun)
    clock.advance(10)
    invalidate(store, project(1), InvalidationFilter(model="m1", kind="generate"))
    assert store.invalidated_since(project(1), "m1", "generate", begun)
    assert store.invalidated_since(project(1), "m1", "generate", clock())
    assert not store.invalidated_since(project(1), "m2", "generate", begun)
    assert not store.invalidated_since(project(1), "m1", "embeddings", begun)
    assert not store.invalidated_since(project(2), "m1", "generate", begun)
    clock.advance(1)
    assert not store.invalidated_since(project(1), "m1", "generate", clock())


def test_an_invalidation_outlives_a_restart(open_store: Opener, clock: Clock) -> None:
    store = open_store()
    begun = clock()
    clock.advance(10)
    invalidate(store, project(1))
    store.close()
    again = open_store()
    assert again.invalidated_since(project(1), "m1", "generate", begun)
    again.put(project(1), key(1), entry(clock()), begun)
    assert again.get(project(1), key(1)) is None


def test_many_different_invalidations_never_forget_the_earliest(store: ExactStore, clock: Clock) -> None:
    begun = clock()
    for number in range(300):
        clock.advance(1)
        invalidate(store, project(1), InvalidationFilter(model=f"m{number}"))
    assert store.invalidated_since(project(1), "m0", "generate", begun)
    assert store.invalidated_since(project(1), "m299", "generate", begun)
    assert not store.invalidated_since(project(1), "m299", "generate", clock.advance(1))


def test_a_clock_set_back_does_not_let_an_earlier_call_through(store: ExactStore, clock: Clock) -> None:
    for step in (10_000, 5 * HOUR_MS):
        begun = clock()
        store.put(project(2), key(step), entry(begun), begun)
        clock.advance(-step)
        invalidate(store, project(1))
        clock.advance(1_000)
        store.put(project(1), key(step), entry(clock()), begun)
        store.flush()
        assert store.get(project(1), key(step)) is None, step


def test_an_entry_of_a_clock_that_ran_ahead_is_not_served_for_ever(store: ExactStore, clock: Clock) -> None:
    ahead = clock.advance(1000 * HOUR_MS)
    store.put(project(1), key(1), entry(ahead), ahead)
    store.flush()
    assert store.get(project(1), key(1)) is not None
    clock.advance(-1000 * HOUR_MS)

    def gone() -> bool:
        return store.get(project(1), key(1)) is None

    wait_for(gone, "the entry from the future to be unseen")
