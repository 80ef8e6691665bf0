"""What is stored of a fallback's answers stands in for calling it."""

from collections.abc import Callable

import pytest

from tests.support.attempts import Call, World, answer
from tests.support.on_trial import BAD, A, B, C, Question, whole
from watchllm.domain.errors import InternalError
from watchllm.proxy.approach import Candidate
from watchllm.wire.types import PeerClosed


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ask(world: World) -> Callable[..., Question]:
    return lambda *candidates, **wishes: Question(*candidates, world=world, **wishes)


Ask = Callable[..., Question]


def kept_of(provider: str, given: list[str]) -> Callable[[Candidate], Callable[[], None] | None]:
    """A cache that holds the answer of one provider; it is noted when it is given."""

    def stored(one: Candidate) -> Callable[[], None] | None:
        return None if one.target.provider != provider else lambda: given.append(provider)

    return stored


@pytest.mark.parametrize(
    "fail",
    [
        lambda call: answer(call, 500),
        lambda call: whole(call, BAD),
        lambda call: call.sink.on_failure(PeerClosed("gone")),
    ],
    ids=["status", "garbage", "breaks"],
)
def test_a_stored_answer_is_given_before_its_provider_is_called(
    world: World, ask: Ask, fail: Callable[[Call], None]
) -> None:
    given: list[str] = []
    question = ask(A, B, C, stored=kept_of("b", given))
    fail(world.calls[0])
    assert (given, len(question.lost)) == ([], 1), "the books on the first call are closed before"
    world.fire()
    assert (given, len(world.calls), question.sink.told) == (["b"], 1, [])


def test_a_stored_answer_is_given_before_a_call_of_the_first_that_is_left(world: World, ask: Ask) -> None:
    given: list[str] = []
    ask(B, C, stored=kept_of("b", given))  # whom the request asks for cannot be called at all
    world.fire()
    assert (given, world.calls) == (["b"], [])


def test_nobody_waits_for_ever_where_giving_what_is_stored_fails(world: World, ask: Ask) -> None:
    def give() -> None:
        raise RuntimeError("a mistake of ours")

    question = ask(A, B, stored=lambda one: give if one is B else None)
    answer(world.calls[0], 500)
    with pytest.raises(RuntimeError):
        world.fire()
    assert [type(one) for one in question.sink.told] == [InternalError]


def test_the_next_is_called_when_only_one_after_it_is_stored(world: World, ask: Ask) -> None:
    given: list[str] = []
    ask(A, B, C, stored=kept_of("c", given))
    answer(world.calls[0], 500)
    answer(world.calls[1], 500)
    world.fire()
    assert [call.host for call in world.calls] == ["a.None", "b.None"]
    assert given == ["c"]


def test_a_stored_answer_stands_in_for_one_whose_breaker_is_open(world: World, ask: Ask) -> None:
    for _ in range(10):
        ask(A)
        answer(world.calls[-1], 500)
    world.calls.clear()
    given: list[str] = []
    question = ask(A, B, stored=kept_of("b", given), hedge_after=1)
    assert not question.attempts.is_sent
    world.fire()
    assert (given, world.calls, world.timers) == (["b"], [], [])


def test_who_leaves_is_given_nothing_stored(world: World, ask: Ask) -> None:
    question = ask(A, B, stored=kept_of("b", []))
    answer(world.calls[0], 500)
    question.attempts.cancel()
    assert world.timers == []
