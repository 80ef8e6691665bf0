"""Requests that are forwarded, beside the same nginx called directly; and what the way through adds to one request."""

from statistics import median

from benchmarks import prompts
from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import CONNECTIONS, Client, added, wrk

SECONDS = 4
ROUNDS = 3
LATENCY_ROUNDS = 15
LATENCY_REQUESTS = 200
NO_STORE = "Cache-Control: no-store"


def run(bench: Bench) -> list[Row]:
    answer = prompts.completion()
    with (
        bench.nginx(answer, on_server_core=False) as upstream,
        bench.nginx(answer, on_server_core=True) as alone,
        bench.proxy(f"{upstream.url}/v1") as (gateway, project),
    ):
        through: list[float] = []
        direct: list[float] = []
        for _ in range(ROUNDS):
            direct.append(wrk(bench.cores, alone.port, bench.bodies, project.key, seconds=SECONDS).per_second)
            result = wrk(bench.cores, gateway.port, bench.bodies, project.key, seconds=SECONDS, header=NO_STORE)
            through.append(result.per_second)
        proxied, plain = _latencies(gateway.port, upstream.port, project.key)
    return [
        Row(
            "pass-through",
            median(through),
            "requests/s",
            median(direct),
            "nginx, directly",
            Target("≥", 0.20, "ratio"),
            f"{CONNECTIONS} connections, 10,000 prompts in turn with no-store; upstream is nginx on the load's core",
        ),
        Row(
            "pass-through, added at 1 connection (p50)",
            added(proxied, plain),
            "ms",
            median(plain),
            "ms directly",
            Target("≤", 0.3),
        ),
    ]


def _latencies(gateway: int, upstream: int, key: str) -> tuple[list[float], list[float]]:
    """Milliseconds of single requests, through the gateway and directly, taken in turns."""
    clients = {port: Client(port, key, header=NO_STORE) for port in (gateway, upstream)}
    times: dict[int, list[float]] = {gateway: [], upstream: []}
    for turn in range(LATENCY_ROUNDS):
        for port, client in clients.items():
            for number in range(LATENCY_REQUESTS):
                answer = client.post(prompts.body((turn * LATENCY_REQUESTS + number) % prompts.COUNT))
                times[port].append((answer.ended - answer.sent) * 1000)
    for client in clients.values():
        client.close()
    return times[gateway], times[upstream]
