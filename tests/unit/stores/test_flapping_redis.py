"""Limits while Redis comes and goes: no share of a minute, quota or budget is given twice."""

import random
from typing import Any

import pytest

from tests.support.redis_server import RedisServer
from tests.support.shared_limits import NOVEMBER, USD, Clock, Proxy, recorder, subject, told, use_clock, with_proxies
from watchllm.domain.errors import Unavailable
from watchllm.domain.limits import Limits
from watchllm.limits.exceeded import Exceeded
from watchllm.limits.limiter import Demand
from watchllm.limits.subject import KEY, Subject, bounds_of, subject_of
from watchllm.stores.redis.limits_admission import SharedAdmission
from watchllm.stores.redis.link import Unreachable

LIMIT = 20
TOKENS = 1000
QUOTA = 60


@pytest.fixture
def clock(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return use_clock(server, monkeypatch)


class Link:
    """A proxy's way to Redis, which may be cut."""

    def __init__(self, proxy: Proxy) -> None:
        self.is_cut = False
        self.proxy = proxy
        script, call = proxy.client.call_script, proxy.client.call

        async def call_script(*arguments: Any, **options: Any) -> Any:
            return await self._or_not(script(*arguments, **options))

        async def call_one(*arguments: Any, **options: Any) -> Any:
            return await self._or_not(call(*arguments, **options))

        proxy.client.call_script = call_script  # type: ignore[method-assign]
        proxy.client.call = call_one  # type: ignore[method-assign]

    async def _or_not(self, reply: Any) -> Any:
        if self.is_cut:
            reply.close()
            raise Unreachable("it is cut")
        return await reply


async def ask(proxy: Proxy, who: Subject, *, tokens: int = 0, nanos: int = 0) -> SharedAdmission | None:
    try:
        admission = await proxy.enter(who)
    except (Exceeded, Unavailable):
        return None
    try:
        await proxy.reserve(admission, tokens=tokens, nanos=nanos)
    except (Exceeded, Unavailable):
        proxy.settle(admission, billable=False)
        return None
    return admission


def test_one_late_reply_gives_no_new_share_of_the_minute(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(requests_per_minute=LIMIT))

    async def use(proxy: Proxy) -> None:
        link = Link(proxy)
        served = 0
        for _ in range(5):
            for link.is_cut in (False, True):
                for _ in range(3):
                    admission = await ask(proxy, who)
                    if admission is not None:
                        served += 1
                        proxy.settle(admission)
            clock.go(2)
        assert served == LIMIT
        clock.go(61)
        assert await ask(proxy, who) is not None

    with_proxies(server.url, 1, use, clock=lambda: clock.now)


def test_calls_under_way_since_redis_was_missed_are_held_when_it_answers(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(budget_usd_month=1, tokens_per_minute=TOKENS, concurrent_requests=4, monthly_requests=10))

    async def use(one: Proxy, other: Proxy) -> None:
        told(server.url)
        for proxy in (one, other):
            admission = await ask(proxy, who)
            assert admission is not None
            proxy.settle(admission)
        # It hears of the other.
        await one.tell()
        link = Link(one)
        link.is_cut = True
        under_way = [await ask(one, who, tokens=TOKENS // 4, nanos=USD // 4) for _ in range(2)]
        assert None not in under_way
        # Its half of the places, tokens and money is in use.
        assert await ask(one, who) is None
        link.is_cut = False
        await one.tell()
        admission = await ask(other, who, tokens=TOKENS // 2, nanos=USD // 2)
        assert admission is not None
        assert await ask(other, who, tokens=1) is None
        assert await ask(other, who, nanos=1) is None
        assert [other.limiter._taking.told["key_1", kind].left for kind in "qc"] == [10 - 2 - 4, 0]
        for one_of_them in under_way:
            assert one_of_them is not None
            one.settle(one_of_them, tokens=10, nanos=USD // 10)
        other.settle(admission, tokens=10, nanos=USD // 10)
        for proxy in (one, other):
            await proxy.tell()
        assert await ask(other, who, nanos=USD * 7 // 10) is not None

    with_proxies(server.url, 2, use, clock=lambda: clock.now)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_never_more_than_the_limit_and_a_share_of_it_for_each_that_is_cut_off(
    server: RedisServer, clock: Clock, count: int, seed: int
) -> None:
    chance = random.Random(seed)
    who = subject(Limits(requests_per_minute=LIMIT, tokens_per_minute=TOKENS), Limits(monthly_requests=QUOTA))
    # All may be cut off at the same moment, each with what it was told of before the others used it.
    parts = 1 if count == 1 else 2

    async def use(*proxies: Proxy) -> None:
        told(server.url)
        links = [Link(proxy) for proxy in proxies]
        for proxy in proxies:
            await ask(proxy, who)
        for proxy in proxies:
            await proxy.tell()
        used: list[tuple[float, int]] = []
        open_ones: list[tuple[Proxy, SharedAdmission, int]] = []
        billed = 0
        for _ in range(500):
            link = chance.choice(links)
            link.is_cut = chance.random() < 0.3 if chance.random() < 0.2 else link.is_cut
            tokens = chance.randrange(TOKENS // 8)
            admission = await ask(link.proxy, who, tokens=tokens)
            if admission is not None:
                used.append((clock.now, tokens))
                open_ones.append((link.proxy, admission, tokens))
                within = [amount for at, amount in used if at > clock.now - 60]
                assert len(within) <= LIMIT * parts
                assert sum(within) <= TOKENS * parts
                assert billed + len(open_ones) <= QUOTA * parts
            if open_ones and chance.random() < 0.6:
                proxy, ended, tokens = open_ones.pop(chance.randrange(len(open_ones)))
                billable = chance.random() < 0.3
                billed += billable
                proxy.settle(ended, tokens=tokens, billable=billable)
            if chance.random() < 0.3:
                await link.proxy.tell()
            clock.go(chance.choice((0, 0, 0.1, 1, 3)))
        assert len(used) > LIMIT

    with recorder(server.url):
        with_proxies(server.url, count, use, clock=lambda: clock.now)


def test_a_quiet_key_may_use_its_minute_when_redis_is_missed(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(requests_per_minute=LIMIT))

    async def use(proxy: Proxy) -> None:
        for _ in range(LIMIT):
            await ask(proxy, who)
        assert await ask(proxy, who) is None
        link = Link(proxy)
        link.is_cut = True
        assert await ask(proxy, who) is None
        clock.go(61)
        assert [await ask(proxy, who) is not None for _ in range(LIMIT + 1)] == [True] * LIMIT + [False]

    with_proxies(server.url, 1, use, clock=lambda: clock.now)


@pytest.mark.parametrize("other_key_was_served", [False, True])
def test_a_budget_is_not_given_again_when_redis_answers_somebody_else(
    server: RedisServer, clock: Clock, other_key_was_served: bool
) -> None:
    who = subject(Limits(budget_usd_month=1))
    other = subject(project=Limits(requests_per_minute=10))

    async def use(proxy: Proxy) -> None:
        told(server.url)
        assert await ask(proxy, who) is not None
        link = Link(proxy)
        spent = 0
        for _ in range(4):
            link.is_cut = True
            for _ in range(3):
                admission = await ask(proxy, who, nanos=USD // 4)
                if admission is not None:
                    spent += USD // 4
                    proxy.settle(admission, nanos=USD // 4)
            link.is_cut = False
            clock.go(61)
            if other_key_was_served:
                assert await ask(proxy, other) is not None
        assert spent == USD

    with_proxies(server.url, 1, use, clock=lambda: clock.now)


def test_proxies_that_know_nothing_of_an_organization_do_not_each_give_it_a_whole_limit(
    server: RedisServer, clock: Clock
) -> None:
    known = subject(Limits(requests_per_minute=LIMIT))
    quiet = subject_of(bounds_of("key_2", KEY, Limits(requests_per_minute=LIMIT)), organization="org_2")
    assert quiet is not None

    async def use(*proxies: Proxy) -> None:
        for proxy in (*proxies, *proxies):  # All have joined when they are told how many there are.
            proxy.settle(await proxy.enter(known))
        for proxy in proxies:
            Link(proxy).is_cut = True
        served = [[await ask(proxy, quiet) for _ in range(LIMIT)] for proxy in proxies]
        assert [len(of_it) - of_it.count(None) for of_it in served] == [LIMIT // 4] * 4

    with_proxies(server.url, 4, use, clock=lambda: clock.now)


def test_the_operator_is_told_where_redis_answers_and_refuses(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(requests_per_minute=LIMIT))

    async def use(proxy: Proxy) -> None:
        proxy.settle(await proxy.enter(who))
        assert proxy.limiter.state() is None
        server.command("CONFIG", "SET", "maxmemory", 1)
        assert await ask(proxy, subject(Limits(requests_per_minute=LIMIT, tokens_per_minute=1))) is not None
        state = proxy.limiter.state()
        assert state is not None
        assert "keeps its share of the limits by itself" in state
        assert "OOM" in state
        server.command("CONFIG", "SET", "maxmemory", 0)
        clock.go(5)
        assert proxy.limiter.state() is None

    with_proxies(server.url, 1, use, clock=lambda: clock.now)


def test_what_is_told_again_and_again_because_replies_are_late_counts_once(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(requests_per_minute=1000, tokens_per_minute=100_000))

    async def use(one: Proxy, other: Proxy) -> None:
        one.settle(await one.enter(who))
        call_script = one.client.call_script
        is_late = True

        async def late(*arguments: Any, **options: Any) -> Any:
            reply = await call_script(*arguments, **options)
            if is_late:
                raise Unreachable("it did not answer in time")
            return reply

        one.client.call_script = late  # type: ignore[method-assign]
        for _ in range(3):
            one.limiter.charge(who, Demand(100, 0), requests=10)
            for _ in range(5):
                await one.tell()
        is_late = False
        await one.tell()
        await one.tell()
        admission = await other.enter(who)
        await other.reserve(admission, tokens=1)
        said = other.limiter._taking.told
        assert [limit - said["key_1", kind].left for kind, limit in (("r", 1000), ("t", 100_000))] == [32, 301]

    with_proxies(server.url, 2, use, clock=lambda: clock.now)


@pytest.mark.parametrize("spent_before", [0, 3 * USD, 4 * USD])
def test_another_day_gives_each_its_share_of_the_new_budget_once(
    server: RedisServer, clock: Clock, spent_before: int
) -> None:
    who = subject(Limits(budget_usd_day=4))

    async def use(proxy: Proxy, other: Proxy) -> None:
        told(server.url)
        for _ in range(2):  # Both have joined when they are told how many there are.
            for one in (proxy, other):
                await _serve(one, who)
        await _serve(proxy, who, nanos=spent_before)
        await proxy.tell()
        await _serve(proxy, who)  # It is told what is left.
        links = [Link(proxy), Link(other)]
        for link in links:
            link.is_cut = True
        for _ in range(4):  # Whatever was left of that day.
            if (admission := await ask(proxy, who, nanos=USD)) is not None:
                proxy.settle(admission, nanos=USD)
        clock.go(3600)
        served = [[await ask(one, who, nanos=USD) for _ in range(4)] for one in (proxy, other)]
        assert [len(of_it) - of_it.count(None) for of_it in served] == [2, 2]
        for one, of_it in zip((proxy, other), served, strict=True):
            for admission in of_it:
                if admission is not None:
                    one.settle(admission, nanos=USD)
        clock.go(61)  # Redis answers somebody else.
        for link in links:
            link.is_cut = False
        assert await ask(proxy, subject(project=Limits(requests_per_minute=10))) is not None
        for link in links:
            link.is_cut = True
        assert await ask(proxy, who, nanos=USD) is None

    with_proxies(server.url, 2, use, clock=lambda: clock.now, wall=lambda: NOVEMBER + clock.now)


async def _serve(proxy: Proxy, who: Subject, *, nanos: int = 0) -> None:
    admission = await ask(proxy, who, nanos=nanos)
    assert admission is not None
    proxy.settle(admission, nanos=nanos)
