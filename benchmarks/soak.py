"""A million requests with distinct bodies, each answer stored: what grows, and whether bounds hold (`make soak`)."""

from pathlib import Path

from benchmarks import prompts
from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import wrk
from benchmarks.machine import MIB, memory

REQUESTS = 1_000_000
WARM_REQUESTS = 200_000
CACHE_BYTES = 256 * MIB
SECONDS = 10
_APART = 10_000_000  # More than a round can send: bodies never repeat.


def run(bench: Bench) -> list[Row]:
    bound = {"WATCHLLM_CACHE_MAX_BYTES": str(CACHE_BYTES)}
    with (
        bench.nginx(prompts.completion(), on_server_core=False) as upstream,
        bench.proxy(f"{upstream.url}/v1", environment=bound) as (gateway, project),
    ):
        sent = turn = 0
        warm: dict[str, int] | None = None
        while sent < REQUESTS:
            turn += 1
            sent += wrk(bench.cores, gateway.port, turn * _APART, project.key, seconds=SECONDS).requests
            if warm is None and sent >= WARM_REQUESTS:
                warm = memory(gateway.process.pid)
        assert warm is not None
        after = memory(gateway.process.pid)
        on_disk = _allocated(gateway.installation.home)
    return [
        Row(
            f"soak, anonymous memory added by the requests after the first {WARM_REQUESTS:,}",
            (after["Anonymous"] - warm["Anonymous"]) / MIB,
            "MiB",
            target=Target("≤", 8.0),
            note=f"{sent:,} requests with distinct bodies, all stored; cache bounded to {CACHE_BYTES // MIB} MiB",
        ),
        Row("soak, anonymous memory at the end", after["Anonymous"] / MIB, "MiB"),
        Row("soak, resident memory at the end", after["Rss"] / MIB, "MiB"),
        Row("soak, home folder on disk", on_disk / MIB, "MiB", CACHE_BYTES / MIB, "MiB allowed to the cache"),
    ]


def _allocated(folder: Path) -> int:
    """Bytes that the files really take (LMDB's are sparse)."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
