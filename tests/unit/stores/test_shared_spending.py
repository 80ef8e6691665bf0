"""Budgets and quotas in a real Redis against a model: replies are lost, proxies killed, Redis emptied."""

import asyncio
import random
from typing import Any

import pytest

from tests.support.redis_server import RedisServer
from tests.support.shared_limits import (
    ORGANIZATION,
    USD,
    Clock,
    Proxy,
    recorder,
    subject,
    use_clock,
)
from watchllm.domain.errors import Unavailable
from watchllm.domain.ledger import Place
from watchllm.domain.limits import Limits
from watchllm.limits.exceeded import Exceeded
from watchllm.stores.redis.limits_admission import SharedAdmission
from watchllm.stores.redis.limits_ledger import RedisAccounts
from watchllm.stores.redis.link import Unreachable

BUDGET = 5 * USD
QUOTA = 150


@pytest.fixture
def clock(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return use_clock(server, monkeypatch)


class World:
    """Some proxies, their journals, and a database that counts them."""

    def __init__(self, server: RedisServer, clock: Clock, chance: random.Random, accounts: RedisAccounts) -> None:
        self.server, self.clock, self.chance = server, clock, chance
        self.who = subject(Limits(budget_usd_month=BUDGET / USD), Limits(monthly_requests=QUOTA))
        self.accounts = accounts
        self.proxies: list[Proxy] = []
        self.open: list[tuple[Proxy, SharedAdmission, int]] = []
        self.journals: dict[str, list[tuple[Place, int, int]]] = {}
        self.counted: dict[str, Place] = {}
        self.sums = [0, 0]
        """Requests and nanos that the database has counted."""
        self.spent = 0
        self.billed = 0
        self.all_is_due = False
        self.lossy = True

    async def begin(self) -> Proxy:
        proxy = Proxy(self.server.url, len(self.journals), clock=lambda: self.clock.now, policy="closed")
        while proxy.client.problem:
            await asyncio.sleep(0.001)
        self._lose_replies(proxy)
        self.proxies.append(proxy)
        self.journals[proxy.series] = []
        # A recorder finds its journal.
        self.counted[proxy.series] = proxy.place
        self.accounts.counted({proxy.series: proxy.place})
        return proxy

    def _lose_replies(self, proxy: Proxy) -> None:
        call = proxy.client.call_script

        async def lossy(*arguments: Any, **options: Any) -> Any:
            reply = await call(*arguments, **options)
            if self.lossy and self.chance.random() < 0.04:
                raise Unreachable("its reply was lost")
            return reply

        proxy.client.call_script = lossy  # type: ignore[method-assign]

    async def ask(self) -> bool:
        """One request enters and reserves; whether it may go on."""
        proxy = self.chance.choice(self.proxies)
        nanos = self.chance.randrange(USD // 2)
        try:
            admission = await proxy.enter(self.who)
        except (Exceeded, Unavailable):
            return False
        try:
            await proxy.reserve(admission, nanos=nanos)
        except (Exceeded, Unavailable):
            proxy.settle(admission, billable=False)
            return False
        self.open.append((proxy, admission, nanos))
        assert self.spent + sum(reserved for _, _, reserved in self.open) <= BUDGET
        assert self.billed + len(self.open) <= QUOTA
        return True

    def end(self) -> None:
        """One request ends: it cost at most what was reserved."""
        if self.open:
            proxy, admission, reserved = self.open.pop(self.chance.randrange(len(self.open)))
            billable, cost = self.chance.random() < 0.8, self.chance.randrange(reserved + 1)
            self._write(proxy, cost, billable)
            # It puts the end of the journal behind what was just written.
            proxy.settle(admission, nanos=cost, billable=billable)

    def _write(self, proxy: Proxy, cost: int, billable: bool) -> None:
        after = proxy.place._replace(offset=proxy.place.offset + 100)
        self.journals[proxy.series].append((after, cost, int(billable)))
        self.spent += cost
        self.billed += billable

    def count(self, proxy: Proxy, *, up_to: int | None = None) -> None:
        """The database counts some of what a proxy has written, and it is told."""
        records = self.journals[proxy.series]
        some, self.journals[proxy.series] = records[:up_to], records[up_to:] if up_to is not None else []
        for place, cost, billable in some:
            self.sums[0] += billable
            self.sums[1] += cost
            self.counted[proxy.series] = place
        if some and not self.all_is_due:
            self.accounts.write({ORGANIZATION: self._periods()}, {proxy.series: self.counted[proxy.series]})
            self.accounts.counted({proxy.series: self.counted[proxy.series]})

    def tend(self) -> None:
        """What a recorder does between its batches."""
        if not self.accounts.knows({proxy.series for proxy in self.proxies}):
            self.all_is_due = True
        if ORGANIZATION in self.accounts.wanted() or self.all_is_due:
            self.accounts.write_all(ORGANIZATION, self._periods(), dict(self.counted))
            self.accounts.counted(dict(self.counted))
            self.all_is_due = False
            for proxy in self.proxies:
                proxy.limiter.begun_anew(ORGANIZATION)

    def _periods(self) -> dict[str, dict[str, tuple[int, int]]]:
        sums = (self.sums[0], self.sums[1])
        periods = {"total": sums, "2026-11": sums, "2026-11-29": sums}
        return {"key_1": dict(periods), "prj_1": dict(periods)}

    async def kill(self) -> None:
        """A proxy ends without a word; the recorder closes what it left open, at what it may have cost."""
        proxy = self.proxies.pop(self.chance.randrange(len(self.proxies)))
        for account in proxy.limiter._accounts.values():
            account.close()
        proxy.client.close()
        for _, _, reserved in [one for one in self.open if one[0] is proxy]:
            self._write(proxy, reserved, billable=False)
        self.open = [one for one in self.open if one[0] is not proxy]
        self.count(proxy)
        self.counted[proxy.series] = self.counted.get(proxy.series, Place(0, 0))._replace(finished=True)
        self.all_is_due = True
        self.tend()
        await self.begin()

    async def close(self) -> None:
        for proxy in self.proxies:
            await proxy.limiter.close()
            proxy.client.close()


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_spent_twice_or_forgotten(server: RedisServer, clock: Clock, seed: int) -> None:
    chance = random.Random(seed)

    async def use(accounts: RedisAccounts) -> None:
        world = World(server, clock, chance, accounts)
        for _ in range(3):
            await world.begin()
        asked = asyncio.create_task(_ask_on(world))
        try:
            await asked
            await _settle_all(world)
            left = await _left(world)
        finally:
            await world.close()
        assert left == (BUDGET - world.spent, QUOTA - world.billed)

    with recorder(server.url) as accounts:
        asyncio.run(asyncio.wait_for(use(accounts), 60))


async def _ask_on(world: World) -> None:
    chance = world.chance
    granted = 0
    tending = asyncio.create_task(_tend(world))
    for _ in range(400):
        choice = chance.random()
        if choice < 0.4:
            granted += await world.ask()
        elif choice < 0.7:
            world.end()
        elif choice < 0.85:
            await _tell(chance.choice(world.proxies))
        elif choice < 0.97:
            world.count(chance.choice(world.proxies), up_to=chance.randrange(4))
        elif choice < 0.985:
            await world.kill()
        else:
            world.server.command("FLUSHALL")
            world.clock.go(0.001)
        world.clock.go(chance.choice((0, 0.01, 0.2)))
    assert granted > 10
    tending.cancel()


async def _tend(world: World) -> None:
    while True:
        world.tend()
        await asyncio.sleep(0.01)


async def _tell(proxy: Proxy) -> None:
    try:
        await proxy.tell()
    except Unreachable:
        pass  # Its reply was lost; it joins again.


async def _settle_all(world: World) -> None:
    world.lossy = False
    while world.open:
        world.end()
    for proxy in world.proxies:
        world.count(proxy)
    for _ in range(4):
        world.all_is_due = True
        world.tend()
        world.clock.go(1)
        for proxy in world.proxies:
            await proxy.tell()
            await asyncio.sleep(0.02)


async def _left(world: World) -> tuple[int, int]:
    """What Redis says to a new proxy is left of the budget and of the quota."""
    proxy = await world.begin()
    await proxy.enter(world.who, counted=False)
    told = proxy.limiter._taking.told
    return told["key_1", "m"].left, told["prj_1", "q"].left
