"""What clients are told of limits that proxies share."""

import pytest

from tests.support.redis_server import RedisServer
from tests.support.shared_limits import Clock, Proxy, refused, subject, told, use_clock, with_proxies
from watchllm.domain.limits import Limits


@pytest.fixture
def clock(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return use_clock(server, monkeypatch)


def test_what_is_left_of_a_minute_is_told_before_anybody_has_entered(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(requests_per_minute=20, tokens_per_minute=500))

    async def use(proxy: Proxy) -> None:
        assert proxy.limiter.standings(who) == ((20, 20, 0), (500, 500, 0), None)

    with_proxies(server.url, 1, use, clock=lambda: clock.now)


def test_of_a_share_the_whole_limit_is_told(server: RedisServer, clock: Clock) -> None:
    who = subject(Limits(requests_per_minute=20))

    async def use(one: Proxy, other: Proxy) -> None:
        told(server.url)
        for proxy in (one, other, one):
            proxy.settle(await proxy.enter(who))
        server.stop()
        for _ in range(10 - 2):
            await one.enter(who)
        message = (await refused(one.enter(who))).message
        assert "20 requests a minute" in message
        assert "a share of 10 by itself" in message

    with_proxies(server.url, 2, use, clock=lambda: clock.now)
