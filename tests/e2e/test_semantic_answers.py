"""Which answer a like question gets: the one that was kept, never another that took its place, nor another target's."""

import json
from collections.abc import Iterator

import pytest

from tests.support.product import Gateway
from tests.support.routing import LLAMA, MINI, Routed, fails, routed, says, text_of
from tests.support.scripted_upstream import Call
from tests.support.semantic import LIKE, QUESTION, outcome, wait_until_warm


@pytest.fixture
def project(open_gateway: Gateway) -> Iterator[Routed]:
    wait_until_warm(open_gateway)
    with routed(open_gateway, {"semantic": "on"}) as project:
        yield project


def cut_short(call: Call) -> None:
    """A whole answer that its length ended."""
    message = {"role": "assistant", "content": "You go to"}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    call.reply(200, json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode())


def test_an_answer_that_was_cut_short_does_not_take_the_place_of_one_that_was_kept(project: Routed) -> None:
    project.route("fast", MINI)
    project.openai.script = says("whole")
    assert outcome(project.ask(QUESTION)) == "MISS"
    assert text_of(project.ask(LIKE)) == "whole"
    project.openai.script = cut_short
    refreshing = {"X-WatchLLM-Cache": "refresh"}
    assert outcome(project.ask(QUESTION, headers=refreshing)) == "MISS"
    assert outcome(project.ask(QUESTION)) == "HIT"
    project.openai.script = says("asked anew")
    assert (outcome(answer := project.ask(LIKE)), text_of(answer)) == ("MISS", "asked anew")


def test_a_refreshed_answer_is_the_one_that_like_questions_get(project: Routed) -> None:
    project.route("fast", MINI)
    for text in ("old", "new"):
        project.openai.script = says(text)
        project.ask(QUESTION, headers={"X-WatchLLM-Cache": "refresh"})
    assert (outcome(answer := project.ask(LIKE)), text_of(answer)) == ("HIT-SEMANTIC", "new")


@pytest.mark.parametrize("streamed", [False, True])
def test_the_answer_of_a_fallback_is_found_under_the_target_that_gave_it(project: Routed, streamed: bool) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script, project.groq.script = fails(500), says("from the fallback")
    assert outcome(project.ask(QUESTION, stream=streamed)) == "MISS"
    project.openai.script = says("from the first")
    assert (outcome(first := project.ask(LIKE)), text_of(first)) == ("MISS", "from the first")
    direct = project.ask(LIKE, model=LLAMA)
    assert (outcome(direct), text_of(direct)) == ("HIT-SEMANTIC", "from the fallback")
