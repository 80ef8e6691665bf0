"""The one call for a question that has nothing else to try: it does what `Attempts` does for such a route."""

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.attempts import BODY, Sink, World, answer, candidate
from watchllm.domain.errors import BadRequest, GatewayError, Unavailable
from watchllm.proxy.approach import Approach, Candidate
from watchllm.proxy.attempts import Attempts
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.single_call import SingleCall, calls_for
from watchllm.routing.route import Choice, Route
from watchllm.wire.types import AddressRefused, ConnectFailed, PeerClosed, PoolFull, TimedOut, WireError

ONE = candidate("a")
PLAIN = Route("m", (Choice(1, (ONE.target,)),))


def _approach(_candidate: Candidate) -> Approach:
    return Approach(b"/v1", b"", BODY, dropped=("seed",))


class Question:
    """One request and what comes of it, by the call under test or by `Attempts`."""

    def __init__(self, *, by_attempts: bool, approach: Callable[[Candidate], Approach] = _approach) -> None:
        self.world = World()
        self.request = Request(cast(Any, SimpleNamespace(began=0.0, headers={})), "chat.completions")
        project = SimpleNamespace(project=SimpleNamespace(id="prj_1"))
        self.request.principal = cast(Any, SimpleNamespace(tenant=project))
        self.sink = Sink()
        made = Attempts if by_attempts else calls_for
        services = cast(Services, self.world)
        self.call = made(services, self.request, PLAIN, (ONE,), approach, self.sink)

    def facts(self) -> dict[str, Any]:
        request = self.request
        (breaker,) = self.world.breakers._breakers.values()
        return {
            "told": [one.code if isinstance(one, GatewayError) else one for one in self.sink.told],
            "attempts": [
                (one.provider, one.model, one.status, one.usage, one.cost, one.price, one.error, one.key_id, one.hedged)
                for one in request.attempts
            ],
            "lost": request.lost_cost,
            "target": request.target,
            "model": request.model,
            "dropped": request.dropped,
            "calls": request.calls,
            "outcomes": [failed for _, failed in breaker._outcomes],
            "time-outs": breaker._time_outs,
            "asked": [call.asked for call in self.world.calls],
        }


def _fails_with(error: WireError) -> Callable[[Question], None]:
    return lambda question: question.world.calls[0].sink.on_failure(error)


def _answers(status: int) -> Callable[[Question], None]:
    def happens(question: Question) -> None:
        answer(question.world.calls[0], status)
        question.call.pause()
        question.call.resume()
        question.world.calls[0].sink.on_data(b"x")
        question.world.calls[0].sink.on_complete()

    return happens


def _left(question: Question) -> None:
    question.call.cancel()


def _left_in_its_answer(question: Question) -> None:
    answer(question.world.calls[0], 200)
    question.call.cancel()


@pytest.mark.parametrize(
    "happens",
    [
        *(_answers(status) for status in (200, 302, 400, 401, 408, 429, 500, 503, 529)),
        *(
            _fails_with(error)
            for error in (
                ConnectFailed("refused"),
                PeerClosed("gone"),
                PoolFull("full"),
                AddressRefused("private"),
                TimedOut("connect", 1),
                TimedOut("first_byte", 1),
                TimedOut("total", 1),
            )
        ),
        _left,
        _left_in_its_answer,
    ],
)
def test_it_does_what_attempts_do(happens: Callable[[Question], None]) -> None:
    here, there = Question(by_attempts=False), Question(by_attempts=True)
    for question in (here, there):
        question.call.begin()
        happens(question)
    assert isinstance(here.call, SingleCall)
    assert here.facts() == there.facts()


def test_what_has_no_words_for_the_request_is_not_called_and_not_held_against_it() -> None:
    def no_words(_candidate: Candidate) -> Approach:
        raise BadRequest("has no counterpart")

    question = Question(by_attempts=False, approach=no_words)
    for _ in range(20):
        with pytest.raises(BadRequest):
            question.call.begin()
    assert question.world.calls == []
    assert question.facts()["outcomes"] == []


def test_a_provider_that_keeps_failing_is_left_alone() -> None:
    question = Question(by_attempts=False)
    services = cast(Services, question.world)
    for _ in range(10):
        call = calls_for(services, question.request, PLAIN, (ONE,), _approach, Sink())
        call.begin()
        question.world.calls[-1].sink.on_failure(ConnectFailed("refused"))
    with pytest.raises(Unavailable) as refusal:
        question.call.begin()
    assert refusal.value.retry_after
    assert len(question.world.calls) == 10


@pytest.mark.parametrize("wordless", [False, True])
def test_a_probe_that_says_nothing_leaves_the_way_to_the_next(wordless: bool) -> None:
    def approach(one: Candidate) -> Approach:
        if question.world.seconds and wordless:
            raise BadRequest("has no counterpart")
        return _approach(one)

    question = Question(by_attempts=False, approach=approach)
    services = cast(Services, question.world)
    for _ in range(10):
        calls_for(services, question.request, PLAIN, (ONE,), approach, Sink()).begin()
        question.world.calls[-1].sink.on_failure(ConnectFailed("refused"))
    question.world.seconds = 6.0
    if wordless:
        with pytest.raises(BadRequest):
            question.call.begin()
    else:
        question.call.begin()
        question.call.cancel()
    assert question.world.breakers.admit(ONE.breaker) is not None


@pytest.mark.parametrize(
    "policy",
    [{"retries": 1}, {"try_timeout": 1.0}, {"timeout": 1.0}, {"hedge_after": 1.0}],
    ids=lambda one: next(iter(one)),
)
def test_a_route_that_does_more_than_call_once_is_given_to_attempts(policy: dict[str, Any]) -> None:
    route = Route("m", (Choice(1, (ONE.target,)),), **policy)
    question = Question(by_attempts=False)
    made = calls_for(cast(Services, question.world), question.request, route, (ONE,), _approach, question.sink)
    assert isinstance(made, Attempts)


def test_several_candidates_are_given_to_attempts() -> None:
    question = Question(by_attempts=False)
    both = (ONE, candidate("b"))
    made = calls_for(cast(Services, question.world), question.request, PLAIN, both, _approach, question.sink)
    assert isinstance(made, Attempts)


class _Back:
    """Turns an answer into another dialect: it can end the call."""

    def __init__(self, sink: Any, call: Any) -> None:
        self.on_response = sink.on_response
        self.call = call


@pytest.mark.parametrize("answered", [False, True])
def test_what_translates_a_call_that_is_left_is_gone_at_once(answered: bool) -> None:
    made: list[weakref.ref[_Back]] = []

    def back(sink: Any, call: Any) -> Any:
        translating = _Back(sink, call)
        made.append(weakref.ref(translating))
        return translating

    question = Question(by_attempts=False, approach=lambda _one: Approach(b"/v1", b"", BODY, back))
    gc.collect()
    gc.disable()
    try:
        question.call.begin()
        if answered:
            answer(question.world.calls[0], 200)
        question.call.cancel()
        question.world.calls.clear()
        assert made[0]() is None
    finally:
        gc.enable()
