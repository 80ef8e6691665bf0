"""The snapshot through Redis: every host has all of it or the last one, whatever is lost in between."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import RedisError

from tests.support.redis_server import RedisCluster, RedisServer
from watchllm.control.publication import Installation, Publication
from watchllm.domain.errors import Unavailable
from watchllm.domain.snapshot import KeyRecord, ProjectRecord
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader
from watchllm.stores.lmdb.snapshot_copy import Position, SnapshotCopy
from watchllm.stores.redis import snapshot_layout, snapshot_writer
from watchllm.stores.redis.address import parse
from watchllm.stores.redis.client import Client, Script
from watchllm.stores.redis.snapshot_follower import SnapshotFollower
from watchllm.stores.redis.snapshot_layout import EXCHANGE
from watchllm.stores.redis.snapshot_writer import RedisSnapshotWriter

INSTALLATION = Installation("11" * 16, "sqlite:///watchllm.db")


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def keys(*numbers: int) -> dict[bytes, KeyRecord | None]:
    return {digest(number): KeyRecord(f"key_{number}", "prj_1") for number in numbers}


def everything(count: int) -> Publication:
    return Publication(keys=keys(*range(count)), complete=True)


class Host:
    """A host that only follows: its reader, and a follower that runs on a loop in a thread of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self.reader = LmdbSnapshotReader(folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

        async def begin() -> tuple[Client, SnapshotFollower]:
            client = Client(parse(url), self._loop)
            return client, SnapshotFollower(client, folder, self._loop)

        self.client, self.follower = asyncio.run_coroutine_threadsafe(begin(), self._loop).result(5)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, self.follower.problem
            threading.Event().wait(0.005)

    def close(self) -> None:
        async def end() -> None:
            await self.follower.close()
            self.client.close()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.reader.close()


@pytest.fixture
def writer(server: RedisServer, tmp_path: Path) -> Iterator[RedisSnapshotWriter]:
    writer = RedisSnapshotWriter(server.url, tmp_path / "a", INSTALLATION)
    yield writer
    writer.close()


@pytest.fixture
def host(server: RedisServer, tmp_path: Path) -> Iterator[Host]:
    host = Host(server.url, tmp_path / "b")
    yield host
    host.close()


def test_another_host_gets_all_of_it_and_then_the_changes(writer: RedisSnapshotWriter, host: Host) -> None:
    writer.update(lambda: everything(3500))
    host.until(lambda: host.reader.version() == writer.version())
    assert all(host.reader.key(digest(number)) is not None for number in range(3500))
    changes = Publication(keys={digest(7): None, **keys(4000)}, projects={"prj_1": ProjectRecord("prj_1", "o", "n")})
    writer.update(lambda: changes)
    host.until(lambda: host.reader.version() == writer.version())
    assert host.reader.key(digest(7)) is None
    assert host.reader.key(digest(4000)) is not None
    assert host.reader.project("prj_1") is not None


def test_a_second_publisher_is_as_good_as_the_first(
    writer: RedisSnapshotWriter, server: RedisServer, tmp_path: Path
) -> None:
    writer.update(lambda: everything(10))
    other = RedisSnapshotWriter(server.url, tmp_path / "c", INSTALLATION)
    assert not other.differs(everything(10))
    assert other.update(lambda: Publication(keys={digest(1): None}))
    assert writer.differs(Publication(keys=keys(1)))
    assert writer.version() == other.version()
    other.close()


def test_what_was_derived_before_another_published_is_derived_again(
    writer: RedisSnapshotWriter, server: RedisServer, tmp_path: Path
) -> None:
    """Also where the other had nothing to change: it may have read a newer state than this one."""
    writer.update(lambda: everything(2))
    other = RedisSnapshotWriter(server.url, tmp_path / "c", INSTALLATION)
    truth = [Publication(keys={digest(1): None}), Publication(keys=keys(1))]
    derived = []

    def slow() -> Publication:
        derived.append(truth[len(derived)])
        if len(derived) == 1:
            assert not other.update(lambda: truth[1])
        return derived[-1]

    assert not writer.update(slow)
    assert derived == truth
    other.close()


def test_an_emptied_redis_takes_nothing_from_anybody_and_is_filled_again(
    writer: RedisSnapshotWriter, server: RedisServer, host: Host
) -> None:
    writer.update(lambda: everything(5))
    host.until(lambda: host.reader.version() == writer.version())
    before = host.reader.version()
    server.command("FLUSHALL")
    host.follower.look()
    host.until(lambda: "it holds none" in (host.follower.problem or ""))
    assert (host.reader.version(), host.reader.key(digest(1)) is not None) == (before, True)
    assert writer.version() == 0
    with pytest.raises(Unavailable, match="lost"):
        writer.update(lambda: Publication(keys=keys(6)))
    assert writer.differs(everything(5))
    assert writer.update(lambda: everything(4))
    host.until(lambda: host.reader.key(digest(4)) is None)
    assert host.reader.version() == writer.version() > before
    assert host.reader.key(digest(3)) is not None


def test_what_is_kept_is_of_this_hosts_copy_where_redis_was_emptied(
    writer: RedisSnapshotWriter, server: RedisServer, host: Host
) -> None:
    projects = {name: ProjectRecord(name, "org_1", name) for name in ("prj_1", "prj_2")}
    writer.update(lambda: Publication(projects=dict(projects), complete=True))
    server.command("FLUSHALL")
    writer.update(lambda: Publication(keys=keys(1), complete=True, kept_projects=frozenset({"prj_1", "prj_3"})))
    host.until(lambda: host.reader.key(digest(1)) is not None)
    found = [host.reader.project(name) for name in ("prj_1", "prj_2", "prj_3")]
    assert found == [projects["prj_1"], None, None]


def test_a_part_that_is_lost_is_never_taken_for_a_removal(
    writer: RedisSnapshotWriter, server: RedisServer, host: Host
) -> None:
    writer.update(lambda: everything(5))
    host.until(lambda: host.reader.version() == writer.version())
    epoch = server.command("HGET", "watchllm:{snapshot}:state", "epoch").split(b"\r\n")[1]
    records = b"watchllm:{snapshot}:" + epoch + b":records"
    server.command("HSET", "watchllm:{snapshot}:state", "version", host.reader.version() + 1)
    server.command("DEL", records)
    host.until(lambda: "a part of it is lost" in (host.follower.problem or ""))
    assert all(host.reader.key(digest(number)) is not None for number in range(5))
    assert writer.version() == 0
    assert writer.update(lambda: everything(5))
    host.until(lambda: host.reader.version() == writer.version())


def test_who_was_away_longer_than_removals_are_remembered_reads_everything(
    writer: RedisSnapshotWriter, server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_writer, "MOST_GONE", 3)
    writer.update(lambda: everything(20))
    host = Host(server.url, tmp_path / "b")
    host.until(lambda: host.reader.version() == writer.version())
    host.close()
    for number in range(10):
        writer.update(lambda number=number: Publication(keys={digest(number): None}))  # type: ignore[misc]
    assert int(server.command("ZCARD", _key(server, b"gone"))[1:-2]) == 3
    host = Host(server.url, tmp_path / "b")
    host.until(lambda: host.reader.version() == writer.version())
    assert [host.reader.key(digest(number)) is None for number in range(20)] == [True] * 10 + [False] * 10
    host.close()


def test_very_many_changes_are_exchanged_in_one_step(
    writer: RedisSnapshotWriter, server: RedisServer, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_writer, "MOST_AT_ONCE", 5)
    writer.update(lambda: everything(30))
    host.until(lambda: host.reader.version() == writer.version())
    seen = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.add(host.reader.version())

    thread = threading.Thread(target=watch)
    thread.start()
    before = host.reader.version()
    assert writer.update(lambda: Publication(keys={digest(0): None, **keys(*range(100, 120))}))
    host.until(lambda: host.reader.version() == writer.version())
    stop.set()
    thread.join()
    assert seen <= {before, writer.version()}
    assert [host.reader.key(digest(number)) is not None for number in (0, 1, 100)] == [False, True, True]
    assert server.command("KEYS", "*").count(b"records") == 1


@pytest.fixture
def exchanging(writer: RedisSnapshotWriter, monkeypatch: pytest.MonkeyPatch) -> RedisSnapshotWriter:
    """It has published, and exchanges all of it at a change of more than a few."""
    writer.update(lambda: everything(30))
    monkeypatch.setattr(snapshot_writer, "MOST_AT_ONCE", 5)
    return writer


def test_what_was_exchanged_is_gone_though_its_publisher_does_not_hear_that_it_was(
    exchanging: RedisSnapshotWriter, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, run = exchanging, exchanging._blocking.run

    def lost(script: Script, *arguments: Any) -> Any:
        run(script, *arguments)
        raise RedisError("the reply was lost")

    with monkeypatch.context() as patch:
        patch.setattr(writer._blocking, "run", lambda *call: (lost if call[0] is EXCHANGE else run)(*call))
        with pytest.raises(Unavailable, match="the reply was lost"):
            writer.update(lambda: Publication(keys=keys(*range(100, 120))))
    assert server.command("KEYS", "*").count(b"records") == 1
    assert not writer.update(lambda: Publication(keys=keys(*range(100, 120))))


def test_what_was_exchanged_stays_though_that_is_sent_again(
    exchanging: RedisSnapshotWriter, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, run = exchanging, exchanging._blocking.run

    def twice(script: Script, *arguments: Any) -> Any:
        """As where the connection was lost with the reply."""
        if script is EXCHANGE:
            run(script, *arguments)
        return run(script, *arguments)

    monkeypatch.setattr(writer._blocking, "run", twice)
    made: list[None] = []

    def publication() -> Publication:
        made.append(None)
        return Publication(keys=keys(*range(100, 120)))

    assert writer.update(publication)
    assert len(made) == 1
    assert server.command("KEYS", "*").count(b"records") == 1


def test_what_a_server_brings_back_from_before_is_read_by_nobody(
    writer: RedisSnapshotWriter, host: Host, server: RedisServer, tmp_path: Path
) -> None:
    writer.update(lambda: everything(3))
    server.command("SAVE")
    writer.update(lambda: Publication(keys={digest(1): None}))
    version = writer.version()
    host.until(lambda: host.reader.version() == version)
    server.kill()
    server.start(empty=False)
    fresh = Host(server.url, tmp_path / "c")
    try:
        for one in (host, fresh):
            one.until(lambda one=one: "before it was started" in (one.follower.problem or ""))  # type: ignore[misc]
        assert (host.reader.key(digest(1)), fresh.reader.key(digest(1)), fresh.reader.version()) == (None, None, 0)
        assert writer.version() == 0
        with pytest.raises(Unavailable, match="published anew"):
            writer.update(lambda: Publication(keys={digest(2): None}))
        assert writer.update(lambda: Publication(keys=keys(0, 2), complete=True))
        for one in (host, fresh):
            one.until(lambda one=one: one.reader.version() == writer.version())  # type: ignore[misc]
            assert one.reader.key(digest(1)) is None
            assert one.reader.key(digest(2)) == KeyRecord("key_2", "prj_1")
        assert writer.update(lambda: Publication(keys={digest(2): None}))
        fresh.until(lambda: fresh.reader.key(digest(2)) is None)
    finally:
        fresh.close()


def test_a_cluster_holds_it_too(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path / "cluster")
    writer = RedisSnapshotWriter(cluster.url, tmp_path / "a", INSTALLATION)
    host = Host(cluster.url, tmp_path / "b")
    try:
        writer.update(lambda: everything(700))
        writer.update(lambda: Publication(keys={digest(1): None}))
        host.until(lambda: host.reader.version() == writer.version())
        assert (host.reader.key(digest(1)), host.reader.key(digest(699))) == (None, KeyRecord("key_699", "prj_1"))
    finally:
        host.close()
        writer.close()
        cluster.stop()


def test_a_redis_that_is_gone_is_told_with_its_place_and_without_its_password(tmp_path: Path) -> None:
    writer = RedisSnapshotWriter("redis://:secret@127.0.0.1:1", tmp_path / "a", INSTALLATION)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1") as caught:
        writer.version()
    assert "secret" not in str(caught.value)
    writer.close()


async def turns_of_the_loop(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("turns", range(6))
def test_it_ends_whatever_comes_just_then(tmp_path: Path, turns: int) -> None:
    async def look_and_close() -> None:
        loop = asyncio.get_running_loop()
        client = Client(parse("redis://127.0.0.1:1"), loop)
        follower = SnapshotFollower(client, tmp_path, loop)
        await turns_of_the_loop(5)  # It has found nobody by then, and waits for news.
        follower.look()
        await turns_of_the_loop(turns)
        await asyncio.wait_for(follower.close(), 5)
        client.close()

    asyncio.run(look_and_close())


def test_it_does_not_end_under_what_is_being_written(
    writer: RedisSnapshotWriter, server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on, order = threading.Event(), threading.Event(), list[str]()
    apply, close = SnapshotCopy.apply, SnapshotCopy.close

    def slow(copy: SnapshotCopy, base: Position | None, target: Position, changes: dict[bytes, bytes | None]) -> bool:
        writing.set()
        assert go_on.wait(10)
        order.append("written")
        return apply(copy, base, target, changes)

    def noted(copy: SnapshotCopy) -> None:
        order.append("closed")
        close(copy)

    async def close_while_it_writes() -> None:
        loop = asyncio.get_running_loop()
        client = Client(parse(server.url), loop)
        follower = SnapshotFollower(client, tmp_path / "b", loop)
        await asyncio.to_thread(writing.wait, 10)
        closing = loop.create_task(follower.close())
        await turns_of_the_loop(10)
        go_on.set()
        await closing
        client.close()

    writer.update(lambda: everything(3))
    monkeypatch.setattr(SnapshotCopy, "apply", slow)
    monkeypatch.setattr(SnapshotCopy, "close", noted)
    asyncio.run(close_while_it_writes())
    assert order == ["written", "closed"]


def _key(server: RedisServer, what: bytes) -> bytes:
    epoch = server.command("HGET", snapshot_layout.STATE, "epoch").split(b"\r\n")[1]
    return b"watchllm:{snapshot}:" + epoch + b":" + what
