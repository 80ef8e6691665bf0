"""During an outage what a fallback answered before is found where it is stored, and not paid for again."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.support.product import Gateway
from tests.support.raw_http import RawConnection, request_bytes
from tests.support.routing import LLAMA, MINI, Routed, cache_of, fails, routed, says, text_of, tried
from tests.support.scripted_upstream import Call


@pytest.fixture
def project(open_gateway: Gateway) -> Iterator[Routed]:
    with routed(open_gateway) as project:
        project.route("fast", MINI, fallbacks=(LLAMA,))
        project.openai.script = fails(500)
        yield project


def test_the_same_question_is_answered_from_under_the_fallbacks_key(project: Routed) -> None:
    assert (cache_of(project.ask()), project.calls()) == ("MISS", (1, 1))
    again = project.ask()
    assert (cache_of(again), text_of(again), tried(again)) == ("HIT", "groq", ("groq", "openai"))
    assert again.header("x-watchllm-model") == "llama-3.1-8b-instant"
    assert project.calls() == (2, 1)
    assert cache_of(project.ask("Another question?")) == "MISS"
    first, second, _ = project.rows(3)
    assert (second["cache"], second["provider"], second["status"]) == ("HIT", "groq", 200)
    assert [(one["provider"], one["status"]) for one in second["attempts"]] == [("openai", 500)]
    assert (first["cost_nanos"] > 0, second["cost_nanos"]) == (True, 0)
    told = project.gateway.explained(again)
    assert (told["outcome"], told["alias"], told["model"]) == ("hit", "fast", "llama-3.1-8b-instant")
    project.openai.script = says("well again")
    assert (cache_of(project.ask()), cache_of(project.ask())) == ("MISS", "HIT")


def test_the_entry_of_a_request_is_where_its_answer_was_stored(project: Routed) -> None:
    first, again = project.ask(), project.ask()
    entries = {project.gateway.explained(one)["entry"] for one in (first, again)}
    assert len(entries) == 1
    purge = ("cache", "purge", "--project", project.project.id, "--entry", entries.pop())
    assert project.installation.run_json(*purge)["invalidated"] == 1
    assert cache_of(project.ask()) == "MISS"


@pytest.mark.parametrize("stored_as", [False, True])
@pytest.mark.parametrize("asked_as", [False, True])
def test_as_a_stream_too(project: Routed, stored_as: bool, asked_as: bool) -> None:
    project.ask(stream=stored_as)
    again = project.ask(stream=asked_as)
    assert (cache_of(again), tried(again)) == ("HIT", ("groq", "openai"))
    assert b"groq" in again.body
    assert again.body.endswith(b"data: [DONE]\n\n") is asked_as


def test_in_another_dialect_too(project: Routed) -> None:
    body: dict[str, Any] = {"model": "fast", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello?"}]}
    assert cache_of(project.gateway.post("/v1/messages", project.project.key, body)) == "MISS"
    again = project.gateway.post("/v1/messages", project.project.key, body)
    assert (cache_of(again), tried(again), again.json()["content"][0]["text"]) == ("HIT", ("groq", "openai"), "groq")
    assert project.calls() == (2, 1)


def test_those_who_wait_for_the_first_are_given_it_as_well(project: Routed) -> None:
    project.ask()
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hello?"}]}
    data = request_bytes("/v1/chat/completions", key=project.project.key, body=body)
    old = request_bytes(
        "/v1/chat/completions", key=project.project.key, body=body, headers={"Cache-Control": "max-age=0"}
    )
    followers = [RawConnection(project.gateway.port) for _ in range(3)]

    def fail_when_all_are_there(call: Call) -> None:
        project.openai.script = fails(500)
        for connection, asked in zip(followers, (data, data, old), strict=True):
            connection.send(asked)
        # Behind them on the way, so that they are there when it is answered.
        assert project.gateway.get("/health").status == 200
        fails(500)(call)

    project.openai.script = fail_when_all_are_there
    first = project.ask()
    others = [connection.response(b"POST") for connection in followers]
    for connection in followers:
        connection.close()
    assert {text_of(answer) for answer in (first, *others)} == {"groq"}
    assert [cache_of(answer) for answer in (first, *others)] == ["HIT", "HIT-COALESCED", "HIT-COALESCED", "MISS"]
    assert project.calls() == (3, 2), "one of them wants a newer answer"


def test_while_the_breaker_is_open_nobody_is_called(project: Routed) -> None:
    for _ in range(10):
        assert project.ask().status == 200
    assert project.calls() == (10, 1)
    assert (cache_of(project.ask()), project.calls()) == ("HIT", (10, 1))


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({"Cache-Control": "no-cache"}, "MISS"),
        ({"X-WatchLLM-Cache": "off"}, "BYPASS"),
        ({"Cache-Control": "max-age=0"}, "MISS"),
    ],
)
def test_who_may_not_be_given_it_is_not(project: Routed, headers: dict[str, str], outcome: str) -> None:
    project.ask()
    assert cache_of(project.ask(headers=headers)) == outcome
    assert project.calls() == (2, 2)


def test_it_is_given_too_where_the_first_can_not_be_called_at_all(project: Routed) -> None:
    project.ask()
    with project.installation.control_plane() as plane:
        keys = [key.id for key in plane.provider_keys(project.project.id) if key.provider == "openai"]
    with closing(sqlite3.connect(project.installation.home / "watchllm.db")) as database, database:
        for key in keys:
            database.execute("UPDATE provider_keys SET sealed = randomblob(60) WHERE id = ?", (key,))
    project.route("published", MINI)
    before = project.calls()
    assert (cache_of(project.ask()), project.calls()) == ("HIT", before)
