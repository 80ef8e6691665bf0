"""How long a request waits for its providers: retries, time-outs, hedges, breakers, and clients that do not wait."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.admin import admin_get, status_of
from tests.support.embeddings import MODEL, PATH, vectors
from tests.support.product import Gateway
from tests.support.raw_http import RawConnection, request_bytes
from tests.support.routing import (
    LLAMA,
    MINI,
    Routed,
    Waits,
    by_key,
    cache_of,
    fails,
    in_turn,
    routed,
    says,
    text_of,
    tried,
)
from tests.support.scripted_upstream import Call
from tests.support.waiting import wait_for

# The provider that does answer must do so within it, however busy the machine is.
TRY = 1.0


@pytest.fixture
def project(open_gateway: Gateway) -> Iterator[Routed]:
    with routed(open_gateway) as project:
        yield project


def breakers(project: Routed) -> dict[str, dict[str, Any]]:
    """Those of the project at the admin listener, by provider."""
    shown = admin_get(project.gateway, "/breakers").json()["breakers"]
    return {one["provider"]: one for one in shown if one["project_id"] == project.project.id}


def leave_when(project: Routed, condition: Callable[[], object]) -> None:
    """Ask, and go away when `condition` is true."""
    body = {"model": "fast", "messages": [{"role": "user", "content": "Quick!"}]}
    with RawConnection(project.gateway.port) as connection:
        connection.send(request_bytes("/v1/chat/completions", key=project.project.key, body=body))
        wait_for(condition, "the moment to leave")


def connections(project: Routed) -> int:
    return int(status_of(project.gateway)["connections"])


# --- retries and time-outs --------------------------------------------------------------------------------------------


def test_the_same_target_is_tried_again_before_another_and_not_before_it_said(project: Routed) -> None:
    at: list[float] = []

    def busy_once(call: Call) -> None:
        at.append(time.monotonic())
        (fails(503, retry_after="1") if len(at) == 1 else says("again"))(call)

    project.route("fast", MINI, fallbacks=(LLAMA,), retries=2)
    project.openai.script = busy_once
    answer = project.ask()
    assert (text_of(answer), tried(answer), project.calls()) == ("again", ("openai", None), (2, 0))
    assert at[1] - at[0] >= 1
    [row] = project.rows(1)
    assert [(one["status"], one["cost"] == 0) for one in row["attempts"]] == [(503, True), (200, False)]


def test_who_asks_to_wait_for_longer_than_is_waited_is_not_tried_again(project: Routed) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,), retries=3)
    project.openai.script = fails(503, retry_after="3600")
    assert text_of(project.ask()) == "groq"
    assert project.calls() == (1, 1)


def test_retries_end_and_the_last_answer_is_passed_on(project: Routed) -> None:
    project.route("fast", MINI, retries=2)
    project.openai.script = fails(500)
    answer = project.ask()
    assert (answer.status, tried(answer), project.calls()) == (500, ("openai", None), (3, 0))
    [row] = project.rows(1)
    assert [one["status"] for one in row["attempts"]] == [500, 500, 500]


def test_a_try_that_takes_too_long_is_given_up_for_the_next(project: Routed) -> None:
    silent = Waits()
    project.route("fast", MINI, fallbacks=(LLAMA,), try_timeout=TRY)
    project.openai.script = silent
    assert text_of(project.ask()) == "groq"
    assert wait_for(lambda: silent.left, "the end of the call") == 1
    [row] = project.rows(1)
    lost, won = row["attempts"]
    assert (lost["error"], lost["status"], lost["usage"]["estimated"]) == ("provider_timeout", 0, True)
    assert lost["cost"] > 0
    assert row["cost_nanos"] == lost["cost"] + won["cost"]


def test_embeddings_pay_for_a_call_that_was_given_up(project: Routed) -> None:
    project.route("vectors", f"openai/{MODEL}", retries=1, try_timeout=TRY)
    project.openai.script = in_turn(Waits(), vectors)
    body = {"model": "vectors", "input": ["How long is this?"]}
    assert project.gateway.post(PATH, project.project.key, body).status == 200
    [row] = project.rows(1)
    lost, won = row["attempts"]
    assert (lost["error"], won["status"], won["cost"]) == ("provider_timeout", 200, 20)
    assert row["cost_nanos"] == lost["cost"] + 20 > 20


def test_the_time_for_all_tries_together_ends_them(project: Routed) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA, "openai/gpt-4o"), retries=5, timeout=1.0, try_timeout=0.3)
    project.openai.script, project.groq.script = Waits(), Waits()
    answer = project.ask()
    assert (answer.status, answer.json()["error"]["code"]) == (504, "provider_timeout")
    assert tried(answer)[0] in ("openai", "groq")
    [row] = project.rows(1)
    assert 2 <= len(row["attempts"]) <= 6
    # What was sent just before the end may reach the provider after it.
    wait_for(lambda: sum(project.calls()) == len(row["attempts"]), "all of them to arrive")
    assert row["cost_nanos"] == sum(one.get("cost") or 0 for one in row["attempts"]) > 0


def test_the_calls_of_one_request_are_bounded(project: Routed) -> None:
    for number in range(40):
        project.add_key("openai", f"more{number}", priority=1)
    project.route("fast", MINI)
    project.openai.script = fails(429)
    assert project.ask().status == 429
    assert len(project.openai.calls) == 32
    [row] = project.rows(1)
    assert len(row["attempts"]) == 32


# --- hedges -----------------------------------------------------------------------------------------------------------


def test_a_hedge_answers_for_the_slow_and_both_are_paid(project: Routed) -> None:
    slow = Waits()
    project.route("fast", MINI, fallbacks=(LLAMA,), hedge_after=0.1)
    project.openai.script = slow
    answer = project.ask()
    assert (text_of(answer), tried(answer)) == ("groq", ("groq", "openai"))
    assert wait_for(lambda: slow.left, "the end of the slow call") == 1
    [row] = project.rows(1)
    lost, won = row["attempts"]
    assert (lost["provider"], lost["error"], lost["hedged"]) == ("openai", "hedged", False)
    assert (won["provider"], won["status"], won["hedged"]) == ("groq", 200, True)
    assert row["cost_nanos"] == lost["cost"] + won["cost"]
    assert lost["cost"] > 0
    assert cache_of(project.ask(model=LLAMA)) == "HIT"


def test_a_hedge_that_lost_was_not_tried_before(project: Routed) -> None:
    hedge = Waits()
    begun = threading.Event()

    def slow(call: Call) -> None:
        assert begun.wait(10)
        says("first")(call)

    def begins(call: Call) -> None:
        begun.set()
        hedge(call)

    project.route("fast", MINI, fallbacks=(LLAMA,), hedge_after=0.1)
    project.openai.script, project.groq.script = slow, begins
    answer = project.ask()
    assert (text_of(answer), tried(answer)) == ("first", ("openai", None))
    assert wait_for(lambda: hedge.left, "the end of the hedge") == 1
    [row] = project.rows(1)
    assert [(one["provider"], one["hedged"]) for one in row["attempts"]] == [("groq", True), ("openai", False)]


# --- clients that leave -----------------------------------------------------------------------------------------------


def test_who_leaves_during_a_back_off_pays_for_what_was_called(project: Routed) -> None:
    project.route("fast", MINI, retries=3)
    project.openai.script = fails(503, retry_after="15")
    leave_when(project, lambda: breakers(project).get("openai", {}).get("failures"))
    [row] = project.rows(1)
    assert (row["ended"], [one["status"] for one in row["attempts"]], row["cost_nanos"]) == ("cancelled", [503], None)
    assert project.calls() == (1, 0)


def test_who_leaves_ends_a_call_and_its_hedge(project: Routed) -> None:
    first, hedge, called = Waits(), Waits(), threading.Event()

    def hedged(call: Call) -> None:
        called.set()
        hedge(call)

    project.route("fast", MINI, fallbacks=(LLAMA,), hedge_after=0.1)
    project.openai.script, project.groq.script = first, hedged
    leave_when(project, called.is_set)
    wait_for(lambda: first.left == hedge.left == 1, "the end of both calls")
    [row] = project.rows(1)
    calls = [(one["provider"], one["hedged"], one["usage"]["estimated"]) for one in row["attempts"]]
    assert (row["ended"], calls) == ("cancelled", [("openai", False, True), ("groq", True, True)])
    assert row["cost_nanos"] == sum(one["cost"] for one in row["attempts"]) > 0


# --- breakers ---------------------------------------------------------------------------------------------------------


def test_a_breaker_opens_fails_fast_and_closes_by_a_probe(project: Routed) -> None:
    project.route("fast", MINI)
    project.openai.script = fails(500)
    assert {project.ask(f"Question {number}").status for number in range(10)} == {500}
    assert (breakers(project)["openai"]["state"], breakers(project)["openai"]["retry_in"] > 0) == ("open", True)
    refused = project.ask()
    assert (refused.status, refused.json()["error"]["code"]) == (503, "overloaded")
    assert 1 <= int(refused.header("retry-after") or 0) <= 5
    assert len(project.openai.calls) == 10
    project.route("other", MINI, fallbacks=(LLAMA,))
    assert text_of(project.ask(model="other")) == "groq"  # Nobody waits for what is known to fail.
    assert len(project.openai.calls) == 10
    project.openai.script = says("well again")
    wait_for(lambda: project.ask().status == 200, "the probe", within=20, every=0.1)
    assert "openai" not in breakers(project)
    rows = project.rows(project.asked)
    assert sum(len(row["attempts"]) for row in rows) == sum(project.calls())


def test_time_outs_in_a_row_open_a_breaker_too(project: Routed) -> None:
    project.route("fast", MINI, try_timeout=0.1)
    project.openai.script = Waits()
    statuses = [project.ask(f"Question {number}").status for number in range(6)]
    assert statuses == [504] * 5 + [503]
    assert breakers(project)["openai"]["state"] == "open"


@pytest.mark.parametrize("last_stays", [True, False])
def test_what_is_tried_for_others_after_a_buyer_has_left_is_in_its_books(project: Routed, last_stays: bool) -> None:
    project.add_key("openai", "two", priority=1)
    first, second = threading.Event(), threading.Event()

    def refused_late(call: Call) -> None:
        first.wait(20)
        fails(401)(call)

    def late(call: Call) -> None:
        second.wait(20)
        vectors(call)

    project.openai.script = by_key(one=refused_late, two=late)
    port, key = project.gateway.port, project.project.key
    asked = request_bytes(PATH, key=key, body={"model": f"openai/{MODEL}", "input": ["a"]})
    # What earlier tests left behind is gone: from now on the number says who is there.
    wait_for(lambda: connections(project) == 0, "no connection")
    with RawConnection(port) as buyer, RawConnection(port) as other:
        buyer.send(asked)
        wait_for(lambda: project.calls() == (1, 0), "the call upstream")
        other.send(asked)
        wait_for(lambda: connections(project) == 2, "the other request")
        buyer.close()
        wait_for(lambda: connections(project) == 1, "the buyer to be gone")
        first.set()
        wait_for(lambda: project.calls() == (2, 0), "the next key")
        if last_stays:
            second.set()
            assert other.response().status == 200
    wait_for(lambda: connections(project) == 0, "both to be gone")
    second.set()
    bought, followed = project.rows(2)
    assert (bought["status"], bought["ended"], followed["attempts"]) == (499, "cancelled", [])
    assert [one["status"] for one in bought["attempts"]] == [401, 200 if last_stays else 0]
    # Who gets the vectors pays for them; where nobody does, who had them bought.
    assert (followed["cost_nanos"] or 0, bought["cost_nanos"] or 0) == ((20, 0) if last_stays else (0, 20))
