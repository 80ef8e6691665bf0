"""Limits in a real Redis against a model: several proxies, a clock of the test's own."""

import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer
from tests.support.shared_limits import Clock, Proxy, subject, use_clock, with_proxies
from watchllm.domain.limits import Limits
from watchllm.limits.exceeded import Exceeded


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


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

    async def use(*proxies: Proxy) -> None:
        refusals = 0
        for _ in range(900):
            proxy = chance.choice(proxies)
            refusal: Exceeded | None = None
            try:
                proxy.settle(await proxy.enter(who))
            except Exceeded as error:
                refusal = error
            else:
                used.append(clock.now)
                assert sum(at > clock.now - 60 for at in used) <= limit
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
                # Right to the second, and true: nothing else is used meanwhile.
                if chance.random() < 0.1:
                    assert refusal.retry_after is not None
                    clock.go(refusal.retry_after)
                    for one in proxies:
                        await one.tell()
                    proxy.settle(await proxy.enter(who))
                    used.append(clock.now)
            step = chance.choice((0, 0, 0, 0.001, 0.02, 0.1, 60 / limit / 2, 30 if chance.random() < 0.02 else 0))
            if step:
                clock.go(step)
                for one in proxies:
                    await one.tell()
        assert refusals

    with_proxies(server.url, 3, use, clock=lambda: clock.now)
