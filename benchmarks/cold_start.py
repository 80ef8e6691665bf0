"""From exec to the first cached answer, with a full cache and many keys on disk; and the same for a forked worker."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import prompts
from benchmarks.bench import Bench
from benchmarks.figure import Row, Target
from benchmarks.load import Client, LoadFailed
from benchmarks.machine import children
from tests.support.product import Gateway, Installation, Project
from watchllm.cache.entry import Entry
from watchllm.control.publication import Publication
from watchllm.domain import ids, keys
from watchllm.domain.snapshot import KeyRecord
from watchllm.domain.usage import TokenUsage
from watchllm.stores.lmdb.cache import LmdbExactStore
from watchllm.stores.lmdb.snapshot_writer import LmdbSnapshotWriter

ENTRIES = 100_000
KEYS = 10_000
STARTS = 15
FORKS = 7
_YARDSTICK = "import asyncio, uvloop, httptools"
_PATIENCE = 20.0


def run(bench: Bench) -> list[Row]:
    with bench.sim() as sim, bench.proxy(sim.base_url) as (gateway, project):
        client = Client(gateway.port, project.key)
        client.post(prompts.body(0))
        client.close()
        gateway.stop()
        installation = gateway.installation
        _fill(installation, project)
        starts: list[float] = []
        imports: list[float] = []
        bare: list[float] = []
        for _ in range(STARTS):
            starts.append(_start(installation, project))
            imports.append(_interpreter(bench, _YARDSTICK))
            bare.append(_interpreter(bench, "pass"))
        forks = _forks(installation, project)
    note = f"{ENTRIES:,} entries and {KEYS:,} keys on disk; median of {STARTS} starts, from exec to the answer read"
    return [
        Row("cold start, exec to first cached answer", median(starts), "ms", target=Target("≤", 100.0), note=note),
        Row(
            "cold start, beside the bare imports",
            median(starts),
            "ms",
            median(imports),
            f'ms python -c "{_YARDSTICK}"',
            Target("≤", 1.5, "ratio"),
        ),
        Row("python -c pass", median(bare), "ms"),
        Row(
            "forked worker, death of the one before to first cached answer",
            median(forks),
            "ms",
            target=Target("≤", 30.0),
            note="forked worker: `watchllm up` replaces a proxy that was killed; its notice of the death is included",
        ),
    ]


def _fill(installation: Installation, project: Project) -> None:
    """Put entries and keys where a busy installation would have them."""
    now = time.time_ns() // 1_000_000
    answer = prompts.completion()
    store = LmdbExactStore.open(installation.home / "cache", max_bytes=1 << 30, now_ms=lambda: now)
    for number in range(ENTRIES):
        usage = TokenUsage(58, 21)
        entry = Entry(
            now, now + 86_400_000, "generate", "openai", prompts.MODEL, usage, None, ids.new_id(ids.KEY), answer
        )
        store.put((number % 100).to_bytes(16), os.urandom(32), entry, now)
    store.flush()
    store.close()
    records = {keys.digest(keys.generate(test=False)): KeyRecord(ids.new_id(ids.KEY), project.id) for _ in range(KEYS)}
    writer = LmdbSnapshotWriter(installation.home / "snapshot")
    writer.update(lambda: Publication(keys=dict(records)))
    writer.close()


def _start(installation: Installation, project: Project) -> float:
    """Milliseconds from exec to the first cached answer of a new proxy."""
    begun = time.perf_counter()
    gateway = installation.start_proxy(wait=False)
    try:
        return (_first_hit(gateway, project) - begun) * 1000
    finally:
        gateway.stop()


def _forks(installation: Installation, project: Project) -> list[float]:
    """Milliseconds from a worker's death to the first cached answer of the worker that follows it.

    Each time under a new `watchllm up`: from the second death on, the supervisor waits before it starts a worker again.
    """
    times = []
    for _ in range(FORKS):
        gateway = installation.start_up("--no-console")
        # It watches its children once all of them are there, which it then says.
        gateway.process.wait_until(partial(_is_announced, gateway), "having started everything")
        worker = _proxy_of(gateway)
        begun = time.perf_counter()
        os.kill(worker, signal.SIGKILL)
        times.append((_first_hit(gateway, project) - begun) * 1000)
        gateway.stop()
    return times


def _is_announced(gateway: Gateway) -> bool:
    return f":{gateway.port}/v1" in gateway.process.log()


def _proxy_of(gateway: Gateway) -> int:
    for pid in children(gateway.process.pid):
        if b"watchllm proxy" in Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" "):
            return pid
    raise LoadFailed("`watchllm up` has no child that calls itself `watchllm proxy`")


def _first_hit(gateway: Gateway, project: Project) -> float:
    """Knock until somebody opens, then ask; when the cached answer had been read."""
    deadline = time.perf_counter() + _PATIENCE
    while time.perf_counter() < deadline:
        if gateway.process.exit_code is not None:
            raise LoadFailed(f"the proxy ended: {gateway.process.log()}")
        try:
            client = Client(gateway.port, project.key)
        except ConnectionRefusedError:
            time.sleep(0.0002)
            continue
        try:
            answer = client.post(prompts.body(0))
        except (LoadFailed, ConnectionResetError, BrokenPipeError):
            continue  # The connection was still taken by the worker that has just been killed.
        finally:
            client.close()
        if answer.headers.get(b"x-watchllm-cache") != b"HIT":
            raise LoadFailed(f"not answered from the cache: {answer.headers}")
        return answer.ended
    raise LoadFailed(f"no answer within {_PATIENCE:g} s: {gateway.process.log()}")


def _interpreter(bench: Bench, code: str) -> float:
    begun = time.perf_counter()
    subprocess.run([*bench.cores.server, sys.executable, "-c", code], check=True)
    return (time.perf_counter() - begun) * 1000
