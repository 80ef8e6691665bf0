"""SIGKILL of a process that writes to the exact cache, at any moment: the file stays whole, others go on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.exact_store import Clock, entry, invalidate, is_whole, key, open_lmdb, project, sealed_body, stats
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("WATCHLLM_TEST_KILLS", "8"))
TIGHT, ROOMY = 4 << 20, 1 << 30

WRITING = """
import random, sys
from pathlib import Path
from tests.support.exact_store import *
clock = Clock(int(sys.argv[2]))
store = open_lmdb(Path(sys.argv[1]), int(sys.argv[5]), clock)
choose = random.Random(int(sys.argv[3]))
print("ready", flush=True)
number = int(sys.argv[4])
while True:
    for _ in range(choose.randrange(1, 60)):
        number += 1
        size = choose.choice([50, 500, 3000, 20_000])
        store.put(project(number % 3), key(number), entry(clock.advance(1), body=sealed_body(number, size)), clock())
    if choose.random() < 0.2:
        store.remove(project(0), key(number - choose.randrange(9)))
    if choose.random() < 0.1:
        invalidate(store, project(1), InvalidationFilter(before_ms=clock() - 50))
    store.flush()
    print(number, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
@pytest.mark.parametrize("max_bytes", [TIGHT, ROOMY], ids=["evicting", "roomy"])
def test_a_killed_writer_leaves_a_whole_file_and_others_go_on(tmp_path: Path, max_bytes: int) -> None:
    seed = random.randrange(1 << 30)
    choose = random.Random(seed)
    clock = Clock()
    mine = open_lmdb(tmp_path, max_bytes, clock)
    last = 0
    for round_number in range(ROUNDS):
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                WRITING,
                str(tmp_path),
                str(clock.advance(1000)),
                str(seed + round_number),
                str(last),
                str(max_bytes),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        until = time.monotonic() + choose.uniform(0.0, 0.15)
        while time.monotonic() < until:  # This process writes at the same time.
            mine.put(project(7), key(choose.randrange(500)), entry(clock.advance(1), body=sealed_body(1, 900)), clock())
            mine.flush()
        child.send_signal(signal.SIGKILL)
        committed = [int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        child.wait()
        child.stdout.close()
        context = f"seed {seed}, round {round_number}"
        assert mine.audit() == [], context
        assert sum(stats(mine, project(n)).bytes for n in (0, 1, 2, 7)) <= max_bytes, context
        if committed:
            started, last = last, committed[-1]
            if max_bytes == ROOMY:  # Nothing is evicted, and nobody removes entries of project 2.
                of_project_2 = [number for number in range(started + 1, last + 1) if number % 3 == 2]
                lost = [number for number in of_project_2 if mine.get(project(2), key(number)) is None]
                assert lost == [], f"{context}: what was committed is lost"
        for number in range(max(0, last - 2000), last + 100):
            found = mine.get(project(number % 3), key(number))
            assert found is None or found.body == sealed_body(number, len(found.body) - 32), context
        last += 100
        clock.advance(60_000)
        mine.put(project(7), key(round_number), entry(clock()), clock())
        mine.flush()
        assert mine.health() is None, context
    mine.close()
    again = open_lmdb(tmp_path, max_bytes, clock)
    assert again.audit() == []
    assert all(is_whole(found.body) for n in range(ROUNDS, 500) if (found := again.get(project(7), key(n))))
    again.close()


PURGING = """
import sys, threading
from pathlib import Path
from tests.support.exact_store import *
import watchllm.stores.lmdb.invalidation as invalidation
invalidation._DELETE = 10
next_batch, batches = invalidation.Purge.next_batch, []

def some_batches(purge, *arguments):
    batches.append(purge)
    if len(batches) > 20:  # Until it is killed.
        print("some", flush=True)
        threading.Event().wait()
    return next_batch(purge, *arguments)

invalidation.Purge.next_batch = some_batches
store = open_lmdb(Path(sys.argv[1]), 32 << 20, Clock(START_MS + 10))
invalidate(store, project(1))
"""


def test_an_invalidation_cut_off_by_a_kill_is_finished_by_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    mine = open_lmdb(tmp_path, 32 << 20, clock)
    for number in range(2000):
        mine.put(project(1), key(number), entry(), clock())
        mine.put(project(2), key(number), entry(), clock())
    mine.flush()
    child = subprocess.Popen(
        [sys.executable, "-c", PURGING, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "some\n"
    child.kill()
    child.wait()
    child.stdout.close()
    assert 0 < stats(mine, project(1)).entries < 2000
    monkeypatch.setattr("watchllm.stores.lmdb.writer._ADOPT_SECONDS", 0.0)
    wait_for(lambda: not stats(mine, project(1)).entries, "the rest to be deleted", within=20)
    assert stats(mine, project(2)).entries == 2000
    assert invalidate(mine, project(2)) == 2000
    assert mine.audit() == []
    mine.close()
