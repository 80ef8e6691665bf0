"""The client of the hot path against real servers: what it sends, and that nothing of it waits or hangs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest

from tests.support.redis_server import PASSWORD, RedisCluster, RedisServer
from watchllm.stores.redis.address import parse
from watchllm.stores.redis.client import Client, Script, slot_of
from watchllm.stores.redis.link import Unreachable, encode
from watchllm.stores.redis.node import TIMEOUT_SECONDS
from watchllm.stores.redis.subscription import Subscription

PATIENT = 10.0
"""Seconds to wait for Redis where a test is about what it says: a machine may be busy for longer than requests wait."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path / "cluster")
    yield cluster
    cluster.stop()


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.002)


def with_client(url: str, use: Callable[[Client], Awaitable[Any]], timeout: float = PATIENT) -> Any:
    async def run() -> Any:
        client = Client(parse(url), asyncio.get_running_loop(), timeout)
        try:
            await until(lambda: client.problem is None)
            return await use(client)
        finally:
            client.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "h:6379"),
        ("rediss://user:pa%40ss@h:1/3", "h:1"),
        ("redis+cluster://a:1,b:2,[::1]:3", "a:1,b:2,::1:3"),
    ],
)
def test_a_url_says_where_redis_is_and_never_shows_its_password(url: str, shown: str) -> None:
    address = parse(url)
    assert address.shown == shown
    assert "pa@ss" not in repr(address)
    if "user" in url:
        assert (address.user, address.password, address.database, address.tls) == ("user", "pa@ss", 3, True)


@pytest.mark.parametrize(
    "url",
    ["http://h", "redis://", "redis://h:0", "redis://h:x", "redis://h/db", "redis://a,b", "redis+cluster://a/1",
     "redis://h?foo=1"],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"host|URL"):
        parse(url)


def test_commands_of_one_turn_are_answered_in_order(server: RedisServer) -> None:
    async def use(client: Client) -> list[Any]:
        replies: list[Any] = []
        for number in range(1000):
            assert client.submit(b"k", encode("SET", b"k%d" % number, number), _nothing)
            assert client.submit(b"k", encode("GET", b"k%d" % number), replies.append)
        await until(lambda: len(replies) == 1000)
        return replies

    assert with_client(server.url, use) == [str(number).encode() for number in range(1000)]


def test_large_values_come_back_whole(server: RedisServer) -> None:
    body = bytes(range(256)) * 4096 * 4

    async def use(client: Client) -> bytes:
        await client.call(b"k", "SET", b"k", body, seconds=5)
        return bytes(await client.call(b"k", "GET", b"k", seconds=5))

    assert with_client(server.url, use) == body


def test_a_script_is_sent_once_and_then_known_by_its_digest(server: RedisServer) -> None:
    async def use(client: Client) -> list[Any]:
        script = Script("return {KEYS[1], ARGV[1]}")
        return [await client.call_script(script, (b"k",), (number,)) for number in range(2)]

    assert with_client(server.url, use) == [[b"k", b"0"], [b"k", b"1"]]
    assert b"cmdstat_evalsha:calls=1" in server.command("INFO", "commandstats")
    assert b"cmdstat_eval:calls=1" in server.command("INFO", "commandstats")


def test_a_script_that_the_server_forgot_is_sent_again(server: RedisServer) -> None:
    async def use(client: Client) -> list[Any]:
        script = Script("return ARGV[1]")
        await client.call_script(script, (b"k",), (0,))
        server.command("SCRIPT", "FLUSH")
        return [await client.call_script(script, (b"k",), (number,)) for number in range(2)]

    assert with_client(server.url, use) == [b"0", b"1"]


def test_what_redis_refuses_is_raised_and_the_connection_goes_on(server: RedisServer) -> None:
    async def use(client: Client) -> Any:
        await client.call(b"k", "SET", b"k", b"text")
        with pytest.raises(hiredis.ReplyError, match="WRONGTYPE"):
            await client.call(b"k", "LPUSH", b"k", b"x")
        return await client.call(b"k", "GET", b"k")

    assert with_client(server.url, use) == b"text"


def test_tls_with_a_password_and_a_certificate_that_is_proved(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", tls=True, password=True)
    try:

        async def use(client: Client) -> Any:
            return await client.call(b"k", "PING")

        assert with_client(server.url, use) == b"PONG"

        async def unproved() -> str | None:
            client = Client(parse(server.url.partition("?")[0]), asyncio.get_running_loop())
            await until(lambda: client.problem not in (None, "not connected yet"))
            client.close()
            return client.problem

        problem = asyncio.run(unproved())
        assert problem is not None
        assert PASSWORD not in problem
    finally:
        server.stop()


def test_a_wrong_password_is_told_and_not_shown(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", password=True)
    try:

        async def use() -> str | None:
            url = f"redis://:wrong-secret@127.0.0.1:{server.port}"
            client = Client(parse(url), asyncio.get_running_loop())
            await until(lambda: "WRONGPASS" in (client.problem or ""))
            client.close()
            return client.problem

        assert "wrong-secret" not in str(asyncio.run(use()))
    finally:
        server.stop()


def test_a_paused_server_costs_a_command_fifty_milliseconds_and_soon_nothing(server: RedisServer) -> None:
    async def use(client: Client) -> None:
        server.pause()
        given_up = 0
        while client.problem is None:
            with pytest.raises(Unreachable):
                await client.call(b"k", "GET", b"k")
            given_up += 1
        assert given_up <= 3
        # The breaker is open: nobody waits any more.
        assert not client.submit(b"k", encode("GET", b"k"), _nothing)
        assert client.down_since is not None
        server.go_on()
        await until(lambda: client.problem is None)
        assert await client.call(b"k", "PING", seconds=PATIENT) == b"PONG"
        assert client.counters()["timeouts"] >= 3
        assert client.down_since is None

    with_client(server.url, use, TIMEOUT_SECONDS)


def test_who_may_wait_long_keeps_nobody_waiting_who_may_not(server: RedisServer) -> None:
    async def use(client: Client) -> None:
        server.pause()
        patient = asyncio.ensure_future(client.call(b"k", "GET", b"k", seconds=30))
        await asyncio.sleep(0)  # It is in front.
        with pytest.raises(Unreachable, match="in time"):
            await client.call(b"k", "GET", b"k")
        assert not patient.done()
        server.go_on()
        assert await patient is None

    with_client(server.url, use, TIMEOUT_SECONDS)


def test_a_silence_counts_once_however_many_wait_in_it(server: RedisServer) -> None:
    async def use(client: Client) -> list[Any]:
        server.pause()
        asked = []
        for _ in range(6):
            asked.append(asyncio.ensure_future(client.call(b"k", "GET", b"k")))
            await asyncio.sleep(0.03)
        return await asyncio.gather(*asked, return_exceptions=True)

    # The breaker says that it "does not answer".
    assert {str(reply) for reply in with_client(server.url, use, timeout=1)} == {"it did not answer in time"}


def test_the_time_out_can_be_longer(server: RedisServer) -> None:
    async def use(client: Client) -> None:
        server.pause()
        patient = asyncio.ensure_future(client.call(b"k", "GET", b"k"))
        with pytest.raises(Unreachable, match="in time"):
            await client.call(b"k", "GET", b"k", seconds=0.05)
        assert not patient.done()
        server.go_on()
        assert await patient is None

    with_client(server.url, use, timeout=30)


SLOW = Script("""
local function now() local time = redis.call('TIME') return time[1] * 1000000 + time[2] end
local ends = now() + ARGV[1] * 1000000
while now() < ends do end
return ARGV[1]
""")
# Redis says what it has read at once together: so much it reads by itself.
ALONE = b"x" * (20 << 10)


def test_who_waits_for_those_before_waits_longer_while_the_server_answers(server: RedisServer) -> None:
    async def use(client: Client) -> list[Any]:
        return await asyncio.gather(*(client.call_script(SLOW, (b"k",), (b"0.3", ALONE)) for _ in range(5)))

    assert with_client(server.url, use, timeout=1) == [b"0.3"] * 5


def test_nobody_waits_for_those_before_without_end(server: RedisServer) -> None:
    async def use(client: Client) -> Any:
        asked = [asyncio.ensure_future(client.call_script(SLOW, (b"k",), (b"0.15", ALONE))) for _ in range(25)]
        with pytest.raises(Unreachable):
            await asked[-1]
        return await asyncio.gather(*asked, return_exceptions=True)

    replies = with_client(server.url, use, timeout=0.5)
    assert b"0.15" in replies


def test_every_command_of_a_lost_connection_is_answered_once(server: RedisServer) -> None:
    async def use(client: Client) -> None:
        replies: list[Any] = []
        server.pause()
        for _ in range(100):
            assert client.submit(b"k", encode("GET", b"k"), replies.append, 30.0)
        await asyncio.sleep(0)
        server.kill()
        await until(lambda: len(replies) == 100)
        assert all(isinstance(reply, Unreachable) for reply in replies)
        server.start()
        await until(lambda: client.problem is None)
        assert await client.call(b"k", "PING") == b"PONG"
        assert len(replies) == 100

    with_client(server.url, use)


def test_late_replies_are_never_taken_for_those_of_later_commands(server: RedisServer) -> None:
    async def use(client: Client) -> None:
        await client.call(b"k", "SET", b"a", b"late")
        await client.call(b"k", "SET", b"b", b"right")
        server.pause()
        with pytest.raises(Unreachable):
            await client.call(b"k", "GET", b"a", seconds=0.001)
        server.go_on()
        assert await client.call(b"k", "GET", b"b", seconds=5) == b"right"

    with_client(server.url, use)


def test_a_server_that_became_a_replica_is_connected_to_anew(server: RedisServer) -> None:
    async def use(client: Client) -> None:
        await client.call(b"k", "SET", b"k", b"v")
        server.command("REPLICAOF", "127.0.0.1", 1)
        with pytest.raises(hiredis.ReplyError, match="READONLY"):
            await client.call(b"k", "SET", b"k", b"v")
        assert client.counters()["failures"] == 1
        server.command("REPLICAOF", "NO", "ONE")
        await until(lambda: client.problem is None)
        assert await client.call(b"k", "SET", b"k", b"v") == b"OK"

    with_client(server.url, use)


def test_more_than_can_wait_is_refused(server: RedisServer) -> None:
    async def use(client: Client) -> None:
        server.pause()
        taken = [client.submit(b"k", encode("SET", b"k", b"x" * (8 << 20)), _nothing, 30.0) for _ in range(10)]
        assert taken.count(False) == 3  # 64 MiB, with what frames them
        server.go_on()

    with_client(server.url, use)


def test_a_cluster_is_followed_to_where_each_key_is(cluster: RedisCluster) -> None:
    async def use(client: Client) -> None:
        for number in range(50):
            key = b"{%d}:a" % number
            assert await client.call(key, "SET", key, number) == b"OK"
            both = await client.call_script(
                Script("return redis.call('MGET', KEYS[1], KEYS[2])"), (key, key[:-1] + b"b")
            )
            assert both == [str(number).encode(), None]

    with_client(cluster.url, use)
    sizes = [node.command("DBSIZE") for node in cluster.nodes]
    assert sum(int(size[1:-2]) for size in sizes) == 50
    assert b":0\r\n" not in sizes


def test_a_cluster_that_the_url_does_not_name_one_is_found_out_about(cluster: RedisCluster) -> None:
    async def use(client: Client) -> None:
        refused = 0
        for number in range(20):
            key = b"%d" % number
            try:
                assert await client.call(key, "SET", key, number) == b"OK"
            except Unreachable:  # The first redirection leads to a node that nobody has spoken to yet.
                refused += 1
                await until(lambda: client.problem is None)
                await until(lambda: all(node.ready for node in client._nodes.values()))
        assert refused <= 1

    with_client(cluster.url.replace("redis+cluster", "redis"), use)


def test_a_slot_that_moves_is_followed(cluster: RedisCluster) -> None:
    first, second = cluster.nodes
    key = b"{moving}:k"
    slot = slot_of(key)

    async def use(client: Client) -> None:
        source, target = (first, second) if slot < 8192 else (second, first)
        await client.call(key, "SET", key, b"v")
        ids = {node: node.command("CLUSTER", "MYID").split(b"\r\n")[1] for node in cluster.nodes}
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        source.command("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        assert await client.call(key, "GET", key, seconds=5) == b"v"  # by ASK
        for node in (target, source):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        assert await client.call(key, "GET", key, seconds=5) == b"v"  # by MOVED

    with_client(cluster.url, use)


def test_the_slot_of_a_key_is_that_of_its_hash_tag() -> None:
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"{user}:a") == slot_of(b"x{user}y") == slot_of(b"user")
    assert slot_of(b"{}:a") != slot_of(b"{}:b")


def test_a_subscription_comes_back_and_says_so(server: RedisServer) -> None:
    async def run() -> None:
        heard: list[tuple[bytes, bytes]] = []
        connected: list[bool] = []
        loop = asyncio.get_running_loop()
        subscription = Subscription(
            parse(server.url),
            (b"one", b"two"),
            lambda channel, data: heard.append((channel, data)),
            lambda: connected.append(True),
            loop,
        )
        try:
            await until(lambda: len(connected) == 1)
            server.command("PUBLISH", "one", "a")
            server.command("PUBLISH", "two", "b")
            await until(lambda: len(heard) == 2)
            server.stop()
            await until(lambda: not subscription.connected)
            server.start()
            await until(lambda: len(connected) == 2)
            server.command("PUBLISH", "two", "c")
            await until(lambda: len(heard) == 3)
            assert heard == [(b"one", b"a"), (b"two", b"b"), (b"two", b"c")]
            server.pause()
            await until(lambda: not subscription.connected)
        finally:
            subscription.close()

    asyncio.run(run())


def _nothing(_reply: Any) -> None:
    """Whose reply does not matter."""
