"""What usage recording and the history for `explain` take from exact hits: the proxy beside one that keeps no record.

Both run on the server's core and are loaded in turns of a second, in the order A B B A, so that whatever else the
machine does falls on both alike.
"""

from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import wrk
from benchmarks.machine import cpu_seconds
from tests.support.product import Gateway, Project

SECONDS = 1
ROUNDS = 8
_UNRECORDED = Path(__file__).with_name("unrecorded_proxy.py")


def run(bench: Bench) -> list[Row]:
    with (
        bench.sim() as sim,
        bench.proxy(sim.base_url) as recorded,
        bench.proxy(sim.base_url, script=_UNRECORDED) as unrecorded,
    ):
        sides = [_Side(*recorded), _Side(*unrecorded)]
        for side in sides:
            bench.prime(side.gateway, side.project)
            side.load(bench)
            side.forget()
        for turn in range(ROUNDS):
            for side in sides if turn % 2 == 0 else reversed(sides):
                side.load(bench)
    ours, bare = sides
    note = f"{ROUNDS} turns of {SECONDS} s each; the yardstick makes no usage event, journal record or history"
    return [
        Row(
            "exact hit with journal and history",
            ours.requests / ours.seconds,
            "requests/s",
            bare.requests / bare.seconds,
            "without",
            Target("≥", 0.95, "ratio"),
            note,
        ),
        Row(
            "the same as CPU of the process",
            ours.cpu / ours.requests * 1e6,
            "µs/hit",
            bare.cpu / bare.requests * 1e6,
            "without",
        ),
    ]


class _Side:
    """One of the two proxies and what was measured of it."""

    def __init__(self, gateway: Gateway, project: Project) -> None:
        self.gateway, self.project = gateway, project
        self.forget()

    def forget(self) -> None:
        self.requests, self.seconds, self.cpu = 0, 0.0, 0.0

    def load(self, bench: Bench) -> None:
        before = cpu_seconds(self.gateway.process.pid)
        result = wrk(bench.cores, self.gateway.port, bench.bodies, self.project.key, seconds=SECONDS)
        self.cpu += cpu_seconds(self.gateway.process.pid) - before
        self.requests += result.requests
        self.seconds += result.requests / result.per_second
