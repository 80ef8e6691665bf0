"""Of all processes one makes the call; whatever is lost, nobody waits for what will not come."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.support.exact_store import key, project
from tests.support.redis_server import RedisServer
from tests.support.waiting import until
from watchllm.stores.redis.address import parse
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.leases import CHANNEL, RedisLeases
from watchllm.stores.redis.node import TIMEOUT_SECONDS
from watchllm.stores.redis.subscription import Subscription

PLACE = project(1) + key(1)
PATIENT = 10.0
"""Seconds to wait for Redis where a test is about what it says: a machine may be busy for longer than requests wait."""


class Process:
    """One process, and the calls that it makes."""

    def __init__(self, url: str, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        address = parse(url)
        self.under_way: set[bytes] = set()
        self.client = Client(address, loop, timeout)
        self.leases = RedisLeases(self.client, self.client, loop, self.under_way.__contains__)
        self.connected = False
        self.subscription = Subscription(
            address, (CHANNEL,), lambda _channel, place: self.leases.heard(place), self._on_connected, loop
        )

    def _on_connected(self) -> None:
        self.connected = True

    def claim(self) -> list[bool]:
        """What the caller is told, in the end: True = make the call, which is then under way."""
        told: list[bool] = []

        def hear(calls: bool) -> None:
            told.append(calls)
            if calls:
                self.under_way.add(PLACE)

        if self.leases.claim(PLACE, hear):
            hear(True)
        return told

    def end(self) -> None:
        self.under_way.discard(PLACE)
        self.leases.release(PLACE)

    def close(self) -> None:
        self.leases.close()
        self.subscription.close()
        self.client.close()


def run(server: RedisServer, use: Callable[[Process, Process], Awaitable[None]], timeout: float = PATIENT) -> None:
    async def main() -> None:
        one, other = Process(server.url, timeout), Process(server.url, timeout)
        try:
            for process in (one, other):
                await until(lambda process=process: process.connected and process.client.problem is None)  # type: ignore[misc]
            await use(one, other)
        finally:
            one.close()
            other.close()

    asyncio.run(main())


def test_one_of_all_is_told_to_call_and_the_others_of_its_end(server: RedisServer) -> None:
    async def use(one: Process, other: Process) -> None:
        first, second = one.claim(), one.claim()
        await until(lambda: first and second)
        assert (first, second) == ([True], [False]), "its own process finds the call under way"
        waits = other.claim()
        await until(lambda: server.command("EXISTS", _waited_for()) == b":1\r\n")
        assert not waits
        one.end()
        await until(lambda: waits)
        assert waits == [False]
        again = other.claim()
        await until(lambda: again)
        assert again == [True]

    run(server, use)


def test_the_end_of_an_owner_that_says_nothing_is_noticed(server: RedisServer) -> None:
    async def use(one: Process, other: Process) -> None:
        calls = one.claim()
        await until(lambda: calls)
        waits = other.claim()
        await until(lambda: server.command("EXISTS", _waited_for()) == b":1\r\n")
        one.client.close()  # It renews no more, as if it had died.
        await until(lambda: waits)
        assert waits == [False]

    run(server, use)


def test_a_lease_outlasts_its_time_while_the_call_is_under_way(server: RedisServer) -> None:
    async def use(one: Process, other: Process) -> None:
        calls = one.claim()
        await until(lambda: calls)
        # It gets its usual time again, which is less.
        server.command("PEXPIRE", _lease(), 60_000)
        await until(lambda: 0 < int(server.command("PTTL", _lease())[1:-2]) < 10_000)
        assert not other.claim()

    run(server, use)


def test_a_lease_that_nobody_uses_is_given_back(server: RedisServer) -> None:
    async def use(one: Process, _other: Process) -> None:
        calls = one.claim()
        await until(lambda: calls)
        one.under_way.clear()  # The client left before it could call.
        await until(lambda: server.command("EXISTS", _lease()) == b":0\r\n")

    run(server, use)


def test_without_redis_everybody_calls_at_once(server: RedisServer) -> None:
    async def use(one: Process, other: Process) -> None:
        calls = one.claim()
        await until(lambda: calls)
        waits = other.claim()
        await until(lambda: server.command("EXISTS", _waited_for()) == b":1\r\n")
        server.pause()
        late = [one.leases.claim(project(2) + key(1), told.append) or told for told in ([], [], [])]
        await until(lambda: all(told is True or told for told in late))
        await until(lambda: one.client.problem)
        assert one.leases.claim(project(3) + key(1), lambda _: None)
        await until(lambda: waits)
        server.go_on()

    run(server, use, TIMEOUT_SECONDS)


def _lease() -> bytes:
    return b"watchllm:{%b}:c:%b" % (PLACE[:16].hex().encode(), PLACE[16:])


def _waited_for() -> bytes:
    return b"watchllm:{%b}:w:%b" % (PLACE[:16].hex().encode(), PLACE[16:])


def test_the_end_of_a_call_is_told_even_where_nothing_can_be_stored(server: RedisServer) -> None:
    async def use(one: Process, other: Process) -> None:
        bulk = Client(parse(server.url), asyncio.get_running_loop())
        bulk.close()
        one.leases = RedisLeases(one.client, bulk, asyncio.get_running_loop(), one.under_way.__contains__)
        mine = one.claim()
        await until(lambda: mine)
        assert server.command("DBSIZE") == b":1\r\n"
        # Told, and not only over: nothing but being told ends this one.
        server.command("PERSIST", _lease())
        one.end()
        await until(lambda: server.command("DBSIZE") == b":0\r\n")

    run(server, use)
