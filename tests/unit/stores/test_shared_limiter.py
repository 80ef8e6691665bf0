"""Limits in a real Redis against a model: several proxies, a clock of the test's own."""

import asyncio
import random
from collections import deque
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from tests.support.redis_server import RedisCluster, RedisServer
from tests.support.shared_limits import (
    NOVEMBER,
    USD,
    Clock,
    Proxy,
    recorder,
    refused,
    subject,
    told,
    use_clock,
    with_proxies,
)
from watchllm.domain.errors import Unavailable
from watchllm.domain.ledger import Place
from watchllm.domain.limits import Limits
from watchllm.limits.exceeded import Exceeded
from watchllm.limits.limiter import NOTHING, Demand, Standing
from watchllm.limits.subject import KEY, PROJECT, Subject, bounds_of, subject_of
from watchllm.stores.redis.client import Script
from watchllm.stores.redis.limits_layout import PLACES, WANTED
from watchllm.stores.redis.link import Unreachable


@pytest.fixture
def clock(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return use_clock(server, monkeypatch)


@pytest.mark.parametrize("seed", range(4))
def test_never_more_than_the_limit_in_any_minute_and_never_less_than_what_is_left_of_it(
    server: RedisServer, clock: Clock, seed: int
) -> None:
    chance = random.Random(seed)
    limit = chance.choice((1, 7, 40, 300))
    who = subject(Limits(requests_per_minute=limit), Limits(requests_per_minute=limit * 3))
    used: deque[float] = deque()
    # 500 ms of a bucket, 400 ms of a slice.
    latest = 60.0 + 0.5 + 0.4

    async def ask(proxy: Proxy) -> Exceeded | None:
        """Make a request; why it was refused."""
        try:
            proxy.settle(await proxy.enter(who))
        except Exceeded as error:
            return error
        used.append(clock.now)
        assert sum(at > clock.now - 60 for at in used) <= limit
        standing, _, _ = proxy.limiter.standings(who)
        assert standing is not None
        assert 0 < standing[2] <= 60
        return None

    async def wait(refusal: Exceeded, *proxies: Proxy) -> None:
        """Right to the second."""
        assert refusal.retry_after is not None
        assert refusal.retry_after <= 60
        clock.go(refusal.retry_after)
        for one in proxies:
            await one.tell()

    async def use(*proxies: Proxy) -> None:
        refusals = 0
        for _ in range(900):
            proxy = chance.choice(proxies)
            refusal = await ask(proxy)
            if refusal is not None:
                refusals += 1
                for one in proxies:
                    await one.tell()
                unused = sum(
                    holding.slice.left
                    for one in proxies
                    for account in one.limiter._accounts.values()
                    for name, holding in account.holdings.items()
                    if name == "key_1" and holding.slice is not None
                )
                assert sum(at > clock.now - latest for at in used) + unused >= limit
                if chance.random() < 0.1:
                    # What is told is true: nothing else is used meanwhile.
                    await wait(refusal, *proxies)
                    again = await ask(proxy)
                    if again is not None:
                        # Uses pass by whole buckets, up to one later than a client is ever told to wait.
                        assert refusal.retry_after == 60
                        assert again.retry_after is not None
                        assert ceil(again.retry_after) == 1
                        await wait(again, *proxies)
                        assert await ask(proxy) is None
            step = chance.choice((0, 0, 0, 0.001, 0.02, 0.1, 60 / limit / 2, 30 if chance.random() < 0.02 else 0))
            if step:
                clock.go(step)
                for one in proxies:
                    await one.tell()
        assert refusals

    with_proxies(server.url, 3, use, clock=lambda: clock.now)


def test_what_is_in_a_slice_counts_until_a_minute_after_its_end(server: RedisServer, clock: Clock) -> None:
    # One bucket is over when the slice begins, so that the end of the slice is in the next.
    clock.go(0.4)
    who = subject(Limits(requests_per_minute=1000))

    async def use(busy: Proxy, other: Proxy) -> None:
        await busy.enter(who)
        busy.limiter._accounts["org_1"].holdings["key_1"].seen = 50
        clock.go(0.05)
        await busy.enter(who)
        held = busy.limiter._accounts["org_1"].holdings["key_1"].slice
        assert held is not None
        size = held.left
        assert size > 50
        clock.go(0.39)
        for _ in range(size):
            await busy.enter(who)
        last_used = clock.now
        left = (await standing(other, who))[1]
        assert left == 1000 - 2 - size - 1
        clock.go(last_used + 59.9 - clock.now)
        assert (await standing(other, who))[1] <= 1000 - size - 2
        clock.go(1)
        assert (await standing(other, who))[1] == 1000 - 2

    with_proxies(server.url, 2, use, clock=lambda: clock.now)


async def standing(proxy: Proxy, who: Subject) -> Standing:
    """What is left after one more request, as Redis says it."""
    proxy.settle(await proxy.enter(who))
    found, _, _ = proxy.limiter.standings(who)
    assert found is not None
    return found


def test_what_is_told_again_counts_once(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(budget_usd_month=1, monthly_requests=10))

    async def use(one: Proxy, other: Proxy) -> None:
        told(server.url)
        admission = await one.enter(who)
        await one.reserve(admission, nanos=USD // 2)
        one.settle(admission, nanos=USD // 4)
        await one.tell()
        one.limiter._accounts["org_1"].joined = False
        await one.tell()
        await one.limiter._accounts["org_1"].report()
        admission = await other.enter(who)
        assert other.limiter._taking.told["key_1", "m"].left == USD * 3 // 4
        assert other.limiter._taking.told["key_1", "q"].left == 8
        await other.reserve(admission, nanos=USD * 3 // 4)
        held = await refused(other.reserve(admission, nanos=1))
        assert (held.code, held.retry_after) == ("concurrency_exceeded", 1)
        other.settle(admission, nanos=USD * 3 // 4)
        await other.tell()
        assert (await refused(other.reserve(await other.enter(who), nanos=1))).code == "insufficient_quota"

    with_proxies(server.url, 2, use, clock=lambda: clock.now)


def test_what_is_told_by_two_at_once_is_told_once(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(budget_usd_month=1))

    async def use(one: Proxy, other: Proxy) -> None:
        told(server.url)
        _, ended, ended_later = admissions = [await one.enter(who) for _ in range(3)]
        for admission, part in zip(admissions, (2, 4, 4), strict=True):
            await one.reserve(admission, nanos=USD // part)
        replies = _hold_replies(one)
        # They have cost nothing. A report of one is under way when an account is begun anew, which asks for another.
        one.settle(ended)
        first = asyncio.create_task(one.tell())
        await replies.sent.wait()
        one.settle(ended_later)
        one.limiter.begun_anew("org_1")
        for _ in range(10):
            await asyncio.sleep(0)
        replies.may_come.set()
        await first
        await asyncio.gather(*one.limiter._joining)
        asking = await other.enter(who)
        assert other.limiter._taking.told["key_1", "m"].left == USD // 2
        await other.reserve(asking, nanos=USD // 2)
        assert (await refused(other.reserve(asking, nanos=1))).code == "concurrency_exceeded"

    with_proxies(server.url, 2, use, clock=lambda: clock.now)


class _Held:
    def __init__(self) -> None:
        self.sent, self.may_come = asyncio.Event(), asyncio.Event()


def _hold_replies(proxy: Proxy) -> _Held:
    """What it sends is done; it hears of it later."""
    held, call = _Held(), proxy.client.call_script

    async def late(*arguments: Any, **options: Any) -> Any:
        reply = await call(*arguments, **options)
        held.sent.set()
        await held.may_come.wait()
        return reply

    proxy.client.call_script = late  # type: ignore[method-assign]
    return held


def test_who_is_idle_is_forgotten_and_comes_back_as_somebody_new(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(requests_per_minute=10, tokens_per_minute=100))

    async def use(proxy: Proxy) -> None:
        accounts, limiter = proxy.limiter._accounts, proxy.limiter
        admission = await proxy.enter(who)
        await proxy.reserve(admission, tokens=50)
        first = accounts["org_1"]
        await _idle(proxy, clock)
        # A request is under way.
        limiter.begun_anew("org_2")
        assert accounts["org_1"] is first
        proxy.settle(admission, tokens=20)
        await proxy.tell()
        limiter.begun_anew("org_3")
        assert accounts["org_1"] is first
        await _idle(proxy, clock)
        limiter.begun_anew("org_4")
        assert "org_1" not in accounts
        before = first._incarnation
        proxy.settle(await proxy.enter(who))
        assert accounts["org_1"]._incarnation > before

    with_proxies(server.url, 1, use, clock=lambda: clock.now)


async def _idle(proxy: Proxy, clock: Clock) -> None:
    """Until it tells nothing any more."""
    clock.go(120)
    await asyncio.gather(*proxy.limiter._joining)
    while any(account._timer or account._reporting for account in proxy.limiter._accounts.values()):
        await proxy.tell()
        clock.go(31)


def test_places_of_a_proxy_that_is_silent_are_free_after_seconds(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(concurrent_requests=2))

    async def use(silent: Proxy, other: Proxy) -> None:
        for _ in range(2):
            await silent.enter(who)
        assert (await refused(other.enter(who))).code == "concurrency_exceeded"
        clock.go(4.9)
        await refused(other.enter(who))
        clock.go(0.2)
        await other.enter(who)
        # It was only slow: what it has counts again, and nothing of it is taken away.
        await silent.tell()
        await refused(other.enter(who))

    with_proxies(server.url, 2, use, clock=lambda: clock.now)


def test_quotas_wait_for_a_recorder_and_other_limits_do_not(server: RedisServer, clock: Clock) -> None:
    async def use(proxy: Proxy) -> None:
        await proxy.enter(subject(project=Limits(requests_per_minute=5)))
        waiting = asyncio.create_task(proxy.enter(subject(Limits(monthly_requests=5))))
        while b"org_1" not in server.command("SMEMBERS", WANTED):
            await asyncio.sleep(0.001)
        assert not waiting.done()
        told(server.url, proxy, spent={"key_1": (4, 0)})
        last = await waiting
        held = await refused(proxy.enter(subject(Limits(monthly_requests=5))))
        assert (held.code, held.retry_after) == ("concurrency_exceeded", 1)
        proxy.settle(last)
        await proxy.tell()
        clock.go(1)  # What was refused is not repeated.
        assert (await refused(proxy.enter(subject(Limits(monthly_requests=5))))).code == "quota_exceeded"

    with_proxies(server.url, 1, use, clock=lambda: clock.now)


def test_nobody_tells_what_was_spent(server: RedisServer, clock: Clock) -> None:
    async def use(proxy: Proxy) -> None:
        waiting = asyncio.create_task(proxy.enter(subject(Limits(monthly_requests=5))))
        while b"org_1" not in server.command("SMEMBERS", WANTED):
            await asyncio.sleep(0.001)
        clock.go(10)
        with pytest.raises(Unavailable) as caught:
            await waiting
        assert caught.value.retry_after == 1

    with_proxies(server.url, 1, use, clock=lambda: clock.now)


def test_an_account_is_known_when_all_who_write_journals_have_told_theirs(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(monthly_requests=10))

    async def use(one: Proxy, other: Proxy) -> None:
        told(server.url)
        for _ in range(3):
            other.settle(await other.enter(who))
        await other.tell()
        server.command("FLUSHALL")
        clock.go(0)
        # The database has counted none of them yet.
        with recorder(server.url) as accounts:
            accounts.write_all("org_1", {}, {proxy.series: Place(0, 50) for proxy in (one, other)})
            accounts.counted({one.series: one.place})
        waiting = asyncio.create_task(one.enter(who))
        while b"jrn_0" not in server.command("HGET", "watchllm:{org_1}:account", "names"):
            await asyncio.sleep(0.001)
        assert not waiting.done()
        other.limiter.begun_anew("org_1")
        await waiting
        assert one.limiter._taking.told["key_1", "q"].left == 10 - 3 - 1

    with_proxies(server.url, 2, use, clock=lambda: clock.now)


def test_a_server_that_brings_back_what_was_is_told_anew_before_anybody_spends(
    server: RedisServer, clock: Clock
) -> None:
    who = subject(Limits(budget_usd_month=1))

    async def use(one: Proxy, other: Proxy) -> None:
        told(server.url)
        for proxy in (one, other):
            proxy.settle(await proxy.enter(who), nanos=0, billable=False)
        await one.tell()
        server.command("SAVE")
        admission = await one.enter(who)
        await one.reserve(admission, nanos=USD)
        one.settle(admission, nanos=USD)
        await one.tell()
        told(server.url, one, spent={"key_1": (1, USD)})
        with recorder(server.url) as accounts:
            assert accounts.knows({one.series})
            server.kill()
            for is_down in (True, False):
                while not all(bool(proxy.client.problem) is is_down for proxy in (one, other)):
                    await asyncio.sleep(0.001)
                if is_down:
                    server.start(empty=False)
                    clock.go(0)
            reserving = asyncio.create_task(_reserve(other, who))
            while b"org_1" not in server.command("SMEMBERS", WANTED):
                await asyncio.sleep(0.001)
            assert not reserving.done()
            # Its recorder hears of it, too.
            assert not accounts.knows({one.series})
            assert accounts.knows({one.series})
        told(server.url, one, spent={"key_1": (1, USD)})
        for proxy in (one, other):
            proxy.limiter.begun_anew("org_1")
        assert (await refused(reserving)).code == "insufficient_quota"

    with_proxies(server.url, 2, use, clock=lambda: clock.now)


def test_who_is_under_way_is_remembered_for_as_long_as_somebody_tells_of_it(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(concurrent_requests=4))

    async def use(one: Proxy) -> None:
        admission = await one.enter(who)
        account = "watchllm:{org_1}:account"
        # No recorder is asked for it: nothing of it is in the database.
        server.command("PEXPIRE", account, 600_000)
        await one.tell()
        assert int(server.command("PTTL", account)[1:-2]) > 600_000
        one.settle(admission)

    with_proxies(server.url, 1, use, clock=lambda: clock.now)


def test_a_reply_that_is_late_alone_is_no_outage(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(monthly_requests=10))

    async def use(proxy: Proxy) -> None:
        told(server.url)
        late, asked = 0, 0
        call_script = proxy.client.call_script

        async def often_late(script: Script, *arguments: Any, **options: Any) -> Any:
            nonlocal late, asked
            reply = await call_script(script, *arguments, **options)
            asked += 1
            if late:
                late -= 1
                raise Unreachable("it did not answer in time")
            return reply

        proxy.client.call_script = often_late  # type: ignore[method-assign]
        for count, is_outage in ((1, False), (2, False), (3, True)):
            late = count
            admission = await proxy.enter(who)
            assert (admission.share is not None) is is_outage
            proxy.settle(admission)
            await proxy.tell()
        late, asked = 1, 0
        assert (await proxy.enter(who)).share is not None
        # Nobody waits again for what was in vain a moment ago.
        assert asked == 1
        clock.go(1.1)
        late = 1
        assert (await proxy.enter(who)).share is None

    with_proxies(server.url, 1, use, clock=lambda: clock.now)


async def _reserve(proxy: Proxy, who: Subject) -> None:
    await proxy.reserve(await proxy.enter(who), nanos=1)


def test_a_proxy_whose_journal_no_recorder_has_found_holds_nothing(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(monthly_requests=10))

    async def use(one: Proxy) -> None:
        told(server.url)
        server.command("DEL", PLACES)
        asked, call = 0, one.client.call

        async def counting(*arguments: Any, **options: Any) -> Any:
            nonlocal asked
            asked += arguments[0] == PLACES
            return await call(*arguments, **options)

        one.client.call = counting  # type: ignore[method-assign]
        waiting = asyncio.create_task(one.enter(who))
        while asked < 3 and not waiting.done():
            await asyncio.sleep(0.001)
        # If Redis were emptied now, nobody would wait for it.
        assert not waiting.done()
        with recorder(server.url) as accounts:
            assert not accounts.knows({one.series})
            accounts.counted({one.series: one.place})
            assert accounts.knows({one.series})
        await waiting

    with_proxies(server.url, 1, use, clock=lambda: clock.now)


def test_what_falls_into_the_next_month_is_counted_there(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(monthly_requests=2, budget_usd_day=1, budget_usd_total=2))

    async def use(proxy: Proxy) -> None:
        told(server.url, proxy, spent={"key_1": (2, USD)})
        assert (await refused(proxy.enter(who))).code == "quota_exceeded"
        clock.go(2 * 86_400)
        admission = await proxy.enter(who)
        await proxy.reserve(admission, nanos=USD)
        assert "budget_usd_day" in (await refused(proxy.reserve(admission, nanos=1))).message
        proxy.settle(admission, nanos=USD)
        await proxy.tell()
        clock.go(86_400)
        admission = await proxy.enter(who)
        assert "budget_usd_total" in (await refused(proxy.reserve(admission, nanos=1))).message

    with_proxies(server.url, 1, use, clock=lambda: clock.now, wall=lambda: NOVEMBER + clock.now)


@pytest.mark.parametrize("days", [-40, -1, 1, 40])
def test_a_host_whose_clock_is_wrong_lets_nobody_have_more_of_its_days_and_months(
    server: RedisServer, clock: Clock, days: int
) -> None:
    who = subject(Limits(budget_usd_day=1, monthly_requests=2))

    async def use(proxy: Proxy) -> None:
        told(server.url)
        admission = await proxy.enter(who)
        await proxy.reserve(admission, nanos=USD)
        proxy.settle(admission, nanos=USD)
        await proxy.tell()
        admission = await proxy.enter(who)
        assert "budget_usd_day" in (await refused(proxy.reserve(admission, nanos=1))).message
        proxy.settle(admission)
        await proxy.tell()
        assert (await refused(proxy.enter(who))).code == "quota_exceeded"

    with_proxies(server.url, 1, use, clock=lambda: clock.now, wall=lambda: NOVEMBER + days * 86_400)


@pytest.mark.parametrize("policy", ["local-share", "open", "closed"])
def test_while_redis_is_gone_the_policy_says_who_may_go_on(server: RedisServer, clock: Clock, policy: str) -> None:
    limited = subject(Limits(requests_per_minute=20, monthly_requests=11))

    async def use(one: Proxy, other: Proxy) -> None:
        told(server.url)
        for proxy in (one, other, one):
            proxy.settle(await proxy.enter(limited))
        server.stop()
        # Half of what was left of the month when it was last told.
        share = one.limiter._taking.told["key_1", "q"].left // 2
        assert share in (3, 4)
        outcomes = [await outcome(one, limited) for _ in range(12)]
        assert one.client.counters()["timeouts"] == 0, "nobody waited"
        assert one.limiter.state() is not None
        expected = {
            "local-share": [None] * share + ["quota_exceeded"] * (12 - share),
            "open": [None] * 12,
            "closed": ["overloaded"] * 12,
        }
        assert outcomes == expected[policy]
        server.start()
        clock.go(0)
        told(server.url)
        while other.client.problem or one.client.problem:
            await asyncio.sleep(0.001)
        await other.enter(limited)
        for proxy in (one, other):
            await proxy.tell()
        # What was used meanwhile is told.
        assert (await outcome(one, limited) is None) == (policy != "open")
        assert one.limiter.state() is None

    with_proxies(server.url, 2, use, clock=lambda: clock.now, policy=policy)


async def outcome(proxy: Proxy, who: Subject) -> str | None:
    try:
        proxy.settle(await proxy.enter(who))
    except (Exceeded, Unavailable) as error:
        return error.code
    return None


def test_a_cluster_keeps_an_organization_on_one_node(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path / "cluster")
    who = subject(Limits(requests_per_minute=3, monthly_requests=100, tokens_per_minute=50), Limits(budget_usd_total=1))

    async def use(one: Proxy, other: Proxy) -> None:
        told(cluster.url, one, other)
        for proxy in (one, other, one):
            admission = await proxy.enter(who)
            await proxy.reserve(admission, tokens=10, nanos=1000)
            proxy.settle(admission, tokens=5, nanos=500)
        assert (await refused(other.enter(who))).code == "rate_limit_exceeded"

    try:
        with_proxies(cluster.url, 2, use)
    finally:
        cluster.stop()


def test_keys_that_are_used_no_more_are_forgotten_though_their_organization_is_busy(
    server: RedisServer, clock: Clock
) -> None:
    limits = Limits(requests_per_minute=60, concurrent_requests=5, monthly_requests=90, budget_usd_day=1)

    def of(number: int) -> Subject:
        made = subject_of(
            bounds_of(f"key_{number}", KEY, limits),
            bounds_of("prj_1", PROJECT, Limits(requests_per_minute=10_000)),
            organization="org_1",
        )
        assert made is not None
        return made

    async def use(proxy: Proxy) -> None:
        told(server.url, proxy)
        limiter = proxy.limiter
        busy = of(0)
        held = await proxy.enter(of(1))
        await proxy.reserve(held, nanos=1000)
        for number in range(2, 40):
            limiter.settle(await proxy.enter(of(number)), NOTHING, billable=True)
        for _ in range(5):
            clock.go(301)
            await proxy.tell()
            limiter.settle(await proxy.enter(busy), NOTHING, billable=False)
        account = limiter._accounts["org_1"]
        # One is under way still; nothing is known of the others any more.
        assert account.holdings.keys() == {"key_0", "key_1", "prj_1"}
        assert account.known == {"key_0", "key_1"}
        assert {name for name, _ in limiter._taking.told} == {"key_0", "key_1", "prj_1"}
        limiter.settle(held, Demand(0, 1000), billable=True)
        await proxy.tell()
        await proxy.tell()
        assert not any(account.holdings["key_1"].state())
        # Who comes back is as before.
        limiter.settle(await proxy.enter(of(2)), NOTHING, billable=False)
        assert limiter.standings(of(2))[2] is not None

    with_proxies(server.url, 1, use, clock=lambda: clock.now)
