"""What a request holds of shared limits is let go again, whatever comes between. Redis is a stub that grants all."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from watchllm.domain.ledger import Place
from watchllm.limits.limiter import NOTHING, Demand
from watchllm.limits.subject import Bounds, Subject
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
        return b"~"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0


def with_limiter(test: Callable[[SharedLimiter, Redis, Clock], Awaitable[None]]) -> None:
    async def run() -> None:
        redis, clock = Redis(), Clock()
        limiter = SharedLimiter(
            cast(Client, redis),
            asyncio.get_running_loop(),
            "jrn_1",
            lambda: Place(1, 1),
            "local-share",
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
        assert [(window, amount) for window, _, amount, _ in account._returns] == [(b"w|u|key_1", 1), (b"w|t|key_1", 10)]

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
