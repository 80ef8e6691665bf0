"""Further calls of a question whose limits are kept elsewhere: what comes while it is found out if one may be made."""

from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.attempts import PRICE, Sink, World, answer, candidate
from watchllm.domain.errors import GatewayError, LimitExceeded
from watchllm.domain.usage import TokenUsage
from watchllm.limits.limiter import NOTHING, Demand
from watchllm.proxy.approach import Approach, Candidate
from watchllm.proxy.attempts import Attempts
from watchllm.proxy.eager import Outcome
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.routing.route import Choice, Route
from watchllm.wire.types import PeerClosed

BODY = b'{"model":"m","messages":[{"role":"user","content":"How are you this fine morning?"}]}'


class Limits:
    """Every answer is given by the test: `asked` has who waits for one, `demands` what they asked for."""

    def __init__(self) -> None:
        self.asked: list[Outcome[None]] = []
        self.demands: list[Demand] = []

    def reserve(self, _request: Request, demand: Callable[[], Demand]) -> Coroutine[Any, Any, None]:
        self.demands.append(demand())
        outcome: Outcome[None] = Outcome()
        self.asked.append(outcome)

        async def wait() -> None:
            await outcome

        return wait()


class Limited(World):
    def __init__(self) -> None:
        super().__init__()
        self.limiting = Limits()


@pytest.fixture
def world() -> Limited:
    return Limited()


def begin(world: Limited, *candidates: Candidate, **policy: Any) -> tuple[Attempts, Sink, Request]:
    request = Request(cast(Any, SimpleNamespace(began=0.0, headers={})), "chat.completions")
    request.principal = cast(Any, SimpleNamespace(tenant=SimpleNamespace(project=SimpleNamespace(id="prj_1"))))
    request.admission = cast(Any, object())
    sink = Sink()
    route = Route("m", (Choice(1, tuple(one.target for one in candidates)),), **policy)

    def approach(_candidate: Candidate) -> Approach:
        return Approach(b"/v1", b"", BODY)

    attempts = Attempts(cast(Services, world), request, route, candidates, approach, sink)
    attempts.begin()
    return attempts, sink, request


def no_room() -> GatewayError:
    return LimitExceeded("no room")


def test_the_first_call_asks_for_nothing_and_the_next_one_is_made_when_it_is_granted(world: Limited) -> None:
    _, sink, _ = begin(world, candidate("a"), candidate("b"))
    assert world.limiting.demands == []
    answer(world.calls[0], 503)
    assert (len(world.calls), sink.told) == (1, [])
    world.limiting.asked[0].resolve(None)
    answer(world.calls[1], 200)
    assert sink.told == [200]


def test_what_a_lost_call_may_have_cost_stays_reserved_and_what_a_refused_one_did_not(world: Limited) -> None:
    begin(world, candidate("a"), candidate("b"), candidate("c"))
    world.calls[0].sink.on_failure(PeerClosed("in the middle"))
    world.limiting.asked[0].resolve(None)
    answer(world.calls[1], 503)
    lost, refused = world.limiting.demands
    assert lost.tokens > 0
    assert lost.nanos == PRICE.cost(TokenUsage(input=lost.tokens))
    assert refused is NOTHING


def test_the_failure_is_passed_on_where_none_may_be_made(world: Limited) -> None:
    _, sink, request = begin(world, candidate("a"), candidate("b"))
    answer(world.calls[0], 503)
    world.limiting.asked[0].fail(no_room())
    assert sink.told == [503]
    assert len(world.calls) == 1
    assert request.target is not None
    assert request.target.provider == "a"


def test_an_answer_makes_a_hedge_needless_that_is_asked_for(world: Limited) -> None:
    _, sink, _ = begin(world, candidate("a"), candidate("b"), hedge_after=0.5)
    world.fire()
    answer(world.calls[0], 200)
    world.limiting.asked[0].resolve(None)
    assert (len(world.calls), sink.told) == (1, [200])
    assert world.slots.take(), "the second slot was given back"


def test_a_hedge_that_is_asked_for_takes_the_place_of_a_call_that_fails(world: Limited) -> None:
    _, sink, request = begin(world, candidate("a"), candidate("b"), hedge_after=0.5)
    world.fire()
    answer(world.calls[0], 503)
    assert len(world.limiting.asked) == 1  # nothing beside it
    world.limiting.asked[0].resolve(None)
    answer(world.calls[1], 200)
    assert sink.told == [200]
    assert [one.provider for one in request.attempts] == ["a"]


@pytest.mark.parametrize("failed_first", [False, True])
def test_a_hedge_that_may_not_be_made_leaves_the_first_call_as_it_is(world: Limited, failed_first: bool) -> None:
    _, sink, _ = begin(world, candidate("a"), candidate("b"), hedge_after=0.5)
    world.fire()
    if failed_first:
        answer(world.calls[0], 503)
    world.limiting.asked[0].fail(no_room())
    if not failed_first:
        answer(world.calls[0], 503)
        world.limiting.asked[1].fail(no_room())
    assert (len(world.calls), sink.told) == (1, [503])
    assert world.slots.take()


def test_nothing_is_called_for_a_client_that_has_left(world: Limited) -> None:
    attempts, sink, _ = begin(world, candidate("a"), candidate("b"))
    answer(world.calls[0], 503)
    attempts.cancel()
    world.limiting.asked[0].resolve(None)
    assert (len(world.calls), sink.told) == (1, [])
    admitted = world.breakers.admit(candidate("b").breaker)
    assert admitted is not None
