"""Memory of a proxy at rest: after its first hit, with nothing going on."""

from benchmarks import prompts
from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import Client
from benchmarks.machine import MIB, memory


def run(bench: Bench) -> list[Row]:
    with bench.sim() as sim, bench.proxy(sim.base_url) as (gateway, project):
        client = Client(gateway.port, project.key)
        for _ in range(2):
            client.post(prompts.body(0))
        client.close()
        used = memory(gateway.process.pid)
    return [
        Row(
            "memory at rest, resident",
            used["Rss"] / MIB,
            "MiB",
            target=Target("≤", 60.0),
            note="semantic cache off; resident includes mapped files (libraries, LMDB), anonymous is its own alone",
        ),
        Row("memory at rest, proportional", used["Pss"] / MIB, "MiB"),
        Row("memory at rest, anonymous", used["Anonymous"] / MIB, "MiB"),
    ]
