"""The vectors' file on LMDB: expiry, the bound of its feed, and what happens when it cannot be written."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from tests.support.exact_store import HOUR_MS, START_MS, Clock, key, project
from tests.support.vector_store import held, keys, open_lmdb_vectors, partition, purge, put, stored
from watchllm.cache.entry import InvalidationFilter
from watchllm.domain.errors import Unavailable
from watchllm.stores.lmdb import vectors as vectors_module
from watchllm.stores.lmdb import vectors_layout, vectors_session
from watchllm.stores.lmdb.environment import StoreBroken
from watchllm.stores.lmdb.vectors import LmdbVectorStore
from watchllm.stores.lmdb.vectors_session import VectorSession


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbVectorStore]:
    opened = open_lmdb_vectors(tmp_path, Clock())
    yield opened
    opened.close()


def test_what_has_expired_is_swept_in_steps_and_indexes_go_with_it(store: LmdbVectorStore) -> None:
    put(store, partition(1), *range(10))
    put(store, partition(1), 50, ttl_ms=None)
    put(store, partition(1), 51, ttl_ms=2 * HOUR_MS)
    store.flush()
    with VectorSession(store._env, store._db) as session:
        assert session.expire(START_MS + HOUR_MS - 1, 100) == 0
        assert session.expire(START_MS + HOUR_MS, 4) == 4
        assert session.expire(START_MS + HOUR_MS, 100) == 6
    assert held(store, partition(1)) == keys(50, 51)
    assert _records(store) == {"vectors": 2, "order": 2, "sources": 2, "counts": 2, "expiry": 1}


def test_nothing_is_left_of_a_purged_project(store: LmdbVectorStore) -> None:
    put(store, partition(1), *range(30))
    purge(store, project(1), InvalidationFilter())
    assert _records(store) == {"vectors": 0, "order": 0, "sources": 0, "counts": 0, "expiry": 0}
    assert store.counters()["bytes"] == 0


def test_the_feed_is_bounded(store: LmdbVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_session, "CHANGES_KEPT", 20)
    monkeypatch.setattr(vectors_module, "CHANGES_KEPT", 20)
    for number in range(50):
        put(store, partition(1), number)
        store.flush()
    with store._env.begin() as reader:
        assert reader.stat(store._db.changes)["entries"] == 20
    assert len(store.changes(30, 100).places) == 20
    assert store.changes(30, 100).is_whole
    assert not store.changes(29, 100).is_whole


def test_a_file_that_cannot_be_written_is_reported_and_tried_again(
    store: LmdbVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = VectorSession.__enter__

    def broken(session: VectorSession) -> VectorSession:
        raise lmdb.DiskError("no space left on device")

    monkeypatch.setattr(VectorSession, "__enter__", broken)
    put(store, partition(1), 1)
    store.flush()
    assert "no space left on device" in (store.health() or "")
    assert store.counters()["dropped"] == 1
    with pytest.raises(Unavailable, match="no space left"):
        purge(store, project(1), InvalidationFilter())
    monkeypatch.setattr(VectorSession, "__enter__", whole)
    put(store, partition(1), 2)
    store.flush()
    assert store.health() is None
    assert held(store, partition(1)) == keys(2)


def test_a_bug_while_writing_ends_neither_the_thread_nor_a_wait(
    store: LmdbVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(VectorSession, "put", bug)
        put(store, partition(1), 1)
        store.flush()
        assert "ZeroDivisionError" in (store.health() or "")
    with monkeypatch.context() as patched:
        patched.setattr(InvalidationFilter, "matches", bug)
        put(store, partition(1), 2)
        with pytest.raises(Unavailable, match="ZeroDivisionError"):
            purge(store, project(1), InvalidationFilter())
    put(store, partition(1), 3)
    store.flush()
    assert held(store, partition(1)) == keys(2, 3)


def test_after_closing_nothing_is_taken_and_a_purge_says_so(store: LmdbVectorStore) -> None:
    store.close()
    assert not store.put(partition(1), key(1), stored(1))
    with pytest.raises(Unavailable, match="closed"):
        asyncio.run(store.purge(project(1), InvalidationFilter()))


def test_a_file_of_another_format_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_lmdb_vectors(tmp_path, Clock())
    put(first, partition(1), 1)
    first.close()
    monkeypatch.setattr(vectors_layout, "FORMAT", 99)
    again = open_lmdb_vectors(tmp_path, Clock())
    assert held(again, partition(1)) == set()
    put(again, partition(1), 2)
    again.flush()
    assert held(again, partition(1)) == keys(2)
    again.close()


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "data.mdb").write_bytes(os.urandom(8192))
    with pytest.raises(StoreBroken, match="cannot be opened"):
        open_lmdb_vectors(tmp_path, Clock())


def test_the_files_are_their_owners_alone(store: LmdbVectorStore, tmp_path: Path) -> None:
    assert (tmp_path / "vectors").stat().st_mode & 0o077 == 0
    assert (tmp_path / "vectors" / "data.mdb").stat().st_mode & 0o077 == 0


def _records(store: LmdbVectorStore) -> dict[str, int]:
    with store._env.begin() as reader:
        return {
            name: reader.stat(getattr(store._db, name))["entries"]
            for name in ("vectors", "order", "sources", "counts", "expiry")
        }
