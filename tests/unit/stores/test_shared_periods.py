"""Limits in Redis while days and months end, and the clocks of proxies and of Redis do not agree that they have."""

import pytest

from tests.support.redis_server import RedisServer
from tests.support.shared_limits import USD, Clock, Proxy, refused, subject, told, use_clock, with_proxies
from watchllm.domain.limits import Limits
from watchllm.limits.spending import moment

DECEMBER = 1_796_083_200.0  # 2026-12-01T00:00:00Z


@pytest.fixture
def clock(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return use_clock(server, monkeypatch)


class Wall:
    """The proxies' own clock, and that of Redis, which may be `behind` it by seconds."""

    def __init__(self, server: RedisServer, clock: Clock) -> None:
        self.now = 0.0
        self._server = server
        self._clock = clock

    def set(self, now: float, *, behind: float = 0.0) -> None:
        self.now = now
        self._clock.now += 1  # The loop's: what was refused is not repeated.
        self._server.command("SET", "{org_1}:now", str(round((now - behind) * 1000)))


@pytest.fixture
def wall(server: RedisServer, clock: Clock) -> Wall:
    made = Wall(server, clock)
    made.set(DECEMBER - 10)
    return made


@pytest.mark.parametrize("limits", [Limits(budget_usd_day=1), Limits(budget_usd_month=1), Limits(monthly_requests=1)])
@pytest.mark.parametrize(
    ("now", "behind", "used_in_new", "wait"),
    [
        (-2.5, 0, False, 2.5),
        (1, 2, False, 0),  # Only for Redis it is still November: a moment is enough.
        (-2, -4, False, 2),  # Only for the proxy.
        (1, 2, True, None),  # Whoever else is already in December has used that up, too.
        (-1, -2, True, None),
    ],
)
def test_who_is_refused_is_told_when_the_last_period_without_room_ends(
    server: RedisServer, clock: Clock, wall: Wall, limits: Limits, now: float, behind: float, used_in_new: bool,
    wait: float | None,
) -> None:  # fmt: skip
    who = subject(limits)

    async def use(proxy: Proxy) -> None:
        told(server.url)
        for at in (DECEMBER - 5, DECEMBER + 5)[: 1 + used_in_new]:
            wall.set(at)
            admission = await proxy.enter(who)
            await proxy.reserve(admission, nanos=USD)
            proxy.settle(admission, nanos=USD)
            await proxy.tell()
        wall.set(DECEMBER + now, behind=behind)
        if limits.monthly_requests is None:
            admission = await proxy.enter(who)
            error = await refused(proxy.reserve(admission, nanos=1))
            proxy.settle(admission, billable=False)
        else:
            error = await refused(proxy.enter(who))
        period = 86_400 if limits.budget_usd_day is not None else 31 * 86_400
        assert error.retry_after == pytest.approx(period - now if wait is None else wait)

    with_proxies(server.url, 1, use, clock=lambda: clock.now, wall=lambda: wall.now)


def test_a_call_that_is_let_on_after_midnight_is_of_the_new_day(server: RedisServer, clock: Clock, wall: Wall) -> None:
    who = subject(Limits(budget_usd_day=1))

    async def use(proxy: Proxy) -> None:
        told(server.url)
        waiting = await proxy.enter(who)
        first = await proxy.enter(who)
        await proxy.reserve(first, nanos=USD)
        proxy.settle(first, nanos=USD)
        await proxy.tell()
        assert "budget_usd_day" in (await refused(proxy.reserve(waiting, nanos=1))).message
        wall.set(DECEMBER + 1)
        await proxy.reserve(waiting, nanos=USD)
        assert waiting.at == moment(DECEMBER)
        proxy.settle(waiting, nanos=USD)
        await proxy.tell()
        after = await proxy.enter(who)
        assert "budget_usd_day" in (await refused(proxy.reserve(after, nanos=1))).message

    with_proxies(server.url, 1, use, clock=lambda: clock.now, wall=lambda: wall.now)


def test_what_is_reserved_before_midnight_and_used_after_it_is_of_the_old_day(
    server: RedisServer, clock: Clock, wall: Wall
) -> None:
    who = subject(Limits(budget_usd_day=1, monthly_requests=2))

    async def use(proxy: Proxy) -> None:
        told(server.url)
        long = await proxy.enter(who)
        await proxy.reserve(long, nanos=USD)
        wall.set(DECEMBER + 1)
        other = await proxy.enter(who)
        assert "budget_usd_day" in (await refused(proxy.reserve(other, nanos=1))).message, "it may still be used"
        proxy.settle(long, nanos=USD)
        await proxy.tell()
        await proxy.reserve(other, nanos=USD)
        proxy.settle(other, nanos=USD)
        await proxy.tell()
        proxy.settle(await proxy.enter(who))
        await proxy.tell()
        assert (await refused(proxy.enter(who))).code == "quota_exceeded"

    with_proxies(server.url, 1, use, clock=lambda: clock.now, wall=lambda: wall.now)


def test_what_was_left_of_a_month_that_is_over_is_told_of_no_other(
    server: RedisServer, clock: Clock, wall: Wall
) -> None:
    who = subject(Limits(monthly_requests=1))

    async def use(proxy: Proxy) -> None:
        told(server.url)
        proxy.settle(await proxy.enter(who))
        await proxy.tell()
        assert proxy.limiter.standings(who)[2] == (1, 0, DECEMBER)
        wall.set(DECEMBER + 1)
        assert proxy.limiter.standings(who)[2] == (1, 1, DECEMBER + 31 * 86_400)
        proxy.settle(await proxy.enter(who))
        assert proxy.limiter.standings(who)[2] == (1, 0, DECEMBER + 31 * 86_400)

    with_proxies(server.url, 1, use, clock=lambda: clock.now, wall=lambda: wall.now)
