"""Proxies that share limits in a real Redis, in one process, and what stands for their recorders."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.redis_server import RedisServer
from watchllm.domain.ledger import Place
from watchllm.domain.limits import Limits
from watchllm.limits.exceeded import Exceeded
from watchllm.limits.limiter import Demand
from watchllm.limits.subject import KEY, PROJECT, Subject, bounds_of, subject_of
from watchllm.stores.lmdb.snapshot_copy import NOTHING
from watchllm.stores.redis import limits_account, limits_ledger, limits_taking
from watchllm.stores.redis.address import parse
from watchllm.stores.redis.blocking import Blocking
from watchllm.stores.redis.client import Client, Script
from watchllm.stores.redis.limiter import SharedLimiter
from watchllm.stores.redis.limits_admission import SharedAdmission
from watchllm.stores.redis.limits_ledger import RedisAccounts

NOVEMBER = 1_795_995_200  # 2026-11-29T23:33:20Z
USD = 1_000_000_000
ORGANIZATION = "org_1"


class Clock:
    """One time for Redis, whose scripts read it from a key, and for all proxies, whose own clocks are minutes ahead."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.now = 1000.0
        self.go(0)

    def go(self, seconds: float) -> None:
        self.now += seconds
        self._server.command("SET", "{org_1}:now", str(round((NOVEMBER + self.now) * 1000)))


def use_clock(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have all scripts see a clock of the test's own."""
    for module, name in (
        (limits_taking, "TAKE"),
        (limits_account, "JOIN"),
        (limits_account, "REPORT"),
        (limits_ledger, "LEDGER"),
    ):
        text = getattr(module, name).text
        line = "local now = time[1] * 1000 + math.floor(time[2] / 1000)"
        assert line in text
        told = text.replace(line, "local now = tonumber(redis.call('GET', '{org_1}:now'))")
        monkeypatch.setattr(module, name, Script(told))
    return Clock(server)


class Proxy:
    """A process with the limits it shares."""

    def __init__(self, url: str, number: int, clock: Callable[[], float] | None = None, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        self.series = f"jrn_{number}"
        # A machine may be busy for longer than requests wait, which is an outage, and no test of what Redis says.
        self.client = Client(parse(url), loop, timeout=10.0)
        self.place = Place(0, 100)
        options = {"wall": lambda: NOVEMBER + number % 3 * 7200.0, **options}
        self.limiter = SharedLimiter(
            self.client,
            loop,
            self.series,
            lambda: self.place,
            options.pop("policy", "local-share"),
            clock=clock,
            **options,
        )

    async def enter(self, subject: Subject, *, counted: bool = True) -> SharedAdmission:
        entered = self.limiter.enter(subject, counted=counted)
        return await entered if isinstance(entered, Coroutine) else entered

    async def reserve(self, admission: SharedAdmission, *, tokens: int = 0, nanos: int = 0) -> None:
        reserving = self.limiter.reserve(admission, Demand(tokens, nanos))
        if reserving is not None:
            await reserving

    def settle(self, admission: SharedAdmission, *, tokens: int = 0, nanos: int = 0, billable: bool = True) -> None:
        self.place = self.place._replace(offset=self.place.offset + 100)
        self.limiter.settle(admission, Demand(tokens, nanos), billable=billable)

    async def tell(self) -> None:
        """What its timers do."""
        for account in list(self.limiter._accounts.values()):
            if account._timer is not None:
                account._timer.cancel()
            account._tick()
            if account._reporting is not None:
                await account._reporting


def with_proxies(url: str, count: int, use: Callable[..., Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        proxies = [Proxy(url, number, **options) for number in range(count)]
        with recorder(url) as accounts:
            accounts.counted({proxy.series: proxy.place for proxy in proxies})
        try:
            async with asyncio.timeout(60):
                while any(proxy.client.problem for proxy in proxies):
                    await asyncio.sleep(0.001)
                return await use(*proxies)
        finally:
            for proxy in proxies:
                await proxy.limiter.close()
                proxy.client.close()

    return asyncio.run(run())


def subject(key: Limits | None = None, project: Limits | None = None) -> Subject:
    made = subject_of(
        None if key is None else bounds_of("key_1", KEY, key),
        None if project is None else bounds_of("prj_1", PROJECT, project),
        organization=ORGANIZATION,
    )
    assert made is not None
    return made


@contextmanager
def recorder(url: str) -> Iterator[RedisAccounts]:
    """What a recorder tells the proxies by."""
    redis = Blocking(url)
    yield RedisAccounts(redis, "installation", "sqlite://", lambda: NOTHING)
    redis.close()


def told(url: str, *proxies: Proxy, spent: dict[str, tuple[int, int]] | None = None, finished: bool = False) -> None:
    """What a recorder tells that has counted everything of these."""
    periods = {name: {"total": sums, "2026-11": sums, "2026-11-29": sums} for name, sums in (spent or {}).items()}
    places = {proxy.series: proxy.place._replace(finished=finished) for proxy in proxies}
    with recorder(url) as accounts:
        accounts.write_all(ORGANIZATION, periods, places)
        accounts.counted(places)


async def refused(coroutine: Awaitable[object]) -> Exceeded:
    with pytest.raises(Exceeded) as caught:
        await coroutine
    return caught.value
