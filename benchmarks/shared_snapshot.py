"""The snapshot through a real redis-server, with 100,000 keys in 10,000 projects: how long one change takes until it is
published and in force on the publishing host, and until another host has it.

    python -m benchmarks.shared_snapshot
"""

import asyncio
import statistics
import tempfile
import threading
import time
from pathlib import Path

from tests.support.redis_server import RedisServer
from watchllm.control.publication import Installation, Publication
from watchllm.domain.snapshot import KeyRecord, ProjectRecord
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader
from watchllm.stores.redis.address import parse
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.snapshot_follower import SnapshotFollower
from watchllm.stores.redis.snapshot_layout import CHANNEL
from watchllm.stores.redis.snapshot_writer import RedisSnapshotWriter
from watchllm.stores.redis.subscription import Subscription

INSTALLATION = Installation("11" * 16, "sqlite:///watchllm.db")

_PROJECTS, _KEYS, _CHANGES = 10_000, 100_000, 50


def _everything() -> Publication:
    projects = {f"prj_{number:032d}": ProjectRecord(f"prj_{number:032d}", "org_1", "n") for number in range(_PROJECTS)}
    keys = {
        number.to_bytes(32, "big"): KeyRecord(f"key_{number:032d}", f"prj_{number % _PROJECTS:032d}")
        for number in range(_KEYS)
    }
    return Publication(keys=dict(keys), projects=dict(projects), complete=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder) / "redis")
        writer = RedisSnapshotWriter(server.url, Path(folder) / "a", INSTALLATION)
        try:
            _measure(server, writer, Path(folder))
        finally:
            writer.close()
            server.stop()


def _measure(server: RedisServer, writer: RedisSnapshotWriter, folder: Path) -> None:
    everything = _everything()
    began = time.perf_counter()
    writer.update(lambda: everything)
    print(f"publish everything for the first time   {time.perf_counter() - began:7.2f} s")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def follow() -> tuple[Client, SnapshotFollower, Subscription]:
        client = Client(parse(server.url), loop)
        follower = SnapshotFollower(client, folder / "b", loop)
        return (
            client,
            follower,
            Subscription(client.address, (CHANNEL,), lambda *_: follower.look(), follower.look, loop),
        )

    began = time.perf_counter()
    client, follower, subscription = asyncio.run_coroutine_threadsafe(follow(), loop).result()
    reader = LmdbSnapshotReader(folder / "b")
    _wait(reader, writer.version())
    print(f"another host reads all of it            {time.perf_counter() - began:7.2f} s")
    published, followed = [], []
    for number in range(_CHANGES):
        change = Publication(keys={number.to_bytes(32, "big"): None})
        began = time.perf_counter()
        writer.update(lambda change=change: change)  # type: ignore[misc]
        published.append(time.perf_counter() - began)
        _wait(reader, writer.version())
        followed.append(time.perf_counter() - began)
    for what, times in (("here", published), ("elsewhere", followed)):
        median, worst = statistics.median(times) * 1e3, max(times) * 1e3
        print(f"publish one change, in force {what:10} {median:7.1f} ms, worst {worst:.1f}")
    for number in range(_CHANGES):
        everything.keys[number.to_bytes(32, "big")] = None
    began = time.perf_counter()
    assert not writer.differs(everything)
    print(f"compare everything, as every minute     {time.perf_counter() - began:7.2f} s")
    reader.close()

    async def end() -> None:
        subscription.close()
        await follower.close()
        client.close()

    asyncio.run_coroutine_threadsafe(end(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _wait(reader: LmdbSnapshotReader, version: int) -> None:
    while reader.version() != version:
        time.sleep(0.0002)


if __name__ == "__main__":
    main()
