"""A process's copy of the stored prompts: read when asked for, bounded, and in step with other processes' changes."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy
import pytest

from tests.support.exact_store import Clock, key
from tests.support.vector_store import open_lmdb_vectors, partition
from watchllm.cache.semantic.memory import POLL_SECONDS, Memory
from watchllm.cache.semantic.partition import Partition, Prompt
from watchllm.cache.semantic.vectors import StoredVector, VectorStore
from watchllm.stores.lmdb.vectors_layout import CHANGES_KEPT

DIMENSIONS = 16


def vector(number: int) -> numpy.ndarray[tuple[int], numpy.dtype[numpy.float32]]:
    """Of length 1, another one for each number."""
    drawn = numpy.random.default_rng(number).normal(size=DIMENSIONS).astype(numpy.float32)
    return drawn / numpy.linalg.norm(drawn)


def stored(number: int, created_ms: int = 1) -> StoredVector:
    return StoredVector(created_ms, 0, "m", "generate", "key_1", vector(number).astype(numpy.float16).tobytes(), b"f")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VectorStore]:
    """What other processes do comes through it as what is put into it directly does (tests/fault/test_vectors_kill)."""
    store = open_lmdb_vectors(tmp_path, Clock())
    yield store
    store.close()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def memory_over(store: VectorStore, executor: ThreadPoolExecutor, **bounds: int) -> Memory:
    return Memory(store, DIMENSIONS, executor=executor, **{"max_entries": 1000, **bounds})


def found(memory: Memory, place: bytes, number: int, limit: int = 1) -> list[bytes] | None:
    nearest = memory.nearest(place, vector(number), limit)
    return None if nearest is None else [one.key for one in nearest]


async def until(condition: object, what: str, within: float = 10.0) -> float:
    """Seconds until `condition()` is true, with the loop running."""
    began = time.monotonic()
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < began + within, what
        await asyncio.sleep(0.005)
    return time.monotonic() - began


def test_what_was_put_is_found_at_once(store: VectorStore, executor: ThreadPoolExecutor) -> None:
    memory = memory_over(store, executor)
    assert found(memory, partition(1), 3) == []
    memory.put(partition(1), key(3), vector(3), Prompt(1, 0, b"f"))
    assert found(memory, partition(1), 3) == [key(3)]
    assert found(memory, partition(2), 3) == []
    memory.remove(partition(1), key(3))
    assert (found(memory, partition(1), 3), memory.entries) == ([], 0)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 500])
def test_what_was_stored_before_is_read_when_it_is_asked_for(
    store: VectorStore, executor: ThreadPoolExecutor, count: int
) -> None:
    for number in range(count):
        store.put(partition(1), key(number), stored(number))
    store.flush()

    async def ask() -> None:
        memory = memory_over(store, executor)
        memory.follow(asyncio.get_running_loop())
        at_once = found(memory, partition(1), count - 1)
        assert (at_once is None) is (count >= 32)
        await until(lambda: found(memory, partition(1), count - 1) == [key(count - 1)], "the partition to be read")
        assert memory.entries == count
        memory.close()

    asyncio.run(ask())


def test_processes_converge_within_a_second(store: VectorStore, executor: ThreadPoolExecutor) -> None:
    assert POLL_SECONDS < 0.5  # The rest of the second is what a busy machine takes of it, which no test can bound.

    async def follow() -> None:
        memory = memory_over(store, executor)
        memory.follow(asyncio.get_running_loop())
        memory.put(partition(1), key(1), vector(1), Prompt(1, 0, b"f"))
        for number in range(2, 200):
            store.put(partition(1), key(number), stored(number))
        store.put(partition(1), key(1), stored(1, created_ms=9))
        store.flush()
        await until(lambda: memory.entries == 199, "what another process stored")
        nearest = memory.nearest(partition(1), vector(1), 1)
        assert nearest is not None
        assert nearest[0].prompt.created_ms == 9
        store.remove(partition(1), key(50))
        store.flush()
        await until(lambda: found(memory, partition(1), 50) != [key(50)], "what another process removed")
        memory.close()

    asyncio.run(follow())


def created(memory: Memory, place: bytes, number: int) -> int:
    (nearest,) = memory.nearest(place, vector(number), 1) or ()
    return nearest.prompt.created_ms


def test_what_waits_to_be_written_is_not_undone_by_what_it_replaces(
    store: VectorStore, executor: ThreadPoolExecutor
) -> None:
    async def follow() -> None:
        memory = memory_over(store, executor)
        memory.put(partition(1), key(1), vector(1), Prompt(5, 0, b"f"))
        memory.put(partition(1), key(2), vector(2), Prompt(5, 0, b"f"))
        # Of the first question only its earlier answer is written yet, which is a change to be followed.
        store.put(partition(1), key(1), stored(1, created_ms=4))
        store.put(partition(1), key(3), stored(3))
        store.flush()
        memory.follow(asyncio.get_running_loop())
        await until(lambda: found(memory, partition(1), 3) == [key(3)], "the changes to be followed")
        assert (created(memory, partition(1), 1), created(memory, partition(1), 2)) == (5, 5)
        store.put(partition(1), key(1), stored(1, created_ms=5))
        store.put(partition(1), key(4), stored(4))
        store.flush()
        await until(lambda: found(memory, partition(1), 4) == [key(4)], "more changes to be followed")
        assert created(memory, partition(1), 1) == 5
        memory.close()

    asyncio.run(follow())


def test_what_waits_to_be_written_stays_where_what_it_replaces_was_removed(
    store: VectorStore, executor: ThreadPoolExecutor
) -> None:
    async def follow() -> None:
        memory = memory_over(store, executor)
        store.put(partition(1), key(1), stored(1, created_ms=4))
        store.remove(partition(1), key(1))
        store.put(partition(1), key(3), stored(3))
        store.flush()
        memory.put(partition(1), key(1), vector(1), Prompt(5, 0, b"f"))
        memory._position = 0
        memory.follow(asyncio.get_running_loop())
        await until(lambda: found(memory, partition(1), 3) == [key(3)], "the changes to be followed")
        assert created(memory, partition(1), 1) == 5
        store.put(partition(1), key(1), stored(1, created_ms=5))
        store.flush()
        await until(lambda: (partition(1), key(1)) not in memory._unwritten, "it to be seen")
        store.remove(partition(1), key(1))
        store.flush()
        await until(lambda: not found(memory, partition(1), 1) or key(1) not in found(memory, partition(1), 1), "that")
        memory.close()

    asyncio.run(follow())


def test_what_is_never_written_gives_way_to_what_is(store: VectorStore, executor: ThreadPoolExecutor) -> None:
    async def follow() -> None:
        memory = memory_over(store, executor)
        memory.put(partition(1), key(1), vector(1), Prompt(5, 0, b"f"))
        store.put(partition(1), key(1), stored(1, created_ms=4))
        store.flush()
        memory.follow(asyncio.get_running_loop())
        await until(lambda: created(memory, partition(1), 1) == 4, "what the store has")
        memory.close()

    asyncio.run(follow())


class Pausing:
    """A store whose reading of a partition stops, in its thread, behind the first large page until `go` is set."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self.has_read, self.go = threading.Event(), threading.Event()

    def read(self, place: bytes, after: bytes, limit: int) -> list[tuple[bytes, StoredVector]]:
        page = self._store.read(place, after, limit)
        if threading.current_thread() is not threading.main_thread():
            self.has_read.set()
            assert self.go.wait(10)
        return page

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_what_changes_while_a_partition_is_read_is_not_lost(store: VectorStore, executor: ThreadPoolExecutor) -> None:
    for number in range(300):
        store.put(partition(1), key(number), stored(number))
    store.flush()
    first = store.read(partition(1), b"", 1)[0][0]

    async def follow() -> None:
        pausing = Pausing(store)
        memory = memory_over(cast(VectorStore, pausing), executor)
        memory.follow(asyncio.get_running_loop())
        assert found(memory, partition(1), 5) is None
        await until(pausing.has_read.is_set, "the first page to be read")
        store.remove(partition(1), first)
        store.flush()
        await until(lambda: memory._position == store.position(), "the change to be passed by")
        pausing.go.set()
        await until(lambda: memory.entries == 299, "what went meanwhile")
        memory.close()

    asyncio.run(follow())


def test_a_vector_is_as_long_as_it_was(store: VectorStore, executor: ThreadPoolExecutor) -> None:
    """Half the precision makes it a little longer or shorter; similarities are to stay between -1 and 1."""
    data = (vector(1) * 1.01).astype(numpy.float16).tobytes()
    store.put(partition(1), key(1), StoredVector(1, 0, "m", "generate", "key_1", data, b"f"))
    store.flush()
    nearest = memory_over(store, executor).nearest(partition(1), vector(1), 1)
    assert nearest is not None
    assert nearest[0].similarity == pytest.approx(1.0, abs=1e-5)


def test_who_missed_too_many_changes_reads_anew(store: VectorStore, executor: ThreadPoolExecutor) -> None:

    async def follow() -> None:
        memory = memory_over(store, executor)
        memory.put(partition(1), key(1), vector(1), Prompt(1, 0, b"f"))
        for number in range(CHANGES_KEPT + 10):
            store.put(partition(2), key(number % 50), stored(number % 50))
        store.flush()
        memory.follow(asyncio.get_running_loop())
        await until(lambda: memory.partitions == 0, "what may be stale to go")
        assert found(memory, partition(1), 1) == []
        memory.close()

    asyncio.run(follow())


def test_the_partitions_that_were_not_asked_for_the_longest_go(
    store: VectorStore, executor: ThreadPoolExecutor
) -> None:
    memory = memory_over(store, executor, max_entries=10, max_partitions=5)
    for place in range(8):
        memory.put(partition(1, place), key(place), vector(place), Prompt(1, 0, b"f"))
    assert (memory.partitions, memory.entries) == (5, 5)
    assert found(memory, partition(1, 3), 3) == [key(3)]
    for number in range(100, 108):
        memory.put(partition(1, 7), key(number), vector(number), Prompt(1, 0, b"f"))
    assert memory.entries <= 10
    assert found(memory, partition(1, 3), 3) == [key(3)]
    assert found(memory, partition(1, 4), 4) == []
    for number in range(200, 230):
        memory.put(partition(1, 7), key(number), vector(number), Prompt(1, 0, b"f"))
    assert memory.entries == 10
    assert found(memory, partition(1, 7), 229) == [key(229)]


def test_a_project_displaces_nothing_of_smaller_ones(store: VectorStore, executor: ThreadPoolExecutor) -> None:
    for number in range(300):
        store.put(partition(1), key(number), stored(number))
    for number in range(40):
        store.put(partition(2), key(number), stored(number))
    store.flush()

    async def ask() -> None:
        memory = memory_over(store, executor, max_entries=300)
        memory.follow(asyncio.get_running_loop())
        for place in (1, 2, 1):
            await until(lambda: found(memory, partition(place), 3) is not None, "it to be read")  # noqa: B023
        for number in range(400, 440):
            assert found(memory, partition(2), 3) == [key(3)]
            assert found(memory, partition(1), 3) is not None
            memory.put(partition(1), key(number), vector(number), Prompt(1, 0, b"f"))
            assert memory.entries <= 300
        assert found(memory, partition(1), 439) == [key(439)]
        assert memory.entries > 300 - 64
        memory.close()

    asyncio.run(ask())


def test_a_vector_that_is_none_is_passed_over(store: VectorStore, executor: ThreadPoolExecutor) -> None:
    for number, data in enumerate((b"\0" * 6, b"\xff" * 2 * DIMENSIONS, vector(3).astype(numpy.float16).tobytes())):
        store.put(partition(1), key(number), StoredVector(1, 0, "m", "generate", "key_1", data, b"f"))
    store.flush()
    memory = memory_over(store, executor)
    assert found(memory, partition(1), 3, 5) == [key(2)]


def test_vectors_that_cannot_be_merged_are_a_problem(
    store: VectorStore, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = memory_over(store, executor)
    memory.put(partition(1), key(1), vector(1), Prompt(1, 0, b"f"))
    assert memory.problem is None
    monkeypatch.setattr(Partition, "merge_error", "MemoryError: no room")
    assert memory.problem == "MemoryError: no room"
