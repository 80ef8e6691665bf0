"""What every exact store promises (CONTRACT.md, section 6), whichever adapter it is."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.exact_store import (
    ADAPTERS,
    MAX_BYTES,
    START_MS,
    Clock,
    Opener,
    entry,
    invalidate,
    is_whole,
    key,
    project,
    sealed_body,
    stats,
)
from watchllm.cache.entry import ExactStore
from watchllm.domain.usage import TokenUsage


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


ROOT = Path(__file__).parents[2]

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
