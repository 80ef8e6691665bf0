"""Exact hits of two workers beside those of one: what the second one adds.

Where there are cores enough (each worker its own, the load another, which redis-server shares and hardly uses), by
throughput. Where there are not, the load takes what the second worker would have needed: the throughput is printed, and
held to the promise is what a hit costs all workers in CPU time, which says what they could do on cores of their own.

And, where the kernel lets us, by throughput with each worker bound to a small part of a core, so that cores and load
are never what lacks. That shows whether workers wait for each other or for Redis. It cannot show what cores that are
all busy take from each other: caches, memory, the kernel's locks.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import LoadFailed, LoadResult, wrk
from benchmarks.machine import CpuShare, children, cpu_seconds
from tests.support.redis_server import RedisServer

SECONDS = 4
CONNECTIONS = 64
WORKERS = 2
PROMISE = 1.7
PART = 0.12


def run(bench: Bench) -> list[Row]:
    (one, cost_of_one), (two, cost_of_two) = (_measured(bench, workers) for workers in (1, WORKERS))
    enough = bench.cores.has_cores_for(WORKERS)
    note = f"{CONNECTIONS} connections, 10,000 prompts in turn, from the workers' own memory; limits are not set"
    short = "not cores enough for two workers and the load: the throughput is bounded by the cores"
    rates = Target("≥", PROMISE, "ratio") if enough else None
    costs = None if enough else Target("≤", WORKERS / PROMISE, "ratio")
    rows = [
        Row("exact hits of one worker", one.per_second, "requests/s", note=note),
        Row(
            "exact hits of two workers",
            two.per_second,
            "requests/s",
            one.per_second,
            "one",
            rates,
            "" if enough else short,
        ),
        Row("CPU of a hit, two workers", cost_of_two, "µs", cost_of_one, "one", costs),
        Row("p99 of two workers under that load", two.p99 / 1000, "ms", one.p99 / 1000, "one"),
    ]
    if CpuShare.available:
        (part, _), (parts, _) = (_measured(bench, workers, PART) for workers in (1, WORKERS))
        bound = f"each worker bound to {PART:.0%} of a core"
        rows += [
            Row("exact hits of one worker with a part of a core", part.per_second, "requests/s", note=bound),
            Row(
                "exact hits of two workers with a part of a core each",
                parts.per_second,
                "requests/s",
                part.per_second,
                "one",
                Target("≥", PROMISE, "ratio"),
                bound,
            ),
        ]
    return rows


def _measured(bench: Bench, workers: int, part: float | None = None) -> tuple[LoadResult, float]:
    """Throughput, and microseconds of CPU of all workers for a hit; each has `part` of a core, None = all there is."""
    redis = RedisServer(bench.folder / f"redis-{workers}-{part}")
    try:
        return _loaded(bench, redis, workers, part)
    finally:
        redis.stop()


def _loaded(bench: Bench, redis: RedisServer, workers: int, part: float | None) -> tuple[LoadResult, float]:
    environment = {"WATCHLLM_REDIS_URL": redis.url}
    with (
        bench.sim() as sim,
        bench.proxy(sim.base_url, environment=environment, workers=workers) as (gateway, project),
    ):
        bench.prime(gateway, project)
        # The others fetch from Redis what they have not answered yet: from here on it is in the memory of each.
        wrk(bench.cores, gateway.port, bench.bodies, project.key, seconds=3, connections=CONNECTIONS)
        bought = sim.calls()
        pids = [gateway.process.pid] if workers == 1 else children(gateway.process.pid)
        if len(pids) != workers:
            raise LoadFailed(f"{len(pids)} workers instead of {workers}")
        before = sum(map(cpu_seconds, pids))
        with _bound(pids, part):
            result = wrk(bench.cores, gateway.port, bench.bodies, project.key, seconds=SECONDS, connections=CONNECTIONS)
        used = sum(map(cpu_seconds, pids)) - before
        if sim.calls() != bought:
            raise LoadFailed(f"{sim.calls() - bought} requests went upstream: these were not all hits")
    return result, used * 1e6 / result.requests


@contextmanager
def _bound(pids: list[int], part: float | None) -> Iterator[None]:
    """Give each process no more than `part` of a core, None = all it gets."""
    with ExitStack() as stack:
        for pid in pids if part is not None else ():
            stack.callback(CpuShare(pid, part or 0.0).close)
        yield
