"""SIGKILL of a process that writes vectors, at any moment: the file stays whole, others go on and see what it wrote."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.exact_store import Clock, key, project
from tests.support.vector_store import held, open_lmdb_vectors, partition, put, stored
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("WATCHLLM_TEST_KILLS", "8"))
BOUNDS = {"max_per_project": 300, "max_per_source": 250}

WRITING = """
import random, sys
from pathlib import Path
from tests.support.exact_store import *
from tests.support.vector_store import *
store = open_lmdb_vectors(Path(sys.argv[1]), Clock(), max_per_project=300, max_per_source=250)
choose = random.Random(int(sys.argv[2]))
number = int(sys.argv[3])
print("ready", flush=True)
while True:
    for _ in range(choose.randrange(1, 40)):
        number += 1
        store.put(partition(number % 2), key(number), stored(number, source=f"key_{number % 3}"))
    if choose.random() < 0.3:
        store.remove(partition(0), key(number - choose.randrange(9)))
    if choose.random() < 0.1:
        purge(store, project(1), InvalidationFilter(source="key_1"))
    store.flush()
    print(number, flush=True)
"""

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")


def test_a_killed_writer_leaves_a_whole_file_and_others_go_on(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    choose = random.Random(seed)
    mine = open_lmdb_vectors(tmp_path, Clock(), **BOUNDS)
    last = 0
    for round_number in range(ROUNDS):
        position = mine.position()
        child = _writer(tmp_path, seed + round_number, last)
        until = time.monotonic() + choose.uniform(0.0, 0.15)
        while time.monotonic() < until:  # This process writes at the same time.
            put(mine, partition(7), choose.randrange(100))
            mine.flush()
        child.send_signal(signal.SIGKILL)
        committed = [int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        child.wait()
        child.stdout.close()
        context = f"seed {seed}, round {round_number}"
        for number in (0, 1, 7):
            found = held(mine, partition(number))
            assert mine.count(project(number)) == len(found) <= 300, context
        if committed:
            last = committed[-1]
            assert mine.changes(position, 1).places, context
            # Ten back, because the latest ones may have been removed or purged; of project 0 none of key_1 is purged.
            survivors = [n for n in range(last - 30, last - 10) if n > 0 and n % 2 == 0]
            assert not survivors or any(mine.get(partition(0), key(n)) for n in survivors), context
        assert mine.health() is None, context
    mine.close()


def test_another_process_sees_a_change_within_a_second(tmp_path: Path) -> None:
    mine = open_lmdb_vectors(tmp_path, Clock())
    put(mine, partition(1), 0)
    mine.flush()
    position = mine.position()
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.support.exact_store import *\n"
        "from tests.support.vector_store import *\n"
        "store = open_lmdb_vectors(Path(sys.argv[1]), Clock())\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "put(store, partition(1), 5)\nstore.remove(partition(1), key(0))\n"
        "print('put', flush=True)\nsys.stdin.readline()\nstore.close()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "put\n"
        wait_for(lambda: len(mine.changes(position, 10).places) == 2, "both changes to be seen")
        assert mine.get(partition(1), key(5)) == stored(5)
        assert mine.get(partition(1), key(0)) is None
    finally:
        child.communicate("\n", timeout=30)
        mine.close()
    assert child.returncode == 0


def _writer(folder: Path, seed: int, number: int) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(folder), str(seed), str(number)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child
