"""What every exact store promises (CONTRACT.md, section 6), whichever adapter it is."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.exact_store import (
    ADAPTERS,
    HOUR_MS,
    START_MS,
    Clock,
    entry,
    invalidate,
    is_whole,
    key,
    project,
    sealed_body,
    stats,
)
from tests.support.waiting import wait_for
from watchllm.cache.entry import ExactStore, InvalidationFilter
from watchllm.domain.usage import TokenUsage

MAX_BYTES = 32 << 20
ROOT = Path(__file__).parents[2]
Opener = Callable[..., ExactStore]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=sorted(ADAPTERS))
def open_store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Opener]:
    opened: list[ExactStore] = []

    def opener(max_bytes: int = MAX_BYTES) -> ExactStore:
        opened.append(ADAPTERS[request.param](tmp_path, max_bytes, clock))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Opener) -> ExactStore:
    return open_store()


@pytest.fixture(params=["pending", "committed"])
def settle(request: pytest.FixtureRequest, store: ExactStore) -> Callable[[], None]:
    """Run a test twice: with what was put still pending (or nearly so), and with it committed."""
    return store.flush if request.param == "committed" else lambda: None


def test_what_was_put_is_got_whole(store: ExactStore, settle: Callable[[], None]) -> None:
    stored = entry(usage=TokenUsage(10, 20, 5), body='{"text":"Grüße"}'.encode())
    store.put(project(1), key(1), stored, START_MS)
    settle()
    assert store.get(project(1), key(1)) == stored
    assert store.get(project(1), key(2)) is None


def test_no_price_and_no_usage_stay_unknown(store: ExactStore, settle: Callable[[], None]) -> None:
    store.put(project(1), key(1), entry(usage=None, cost=None, ttl_ms=None), START_MS)
    settle()
    found = store.get(project(1), key(1))
    assert found is not None
    assert (found.usage, found.cost, found.expires_ms) == (None, None, 0)


def test_a_second_put_replaces_the_first(store: ExactStore, settle: Callable[[], None]) -> None:
    store.put(project(1), key(1), entry(body=b"old", kind="generate"), START_MS)
    settle()
    store.put(project(1), key(1), entry(body=b"new", kind="completions"), START_MS)
    settle()
    found = store.get(project(1), key(1))
    assert found is not None
    assert found.body == b"new"
    assert stats(store, project(1)).by_kind == {"completions": 1}


def test_expired_entries_are_returned_for_the_caller_to_judge(store: ExactStore, clock: Clock) -> None:
    store.put(project(1), key(1), entry(ttl_ms=1000), START_MS)
    store.flush()
    clock.advance(5000)
    found = store.get(project(1), key(1))
    assert found is not None
    assert not found.is_fresh(clock())


def test_remove_forgets_one_entry(store: ExactStore, settle: Callable[[], None]) -> None:
    store.put(project(1), key(1), entry(), START_MS)
    store.put(project(1), key(2), entry(), START_MS)
    settle()
    store.remove(project(1), key(1))
    assert store.get(project(1), key(1)) is None
    settle()
    assert store.get(project(1), key(1)) is None
    assert store.get(project(1), key(2)) is not None
    assert stats(store, project(1)).entries == 1


@pytest.mark.parametrize("size", [0, 1, 1979, 1980, 4096, 100_000, 1_500_000])
def test_bodies_of_every_size_come_back_whole(store: ExactStore, size: int) -> None:
    stored = entry(body=sealed_body(7, size))
    store.put(project(1), key(1), stored, START_MS)
    store.flush()
    found = store.get(project(1), key(1))
    assert found is not None
    assert is_whole(found.body)
    assert len(found.body) == size + 32


def test_an_entry_too_large_to_keep_takes_the_old_answer_away(store: ExactStore, settle: Callable[[], None]) -> None:
    store.put(project(1), key(1), entry(body=b"old"), START_MS)
    settle()
    store.put(project(1), key(1), entry(body=b"x" * (MAX_BYTES // 2)), START_MS)
    settle()
    assert store.get(project(1), key(1)) is None


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


def test_projects_do_not_see_count_or_forget_each_others_entries(
    store: ExactStore, settle: Callable[[], None], clock: Clock
) -> None:
    neighbours = [project(1), project(2), b"\xff" * 16, b"\x00" * 16, project(1)[:-1] + b"\xff"]
    for number, of in enumerate(neighbours):
        store.put(of, key(1), entry(body=str(number).encode()), START_MS)
    settle()
    for number, of in enumerate(neighbours):
        found = store.get(of, key(1))
        assert found is not None
        assert found.body == str(number).encode()
        assert stats(store, of).entries == 1
    clock.advance(1)
    for number, of in enumerate(neighbours):
        assert invalidate(store, of) == 1
        assert [store.get(other, key(1)) is None for other in neighbours] == [
            earlier <= number for earlier in range(len(neighbours))
        ]
    assert stats(store, project(3)).entries == 0


def test_stats_count_by_kind(store: ExactStore) -> None:
    for number in range(5):
        store.put(project(1), key(number), entry(kind="embeddings" if number < 2 else "generate"), START_MS)
    found = stats(store, project(1))
    assert (found.entries, found.by_kind, found.max_bytes) == (5, {"embeddings": 2, "generate": 3}, MAX_BYTES)
    assert found.bytes > 5 * len(entry().body)


def test_entries_outlive_a_restart(open_store: Opener) -> None:
    store = open_store()
    for number in range(50):
        store.put(project(1), key(number), entry(body=sealed_body(number, 500)), START_MS)
    before = stats(store, project(1))
    store.close()
    again = open_store()
    assert stats(again, project(1)) == before
    for number in range(50):
        found = again.get(project(1), key(number))
        assert found is not None
        assert found.body == sealed_body(number, 500)


def test_close_writes_what_is_pending(open_store: Opener) -> None:
    store = open_store()
    store.put(project(1), key(1), entry(), START_MS)
    store.close()
    store.close()
    assert open_store().get(project(1), key(1)) is not None


def test_the_bound_holds_and_the_least_recently_used_go_first(open_store: Opener, clock: Clock) -> None:
    limit = 4 << 20
    store = open_store(limit)
    body = b"x" * 1000
    for number in range(500):
        store.put(project(1), key(number), entry(clock(), body=body, ttl_ms=None), clock())
        if number % 100 == 99:
            store.flush()
    for number in range(100):
        assert store.get(project(1), key(number)) is not None
    for number in range(500, 3000):
        store.put(project(1), key(number), entry(clock(), body=body, ttl_ms=None), clock())
        if number % 100 == 99:
            store.flush()
            assert stats(store, project(1)).bytes <= limit
            for hot in range(100):
                store.get(project(1), key(hot))
    kept = {number for number in range(3000) if store.get(project(1), key(number))}
    assert len(kept & set(range(100))) >= 90, "what is used all the time stays"
    assert not kept & set(range(100, 1000)), "what was not used goes"
    assert len(kept & set(range(2500, 3000))) >= 490, "what is new stays"


def test_another_projects_traffic_cannot_push_a_project_below_its_share(open_store: Opener, clock: Clock) -> None:
    store = open_store(4 << 20)
    for number in range(200):
        store.put(project(1), key(number), entry(clock(), body=b"x" * 1000, ttl_ms=None), clock())
    store.flush()
    for number in range(6000):
        store.put(project(2), key(number), entry(clock(), body=b"y" * 1000, ttl_ms=None), clock())
        if number % 500 == 499:
            store.flush()
    assert stats(store, project(1)).entries == 200
    assert stats(store, project(2)).entries > 500


def test_expired_entries_go_before_entries_in_use(open_store: Opener, clock: Clock) -> None:
    store = open_store(4 << 20)
    for number in range(200):
        store.put(project(1), key(number), entry(clock(), body=b"x" * 1000, ttl_ms=None), clock())
    store.flush()
    for number in range(200, 400):
        store.put(project(1), key(number), entry(clock(), body=b"x" * 1000, ttl_ms=1000), clock())
    store.flush()
    clock.advance(2000)
    for number in range(2000, 2000 + 1400):
        store.put(project(1), key(number), entry(clock(), body=b"x" * 1000, ttl_ms=None), clock())
    store.flush()

    def expired_left() -> int:
        return sum(store.get(project(1), key(number)) is not None for number in range(200, 400))

    assert stats(store, project(1)).bytes <= 4 << 20
    assert expired_left() < 200, "something had to go"
    # A store may go on evicting beside the test: wait until what is counted and what is seen agree.
    wait_for(lambda: stats(store, project(1)).entries == 200 + 1400 + expired_left(), "only expired entries to be gone")
    assert all(store.get(project(1), key(number)) for number in range(200))


OTHER_PROCESS = """
import sys
from pathlib import Path
from tests.support.exact_store import *
clock = Clock()
store = ADAPTERS[sys.argv[1]](Path(sys.argv[2]), 32 << 20, clock)
for line in sys.stdin:
    clock.now_ms = int(line.split()[1])
    match line.split()[0]:
        case "get": print("hit" if store.get(project(1), key(1)) else "miss", flush=True)
        case "put": store.put(project(1), key(1), entry(clock()), clock()); store.flush(); print("ok", flush=True)
        case "late": store.put(project(1), key(1), entry(clock()), START_MS); print("ok", flush=True)
        case "invalidate": print(invalidate(store, project(1)), flush=True)
store.close()
"""


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_processes_share_a_store(adapter: str, tmp_path: Path, clock: Clock) -> None:
    store = ADAPTERS[adapter](tmp_path, MAX_BYTES, clock)
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, adapter, str(tmp_path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdin is not None
    assert other.stdout is not None

    def ask(what: str) -> str:
        other.stdin.write(f"{what} {clock.advance(10)}\n")  # type: ignore[union-attr]
        other.stdin.flush()  # type: ignore[union-attr]
        return other.stdout.readline().strip()  # type: ignore[union-attr]

    with other:
        assert ask("get") == "miss"
        store.put(project(1), key(1), entry(clock()), clock())
        store.flush()
        assert ask("get") == "hit"
        assert ask("invalidate") == "1"
        assert store.get(project(1), key(1)) is None
        store.put(project(1), key(1), entry(clock()), START_MS)
        assert store.get(project(1), key(1)) is None, "begun before the other process's invalidation"
        assert ask("put") == "ok"
        assert store.get(project(1), key(1)) is not None
        clock.advance(10)
        assert invalidate(store, project(1)) == 1
        assert ask("get") == "miss"
        assert ask("late") == "ok"
        assert ask("get") == "miss"
        other.stdin.close()
    store.close()
    assert other.returncode == 0
