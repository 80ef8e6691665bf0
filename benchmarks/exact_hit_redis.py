"""Answers from the exact cache in Redis: found in the proxy's own tier, and fetched with every request.

Server core, load core: redis-server shares the load's, so that what the proxy needs is what is measured.
"""

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import CONNECTIONS, LoadFailed, wrk
from tests.support.redis_server import RedisServer

SECONDS = 4


def run(bench: Bench) -> list[Row]:
    rows = []
    for what, memory in (("fetched from Redis", "1"), ("in the proxy's own tier", "67108864")):
        redis = RedisServer(bench.folder / f"redis-{memory}")
        try:
            environment = {"WATCHLLM_REDIS_URL": redis.url, "WATCHLLM_CACHE_MEMORY_BYTES": memory}
            with bench.sim() as sim, bench.proxy(sim.base_url, environment=environment) as (gateway, project):
                bench.prime(gateway, project)
                bought = sim.calls()
                wrk(bench.cores, gateway.port, bench.bodies, project.key, seconds=1)
                result = wrk(bench.cores, gateway.port, bench.bodies, project.key, seconds=SECONDS)
                if sim.calls() != bought:
                    raise LoadFailed(f"{sim.calls() - bought} requests went upstream: these were not all hits")
        finally:
            redis.stop()
        note = f"{CONNECTIONS} connections, 10,000 prompts in turn"
        target = Target("≥", 4000)
        rows.append(Row(f"exact hit, {what}", result.per_second, "requests/s", None, "", target, note))
        rows.append(Row(f"exact hit, {what}, p99 under that load", result.p99 / 1000, "ms"))
    return rows
