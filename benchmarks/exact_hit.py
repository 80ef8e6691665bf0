"""Answers from the exact cache, beside nginx returning a fixed answer of the same size to the same requests."""

from statistics import median

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import CONNECTIONS, LoadFailed, LoadResult, wrk

SECONDS = 4
ROUNDS = 3


def run(bench: Bench) -> list[Row]:
    with bench.sim() as sim, bench.proxy(sim.base_url) as (gateway, project):
        size = bench.prime(gateway, project)
        bought = sim.calls()
        with bench.nginx(b"x" * size, on_server_core=True) as nginx:
            hits: list[LoadResult] = []
            static: list[LoadResult] = []
            wrk(bench.cores, gateway.port, bench.bodies, project.key, seconds=1)
            for _ in range(ROUNDS):
                static.append(wrk(bench.cores, nginx.port, bench.bodies, project.key, seconds=SECONDS))
                hits.append(wrk(bench.cores, gateway.port, bench.bodies, project.key, seconds=SECONDS))
        if sim.calls() != bought:
            raise LoadFailed(f"{sim.calls() - bought} requests went upstream: these were not all hits")
    note = (
        f"{CONNECTIONS} connections, 10,000 prompts in turn, answers of {size} bytes, one core each for server and load"
    )
    return [
        Row(
            "exact hit",
            median(result.per_second for result in hits),
            "requests/s",
            median(result.per_second for result in static),
            "nginx, static",
            Target("≥", 0.30, "ratio"),
            note,
        ),
        Row("exact hit, p50 under that load", median(result.p50 for result in hits) / 1000, "ms"),
        Row("exact hit, p99 under that load", median(result.p99 for result in hits) / 1000, "ms"),
    ]
