"""What the database has not counted yet, while it is far behind."""

from itertools import product

import pytest

from tests.support.redis_server import RedisServer
from tests.support.shared_limits import (
    ORGANIZATION,
    USD,
    Clock,
    Proxy,
    recorder,
    subject,
    told,
    use_clock,
    with_proxies,
)
from watchllm.domain.ledger import Place
from watchllm.domain.limits import Limits
from watchllm.limits.spending import Moment
from watchllm.limits.subject import KEY, bounds_of, subject_of
from watchllm.stores.redis import limits_ledger
from watchllm.stores.redis.blocking import Blocking
from watchllm.stores.redis.limits_layout import account_of
from watchllm.stores.redis.limits_pending import Pending

NOW = Moment(20_786, 24_322)


@pytest.fixture
def clock(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return use_clock(server, monkeypatch)


def fields(server: RedisServer, prefix: bytes) -> int:
    redis = Blocking(server.url)
    try:
        return sum(name.startswith(prefix) for name in redis.redis.hkeys(account_of(ORGANIZATION)))
    finally:
        redis.close()


@pytest.mark.parametrize("keys", [1, 30, 1000])
def test_segments_are_put_together_and_nothing_is_lost(keys: int) -> None:
    pending = Pending()
    most = merges = 0
    for number in range(4000):
        pending.book(f"key_{number % keys}", NOW, 10, 1, Place(0, number))
        if number % 20 == 0:
            pending.seal()
            merges += pending.merge()
            most = max(most, sum(len(segment.used) for segment in pending.segments))
    pending.seal()
    pending.merge()
    assert most <= max(400, 2 * keys)
    # Not at each report: all of it is told anew then.
    assert merges < 4000 / 20 / 2
    used = [sums for segment in pending.segments for sums in segment.used.values()]
    assert [sum(one) for one in zip(*used, strict=True)] == [40_000, 4000]
    assert pending.segments[-1].place == f"{0:012d}.{3999:020d}"


def test_redis_holds_a_bounded_number_of_them(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(budget_usd_month=1), Limits(monthly_requests=10_000))

    async def use(one: Proxy, other: Proxy) -> None:
        told(server.url)
        for _ in range(60):
            for _ in range(10):
                one.settle(await one.enter(who), nanos=100)
            await one.tell()
        assert fields(server, b"q|") <= 400 + 20
        admission = await other.enter(who)
        said = other.limiter._taking.told
        assert said["key_1", "m"].left == USD - 600 * 100
        other.settle(admission, billable=False)
        # At last it is counted.
        told(server.url, one, spent={"key_1": (600, 60_000), "prj_1": (600, 60_000)})
        await other.enter(who)
        assert said["key_1", "m"].left == USD - 600 * 100
        assert fields(server, b"q|") == fields(server, b"P|") == 0

    with_proxies(server.url, 2, use, clock=lambda: clock.now)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("how", ["all", "what is new"])
def test_no_script_drops_many_at_once(
    server: RedisServer, clock: Clock, monkeypatch: pytest.MonkeyPatch, finished: bool, how: str
) -> None:
    monkeypatch.setattr(limits_ledger, "_DROPPED_AT_ONCE", 7)
    who = subject(Limits(budget_usd_month=1))

    async def use(one: Proxy, other: Proxy) -> None:
        told(server.url)
        for _ in range(40):
            one.settle(await one.enter(who), nanos=100)
        await one.tell()
        before = fields(server, b"q|")
        assert before == 40
        with recorder(server.url) as accounts:
            scripts: list[int] = []
            run = accounts._redis.run

            def counting(*arguments: object) -> object:
                reply = run(*arguments)  # type: ignore[arg-type]
                scripts.append(before - fields(server, b"q|"))
                return reply

            monkeypatch.setattr(accounts._redis, "run", counting)
            spent = {"key_1": {"total": (40, 4000), "2026-11": (40, 4000), "2026-11-29": (40, 4000)}}
            places = {one.series: one.place._replace(finished=finished)}
            if how == "all":
                accounts.write_all(ORGANIZATION, spent, places)
            else:
                accounts.write({ORGANIZATION: spent}, places, {})
        assert scripts[-5:] == [14, 21, 28, 35, 40]
        assert fields(server, b"q|") == fields(server, b"P|") == 0
        assert fields(server, b"p|") == (not finished)
        await other.enter(who)
        assert other.limiter._taking.told["key_1", "m"].left == USD - 4000

    with_proxies(server.url, 2, use, clock=lambda: clock.now)


def test_what_others_have_counted_stays_until_what_was_spent_is_told(server: RedisServer, clock: Clock) -> None:
    first, second = (
        subject_of(bounds_of(name, KEY, Limits(budget_usd_month=1)), organization=ORGANIZATION)
        for name in ("key_1", "key_2")
    )
    assert first is not None
    assert second is not None

    async def use(one: Proxy, other: Proxy) -> None:
        said = other.limiter._taking.told

        def tell(*names: str) -> None:
            """What a recorder of another host tells: it has not counted the journal of `one`, but finds it counted."""
            periods = {"total": (0, 100), "2026-11": (0, 100), "2026-11-29": (0, 100)}
            spent = {ORGANIZATION: dict.fromkeys(names, periods)}
            accounts.write(spent, {other.series: other.place}, {one.series: one.place})

        async def used() -> tuple[int, int]:
            for who in (first, second):
                clock.go(3)  # Until then it believes what it was told.
                other.settle(await other.enter(who), billable=False)
            return USD - said["key_1", "m"].left, USD - said["key_2", "m"].left

        with recorder(server.url) as accounts:
            told(server.url)
            for proxy, who in product((one, other), (first, second)):
                # While it has written nothing: later it would wait until that is counted.
                await proxy.limiter._taking.know(proxy.limiter._account(who), who)
            for who in (first, second):
                one.settle(await one.enter(who), nanos=100)
                await one.tell()
            assert await used() == (100, 100)
            tell("key_2")
            assert await used() == (100, 200)
            tell("key_1")
            assert await used() == (100, 200)
            tell("key_1", "key_2")
            assert await used() == (100, 100)
        assert fields(server, b"q|") == 0

    with_proxies(server.url, 2, use, clock=lambda: clock.now)
