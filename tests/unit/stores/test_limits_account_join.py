"""Who tells Redis what a process holds, when the one who began to leaves."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from watchllm.stores.redis.limits_account import Account
from watchllm.stores.redis.link import Unreachable


def account(tell_all: Any) -> Account:
    made = Account.__new__(Account)
    made._loop = asyncio.get_running_loop()
    made._joining, made._calm, made._in_flight, made.joined = None, None, 0, False
    cast(Any, made)._tell_all = SimpleNamespace(call=tell_all).call
    return made


def test_whoever_waits_goes_on_when_the_one_who_told_for_all_leaves() -> None:
    async def test() -> None:
        told = 0
        begun = asyncio.Event()

        async def tell_all() -> None:
            nonlocal told
            told += 1
            begun.set()
            if told == 1:
                await asyncio.sleep(60)
            one.joined = True

        one = account(tell_all)
        first = asyncio.create_task(one._join())
        await begun.wait()
        others = [asyncio.create_task(one._join()) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(*others)
        assert told == 2

    asyncio.run(test())


def test_where_redis_cannot_be_told_nobody_tries_it_once_for_each() -> None:
    async def test() -> None:
        told = 0

        async def tell_all() -> None:
            nonlocal told
            told += 1
            await asyncio.sleep(0)
            raise Unreachable("gone")

        one = account(tell_all)
        outcomes = await asyncio.gather(*(one._join() for _ in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Unreachable] * 5
        assert told == 1

    asyncio.run(test())
