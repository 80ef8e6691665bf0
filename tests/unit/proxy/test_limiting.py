"""What a request's end does to the limits that it was under."""

import asyncio
from collections.abc import Mapping
from time import time_ns
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.journal import event
from watchllm.domain.errors import LimitExceeded, Unavailable
from watchllm.domain.limits import Limits
from watchllm.limits.limiter import Demand, Limiter
from watchllm.limits.spending import Moment, Spent, moment
from watchllm.limits.subject import PROJECT, Subject, bounds_of, subject_of
from watchllm.proxy.limiting import Limiting
from watchllm.proxy.local_limits import LocalLimits
from watchllm.proxy.request import Request


def subject(**limits: Any) -> Subject:
    made = subject_of(bounds_of("prj_1", PROJECT, Limits(**limits)))
    assert made is not None
    return made


def request_of(who: Subject, limiting: Limiting) -> Request:
    tenant = SimpleNamespace(test=False)
    principal = SimpleNamespace(subject=who, tenant=tenant)
    made = SimpleNamespace(
        principal=principal,
        wall_ns=time_ns(),
        endpoint="chat.completions",
        target=None,
        admission=None,
        limiting=limiting,
        limits_took=0.0,
        calls=0,
        attempts=(),
    )
    return cast(Request, made)


async def nothing_known(names: list[str], at: Moment) -> Mapping[str, Spent]:
    raise OSError("the ledger is gone")


def test_a_call_that_was_never_made_uses_none_of_the_minute() -> None:
    limiting = Limiting(LocalLimits(Limiter(), nothing_known, cast(asyncio.AbstractEventLoop, None)))
    who = subject(upstream_per_minute=1, tokens_per_minute=100)
    shed, made = request_of(who, limiting), request_of(who, limiting)
    limiting.enter(shed)
    limiting.reserve(shed, lambda: Demand(80, 0))
    limiting.settle(shed, event(status=429, ended="error", usage=None, cost=None))
    limiting.enter(made)
    limiting.reserve(made, lambda: Demand(80, 0))
    made.calls = 1
    limiting.settle(made, event(usage=None, cost=None))
    third = request_of(who, limiting)
    limiting.enter(third)
    with pytest.raises(LimitExceeded):
        limiting.reserve(third, lambda: Demand(1, 0))


def test_where_it_cannot_be_known_what_was_spent_nobody_with_a_budget_is_served_and_the_operator_is_told() -> None:
    async def test() -> None:
        limiting = Limiting(LocalLimits(Limiter(), nothing_known, asyncio.get_running_loop()))
        waiting = limiting.enter(request_of(subject(budget_usd_day=1.0), limiting))
        assert waiting is not None
        with pytest.raises(Unavailable, match="not known yet") as refused:
            await waiting
        assert "ledger" not in refused.value.message, "the reason names files"
        assert limiting.state() == "degraded: keys with a quota or a budget are refused: the ledger is gone"
        assert limiting.enter(request_of(subject(requests_per_minute=1), limiting)) is None

    asyncio.run(test())


def test_many_who_ask_at_once_are_looked_up_together() -> None:
    asked: list[list[str]] = []

    async def history(names: list[str], at: Moment) -> Mapping[str, Spent]:
        asked.append(names)
        await asyncio.sleep(0)
        return {name: Spent(requests=3) for name in names}

    async def test() -> None:
        limiting = Limiting(LocalLimits(Limiter(), history, asyncio.get_running_loop()))
        who = subject(monthly_requests=5)
        requests = [request_of(who, limiting) for _ in range(4)]
        waits = [limiting.enter(one) for one in requests]
        done = await asyncio.gather(*(wait for wait in waits if wait is not None), return_exceptions=True)
        assert asked == [["prj_1"]]
        assert [type(outcome) for outcome in done] == [type(None), type(None), LimitExceeded, LimitExceeded]

    asyncio.run(test())


def test_a_call_beside_all_requests_takes_no_place_and_is_counted_and_one_that_is_not_made_is_not() -> None:
    limiting = Limiting(LocalLimits(Limiter(), nothing_known, cast(asyncio.AbstractEventLoop, None)))
    who = subject(upstream_per_minute=2, concurrent_requests=1)
    client, own = request_of(who, limiting), request_of(who, limiting)
    limiting.enter_beside(own)
    limiting.enter(client)  # the only place
    limiting.reserve(own, lambda: Demand(5, 0))
    limiting.leave(own)
    assert limiting.count_call(client) is None
    assert limiting.count_call(client) is None
    with pytest.raises(LimitExceeded):
        limiting.count_call(client)
    limiting.settle(client, event(usage=None, cost=None))
    limiting.enter(request_of(who, limiting))


MIDNIGHT = 1_795_996_800  # 2026-11-30T00:00:00Z


@pytest.mark.parametrize(("came", "entered"), [(-0.001, 0.001), (0.001, -0.001)])
def test_a_request_is_recorded_on_the_day_whose_limits_let_it_on(came: float, entered: float) -> None:
    clock = [MIDNIGHT + entered]
    limiter = Limiter(wall=lambda: clock[0])
    limiting = Limiting(LocalLimits(limiter, nothing_known, cast(asyncio.AbstractEventLoop, None)))
    request = request_of(subject(requests_per_minute=9, upstream_per_minute=9), limiting)
    request.wall_ns = int((MIDNIGHT + came) * 1e9)
    limiting.enter(request)
    assert request.wall_ns // 86_400_000_000_000 == moment(MIDNIGHT + entered).day
    assert abs(request.wall_ns / 1e9 - MIDNIGHT) < 0.001
    assert request.admission is not None
    assert request.admission.at == moment(MIDNIGHT + entered)
    clock[0] = MIDNIGHT + 3600.0
    limiting.reserve(request, lambda: Demand(1, 1))
    assert request.wall_ns >= MIDNIGHT * 1e9
    assert request.admission.at == moment(MIDNIGHT)


def test_a_request_that_waited_over_midnight_is_recorded_on_the_new_day() -> None:
    clock = [MIDNIGHT - 1.0]

    async def history(names: list[str], at: Moment) -> Mapping[str, Spent]:
        clock[0] = MIDNIGHT + 1.0
        return {}

    async def test() -> None:
        limiting = Limiting(LocalLimits(Limiter(wall=lambda: clock[0]), history, asyncio.get_running_loop()))
        request = request_of(subject(budget_usd_day=1.0), limiting)
        request.wall_ns = int((MIDNIGHT - 1) * 1e9)
        waiting = limiting.enter(request)
        assert waiting is not None
        await waiting
        assert request.wall_ns == MIDNIGHT * 10**9

    asyncio.run(test())
