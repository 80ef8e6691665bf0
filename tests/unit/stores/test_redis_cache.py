"""The shared cache where things go wrong between processes: no invalidation is missed, no clock is trusted."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.exact_store import START_MS, Clock, entry, key, project
from tests.support.redis_server import RedisCluster, RedisServer
from tests.support.waiting import until, wait_for
from watchllm.cache.entry import Entry, InvalidationFilter
from watchllm.stores.redis import index_sweep
from watchllm.stores.redis.address import parse
from watchllm.stores.redis.cache import RedisExactStore
from watchllm.stores.redis.cache_in_thread import RedisStoreInThread
from watchllm.stores.redis.cache_layout import (
    CHANNEL,
    INVALIDATE,
    KEPT_MS,
    MOST_RECORDS,
    REPLACED,
    entry_key,
    key_of,
    packed_filter,
)
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.generations import MOST_RECORDS as MOST_KNOWN
from watchllm.stores.redis.index_sweep import INDEXED
from watchllm.stores.redis.link import Unreachable
from watchllm.stores.redis.memory import Memory
from watchllm.stores.redis.node import TIMEOUT_SECONDS
from watchllm.stores.redis.subscription import Subscription

PROJECT = project(1)
PATIENT = 10.0
"""Seconds to wait for Redis where a test is about what it says: a machine may be busy for longer than requests wait."""


class Process:
    """One process's store; where it `is_deaf`, messages are lost."""

    def __init__(self, url: str, clock: Callable[[], int], timeout: float) -> None:
        loop = asyncio.get_running_loop()
        address = parse(url)
        self.client = Client(address, loop, timeout)
        self.store = RedisExactStore(self.client, self.client, loop, memory_bytes=1 << 20, now_ms=clock)
        self.is_deaf = False
        self.subscription = Subscription(
            address,
            (CHANNEL, REPLACED),
            self._on_message,
            lambda: self.store.listening(connected=True),
            loop,
            lambda: self.store.listening(connected=False),
        )

    def _on_message(self, channel: bytes, message: bytes) -> None:
        if self.is_deaf:
            return
        if channel == CHANNEL:
            self.store.heard(message)
        else:
            self.store.heard_replaced(message)

    async def ready(self) -> None:
        await until(lambda: self.store.is_in_touch)

    async def get(self, number: int) -> Entry | None:
        found: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        if self.store.fetch(PROJECT, [key(number)], lambda: found.set_result(self.store.get(PROJECT, key(number)))):
            return await found
        return self.store.get(PROJECT, key(number))

    async def put(self, number: int, begun_ms: int, created_ms: int = START_MS, body: bytes = b"{}") -> None:
        self.store.put(PROJECT, key(number), entry(created_ms, body=body), begun_ms)
        await until(lambda: not self.store.pending)

    def close(self) -> None:
        self.store.close()
        self.subscription.close()
        self.client.close()


def run(url: str, use: Callable[..., Awaitable[None]], *clocks: Callable[[], int], timeout: float = PATIENT) -> None:
    """Call `use` with a process for each clock."""

    async def main() -> None:
        processes = [Process(url, clock, timeout) for clock in clocks]
        try:
            for process in processes:
                await process.ready()
            await use(*processes)
        finally:
            for process in processes:
                process.close()

    asyncio.run(main())


def test_what_began_before_an_invalidation_that_was_not_heard_of_is_refused(server: RedisServer) -> None:
    async def use(one: Process, deaf: Process) -> None:
        begun = clock()
        deaf.is_deaf = True
        clock.advance(10)
        await one.store.invalidate(PROJECT, InvalidationFilter())
        clock.advance(10)
        await deaf.put(1, begun)
        assert deaf.store.counters.refused == 1
        assert await deaf.get(1) is None
        assert await one.get(1) is None

    clock = Clock()
    run(server.url, use, clock, clock)


@pytest.mark.parametrize("ahead_ms", [-3_600_000, 3_600_000])
def test_no_hosts_clock_is_compared_with_anothers(server: RedisServer, ahead_ms: int) -> None:
    async def use(one: Process, other: Process) -> None:
        begun = there()
        there.advance(10)
        here.advance(10)
        await one.store.invalidate(PROJECT, InvalidationFilter())
        await until(lambda: other.store.generations.latest == 1)
        there.advance(10)
        await other.put(1, begun, there())
        assert await other.get(1) is None, "begun before, whatever the clocks say"
        await other.put(2, there(), there())
        assert await other.get(2) is not None, "begun after, whatever the clocks say"

    here, there = Clock(), Clock(START_MS + ahead_ms)
    run(server.url, use, here, there)


def test_a_message_that_was_lost_is_made_up_for(server: RedisServer) -> None:
    async def use(one: Process, deaf: Process) -> None:
        await one.put(1, clock())
        assert await deaf.get(1) is not None
        deaf.is_deaf = True
        clock.advance(10)
        await one.store.invalidate(PROJECT, InvalidationFilter())
        await until(lambda: deaf.store.get(PROJECT, key(1)) is None)

    clock = Clock()
    run(server.url, use, clock, clock)


def test_what_is_not_deleted_yet_is_not_seen(server: RedisServer) -> None:
    async def use(one: Process, other: Process) -> None:
        await one.put(1, clock())
        # The process that invalidates dies before it has deleted anything.
        keys, everything = (key_of(PROJECT, "l"), key_of(PROJECT, "g")), packed_filter(InvalidationFilter())
        await one.client.call(b"g", "INCR", b"watchllm:{generation}")
        await one.client.call_script(INVALIDATE, keys, (1, everything, KEPT_MS, MOST_RECORDS, CHANNEL, PROJECT))
        await until(lambda: one.store.generations.latest == other.store.generations.latest == 1)
        assert server.command("EXISTS", entry_key(PROJECT, key(1))) == b":1\r\n"
        assert await one.get(1) is None
        assert await other.get(1) is None

    clock = Clock()
    run(server.url, use, clock, clock)


def test_the_tier_is_silent_while_nothing_is_heard(server: RedisServer) -> None:
    async def use(one: Process) -> None:
        await one.put(1, clock())
        assert one.store.get(PROJECT, key(1)) is not None
        one.subscription._on_lost = None  # Not even the loss of its connection has to be noticed.
        server.pause()
        await until(lambda: one.store.get(PROJECT, key(1)) is None)
        server.go_on()
        await one.ready()
        found = None
        while found is None:
            found = await one.get(1)

    clock = Clock()
    run(server.url, use, clock)


def test_what_began_before_redis_was_emptied_is_not_stored(server: RedisServer) -> None:
    async def use(one: Process, other: Process) -> None:
        begun = clock()
        clock.advance(10)
        await one.store.invalidate(PROJECT, InvalidationFilter())
        await until(lambda: other.store.generations.latest == 1)
        server.command("FLUSHALL")
        await until(lambda: other.store.generations.latest == 0)
        await other.put(1, begun)
        assert await other.get(1) is None
        clock.advance(10)
        await other.put(2, clock())
        assert await one.get(2) is not None

    clock = Clock()
    run(server.url, use, clock, clock)


def test_what_another_process_replaces_or_removes_leaves_the_tier(server: RedisServer) -> None:
    async def use(one: Process, other: Process) -> None:
        await one.put(1, clock(), body=b"old")
        assert await other.get(1) is not None
        await one.put(1, clock(), body=b"new")
        assert one.store.get(PROJECT, key(1)) is not None, "its own stays"
        await until(lambda: other.store.get(PROJECT, key(1)) is None)
        found = await other.get(1)
        assert found is not None
        assert found.body == b"new"
        one.store.remove(PROJECT, key(1))
        await until(lambda: other.store.get(PROJECT, key(1)) is None)
        assert await other.get(1) is None

    clock = Clock()
    run(server.url, use, clock, clock)


def test_what_has_expired_here_may_be_new_elsewhere(server: RedisServer) -> None:
    async def use(one: Process, deaf: Process) -> None:
        await one.put(1, clock())
        assert await deaf.get(1) is not None
        deaf.is_deaf = True
        clock.advance(2 * 3_600_000)
        await one.put(1, clock(), clock(), b"new")
        found = await deaf.get(1)
        assert found is not None
        assert found.body == b"new"

    clock = Clock()
    run(server.url, use, clock, clock)


def test_entries_expire_by_themselves_an_hour_after_their_time(server: RedisServer) -> None:
    async def use(one: Process) -> None:
        await one.put(1, clock())
        left = int(server.command("PTTL", entry_key(PROJECT, key(1)))[1:-2])
        assert 0 < 2 * 3_600_000 - left < 60_000
        one.store.put(PROJECT, key(2), entry(ttl_ms=None), clock())
        await until(lambda: not one.store.pending)
        assert server.command("PTTL", entry_key(PROJECT, key(2))).startswith(b":31535")  # so that it may be evicted

    clock = Clock()
    run(server.url, use, clock)


def test_the_index_loses_what_has_expired(server: RedisServer) -> None:
    async def use(one: Process) -> None:
        await one.put(1, clock())
        server.command("DEL", entry_key(PROJECT, key(1)))
        server.command("ZADD", key_of(PROJECT, "x"), 1, key(1))
        await one.put(2, clock())
        assert server.command("HLEN", key_of(PROJECT, "i")) == b":1\r\n"
        assert (await one.store.stats(PROJECT)).entries == 1

    clock = Clock()
    run(server.url, use, clock)


def test_what_is_no_entry_is_a_miss(server: RedisServer) -> None:
    async def use(one: Process) -> None:
        for value in (b"", b"short", b"12345678nonsense"):
            server.command("SET", entry_key(PROJECT, key(1)), value)
            assert await one.get(1) is None

    run(server.url, use, Clock())


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("1", b"5|1|||a kind|of|another|form"),
        ("1", b"nonsense"),
        ("1", b"5|1|||\xff||abc|=m"),
        ("first", b"5|1||||||"),
        ("1" * 5000, b"5|1||||||"),
    ],
)
def test_an_invalidation_of_another_form_is_a_miss(server: RedisServer, field: str, text: bytes) -> None:
    async def use(one: Process) -> None:
        await one.put(1, clock())
        one.store.memory.clear()
        server.command("HSET", key_of(PROJECT, "l"), field, text)
        server.command("SET", key_of(PROJECT, "g"), field)
        assert await one.get(1) is None
        assert await one.get(1) is None
        # What began before is not stored either; what begins afterwards is, where it can be known what is before.
        await one.put(2, clock())
        assert await one.get(2) is None
        if field == "1":
            one.store.heard(PROJECT + b"1|" + text)
            clock.advance(10)
            await one.put(3, clock())
            assert await one.get(3) is not None

    clock = Clock()
    run(server.url, use, clock)


@pytest.mark.parametrize("text", [b"2|a|b|c|d|e|f|g", b"2", b"second|||||", b""])
def test_a_message_of_another_form_forgets_what_is_at_hand(server: RedisServer, text: bytes) -> None:
    async def use(one: Process) -> None:
        await one.put(1, clock())
        assert one.store.get(PROJECT, key(1)) is not None
        assert one.store.heard(PROJECT + text) == (PROJECT, InvalidationFilter())
        assert one.store.get(PROJECT, key(1)) is None

    clock = Clock()
    run(server.url, use, clock)


def test_a_look_up_of_a_hung_redis_is_a_miss_in_time(server: RedisServer) -> None:
    async def use(one: Process) -> None:
        await one.get(1)
        server.pause()
        async with asyncio.timeout(5):
            while one.client.problem is None:
                assert await one.get(2) is None
            assert await one.get(3) is None
        assert one.store.counters.unanswered >= 3
        one.store.put(PROJECT, key(4), entry(), START_MS)
        assert one.store.counters.dropped == 1
        server.go_on()

    run(server.url, use, Clock(), timeout=TIMEOUT_SECONDS)


def test_a_command_waits_for_what_comes_later_than_a_request_would_wait(server: RedisServer) -> None:
    store = RedisStoreInThread(server.url, Clock())

    async def a_request_gives_up() -> None:
        with pytest.raises(Unreachable, match="in time"):
            await store._client.call(PROJECT, "PING", seconds=TIMEOUT_SECONDS)

    try:
        store.put(PROJECT, key(1), entry(), START_MS)
        store.flush()
        store.store.memory.clear()
        server.pause()
        with ThreadPoolExecutor(1) as command:
            found = command.submit(store.get, PROJECT, key(1))
            wait_for(lambda: store.store._lately.fetching, "the command to ask")
            store._run(a_request_gives_up())
            server.go_on()
            assert found.result() == entry()
    finally:
        store.close()


def test_a_redis_that_is_full_is_told_of(server: RedisServer) -> None:
    async def use(one: Process) -> None:
        assert one.store.health() is None
        server.command("CONFIG", "SET", "maxmemory", "1")
        await one.put(1, START_MS)
        assert one.store.counters.dropped == 1
        assert one.store.get(PROJECT, key(1)) is None
        assert "OOM" in (one.store.health() or "")

    run(server.url, use, Clock())


def test_a_cluster_does_as_well(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path / "cluster")

    async def use(one: Process, other: Process) -> None:
        for number in range(20):
            of = project(number)
            one.store.put(of, key(1), entry(), clock())
        await until(lambda: not one.store.pending)
        assert one.store.counters.puts == 20
        clock.advance(10)
        assert await one.store.invalidate(PROJECT, InvalidationFilter()) == 1
        assert await other.get(1) is None
        assert (await other.store.stats(project(2))).entries == 1

    clock = Clock()
    try:
        run(cluster.url, use, clock, clock)
    finally:
        cluster.stop()


def test_the_tier_is_bounded_and_keeps_what_is_used() -> None:
    memory = Memory(10_000)
    for number in range(100):
        memory.put(PROJECT, PROJECT + key(number), entry(body=b"x" * 400), 0)
        memory.get(PROJECT + key(0))
        assert memory.bytes <= 10_000
    assert len(memory) == 10
    assert PROJECT + key(0) in memory
    memory.put(PROJECT, PROJECT + key(0), entry(body=b"x" * 20_000), 0)
    assert PROJECT + key(0) not in memory, "what is too large takes the old one away"


def test_what_redis_evicted_does_not_fill_it_with_the_index(tmp_path: Path) -> None:
    async def use(one: Process) -> None:
        begun = clock()
        for first in range(0, 20_000, 500):
            for number in range(first, first + 500):
                one.store.put(PROJECT, key(number), entry(START_MS, body=b"x" * 1000), begun)
            await until(lambda: not one.store.pending)
        assert one.store.counters.puts == 20_000
        assert one.store.counters.dropped == 0
        # Every entry has two keys' worth of an index, and there are few beside entries.
        indexed, keys = (int(server.command(*of)[1:]) for of in (("HLEN", key_of(PROJECT, "i")), ("DBSIZE",)))
        assert 1000 < keys < indexed < 2 * keys
        assert int(server.command("ZCARD", key_of(PROJECT, "x"))[1:]) == indexed

    clock = Clock()
    server = RedisServer(tmp_path / "redis", "--maxmemory", "6mb", "--maxmemory-policy", "volatile-lru")
    try:
        run(server.url, use, clock)
    finally:
        server.stop()


def test_the_index_of_a_project_that_stores_nothing_more_goes_too(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count(command: str, what: bytes) -> int:
        return int(server.command(command, what)[1:])

    async def use(one: Process) -> None:
        begun = clock()
        for number in range(1000):
            one.store.put(PROJECT, key(number), entry(START_MS), begun)
        await until(lambda: not one.store.pending)
        for number in range(1000):
            server.command("DEL", entry_key(PROJECT, key(number)))  # As if it were evicted.
        await until(lambda: not count("EXISTS", key_of(PROJECT, "i")))
        assert not count("EXISTS", key_of(PROJECT, "x"))
        await until(lambda: not count("SCARD", INDEXED))
        # Who stores again is looked after again.
        one.store._indexes._told.clear()
        await one.put(7, begun)
        await until(lambda: bool(count("SCARD", INDEXED)))
        assert await one.get(7) is not None

    clock = Clock()
    monkeypatch.setattr(index_sweep, "_LOOK_SECONDS", 0.01)
    run(server.url, use, clock)


def test_named_entries_are_forgotten_without_a_look_at_all_others(server: RedisServer) -> None:
    async def use(one: Process) -> None:
        begun = clock()
        for number in range(5):
            await one.put(number, begun)
        clock.advance(10)
        named = (key(1), key(3), key(99))
        assert await one.store.invalidate(PROJECT, InvalidationFilter(keys=named, kind="embeddings")) == 0
        assert await one.store.invalidate(PROJECT, InvalidationFilter(keys=named)) == 2
        assert b"cmdstat_hscan" not in server.command("INFO", "commandstats")
        assert [await one.get(number) is not None for number in range(5)] == [True, False, True, False, True]
        assert await one.store.invalidate(PROJECT, InvalidationFilter(keys=())) == 0

    clock = Clock()
    run(server.url, use, clock)


def test_what_is_replaced_is_not_remembered_for_as_long_as_anything_is_fetched(server: RedisServer) -> None:
    async def use(one: Process) -> None:
        store = one.store
        most = begun = 0

        def fetch() -> None:
            nonlocal most, begun
            begun += 1
            if begun % 100 == 0:
                assert store._timer is not None
                store._timer.cancel()
                store._look()
            most = max(most, len(store._lately.outdated) + len(store._before.outdated))
            if begun < 2000:
                store.heard_replaced(PROJECT + os.urandom(32) + b"another.")
                assert store.fetch(PROJECT, [key(1)], fetch)

        for _ in range(4):
            fetch()
        await until(lambda: not store._lately.fetching and not store._before.fetching)
        assert begun >= 2000
        assert 0 < most < 500

    run(server.url, use, Clock())


def test_an_old_answer_that_a_fetch_brings_late_is_not_kept(server: RedisServer) -> None:
    async def use(one: Process, other: Process) -> None:
        await other.put(1, other.store._now_ms())
        server.pause()
        brought: list[Entry | None] = []
        assert one.store.fetch(PROJECT, [key(1)], lambda: brought.append(one.store.get(PROJECT, key(1))))
        one.store.heard_replaced(PROJECT + key(1) + b"another.")
        one.store._look()
        one.store._look()  # However often it looks meanwhile.
        server.go_on()
        await until(lambda: bool(brought))
        assert brought != [None]
        assert PROJECT + key(1) not in one.store.memory

    run(server.url, use, Clock(), Clock())


def test_however_much_is_invalidated_a_look_up_compares_with_few(server: RedisServer) -> None:
    async def use(one: Process, other: Process) -> None:
        begun = clock()
        await one.put(7, begun)
        for number in range(2 * MOST_KNOWN):
            clock.advance(1)
            await one.store.invalidate(PROJECT, InvalidationFilter(keys=(key(1000 + number),)))
        await until(lambda: other.store.generations.latest == 2 * MOST_KNOWN)
        for process in (one, other):
            assert len(process.store.generations.of(PROJECT)) <= MOST_KNOWN
            # What it cannot tell apart any more is refused, never given.
            assert process.store.generations.voids(PROJECT, 0, "m", "generate", begun, key(1000))
            assert process.store.invalidated_since(PROJECT, "m", "generate", begun, key(1000))
        # When nothing that they are about can be under way any more, and Redis has forgotten them, nobody knows them.
        server.command("DEL", key_of(PROJECT, "l"))
        clock.advance(KEPT_MS + 1)
        await one.store.invalidate(PROJECT, InvalidationFilter(keys=(key(1),)))
        await until(lambda: other.store.generations.latest == 2 * MOST_KNOWN + 1)
        await other.get(8)
        assert len(other.store.generations.of(PROJECT)) == 1

    clock = Clock()
    run(server.url, use, clock, clock)
