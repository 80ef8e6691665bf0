"""Answers with status 200 that are none: another call takes their place as long as nothing was passed on."""

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from tests.support.attempts import BODY, Call, World, answer
from tests.support.on_trial import BAD, EVENTS, FIRST, GOOD, A, B, C, Question, whole
from watchllm.domain.errors import InternalError, ProviderFailed
from watchllm.domain.usage import TokenUsage
from watchllm.providers.dialect import Verdict
from watchllm.providers.endpoints import ENDPOINTS
from watchllm.proxy import keeping, plan, proof
from watchllm.proxy.approach import Candidate
from watchllm.proxy.upstream import Answer
from watchllm.routing.outcome import Health
from watchllm.wire.types import BadMessage, PeerClosed, TimedOut


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ask(world: World) -> Callable[..., Question]:
    return lambda *candidates, **wishes: Question(*candidates, world=world, **wishes)


Ask = Callable[..., Question]


def breaks_off(call: Call) -> None:
    answer(call, 200, EVENTS)
    call.sink.on_failure(PeerClosed("gone"))


def failures(world: World) -> list[tuple[str, int, int]]:
    return [(one.provider, one.failures, one.time_outs_in_row) for one in world.breakers.states()]


# --- whole answers ----------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_passed_on_when_it_is_known_to_be_one(world: World, ask: Ask) -> None:
    question = ask(A, B)
    answer(world.calls[0], 200)
    world.calls[0].sink.on_data(GOOD[:3])
    world.calls[0].sink.on_data(GOOD[3:])
    assert question.sink.told == []
    world.calls[0].sink.on_complete()
    assert question.sink.told == [200, GOOD, "complete"]
    assert question.lost == []
    assert failures(world) == []


@pytest.mark.parametrize("pieces", [(), (BAD,), (GOOD, BAD)], ids=["empty", "garbage", "more"])
def test_one_that_is_none_leads_to_the_next_candidate(world: World, ask: Ask, pieces: tuple[bytes, ...]) -> None:
    question = ask(A, B)
    whole(world.calls[0], *pieces)
    assert question.sink.told == []
    whole(world.calls[1], GOOD)
    assert question.sink.told == [200, GOOD, "complete"]
    assert question.lost == [("a", 200, "provider_error", True)]
    assert failures(world) == [("a", 1, 0)]
    assert question.request.target is B.target


@pytest.mark.parametrize(
    ("error", "code", "time_outs"),
    [
        (PeerClosed("gone"), "provider_error", 0),
        (BadMessage("chunks"), "provider_error", 0),
        (TimedOut("idle", 1), "provider_timeout", 1),
    ],
)
def test_one_that_breaks_off_does_too(world: World, ask: Ask, error: Any, code: str, time_outs: int) -> None:
    question = ask(A, B)
    answer(world.calls[0], 200)
    world.calls[0].sink.on_data(GOOD[:3])
    world.calls[0].sink.on_failure(error)
    whole(world.calls[1], GOOD)
    assert question.sink.told == [200, GOOD, "complete"]
    assert question.lost == [("a", 200, code, True)]
    assert failures(world) == [("a", 1, time_outs)]


def test_the_same_target_is_tried_again_first(world: World, ask: Ask) -> None:
    question = ask(A, B, retries=1)
    whole(world.calls[0], BAD)
    world.fire()
    whole(world.calls[1], BAD)
    whole(world.calls[2], GOOD)
    assert [call.host for call in world.calls] == ["a.None", "a.None", "b.None"]
    assert question.sink.told == [200, GOOD, "complete"]


def test_a_time_out_of_a_try_bounds_an_answer_to_its_end(world: World, ask: Ask) -> None:
    question = ask(A, B, try_timeout=4)
    answer(world.calls[0], 200)
    world.calls[0].sink.on_data(GOOD[:3])
    assert 3 < world.fire() <= 4
    assert world.calls[0].asked[0] == "cancel"
    whole(world.calls[1], GOOD)
    assert question.sink.told == [200, GOOD, "complete"]
    assert question.lost == [("a", 200, "provider_timeout", True)]
    assert failures(world) == [("a", 1, 1)]
    assert world.timers == []


def test_where_nothing_is_left_to_try_what_came_is_passed_on_for_who_waits_to_judge(world: World, ask: Ask) -> None:
    question = ask(A, B)
    whole(world.calls[0], BAD)
    whole(world.calls[1], BAD, BAD)
    assert question.sink.told == [200, BAD + BAD, "complete"]
    assert question.lost == [("a", 200, "provider_error", True), ("b", 200, "provider_error", True)]


def test_the_last_that_breaks_off_is_told_as_it_was(world: World, ask: Ask) -> None:
    question = ask(A)
    answer(world.calls[0], 200)
    world.calls[0].sink.on_data(b"x")
    world.calls[0].sink.on_failure(error := PeerClosed("gone"))
    assert question.sink.told == [200, b"x", error]


def test_where_nothing_is_left_after_a_back_off_what_came_is_passed_on(world: World, ask: Ask) -> None:
    question = ask(A, retries=1)
    whole(world.calls[0], BAD)
    for _ in range(9):
        ask(A)
        answer(world.calls[-1], 500)
    world.fire()
    assert question.sink.told == [200, BAD, "complete"]


def test_an_answer_that_is_too_long_is_none_and_is_not_kept(
    world: World, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof, "MAX_ANSWER_BYTES", 10)
    question = ask(A, B)
    for call in range(2):
        answer(world.calls[call], 200)
        world.calls[call].sink.on_data(b"x" * 11)
    assert all("cancel" in call.asked for call in world.calls), "what nobody wants any more is not sent to its end"
    assert [type(one) for one in question.sink.told] == [ProviderFailed]
    assert question.lost == [("a", 200, "provider_error", True), ("b", 200, "provider_error", True)]


def test_a_refusal_is_passed_on_as_it_comes(world: World, ask: Ask) -> None:
    question = ask(A, B)
    answer(world.calls[0], 400)
    world.calls[0].sink.on_data(BAD)
    world.calls[0].sink.on_complete()
    assert question.sink.told == [400, BAD, "complete"]
    assert world.calls[0].sink is question.sink


@pytest.mark.parametrize("candidates", [(A,), (A, B)])
def test_a_mistake_of_ours_leaves_nobody_waiting(world: World, ask: Ask, candidates: tuple[Candidate, ...]) -> None:
    question = ask(*candidates)
    with pytest.raises(RuntimeError):
        whole(world.calls[0], b"crash")
    assert [type(one) for one in question.sink.told] == [InternalError]


def test_the_very_bytes_that_were_judged_are_passed_on(world: World, ask: Ask) -> None:
    judged: list[bytes] = []
    question = ask(A, judge=lambda answer: judged.append(answer.body))
    whole(world.calls[0], GOOD[:3], GOOD[3:])
    (body,) = judged
    assert question.sink.told[1] is body


def test_a_plan_judges_the_same_bytes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judged = []

    def judge(_family: str, body: bytes, *, expected: int | None) -> Verdict:
        judged.append((body, expected))
        return Verdict(None, ("stop",), TokenUsage(1, 1))

    monkeypatch.setattr(keeping, "judge", judge)
    services = SimpleNamespace(settlement=SimpleNamespace(settle=None))
    asked = SimpleNamespace(streamed=False, expected=1)
    made = plan.Plan(cast(Any, services), cast(Any, None), ENDPOINTS[0], cast(Any, asked), BODY, None, None)
    body = b"x" * 1000
    assert made.standard.fault(Answer(200, [], body)) is None
    assert made.judge(body).storable
    assert judged == [(body, 1)]
    made.judge(b"y")
    assert len(judged) == 2


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_is_passed_on_from_its_first_event(world: World, ask: Ask) -> None:
    question = ask(A, B, streamed=True)
    call = world.calls[0]
    answer(call, 200, EVENTS)
    for piece in (b": still busy\n\n", FIRST[:5]):
        call.sink.on_data(piece)
    assert question.sink.told == []
    call.sink.on_data(FIRST[5:])
    assert question.sink.told == [200, b": still busy\n\n", FIRST[:5], FIRST[5:]]
    assert call.sink is question.sink, "the rest goes the shortest way"
    call.sink.on_failure(error := PeerClosed("gone"))
    assert question.sink.told[-1] is error
    assert (len(world.calls), question.lost) == (1, [])


@pytest.mark.parametrize(
    "begins",
    [
        lambda call: whole(call, headers=EVENTS),
        lambda call: whole(call, b": only a comment\n\n", headers=EVENTS),
        lambda call: whole(call, b"data: [DONE]\n\n", headers=EVENTS),
        lambda call: whole(call, b"data: oops\n\n", headers=EVENTS),
        lambda call: whole(call, FIRST[:-1], headers=EVENTS),
        lambda call: whole(call, b'data: {"error":{"message":"overloaded"}}\n\n', headers=EVENTS),
        lambda call: whole(call, b'event: error\ndata: {"type":"error","error":null}\n\n', headers=EVENTS),
        lambda call: whole(call, b'data: {"type":"response.failed","response":{}}\n\n', headers=EVENTS),
        lambda call: whole(call, b"data: " + b"x" * (1 << 21), headers=EVENTS),
        lambda call: whole(call, BAD, headers=[(b"content-type", b"text/html")]),
        breaks_off,
    ],
    ids=["empty", "comment", "done", "garbage", "half", "error", "error-event", "failed", "huge", "html", "breaks"],
)
def test_one_that_does_not_begin_as_one_leads_to_the_next_candidate(
    world: World, ask: Ask, begins: Callable[[Call], None]
) -> None:
    question = ask(A, B, streamed=True)
    begins(world.calls[0])
    assert question.sink.told == []
    assert question.lost == [("a", 200, "provider_error", True)]
    whole(world.calls[1], FIRST, headers=EVENTS)
    assert question.sink.told == [200, FIRST, "complete"]


def test_the_last_that_does_not_begin_as_one_is_passed_on_with_what_follows(world: World, ask: Ask) -> None:
    question = ask(A, streamed=True)
    error = b'data: {"error":{"message":"overloaded"}}\n\n'
    whole(world.calls[0], error, b"data: [DONE]\n\n", headers=EVENTS)
    assert question.sink.told == [200, error, b"data: [DONE]\n\n", "complete"]
    assert question.lost == [], "who relays it keeps its books"


def test_a_time_out_of_a_try_bounds_a_stream_to_its_first_event(world: World, ask: Ask) -> None:
    question = ask(A, B, streamed=True, try_timeout=4)
    answer(world.calls[0], 200, EVENTS)
    world.fire()
    answer(world.calls[1], 200, EVENTS)
    world.calls[1].sink.on_data(FIRST)
    assert world.timers == []
    assert question.sink.told == [200, FIRST]


def test_a_stream_of_comments_is_not_kept_for_ever(world: World, ask: Ask) -> None:
    question = ask(A, B, streamed=True)
    answer(world.calls[0], 200, EVENTS)
    sent = 0
    while not question.sink.told and sent < 1000:
        world.calls[0].sink.on_data(b": " + b"x" * 997 + b"\n\n")
        sent += 1
    assert 60 < sent < 70
    assert len(question.sink.told) == 1 + sent


def test_who_reads_slowly_pauses_the_stream_that_was_proved(world: World, ask: Ask) -> None:
    question = ask(A, B, streamed=True)
    answer(world.calls[0], 200, EVENTS)
    world.calls[0].sink.on_data(FIRST)
    question.attempts.pause()
    question.attempts.resume()
    assert world.calls[0].asked == ["pause", "resume"]


# --- hedges -----------------------------------------------------------------------------------------------------------


def test_the_first_good_answer_wins(world: World, ask: Ask) -> None:
    question = ask(A, B, hedge_after=0.5)
    world.fire()
    whole(world.calls[1], BAD)
    assert (question.sink.told, world.calls[0].asked) == ([], [])
    whole(world.calls[0], GOOD)
    assert question.sink.told == [200, GOOD, "complete"]
    assert question.lost == [("b", 200, "provider_error", True)]
    assert not question.request.hedged


def test_one_on_trial_loses_to_one_that_is_proved(world: World, ask: Ask) -> None:
    question = ask(A, B, hedge_after=0.5)
    answer(world.calls[0], 200)
    world.calls[0].sink.on_data(GOOD)
    world.fire()  # It has not answered yet: that is what the hedge is for.
    whole(world.calls[1], GOOD)
    assert question.sink.told == [200, GOOD, "complete"]
    assert world.calls[0].asked == ["cancel"]
    assert question.lost == [("a", 200, "hedged", True)]
    assert question.request.hedged


def test_a_refusal_is_kept_while_another_is_on_trial(world: World, ask: Ask) -> None:
    question = ask(A, B, C, hedge_after=0.5)
    world.fire()
    answer(world.calls[0], 200)
    answer(world.calls[1], 404)
    assert question.sink.told == []
    world.calls[0].sink.on_complete()
    assert question.sink.told == [404]
    assert question.lost == [("a", 200, "provider_error", True)]


def test_an_event_without_data_is_none(world: World, ask: Ask) -> None:
    question = ask(A, B, streamed=True)
    answer(world.calls[0], 200, EVENTS)
    for piece in (b"event: ping\ndata:\n\n", FIRST):
        world.calls[0].sink.on_data(piece)
    assert len(world.calls) == 1
    assert question.sink.told == [200, b"event: ping\ndata:\n\n", FIRST]


def test_a_stream_that_is_passed_on_after_all_is_not_charged_twice(world: World, ask: Ask) -> None:
    for _ in range(9):
        ticket = world.breakers.admit(A.breaker)
        assert ticket is not None
        ticket.give_back(Health.FAILED)
    question = ask(A, streamed=True, retries=1)
    answer(world.calls[0], 200, EVENTS)
    world.calls[0].sink.on_data(b'data: {"error":{"message":"overloaded"}}\n\n')
    assert (question.lost, question.request.lost_cost > 0) == ([("a", 200, "provider_error", True)], True)
    world.fire()  # the retry is not made: this very failure opened the breaker
    assert question.sink.told[0] == 200
    assert (question.lost, question.request.lost_cost, question.request.calls) == ([], 0, 1)


# --- who leaves -------------------------------------------------------------------------------------------------------


def test_who_leaves_during_the_trial_ends_the_calls(world: World, ask: Ask) -> None:
    question = ask(A, B, hedge_after=0.5, try_timeout=4)
    answer(world.calls[0], 200)
    world.calls[0].sink.on_data(GOOD)
    late = world.calls[0].sink
    world.timers.pop()
    world.fire()
    assert question.attempts.is_sent
    question.attempts.cancel()
    late.on_data(b"x")
    late.on_complete()
    assert [call.asked for call in world.calls] == [["cancel"], ["cancel"]]
    assert (question.sink.told, world.timers, failures(world)) == ([], [], [])
    assert question.lost == [("a", 200, "client_left", True)]


@pytest.mark.parametrize("pieces", [1, 3])
def test_who_leaves_while_it_is_passed_on_gets_no_more(world: World, ask: Ask, pieces: int) -> None:
    question = ask(A, streamed=True)
    heard = question.sink.on_data

    def leave(data: bytes) -> None:
        heard(data)
        question.attempts.cancel()

    question.sink.on_data = leave  # type: ignore[method-assign]
    answer(world.calls[0], 200, EVENTS)
    for _ in range(pieces):
        world.calls[0].sink.on_data(b": still busy\n\n")
    world.calls[0].sink.on_data(FIRST)
    assert question.sink.told == [200, b": still busy\n\n"]


class Back:
    """Turns an answer into another dialect: each piece doubled. It can end the call."""

    made: ClassVar[list[weakref.ref[Any]]] = []

    def __init__(self, sink: Any, call: Any) -> None:
        self.sink = sink
        self.call = call
        self.on_response = sink.on_response
        self.made[:] = [weakref.ref(self)]

    def on_complete(self) -> None:
        self.call = None
        self.sink.on_complete()

    def on_failure(self, error: Any) -> None:
        self.call = None
        self.sink.on_failure(error)

    def on_data(self, data: bytes) -> None:
        if data == b"unreadable":
            self.call.cancel()
            self.call = None
            self.sink.fail(ProviderFailed("cannot be told"))
        else:
            self.sink.on_data(data * 2)


def test_what_is_judged_is_what_the_client_would_get(world: World, ask: Ask) -> None:
    question = ask(A, B, translated=Back)
    whole(world.calls[0], GOOD)
    whole(world.calls[1], b"x")
    assert question.sink.told == [200, b"xx", "complete"]


@pytest.mark.parametrize("streamed", [False, True])
def test_what_cannot_be_translated_leads_to_the_next_candidate(world: World, ask: Ask, streamed: bool) -> None:
    question = ask(A, B, streamed=streamed, translated=Back)
    answer(world.calls[0], 200, EVENTS)
    world.calls[0].sink.on_data(b"unreadable")
    assert [call.host for call in world.calls] == ["a.None", "b.None"]
    assert question.lost == [("a", 200, "provider_error", True)]
    answer(world.calls[1], 200, EVENTS)
    world.calls[1].sink.on_data(b"unreadable")
    assert [one for one in question.sink.told if one != 200] != []


@pytest.mark.parametrize("moment", ["asked", "on trial", "proved", "unfit", "translated"])
def test_nothing_is_left_of_a_call_when_it_is_over(world: World, ask: Ask, moment: str) -> None:
    gc.collect()
    gc.disable()
    try:
        question = ask(A, translated=Back, streamed=True, try_timeout=4)
        if moment != "asked":
            answer(world.calls[0], 200, EVENTS)
        if moment == "proved":
            world.calls[0].sink.on_data(b'data: {"n":1}\n\n')
        elif moment == "unfit":
            world.calls[0].sink.on_data(b"data: oops\n\n")
        elif moment == "translated":
            world.calls[0].sink.on_data(b"unreadable")
        question.attempts.cancel()
        gone = weakref.ref(question.attempts)
        world.calls.clear()
        assert world.timers == []
        del question
        assert (Back.made[0](), gone()) == (None, None)
    finally:
        gc.enable()


@pytest.mark.parametrize("moment", ["expired", "broken", "complete", "unreadable"])
def test_nothing_is_left_of_a_call_that_ended_by_itself(world: World, ask: Ask, moment: str) -> None:
    gc.collect()
    gc.disable()
    try:
        question = ask(A, translated=Back, try_timeout=4)
        call = world.calls[0]
        answer(call, 200)
        if moment == "expired":
            world.fire()
        elif moment == "broken":
            call.sink.on_failure(PeerClosed("gone"))
        elif moment == "complete":
            call.sink.on_complete()
        else:
            call.sink.on_data(b"unreadable")
        assert len(question.sink.told) > 1
        assert world.timers == []
        del call, question
        world.calls.clear()
        assert Back.made[0]() is None
    finally:
        gc.enable()


def test_a_time_out_is_told_as_one(world: World, ask: Ask) -> None:
    question = ask(A, try_timeout=4)
    answer(world.calls[0], 200)
    world.fire()
    status, error = question.sink.told
    assert (status, type(error)) == (200, TimedOut)
