"""The exact cache's file: who may read it, what is refused, and what happens when the disk or the map is full."""

import asyncio
import os
import random
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Self

import lmdb
import pytest

from tests.support.exact_store import START_MS, Clock, entry, invalidate, key, open_lmdb, project, sealed_body, stats
from tests.support.waiting import wait_for
from watchllm.cache.entry import InvalidationFilter
from watchllm.domain.errors import Unavailable
from watchllm.stores.lmdb import derived_file, writer
from watchllm.stores.lmdb.cache import LmdbExactStore
from watchllm.stores.lmdb.environment import StoreBroken

ROOT = Path(__file__).parents[4]
MAX_BYTES = 4 << 20


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    open_lmdb(tmp_path, MAX_BYTES, Clock()).close()
    folder = tmp_path / "exact"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_a_second_opening_in_one_process_is_refused(tmp_path: Path) -> None:
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    with pytest.raises(StoreBroken, match="already open"):
        open_lmdb(tmp_path, MAX_BYTES, Clock())
    store.put(project(1), key(1), entry(), START_MS)
    store.close()


def test_a_bound_too_small_to_be_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least"):
        open_lmdb(tmp_path, 1000, Clock())


def test_garbage_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "exact").mkdir()
    (tmp_path / "exact" / "data.mdb").write_bytes(random.Random(1).randbytes(50_000))
    with pytest.raises(StoreBroken, match=r"exact/data\.mdb cannot be opened: .*delete the folder"):
        open_lmdb(tmp_path, MAX_BYTES, Clock())


def test_a_file_cut_short_is_refused_instead_of_killing_the_process(tmp_path: Path) -> None:
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    for number in range(200):
        store.put(project(1), key(number), entry(body=sealed_body(number, 3000)), START_MS)
    store.close()
    data = tmp_path / "exact" / "data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    with pytest.raises(StoreBroken, match="shorter"):
        open_lmdb(tmp_path, MAX_BYTES, Clock())


def test_another_programs_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "exact")) as other, other.begin(write=True) as txn:
        txn.put(b"precious", b"data")
    with pytest.raises(StoreBroken, match="something else"):
        open_lmdb(tmp_path, MAX_BYTES, Clock())
    with lmdb.open(str(tmp_path / "exact")) as other, other.begin() as txn:
        assert txn.get(b"precious") == b"data"


@pytest.mark.parametrize("found", [0, 2])
def test_another_format_empties_the_cache_and_says_so(tmp_path: Path, found: int) -> None:
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    assert store.note is None
    store.put(project(1), key(1), entry(), START_MS)
    store.close()
    with lmdb.open(str(tmp_path / "exact"), max_dbs=2) as env:
        info = env.open_db(b"info")
        env.open_db(b"of_that_format")
        with env.begin(write=True) as txn:
            txn.put(b"format", struct.pack(">I", found), db=info)
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    assert store.note is not None
    assert f"format {found}" in store.note
    assert store.get(project(1), key(1)) is None
    store.put(project(1), key(1), entry(), START_MS)
    store.close()
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    assert store.note is None
    assert store.get(project(1), key(1)) is not None
    assert store.audit() == []
    store.close()


def test_wrong_counters_are_found_and_mended(tmp_path: Path) -> None:
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    for number in range(10):
        store.put(project(number % 2), key(number), entry(), START_MS)
    right = stats(store, project(0))
    store.close()
    with lmdb.open(str(tmp_path / "exact"), max_dbs=2) as env:
        info, projects = env.open_db(b"info"), env.open_db(b"projects")
        with env.begin(write=True) as txn:
            txn.put(b"total", struct.pack(">QQ", 1, 2), db=info)
            txn.delete(project(0), db=projects)
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    assert len(store.audit(mend=True)) == 2
    assert store.audit() == []
    assert stats(store, project(0)) == right
    store.close()


def test_a_full_map_evicts_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived_file, "map_size_for", lambda max_bytes: 1 << 20)
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    for number in range(1500):
        store.put(project(1), key(number), entry(body=sealed_body(number, 900)), START_MS)
        if number % 50 == 0:
            store.flush()
    store.flush()
    assert store.counters()["evicted"] > 0
    assert "MapFull" in store.counters()["last_error"]
    assert store.health() is None
    assert store.get(project(1), key(1499)) is not None
    assert store.audit() == []
    store.close()


def test_a_file_enlarged_by_another_process_can_still_be_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derived_file, "map_size_for", lambda max_bytes: 1 << 20)
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    filling = (
        "import sys; from pathlib import Path; from tests.support.exact_store import *\n"
        "store = open_lmdb(Path(sys.argv[1]), 4 << 20, Clock())\n"
        "for n in range(1000): store.put(project(1), key(n), entry(body=sealed_body(n, 2500)), START_MS)\n"
        "store.close()\n"
    )
    subprocess.run([sys.executable, "-c", filling, str(tmp_path)], cwd=ROOT, check=True)
    assert (tmp_path / "exact" / "data.mdb").stat().st_size > 2 << 20
    wait_for(lambda: store.get(project(1), key(999)), "the larger file to be adopted")
    store.put(project(1), key(5000), entry(), START_MS)
    store.flush()
    assert store.get(project(1), key(5000)) is not None
    store.close()


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from tests.support.exact_store import *
from watchllm.domain.errors import Unavailable
clock = Clock()
store = open_lmdb(Path(sys.argv[1]), 32 << 20, clock)
for number in range(300):
    store.put(project(1), key(number), entry(body=sealed_body(number, 2000)), clock())
store.flush()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, ((Path(sys.argv[1]) / "exact" / "data.mdb").stat().st_size, hard))
for number in range(1000, 1300):
    store.put(project(1), key(number), entry(body=sealed_body(number, 20_000)), clock())
store.flush()
assert store.counters()["dropped"] == 300, store.counters()
assert store.counters()["commit_errors"] > 0
assert "cannot be stored" in store.health(), store.health()
assert all(store.get(project(1), key(number)) for number in range(300)), "what is stored can be read"
assert store.get(project(1), key(1000)) is None
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.put(project(1), key(2000), entry(body=sealed_body(1, 20_000)), clock())
store.flush()
assert store.health() is None, "recovers without a restart"
assert store.get(project(1), key(2000)) is not None
assert store.audit() == []
store.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="uses RLIMIT_FSIZE as a full disk")
def test_a_full_disk_drops_puts_says_so_and_recovers(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr


def test_an_invalidation_that_cannot_be_written_fails_but_hides_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    store = open_lmdb(tmp_path, MAX_BYTES, clock)
    store.put(project(1), key(1), entry(), clock())
    store.flush()

    class BrokenSession(writer.WriteSession):
        def __enter__(self) -> Self:
            raise lmdb.DiskError("mdb_txn_begin: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(writer, "WriteSession", BrokenSession)
        with pytest.raises(Unavailable, match="No space left"):
            asyncio.run(store.invalidate(project(1), InvalidationFilter()))
        assert store.get(project(1), key(1)) is None
        assert store.health() is not None
    wait_for(lambda: stats(store, project(1)).entries == 0, "the invalidation to be tried again")
    assert store.get(project(1), key(1)) is None
    store.close()


def test_a_bug_in_the_writer_is_reported_and_does_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    with monkeypatch.context() as patched:
        patched.setattr(writer.CacheWriter, "_apply", lambda *_: 1 // 0)
        store.put(project(1), key(1), entry(), START_MS)
        store.flush()
        assert "ZeroDivisionError" in (store.health() or "")
        assert store.counters()["dropped"] == 1
    store.put(project(1), key(1), entry(), START_MS)
    store.flush()
    assert store.get(project(1), key(1)) is not None
    assert store.health() is None
    store.close()


def test_writes_that_wait_are_bounded_and_counted(tmp_path: Path) -> None:
    store = LmdbExactStore(tmp_path / "exact", MAX_BYTES, Clock(), pending_bytes=10_000)
    with store._env.begin(write=True):  # Another writer holds the lock: nothing can be committed meanwhile.
        for number in range(100):
            store.put(project(1), key(number), entry(body=b"x" * 400), START_MS)
        visible = sum(store.get(project(1), key(number)) is not None for number in range(100))
        assert visible == 10
        assert store.counters()["dropped"] == 90
        assert store.counters()["pending_bytes"] <= 10_000
    store.flush()
    assert stats(store, project(1)).entries == 10
    store.close()


def test_entries_expired_for_more_than_a_day_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_HOUSEKEEPING_SECONDS", 0.0)
    clock = Clock()
    store = open_lmdb(tmp_path, MAX_BYTES, clock)
    for number, ttl in ((1, 1000), (2, 3_600_000), (3, None)):
        store.put(project(1), key(number), entry(ttl_ms=ttl), clock())
    store.flush()
    clock.advance(86_400_000 + 2000)
    wait_for(lambda: store.get(project(1), key(1)) is None, "the sweep")
    assert store.get(project(1), key(2)) is not None
    assert store.get(project(1), key(3)) is not None
    assert store.counters()["expired"] == 1
    store.close()


def test_uses_are_applied_seldom_and_sooner_when_no_more_can_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_TOUCHED", 3)
    monkeypatch.setattr(writer, "_TICK_SECONDS", 0.01)
    monkeypatch.setattr(writer, "_TOUCH_SECONDS_WHEN_FULL", 0.0)
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    for number in range(3):
        store.put(project(1), key(number), entry(), START_MS)
    store.flush()
    for number in range(2):
        assert store.get(project(1), key(number)) is not None
    # Some transactions of the writer later, which do not take them along:
    for number in range(3, 6):
        store.put(project(1), key(number), entry(), START_MS)
        store.flush()
    assert len(store._writer.touched) == 2
    assert store.get(project(1), key(2)) is not None
    wait_for(lambda: not store._writer.touched, "the uses to be applied")
    store.close()


def test_ids_of_wrong_length_cannot_blur_two_projects(tmp_path: Path) -> None:
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    with pytest.raises(ValueError, match="16 bytes"):
        store.put(project(1) + b"x", key(1)[1:], entry(), START_MS)
    with pytest.raises(ValueError, match="16 bytes"):
        invalidate(store, project(1)[:4])
    store.close()


def test_the_file_does_not_grow_with_what_passes_through_it(tmp_path: Path) -> None:
    store = open_lmdb(tmp_path, MAX_BYTES, Clock())
    sizes = []
    choose = random.Random(5)
    for number in range(12_000):
        store.put(project(number % 5), key(number), entry(body=b"x" * choose.choice([200, 1000, 9000])), START_MS)
        if number % 100 == 99:
            store.flush()
        if number % 3000 == 2999:
            sizes.append((tmp_path / "exact" / "data.mdb").stat().st_size)
    assert sizes[-1] <= 2 * MAX_BYTES
    assert sizes[-1] <= sizes[1] * 1.2
    assert store.audit() == []
    store.close()
