"""Exact hits under full load while the recorder applies what was journalled, beside the same with the recorder halted.

The recorder is halted and let go in turns (SIGSTOP, SIGCONT), so that drift falls on both sides alike and it always has
a backlog to work on. On a machine of two cores it shares the load's core, and the load generator then gets less of it:
there the throughput says as much of the load as of the proxy, and the target is for the CPU that a hit costs the proxy.
"""

import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import LoadFailed, wrk
from benchmarks.machine import cpu_seconds
from tests.support.waiting import wait_for

SECONDS = 3
ROUNDS = 4


def run(bench: Bench) -> list[Row]:
    with bench.sim() as sim, bench.proxy(sim.base_url) as (gateway, project):
        database = gateway.installation.home / "watchllm.db"
        bench.prime(gateway, project)
        recorder = gateway.installation.start_recorder(prefix=bench.cores.spare)
        wait_for(lambda: _rows(database) > 0, "the recorder to apply", within=30)
        halted, applying = _Side(), _Side()
        applied = 0
        for _ in range(ROUNDS):
            recorder.signal(signal.SIGSTOP)
            halted.load(bench, gateway.port, gateway.process.pid, project.key)
            before = _rows(database)
            recorder.signal(signal.SIGCONT)
            applying.load(bench, gateway.port, gateway.process.pid, project.key)
            applied += _rows(database) - before
        recorder.stop()
    if not applied:
        raise LoadFailed("the recorder applied nothing while it was to be measured")
    where = "on a core of its own" if bench.cores.has_spare else "on the load's core"
    note = f"recorder {where}; {ROUNDS} turns of {SECONDS} s each"
    return [
        Row(
            "CPU of an exact hit beside a recorder that applies",
            applying.cpu / applying.requests * 1e6,
            "µs",
            halted.cpu / halted.requests * 1e6,
            "µs, recorder halted",
            Target("≤", 1.10, "ratio"),
            note,
        ),
        Row(
            "throughput then",
            applying.requests / applying.seconds,
            "requests/s",
            halted.requests / halted.seconds,
            "recorder halted",
            Target("≥", 0.90, "ratio") if bench.cores.has_spare else None,
        ),
        Row("applied meanwhile", applied / applying.elapsed, "rows/s"),
    ]


class _Side:
    """What was measured with the recorder in one of its two states."""

    def __init__(self) -> None:
        self.requests, self.seconds, self.cpu, self.elapsed = 0, 0.0, 0.0, 0.0

    def load(self, bench: Bench, port: int, pid: int, key: str) -> None:
        began, before = time.perf_counter(), cpu_seconds(pid)
        result = wrk(bench.cores, port, bench.bodies, key, seconds=SECONDS)
        self.cpu += cpu_seconds(pid) - before
        self.elapsed += time.perf_counter() - began
        self.requests += result.requests
        self.seconds += result.requests / result.per_second


def _rows(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM usage_logs").fetchone()[0])
