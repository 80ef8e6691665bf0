"""Exact hits under limits: kept by the process itself, and shared in Redis far from a limit and near it.

Near a limit every request asks Redis: of places for requests under way, which few more have than there are connections.
redis-server shares the load's core, so that what the proxy needs is what is measured.
"""

from collections.abc import Mapping

from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import CONNECTIONS, LoadFailed, wrk
from tests.support.product import Gateway, Project
from tests.support.redis_server import RedisServer
from watchllm.domain.settings import parse_settings

SECONDS = 4

_FAR = {"requests_per_minute": "100000000", "monthly_requests": "100000000000"}
_NEAR = {"concurrent_requests": str(CONNECTIONS + 4)}
_LIMITS: dict[str, Mapping[str, str]] = {"without limits": {}, "far from limits": _FAR, "near a limit": _NEAR}


def run(bench: Bench) -> list[Row]:
    redis = RedisServer(bench.folder / "redis")
    try:
        rows = _measure(bench, "in process", {})
        rows += _measure(bench, "shared in Redis", {"WATCHLLM_REDIS_URL": redis.url})
    finally:
        redis.stop()
    return rows


def _measure(bench: Bench, where: str, environment: Mapping[str, str]) -> list[Row]:
    rows = []
    with bench.sim() as sim, bench.proxy(sim.base_url, environment=environment) as (gateway, project):
        recorder = gateway.installation.start_recorder(prefix=bench.cores.load)
        bench.prime(gateway, project)
        bought = sim.calls()
        for what, limits in _LIMITS.items():
            _limit(gateway, project, limits)
            wrk(bench.cores, gateway.port, bench.bodies, project.key, seconds=1)
            result = wrk(bench.cores, gateway.port, bench.bodies, project.key, seconds=SECONDS)
            target = Target("≥", 4000)
            note = f"{CONNECTIONS} connections, 10,000 prompts in turn"
            rows.append(Row(f"exact hit, {what}, {where}", result.per_second, "requests/s", None, "", target, note))
            rows.append(Row(f"exact hit, {what}, {where}, p99 under that load", result.p99 / 1000, "ms"))
        if sim.calls() != bought:
            raise LoadFailed(f"{sim.calls() - bought} requests went upstream: these were not all hits")
        recorder.stop()
    return rows


def _limit(gateway: Gateway, project: Project, limits: Mapping[str, str]) -> None:
    # All of them named: what was set for the last figure would stay.
    named = {**dict.fromkeys(("requests_per_minute", "monthly_requests", "concurrent_requests"), ""), **limits}
    with gateway.installation.control_plane() as plane:
        plane.set_project(project.id, parse_settings(named))
