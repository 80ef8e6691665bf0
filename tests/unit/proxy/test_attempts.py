"""One question put to several candidates: what is tried next, what is passed on, and what is written down of it."""

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from tests.support.attempts import BODY, PRICE, Call, Sink, World, answer, candidate
from watchllm.domain.errors import BadRequest, InternalError, Unavailable
from watchllm.domain.errors import TimedOut as TimedOutUpstream
from watchllm.proxy.approach import Approach, Candidate
from watchllm.proxy.attempts import MOST_CALLS, Attempts
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.routing.route import Choice, Route
from watchllm.wire.types import ConnectFailed, TimedOut


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def request_() -> Request:
    exchange = SimpleNamespace(began=0.0, headers={})
    request = Request(cast(Any, exchange), "chat.completions")
    request.principal = cast(Any, SimpleNamespace(tenant=SimpleNamespace(project=SimpleNamespace(id="prj_1"))))
    return request


Begin = Callable[..., tuple[Attempts, Sink]]


@pytest.fixture
def begin(world: World, request_: Request) -> Begin:
    def make(
        *candidates: Candidate,
        refused: tuple[str, ...] = (),
        bodies: dict[str, bytes] | None = None,
        translated: Any = None,
        **policy: Any,
    ) -> tuple[Attempts, Sink]:
        sink = Sink()
        route = Route("m", (Choice(1, tuple(one.target for one in candidates)),), **policy)

        def approach(one: Candidate) -> Approach:
            if one.target.provider in refused:
                raise BadRequest("has no counterpart")
            if one.target.provider == "broken":
                raise RuntimeError("a mistake of ours")
            return Approach(b"/v1", b"", (bodies or {}).get(one.target.provider, BODY), translated)

        attempts = Attempts(cast(Services, world), request_, route, candidates, approach, sink)
        attempts.begin()
        return attempts, sink

    return make


def test_an_answer_is_passed_on_as_it_comes(world: World, request_: Request, begin: Begin) -> None:
    attempts, sink = begin(candidate("a"))
    answer(world.calls[0], 200)
    world.calls[0].sink.on_data(b"x")
    attempts.pause()
    attempts.resume()
    world.calls[0].sink.on_complete()
    assert sink.told == [200, b"x", "complete"]
    assert world.calls[0].asked == ["pause", "resume"]
    assert request_.attempts == ()


@pytest.mark.parametrize("status", [401, 403, 429])
def test_a_key_that_is_refused_or_spent_leads_to_the_next_key(
    world: World, request_: Request, begin: Begin, status: int
) -> None:
    _, sink = begin(candidate("a", "key_1"), candidate("a", "key_2"))
    answer(world.calls[0], status)
    answer(world.calls[1], 200)
    assert [call.host for call in world.calls] == ["a.key_1", "a.key_2"]
    assert world.calls[0].asked == ["cancel"]
    assert sink.told == [200]
    assert [(one.key_id, one.status, one.cost) for one in request_.attempts] == [("key_1", status, 0)]
    assert request_.target is not None
    assert request_.target.key_id == "key_2"


def test_trouble_of_a_provider_is_not_taken_to_its_other_keys(world: World, begin: Begin) -> None:
    begin(candidate("a", "key_1"), candidate("a", "key_2"), candidate("b"))
    answer(world.calls[0], 503)
    assert [call.host for call in world.calls] == ["a.key_1", "b.None"]


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_mistake_of_the_client_is_passed_on(world: World, begin: Begin, status: int) -> None:
    _, sink = begin(candidate("a"), candidate("b"))
    answer(world.calls[0], status)
    assert sink.told == [status]


def test_the_last_failure_is_passed_on(world: World, request_: Request, begin: Begin) -> None:
    _, sink = begin(candidate("a"), candidate("b"))
    world.calls[0].sink.on_failure(ConnectFailed("refused"))
    answer(world.calls[1], 500)
    assert sink.told == [500]
    assert [(one.provider, one.error) for one in request_.attempts] == [("a", "provider_unreachable")]


def test_nothing_is_tried_after_the_first_byte(world: World, begin: Begin) -> None:
    _, sink = begin(candidate("a"), candidate("b"))
    answer(world.calls[0], 200)
    error = TimedOut("idle", 1)
    world.calls[0].sink.on_failure(error)
    assert sink.told == [200, error]
    assert len(world.calls) == 1


def test_a_retry_waits_as_long_as_the_provider_asks(world: World, begin: Begin) -> None:
    _, sink = begin(candidate("a"), candidate("b"), retries=1)
    answer(world.calls[0], 503, [(b"retry-after", b"3")])
    assert len(world.calls) == 1
    assert world.fire() >= 3
    answer(world.calls[1], 503)
    assert [call.host for call in world.calls] == ["a.None", "a.None", "b.None"]
    assert sink.told == []


def test_a_time_out_is_charged_as_what_was_sent(world: World, request_: Request, begin: Begin) -> None:
    begin(candidate("a"), candidate("b"))
    world.calls[0].sink.on_failure(TimedOut("first_byte", 1))
    lost = request_.attempts[0]
    assert lost.error == "provider_timeout"
    assert lost.usage is not None
    assert lost.usage.estimated
    assert lost.cost == PRICE.cost(lost.usage) > 0
    assert request_.lost_cost == lost.cost


def test_what_was_never_sent_costs_nothing(world: World, request_: Request, begin: Begin) -> None:
    begin(candidate("a"), candidate("b"))
    world.calls[0].sink.on_failure(TimedOut("connect", 1))
    assert (request_.attempts[0].usage, request_.attempts[0].cost) == (None, 0)


def test_a_candidate_that_has_no_words_for_the_request_is_left_out(world: World, begin: Begin) -> None:
    begin(candidate("a"), candidate("b"), refused=("a",))
    assert [call.host for call in world.calls] == ["b.None"]


def test_where_no_candidate_has_words_for_it_the_first_refusal_is_the_answer(begin: Begin) -> None:
    with pytest.raises(BadRequest):
        begin(candidate("a"), refused=("a",))


def test_a_hedge_wins_when_it_answers_first(world: World, request_: Request, begin: Begin) -> None:
    _, sink = begin(candidate("a"), candidate("b"), hedge_after=0.5)
    assert world.fire() == 0.5
    assert world.opened == [("a", False), ("b", True)]
    answer(world.calls[1], 200)
    assert world.calls[0].asked == ["cancel"]
    assert sink.told == [200]
    assert [(one.provider, one.error, one.hedged) for one in request_.attempts] == [("a", "hedged", False)]
    assert request_.hedged
    assert request_.lost_cost > 0


def test_a_hedge_that_fails_leaves_the_first_call_alone(world: World, request_: Request, begin: Begin) -> None:
    _, sink = begin(candidate("a"), candidate("b"), hedge_after=0.5)
    world.fire()
    answer(world.calls[1], 500)
    assert sink.told == []
    answer(world.calls[0], 200)
    assert sink.told == [200]
    assert [one.provider for one in request_.attempts] == ["b"]


def test_no_hedge_once_there_is_an_answer(world: World, begin: Begin) -> None:
    begin(candidate("a"), candidate("b"), hedge_after=0.5)
    answer(world.calls[0], 200)
    assert world.timers == []


def test_who_leaves_ends_all_calls(world: World, begin: Begin) -> None:
    attempts, sink = begin(candidate("a"), candidate("b"), hedge_after=0.5)
    world.fire()
    assert world.slots.under_way == 1
    attempts.cancel()
    assert [call.asked for call in world.calls] == [["cancel"], ["cancel"]]
    assert sink.told == []
    assert world.slots.under_way == 0


def test_no_hedge_where_no_slot_is_free(world: World, begin: Begin) -> None:
    _, sink = begin(candidate("a"), candidate("b"), hedge_after=0.5)
    assert world.slots.take()
    world.fire()
    assert world.opened == [("a", False)]
    answer(world.calls[0], 200)
    assert sink.told == [200]
    assert world.slots.under_way == 1


@pytest.mark.parametrize("first", [200, 400, 500])
@pytest.mark.parametrize("second", [200, 400, 500])
def test_the_slot_of_a_hedge_is_given_back_whichever_ends_how(
    world: World, begin: Begin, first: int, second: int
) -> None:
    begin(candidate("a"), candidate("b"), hedge_after=0.5)
    world.fire()
    assert world.slots.under_way == 1
    answer(world.calls[1], second)
    if second != 200:
        answer(world.calls[0], first)
    assert world.slots.under_way == 0


def test_a_hedge_that_cannot_be_begun_gives_its_slot_back(world: World, begin: Begin) -> None:
    for _ in range(10):
        begin(candidate("b"))
        answer(world.calls[-1], 500)
    begin(candidate("a"), candidate("b"), hedge_after=0.5)
    for _ in range(10):
        begin(candidate("a"))
        answer(world.calls[-1], 500)
    while world.timers:
        world.fire()
    assert world.slots.under_way == 0


def test_who_leaves_during_a_back_off_is_not_called_for_again(world: World, begin: Begin) -> None:
    attempts, _ = begin(candidate("a"), retries=3)
    answer(world.calls[0], 500)
    attempts.cancel()
    assert world.timers == []


def test_an_open_breaker_leads_past_its_target_and_fails_fast_where_there_is_no_other(
    world: World, begin: Begin
) -> None:
    for _ in range(10):
        begin(candidate("a"))
        answer(world.calls[-1], 500)
    world.calls.clear()
    begin(candidate("a"), candidate("b"))
    assert [call.host for call in world.calls] == ["b.None"]
    with pytest.raises(Unavailable) as refused:
        begin(candidate("a"))
    assert refused.value.retry_after == 5
    world.seconds = 6
    begin(candidate("a"))
    assert world.calls[-1].host == "a.None"


def test_the_time_allowed_for_all_bounds_each(world: World, begin: Begin) -> None:
    begin(candidate("a"), timeout=20, try_timeout=4)
    assert world.calls[0].timeouts.first_byte == 4
    assert 19 < world.calls[0].timeouts.total <= 20
    assert world.calls[0].timeouts.connect == 4


def test_the_end_of_the_time_for_all_is_no_fault_of_the_one_that_was_called_last(world: World, begin: Begin) -> None:
    for _ in range(6):
        begin(candidate("a"), timeout=20)
        world.calls[-1].sink.on_failure(TimedOut("total", 20))
    assert world.breakers.states() == []


def test_where_the_next_has_no_words_for_it_the_failure_itself_is_passed_on(
    world: World, request_: Request, begin: Begin
) -> None:
    _, sink = begin(candidate("a"), candidate("b"), refused=("b",))
    answer(world.calls[0], 500)
    assert sink.told == [500]
    assert world.calls[0].asked == []
    assert request_.attempts == ()


def test_a_hedge_takes_the_first_that_can_be_called(world: World, begin: Begin) -> None:
    begin(candidate("a"), candidate("b"), candidate("c"), refused=("b",), hedge_after=0.5)
    world.fire()
    assert [call.host for call in world.calls] == ["a.None", "c.None"]


def test_a_hedge_that_failed_is_not_what_a_client_that_leaves_pays_for(
    world: World, request_: Request, begin: Begin
) -> None:
    attempts, _ = begin(candidate("a"), candidate("b"), hedge_after=0.5)
    world.fire()
    answer(world.calls[1], 500)
    attempts.cancel()
    assert request_.target is not None
    assert (request_.target.provider, request_.hedged) == ("a", False)
    assert [one.provider for one in request_.attempts] == ["b"]


def test_a_breaker_that_opened_during_a_back_off_leads_on(world: World, begin: Begin) -> None:
    begin(candidate("a"), candidate("b"), retries=1)
    answer(world.calls[0], 500)
    for _ in range(9):
        begin(candidate("a"))
        answer(world.calls[-1], 500)
    world.fire()
    assert world.calls[-1].host == "b.None"


def test_the_calls_of_one_request_are_bounded(world: World, request_: Request, begin: Begin) -> None:
    _, sink = begin(*(candidate("a", f"key_{number}") for number in range(MOST_CALLS + 5)))
    while not sink.told:
        answer(world.calls[-1], 429)
    assert len(world.calls) == request_.calls == MOST_CALLS


# --- a body that a client could not have sent -------------------------------------------------------------------------

DEEP = b'{"messages":' + b"[" * 5000 + b"]" * 5000 + b"}"


def test_a_hedge_wins_whatever_the_body_of_the_other_is_like(world: World, request_: Request, begin: Begin) -> None:
    _, sink = begin(candidate("a"), candidate("b"), bodies={"a": DEEP}, hedge_after=0.5)
    world.fire()
    answer(world.calls[1], 200)
    assert sink.told == [200]
    assert [(one.provider, one.usage.input) for one in request_.attempts if one.usage] == [("a", -(-len(DEEP) // 4))]


def test_a_lost_call_and_one_that_is_left_are_written_down_whatever_their_bodies_are_like(
    world: World, request_: Request, begin: Begin
) -> None:
    bodies = dict.fromkeys("abc", DEEP)
    attempts, _ = begin(candidate("a"), candidate("b"), candidate("c"), bodies=bodies, hedge_after=0.5)
    world.calls[0].sink.on_failure(TimedOut("first_byte", 1))
    world.fire()
    attempts.cancel()
    assert [(one.provider, one.error) for one in request_.attempts] == [("a", "provider_timeout"), ("b", "client_left")]
    assert [call.asked for call in world.calls[1:]] == [["cancel"], ["cancel"]]


@pytest.mark.parametrize(
    "fail",
    [lambda call: answer(call, 500), lambda call: call.sink.on_failure(ConnectFailed("refused"))],
    ids=["answers", "breaks"],
)
def test_a_mistake_of_ours_between_two_calls_leaves_nobody_waiting(
    world: World, begin: Begin, fail: Callable[[Call], None]
) -> None:
    _, sink = begin(candidate("a"), candidate("broken"))
    with pytest.raises(RuntimeError):
        fail(world.calls[0])
    assert [type(one) for one in sink.told] == [InternalError]


def test_a_mistake_of_ours_after_a_back_off_leaves_nobody_waiting(world: World, begin: Begin) -> None:
    _, sink = begin(candidate("a"), candidate("broken"), retries=1)
    answer(world.calls[0], 500)
    for _ in range(9):
        begin(candidate("a"))
        answer(world.calls[-1], 500)
    with pytest.raises(RuntimeError):
        world.fire()
    assert [type(one) for one in sink.told] == [InternalError]


# --- a hedge that is refused at once ----------------------------------------------------------------------------------


def test_a_hedge_that_is_refused_leaves_the_first_call_to_answer(world: World, request_: Request, begin: Begin) -> None:
    _, sink = begin(candidate("a"), candidate("b"), hedge_after=0.5)
    world.fire()
    answer(world.calls[1], 404)
    world.calls[1].sink.on_data(b"no such model")
    assert (sink.told, world.calls[0].asked, world.calls[1].asked) == ([], [], ["pause"])
    answer(world.calls[0], 200)
    assert sink.told == [200]
    assert world.calls[1].asked == ["pause", "cancel"]
    lost = [(one.provider, one.status, one.error, one.usage, one.cost) for one in request_.attempts]
    assert lost == [("b", 404, "upstream_refused", None, 0)]
    assert request_.target is not None
    assert (request_.target.provider, request_.hedged) == ("a", False)


@pytest.mark.parametrize("status", [0, 500])
@pytest.mark.parametrize("ended", [False, True])
def test_a_refusal_is_passed_on_when_the_others_fail(
    world: World, request_: Request, begin: Begin, status: int, ended: bool
) -> None:
    _, sink = begin(candidate("a"), candidate("b"), candidate("c"), hedge_after=0.5, retries=2)
    world.fire()
    refused = world.calls[1]
    answer(refused, 400)
    refused.sink.on_data(b"x")
    if ended:
        refused.sink.on_complete()
    if status:
        answer(world.calls[0], status)
    else:
        world.calls[0].sink.on_failure(ConnectFailed("refused"))
    if not ended:
        assert refused.asked == ["pause", "resume"]
        refused.sink.on_data(b"y")
        refused.sink.on_complete()
    assert sink.told == ([400, b"x", "complete"] if ended else [400, b"x", b"y", "complete"])
    assert len(world.calls) == 2
    assert [one.provider for one in request_.attempts] == ["a"]
    assert request_.target is not None
    assert (request_.target.provider, request_.hedged) == ("b", True)


def test_of_two_refusals_the_last_is_passed_on(world: World, request_: Request, begin: Begin) -> None:
    _, sink = begin(candidate("a"), candidate("b"), hedge_after=0.5)
    world.fire()
    answer(world.calls[1], 404)
    answer(world.calls[0], 400)
    assert sink.told == [400]
    assert [(one.provider, one.status) for one in request_.attempts] == [("b", 404)]


def test_who_leaves_while_a_refusal_is_kept_pays_for_the_call_under_way(
    world: World, request_: Request, begin: Begin
) -> None:
    attempts, _ = begin(candidate("a"), candidate("b"), hedge_after=0.5)
    world.fire()
    answer(world.calls[1], 404)
    attempts.cancel()
    assert [(one.provider, one.status, one.usage) for one in request_.attempts] == [("b", 404, None)]
    assert request_.target is not None
    assert request_.target.provider == "a"


def test_the_last_call_that_fails_is_charged_as_those_before_it(world: World, request_: Request, begin: Begin) -> None:
    attempts, sink = begin(candidate("a"), candidate("b"))
    for call in range(2):
        world.calls[call].sink.on_failure(TimedOut("first_byte", 1))
    assert [type(one) for one in sink.told] == [TimedOutUpstream]
    first, last = request_.attempts
    assert (first.provider, last.provider) == ("a", "b")
    assert last.cost == first.cost != 0
    assert request_.lost_cost == 2 * (first.cost or 0)
    attempts.cancel()
    assert len(request_.attempts) == request_.calls == 2


def test_the_last_call_costs_nothing_when_nothing_was_sent(world: World, request_: Request, begin: Begin) -> None:
    begin(candidate("a"))
    world.calls[0].sink.on_failure(ConnectFailed("refused"))
    assert (request_.attempts, request_.lost_cost) == ((), 0)


def test_a_hedge_that_was_never_sent_costs_nothing(world: World, request_: Request, begin: Begin) -> None:
    begin(candidate("a"), candidate("b"), hedge_after=0.5)
    world.fire()
    world.calls[1].is_sent = False
    answer(world.calls[0], 200)
    assert [(one.provider, one.error, one.usage, one.cost) for one in request_.attempts] == [("b", "hedged", None, 0)]


# --- a breaker that opens during a back-off ---------------------------------------------------------------------------


def open_breaker(world: World, begin: Begin) -> None:
    for _ in range(9):
        begin(candidate("a"))
        answer(world.calls[-1], 500)


def test_where_nobody_can_be_called_after_a_back_off_the_last_refusal_is_passed_on(
    world: World, request_: Request, begin: Begin
) -> None:
    _, sink = begin(candidate("a"), retries=1)
    answer(world.calls[0], 503)
    world.calls[0].sink.on_data(b"overloaded")
    world.calls[0].sink.on_complete()
    before = len(request_.attempts)
    open_breaker(world, begin)
    world.fire()
    assert sink.told == [503, b"overloaded", "complete"]
    assert len(request_.attempts) == before == 1


def test_where_nobody_can_be_called_after_a_back_off_the_last_failure_is_passed_on(world: World, begin: Begin) -> None:
    _, sink = begin(candidate("a"), retries=1)
    world.calls[0].sink.on_failure(ConnectFailed("refused"))
    open_breaker(world, begin)
    world.fire()
    assert [one.code for one in sink.told] == ["provider_unreachable"]


def test_what_was_said_before_a_back_off_is_forgotten_when_it_is_over_or_not_waited_for(
    world: World, begin: Begin
) -> None:
    attempts, sink = begin(candidate("a"), retries=2)
    answer(world.calls[0], 503)
    world.fire()
    answer(world.calls[1], 503)
    attempts.cancel()
    assert [call.asked for call in world.calls] == [["pause", "cancel"]] * 2
    assert sink.told == []


# --- memory -----------------------------------------------------------------------------------------------------------


class Back:
    """Turns an answer into another dialect: it can end the call."""

    made: ClassVar[list[weakref.ref[Any]]] = []

    def __init__(self, sink: Sink, call: Attempts) -> None:
        self.on_response = sink.on_response
        self.call = call
        self.made[:] = [weakref.ref(self)]


@pytest.mark.parametrize("answered", [False, True])
def test_what_translates_a_call_that_is_left_is_gone_at_once(world: World, begin: Begin, answered: bool) -> None:
    gc.collect()
    gc.disable()
    try:
        attempts, _ = begin(candidate("a"), translated=Back)
        if answered:
            answer(world.calls[0], 200)
        attempts.cancel()
        world.calls.clear()
        del attempts
        assert Back.made[0]() is None
    finally:
        gc.enable()
