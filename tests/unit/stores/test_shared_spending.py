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
    use_clock,
)
from watchllm.domain.errors import Unavailable
from watchllm.domain.ledger import Place
from watchllm.domain.limits import Limits
from watchllm.limits.exceeded import Exceeded
from watchllm.limits.subject import KEY, PROJECT, Subject, bounds_of, subject_of
from watchllm.stores.redis.limits_admission import SharedAdmission
from watchllm.stores.redis.limits_ledger import RedisAccounts
from watchllm.stores.redis.link import Unreachable

BUDGETS = {"key_1": 3 * USD, "key_2": 2 * USD}
QUOTA = 150
PROJECT_ID = "prj_1"


def _subject(key: str) -> Subject:
    made = subject_of(
        bounds_of(key, KEY, Limits(budget_usd_month=BUDGETS[key] / USD)),
        bounds_of(PROJECT_ID, PROJECT, Limits(monthly_requests=QUOTA)),
        organization=ORGANIZATION,
    )
    assert made is not None
    return made


@pytest.fixture
def clock(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return use_clock(server, monkeypatch)


class World:
    """Some proxies on two hosts, their journals, and a database in which a recorder on each host counts them."""

    def __init__(self, server: RedisServer, clock: Clock, chance: random.Random, accounts: RedisAccounts) -> None:
        self.server, self.clock, self.chance = server, clock, chance
        self.keys = {name: _subject(name) for name in BUDGETS}
        self.accounts = accounts
        self.proxies: list[Proxy] = []
        self.open: list[tuple[Proxy, str, SharedAdmission, int]] = []
        """Its proxy and key, and what was reserved for it."""
        self.journals: dict[str, list[tuple[Place, str, int, int]]] = {}
        self.counted: dict[str, Place] = {}
        self.sums = {name: [0, 0] for name in (*BUDGETS, PROJECT_ID)}
        """Requests and nanos that the database has counted."""
        self.untold: dict[int, tuple[str, set[str]]] = {}
        """By host, what its recorder has written in the database and is about to tell: of which series, and of whom."""
        self.spent = dict.fromkeys(BUDGETS, 0)
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
        for who in self.keys.values():
            # Later it would wait for what it has written to be counted, and nobody counts while it waits.
            await proxy.limiter._taking.know(proxy.limiter._account(who), who)
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
        key = self.chance.choice(list(BUDGETS))
        nanos = self.chance.randrange(USD // 2)
        try:
            admission = await proxy.enter(self.keys[key])
        except (Exceeded, Unavailable):
            return False
        try:
            await proxy.reserve(admission, nanos=nanos)
        except (Exceeded, Unavailable):
            proxy.settle(admission, billable=False)
            return False
        self.open.append((proxy, key, admission, nanos))
        assert self.spent[key] + sum(reserved for _, whose, _, reserved in self.open if whose == key) <= BUDGETS[key]
        assert self.billed + len(self.open) <= QUOTA
        return True

    def end(self) -> None:
        """One request ends: it cost at most what was reserved."""
        if self.open:
            proxy, key, admission, reserved = self.open.pop(self.chance.randrange(len(self.open)))
            billable, cost = self.chance.random() < 0.8, self.chance.randrange(reserved + 1)
            self._write(proxy, key, cost, billable)
            # It puts the end of the journal behind what was just written.
            proxy.settle(admission, nanos=cost, billable=billable)

    def _write(self, proxy: Proxy, key: str, cost: int, billable: bool) -> None:
        after = proxy.place._replace(offset=proxy.place.offset + 100)
        self.journals[proxy.series].append((after, key, cost, int(billable)))
        self.spent[key] += cost
        self.billed += billable

    def count(self, proxy: Proxy, *, up_to: int | None = None) -> None:
        """The database counts some of what a proxy has written, and it is told: at once, or when others have counted
        and told more."""
        host = int(proxy.series.removeprefix("jrn_")) % 2
        self.tell(host)
        records = self.journals[proxy.series]
        some, self.journals[proxy.series] = records[:up_to], records[up_to:] if up_to is not None else []
        touched = {PROJECT_ID}
        for place, key, cost, billable in some:
            for name in (key, PROJECT_ID):
                self.sums[name][0] += billable
                self.sums[name][1] += cost
            touched.add(key)
            self.counted[proxy.series] = place
        if some:
            self.untold[host] = proxy.series, touched
            if self.chance.random() < 0.6:
                self.tell(host)

    def tell(self, host: int) -> None:
        """The recorder of a host tells of its last batch."""
        series, touched = self.untold.pop(host, ("", set()))
        if not series or self.all_is_due:
            return
        own = {series: self.counted[series]}
        others = {name: place for name, place in self.counted.items() if name != series and not place.finished}
        self.accounts.write({ORGANIZATION: self._periods(touched)}, own, others)
        self.accounts.counted(own)

    def tend(self) -> None:
        """What a recorder does between its batches."""
        if not self.accounts.knows({proxy.series for proxy in self.proxies}):
            self.all_is_due = True
        if ORGANIZATION in self.accounts.wanted() or self.all_is_due:
            self.accounts.write_all(ORGANIZATION, self._periods(set(self.sums)), dict(self.counted))
            self.accounts.counted(dict(self.counted))
            self.all_is_due = False
            for proxy in self.proxies:
                proxy.limiter.begun_anew(ORGANIZATION)

    def _periods(self, names: set[str]) -> dict[str, dict[str, tuple[int, int]]]:
        sums = {name: (self.sums[name][0], self.sums[name][1]) for name in names}
        return {name: {"total": of_it, "2026-11": of_it, "2026-11-29": of_it} for name, of_it in sums.items()}

    async def kill(self) -> None:
        """A proxy ends without a word; the recorder closes what it left open, at what it may have cost."""
        proxy = self.proxies.pop(self.chance.randrange(len(self.proxies)))
        for account in proxy.limiter._accounts.values():
            account.close()
        proxy.client.close()
        for _, key, _, reserved in [one for one in self.open if one[0] is proxy]:
            self._write(proxy, key, reserved, billable=False)
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
        budgets = {name: budget - world.spent[name] for name, budget in BUDGETS.items()}
        assert left == (budgets, QUOTA - world.billed)

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
        world.clock.go(0.01)  # Who waits for others waits for a time.


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


async def _left(world: World) -> tuple[dict[str, int], int]:
    """What Redis says to a new proxy is left of the budgets and of the quota."""
    proxy = await world.begin()
    for who in world.keys.values():
        await proxy.enter(who, counted=False)
    told = proxy.limiter._taking.told
    return {name: told[name, "m"].left for name in BUDGETS}, told[PROJECT_ID, "q"].left
