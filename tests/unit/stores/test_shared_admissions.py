"""What a request holds of shared limits is let go again, whatever comes between. Redis is a stub that grants all."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from watchllm.domain.errors import LimitExceeded, Unavailable
from watchllm.domain.ledger import Place
from watchllm.limits.exceeded import Exceeded
from watchllm.limits.limiter import NOTHING, Demand
from watchllm.limits.subject import Bounds, Subject
from watchllm.proxy.limiting import Limiting
from watchllm.proxy.request import Request
from watchllm.stores.redis.client import Client, Script
from watchllm.stores.redis.limiter import SharedLimiter
from watchllm.stores.redis.limits_admission import SharedAdmission
from watchllm.stores.redis.limits_scripts import TAKE
from watchllm.stores.redis.link import Unreachable

BUDGET = Subject((Bounds("key_1", "key", day=10**12),), "org_1")


class Redis:
    """Answers nothing while `held` is not set, and everything but that with an error once it `is_gone`."""

    problem = None

    def __init__(self) -> None:
        self.is_gone = False
        self.held: asyncio.Event | None = None
        self.asked = asyncio.Event()

    async def call_script(self, script: Script, _keys: Any, arguments: tuple[Any, ...]) -> list[Any]:
        if script is TAKE:
            self.asked.set()
            if self.held is not None:
                await self.held.wait()
        if self.is_gone:
            raise Unreachable("gone")
        granted = [[0, 10**12, 0, 0]] * arguments[8] if script is TAKE else []
        return [3, 1, b"", *granted]

    async def call(self, *_arguments: Any) -> bytes:
        """How far the database has counted: everything."""
        self.asked.set()
        if self.held is not None:
            await self.held.wait()
        return b"~"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0


def with_limiter(test: Callable[[SharedLimiter, Redis, Clock], Awaitable[None]], policy: str = "local-share") -> None:
    async def run() -> None:
        redis, clock = Redis(), Clock()
        limiter = SharedLimiter(
            cast(Client, redis),
            asyncio.get_running_loop(),
            "jrn_1",
            lambda: Place(1, 1),
            policy,
            clock=lambda: clock.now,
        )
        await test(limiter, redis, clock)
        await limiter.close()

    asyncio.run(run())


async def enter(limiter: SharedLimiter, who: Subject) -> SharedAdmission:
    entering = limiter.enter(who, counted=True)
    return entering if isinstance(entering, SharedAdmission) else await entering


async def reserve(limiter: SharedLimiter, admission: SharedAdmission, demand: Demand) -> None:
    waiting = limiter.reserve(admission, demand)
    if waiting is not None:
        await waiting


async def asking(limiter: SharedLimiter, redis: Redis, admission: SharedAdmission) -> asyncio.Task[None]:
    """A further call is asked for, and Redis has not answered yet."""
    redis.held = asyncio.Event()
    redis.asked.clear()
    waiting = asyncio.create_task(reserve(limiter, admission, Demand(10, 5000)))
    await redis.asked.wait()
    return waiting


def test_what_is_granted_to_a_request_that_has_ended_is_held_by_nobody() -> None:
    async def test(limiter: SharedLimiter, redis: Redis, _clock: Clock) -> None:
        who = Subject((Bounds("key_1", "key", day=10**12, tokens=1000, upstream=5),), "org_1")
        admission = await enter(limiter, who)
        await reserve(limiter, admission, Demand(10, 100))
        further = await asking(limiter, redis, admission)
        limiter.settle(admission, Demand(10, 100), billable=True)
        account = admission.account
        await account.report()
        cast(asyncio.Event, redis.held).set()
        await further
        assert account.holdings["key_1"].nanos == 0
        assert not admission.has_reserved
        # Its call and its tokens, no more of which is used.
        assert [(window, amount) for window, _, amount, _ in account._returns] == [
            (b"w|u|key_1", 1),
            (b"w|t|key_1", 10),
        ]

    with_limiter(test)


def test_a_request_that_has_ended_takes_nothing_of_its_share_of_an_outage() -> None:
    async def test(limiter: SharedLimiter, redis: Redis, _clock: Clock) -> None:
        admission = await enter(limiter, BUDGET)
        await reserve(limiter, admission, Demand(10, 100))
        further = await asking(limiter, redis, admission)
        limiter.settle(admission, Demand(10, 100), billable=True)
        redis.is_gone = True
        cast(asyncio.Event, redis.held).set()
        await further
        assert admission.account.holdings["key_1"].nanos == 0
        assert admission.share is None

    with_limiter(test)


def test_who_leaves_while_a_call_is_asked_for_holds_what_it_held_before_and_nothing_more() -> None:
    async def test(limiter: SharedLimiter, redis: Redis, _clock: Clock) -> None:
        admission = await enter(limiter, BUDGET)
        await reserve(limiter, admission, Demand(10, 100))
        further = await asking(limiter, redis, admission)
        further.cancel()
        await asyncio.wait({further})
        account = admission.account
        # Whether Redis granted it is not known: it is told anew what is held.
        assert not account.joined
        assert account.holdings["key_1"].nanos == 100
        limiter.settle(admission, NOTHING, billable=False)
        assert account.holdings["key_1"].nanos == 0

    with_limiter(test)


async def count_call(limiter: SharedLimiter, who: Subject) -> None:
    """As for a list of models, which is asked for beside all requests."""
    request = cast(Request, SimpleNamespace(endpoint="models", principal=SimpleNamespace(subject=who)))
    waiting = Limiting(limiter).count_call(request)
    assert waiting is not None
    await waiting


def test_calls_that_are_refused_in_an_outage_take_no_places() -> None:
    who = Subject((Bounds("key_1", "key", upstream=2, concurrent=3),), "org_1")

    async def test(limiter: SharedLimiter, redis: Redis, _clock: Clock) -> None:
        limiter.settle(await enter(limiter, who), NOTHING, billable=False)
        redis.is_gone = True
        for _ in range(2):
            await count_call(limiter, who)
        for _ in range(5):
            with pytest.raises(LimitExceeded):
                await count_call(limiter, who)
        local = limiter._outage._local["org_1"]
        assert not local._limiter.is_under_way()
        entered = [await enter(limiter, who) for _ in range(3)]
        with pytest.raises(Exceeded):
            await enter(limiter, who)
        for admission in entered:
            limiter.settle(admission, NOTHING, billable=False)
        assert not local._limiter.is_under_way()

    with_limiter(test)


def test_the_calls_of_a_request_that_entered_before_an_outage_take_no_second_place() -> None:
    who = Subject((Bounds("key_1", "key", upstream=9, concurrent=2),), "org_1")

    async def test(limiter: SharedLimiter, redis: Redis, _clock: Clock) -> None:
        before = await enter(limiter, who)
        redis.is_gone = True
        await reserve(limiter, before, NOTHING)
        assert not limiter._outage._local["org_1"]._limiter.is_under_way()
        other = await enter(limiter, who)
        with pytest.raises(Exceeded, match="under way"):
            await enter(limiter, who)
        limiter.settle(before, NOTHING, billable=False)
        await enter(limiter, who)
        limiter.settle(other, NOTHING, billable=False)

    with_limiter(test)


@pytest.mark.parametrize("way", ["left", "closed"])
def test_a_call_beside_all_that_cannot_be_asked_for_is_settled_with_nothing(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    who = Subject((Bounds("key_1", "key", upstream=2),), "org_1")
    settled: list[SharedAdmission] = []
    monkeypatch.setattr(SharedLimiter, "settle", lambda _self, admission, *_, **__: settled.append(admission))

    async def test(limiter: SharedLimiter, redis: Redis, _clock: Clock) -> None:
        redis.held = asyncio.Event()
        counting = asyncio.create_task(count_call(limiter, who))
        await redis.asked.wait()
        if way == "left":
            counting.cancel()
        redis.is_gone = True
        redis.held.set()
        with pytest.raises(asyncio.CancelledError if way == "left" else Unavailable):
            await counting
        assert len(settled) == 1

    with_limiter(test, policy="closed")


async def idle(limiter: SharedLimiter, clock: Clock) -> None:
    """Who has nothing under way has told what there was to tell, and nobody came for half a minute."""
    clock.now += 31
    for account in limiter._accounts.values():
        for _ in range(2):  # what is given back, and that there is nothing more
            if account._timer is not None:
                account._timer.cancel()
            account._tick()
            if account._reporting is not None:
                await account._reporting
        if account._timer is not None:
            account._timer.cancel()
            account._timer = None
    clock.now += 31


def elsewhere(number: int) -> Subject:
    return Subject((Bounds("key_9", "key", upstream=1),), f"org_{number}")


@pytest.mark.parametrize("way", ["entering", "beside"])
def test_an_account_is_not_forgotten_under_a_request_that_is_on_its_way_in(way: str) -> None:
    async def test(limiter: SharedLimiter, redis: Redis, clock: Clock) -> None:
        limiter.settle(await enter(limiter, BUDGET), NOTHING, billable=False)
        await idle(limiter, clock)
        assert limiter._accounts["org_1"].is_idle()
        new = Subject((Bounds("key_2", "key", monthly=100, quota=100),), "org_1")
        redis.held = asyncio.Event()
        redis.asked.clear()
        if way == "beside":
            admission = limiter.beside(new)
        else:
            entering = asyncio.create_task(enter(limiter, new))
            await redis.asked.wait()
        limiter.beside(elsewhere(2))  # who is new makes it look who is idle
        redis.held.set()
        if way == "entering":
            admission = await entering
        assert admission.account is limiter._accounts["org_1"]
        limiter.settle(admission, NOTHING, billable=False)
        await idle(limiter, clock)
        limiter.beside(elsewhere(3))
        assert "org_1" not in limiter._accounts

    with_limiter(test)


def test_what_an_organization_used_in_an_outage_is_forgotten_though_it_never_comes_back() -> None:
    who = Subject((Bounds("key_1", "key", requests=5, day=10**12),), "org_1")

    async def test(limiter: SharedLimiter, redis: Redis, clock: Clock) -> None:
        local = limiter._outage._local
        under_way = await enter(limiter, who)
        redis.is_gone = True
        limiter.settle(await enter(limiter, who), NOTHING, billable=False)
        redis.is_gone = False
        await idle(limiter, clock)
        limiter.beside(elsewhere(2))
        assert {"org_1"} <= limiter._accounts.keys() & local.keys(), "a request is under way"
        limiter.settle(under_way, NOTHING, billable=False)
        redis.is_gone = True
        limiter.settle(await enter(limiter, who), NOTHING, billable=False)
        redis.is_gone = False
        await idle(limiter, clock)
        clock.now -= 10
        limiter.beside(elsewhere(3))
        assert "org_1" not in limiter._accounts
        assert "org_1" in local, "it was here within this minute"
        clock.now += 10
        limiter.beside(elsewhere(4))
        assert not local

    with_limiter(test)


def test_what_others_use_in_an_outage_counts_though_one_used_less_than_redis_was_told() -> None:
    who = Subject((Bounds("key_1", "key", tokens=1000),), "org_1")

    async def test(limiter: SharedLimiter, redis: Redis, _clock: Clock) -> None:
        redis.is_gone = True
        early = await enter(limiter, who)
        await reserve(limiter, early, Demand(100, 0))
        redis.is_gone = False
        await early.account.report()
        redis.is_gone = True
        late = await enter(limiter, who)
        await reserve(limiter, late, Demand(50, 0))
        limiter.settle(early, Demand(10, 0), billable=True)
        assert early.account.untold("t", "key_1") == 50
        limiter.settle(late, Demand(20, 0), billable=True)
        assert early.account.untold("t", "key_1") == 20

    with_limiter(test)
