"""Exact hits of two workers beside those of one: what the second one adds.

Where there are cores enough (each worker its own, the load another, which redis-server shares and hardly uses), by
throughput. Where there are not, the load takes what the second worker would have needed: the throughput is printed, and
held to the promise is what a hit costs all workers in CPU time, which says what they could do on cores of their own.
"""

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import LoadFailed, LoadResult, wrk
from benchmarks.machine import children, cpu_seconds
from tests.support.redis_server import RedisServer

SECONDS = 4
CONNECTIONS = 64
WORKERS = 2
PROMISE = 1.7


def run(bench: Bench) -> list[Row]:
    (one, cost_of_one), (two, cost_of_two) = (_measured(bench, workers) for workers in (1, WORKERS))
    enough = bench.cores.has_cores_for(WORKERS)
    note = f"{CONNECTIONS} connections, 10,000 prompts in turn, from the workers' own memory; limits are not set"
    short = "not cores enough for two workers and the load: the throughput is bounded by the cores"
    rates = Target("≥", PROMISE, "ratio") if enough else None
    costs = None if enough else Target("≤", WORKERS / PROMISE, "ratio")
    return [
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


def _measured(bench: Bench, workers: int) -> tuple[LoadResult, float]:
    """Throughput, and microseconds of CPU time of all workers for a hit."""
    redis = RedisServer(bench.folder / f"redis-{workers}")
    try:
        return _loaded(bench, redis, workers)
    finally:
        redis.stop()


def _loaded(bench: Bench, redis: RedisServer, workers: int) -> tuple[LoadResult, float]:
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
        result = wrk(bench.cores, gateway.port, bench.bodies, project.key, seconds=SECONDS, connections=CONNECTIONS)
        used = sum(map(cpu_seconds, pids)) - before
        if sim.calls() != bought:
            raise LoadFailed(f"{sim.calls() - bought} requests went upstream: these were not all hits")
    return result, used * 1e6 / result.requests
