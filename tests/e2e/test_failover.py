"""Where a request goes and who answers when the first does not: aliases, weights and fallbacks, through the socket."""

import json
from collections.abc import Iterator

import pytest

from tests.support.embeddings import MODEL, vectors
from tests.support.product import Gateway, Sim
from tests.support.raw_http import RawConnection, RawResponse, request_bytes
from tests.support.routing import (
    LLAMA,
    MINI,
    Asks,
    Routed,
    cache_of,
    fails,
    in_turn,
    routed,
    says,
    stream_of,
    text_of,
    tried,
)
from tests.support.scripted_upstream import Call
from watchllm.domain.snapshot import RouteRecord

NO_CACHE = {"Cache-Control": "no-store"}


@pytest.fixture
def project(open_gateway: Gateway) -> Iterator[Routed]:
    with routed(open_gateway) as project:
        yield project


def chat(project: Routed) -> RawResponse:
    return project.ask()


def chat_streamed(project: Routed) -> RawResponse:
    return project.ask(stream=True)


def messages(project: Routed) -> RawResponse:
    body = {"model": "fast", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello?"}]}
    return project.gateway.post("/v1/messages", project.project.key, body)


def messages_streamed(project: Routed) -> RawResponse:
    body = {"model": "fast", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "Hello?"}]}
    return project.gateway.post("/v1/messages", project.project.key, body)


def responses(project: Routed) -> RawResponse:
    return project.gateway.post("/v1/responses", project.project.key, {"model": "fast", "input": "Hello?"})


def responses_streamed(project: Routed) -> RawResponse:
    body = {"model": "fast", "input": "Hello?", "stream": True}
    return project.gateway.post("/v1/responses", project.project.key, body)


WAYS = [chat, chat_streamed, messages, messages_streamed, responses, responses_streamed]


# --- where it goes ----------------------------------------------------------------------------------------------------


def test_an_alias_set_by_the_command_leads_to_its_model_at_once(project: Routed) -> None:
    assert project.ask(model="quick").status == 404
    project.installation.run("route", "set", "quick", "--project", project.project.id, "--to", LLAMA)
    answer = project.ask(model="quick")
    assert (text_of(answer), tried(answer)) == ("groq", ("groq", None))
    assert answer.header("x-watchllm-model") == "llama-3.1-8b-instant"
    assert answer.json()["model"] == "llama-3.1-8b-instant"
    assert cache_of(project.ask(model=LLAMA)) == "HIT"  # The model's own name is the same question.
    project.installation.run("route", "remove", "quick", "--project", project.project.id)
    assert project.ask(model="quick").status == 404


def test_questions_are_shared_by_weight_and_each_goes_the_same_way(project: Routed) -> None:
    project.route("fast", (MINI, 3), (LLAMA, 1))
    first = [text_of(project.ask(f"Question {number}", headers=NO_CACHE)) for number in range(300)]
    # Drawn for a new project each time: 6 standard deviations are 0.15.
    assert abs(first.count("openai") / 300 - 0.75) < 0.15
    again = [text_of(project.ask(f"Question {number}", headers=NO_CACHE)) for number in range(40)]
    assert again == first[:40]


def test_a_weighted_choice_that_fails_is_followed_by_the_others(project: Routed) -> None:
    project.route("fast", (MINI, 1), (LLAMA, 1))
    project.openai.script = fails(500)
    assert {text_of(project.ask(f"Question {number}")) for number in range(12)} == {"groq"}
    assert len(project.openai.calls) > 0


# --- fallbacks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_the_next_of_the_chain_answers_in_every_dialect(project: Routed, way: Asks) -> None:
    project.route("fast", "openai/gpt-4o", fallbacks=(MINI, LLAMA))
    project.openai.script = fails(503)
    answer = way(project)
    assert answer.status == 200, answer
    assert b"groq" in answer.body
    assert tried(answer) == ("groq", "openai")
    assert project.calls() == (2, 1)


def test_a_fallback_within_one_provider_is_told_too(project: Routed) -> None:
    project.route("fast", "openai/gpt-4o", fallbacks=(MINI,))
    project.openai.script = in_turn(fails(500), says("smaller"))
    answer = project.ask()
    assert (text_of(answer), tried(answer)) == ("smaller", ("openai", "openai"))
    assert answer.header("x-watchllm-model") == "gpt-4o-mini"


@pytest.mark.parametrize("way", WAYS)
def test_when_all_fail_the_last_failure_is_passed_on_and_told(project: Routed, way: Asks) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script = lambda call: call.hang_up()
    project.groq.script = fails(503, retry_after="7")
    answer = way(project)
    assert (answer.status, answer.header("retry-after")) == (503, "7")
    assert b"scripted 503" in answer.body
    assert tried(answer) == ("groq", "openai")
    assert way(project).status == 503  # And is not kept.
    assert len(project.groq.calls) == 2


def test_the_mistake_of_a_client_is_nobody_elses_to_answer(project: Routed) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script = fails(400)
    assert project.ask().status == 400
    assert project.calls() == (1, 0)


def test_a_fallback_that_has_no_words_for_the_request_does_not_hide_what_the_first_said(
    open_gateway: Gateway, project: Routed
) -> None:
    with project.installation.control_plane() as plane:
        plane.add_provider_key(
            project.project.id, "claude", "sk-claude", base_url=project.groq.base_url, dialect="messages"
        )
    project.route("fast", MINI, fallbacks=("claude/some-model",))
    project.openai.script = fails(503)
    answer = project.ask(n=3)  # Several choices: nothing like it in Anthropic's dialect.
    assert answer.status == 503, answer
    assert project.calls() == (1, 0)
    assert project.ask(model="claude/some-model", n=3).status == 400


def test_embeddings_go_to_the_next_key_and_never_to_another_model(project: Routed) -> None:
    project.add_key("openai", "two", priority=1)
    project.route("vectors", f"openai/{MODEL}", fallbacks=("openai/text-embedding-3-large", "groq/embed"))
    body = {"model": "vectors", "input": ["a", "bc"]}
    project.openai.script = fails(503)
    failed = project.gateway.post("/v1/embeddings", project.project.key, body)
    assert (failed.status, project.calls()) == (503, (1, 0))
    project.openai.script = in_turn(fails(401), vectors)
    answer = project.gateway.post("/v1/embeddings", project.project.key, body)
    assert (answer.status, tried(answer), project.calls()) == (200, ("openai", None), (3, 0))
    first, second = project.rows(2)
    assert [(one["status"], one["model"]) for one in first["attempts"]] == [(503, MODEL)]
    assert [(one["status"], one["cost"]) for one in second["attempts"]] == [(401, 0), (200, 40)]
    assert second["cost_nanos"] == 40


# --- the cache --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
def test_the_answer_is_kept_under_the_target_that_gave_it(project: Routed, streamed: bool) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script = fails(500)
    assert cache_of(project.ask(stream=streamed)) == "MISS"
    assert cache_of(project.ask(model=LLAMA)) == "HIT"  # Whoever asks that one finds it there,
    project.openai.script = says("well again")
    answer = project.ask()
    assert (cache_of(answer), text_of(answer)) == ("MISS", "well again")  # and nobody under the first's name.
    assert cache_of(project.ask()) == "HIT"
    assert text_of(project.ask(model=LLAMA)) == "groq"


def test_followers_share_a_fallback(project: Routed) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,))
    body = {"model": "fast", "messages": [{"role": "user", "content": "Together?"}]}
    data = request_bytes("/v1/chat/completions", key=project.project.key, body=body)
    followers = [RawConnection(project.gateway.port) for _ in range(3)]

    def fail_when_all_are_there(call: Call) -> None:
        for connection in followers:
            connection.send(data)
        # Behind them on the way, so that they are there when it is answered.
        assert project.gateway.get("/health").status == 200
        fails(500)(call)

    project.openai.script = fail_when_all_are_there
    first = project.gateway.post("/v1/chat/completions", project.project.key, body)
    others = [connection.response(b"POST") for connection in followers]
    for connection in followers:
        connection.close()
    assert [text_of(answer) for answer in (first, *others)] == ["groq"] * 4
    assert {answer.header("x-watchllm-provider") for answer in others} == {"groq"}
    assert sorted(str(cache_of(answer)) for answer in others) == ["HIT-COALESCED"] * 3
    assert project.calls() == (1, 1)
    rows = project.rows(4)
    assert sorted(len(row["attempts"]) for row in rows) == [0, 0, 0, 2]


# --- after the first byte ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "told"),
    [
        (chat_streamed, lambda events: "error" in json.loads(events[-1].removeprefix(b"data: "))),
        (messages_streamed, lambda events: events[-1].startswith(b"event: error\n")),
        (responses_streamed, lambda events: b'"type":"error"' in events[-1].replace(b": ", b":")),
    ],
)
def test_after_the_first_byte_the_error_is_told_inside_the_stream(project: Routed, way: Asks, told: object) -> None:
    def breaks_off(call: Call) -> None:
        call.send_response_only(200)
        call.send_header("content-type", "text/event-stream")
        call.end_headers()
        call.wfile.write(stream_of("llama", "Half an ans", ends=False))
        call.hang_up()

    project.route("fast", LLAMA, fallbacks=(MINI,), retries=2)
    project.groq.script = breaks_off
    answer = way(project)
    assert answer.status == 200
    assert b"Half an ans" in answer.body
    events = [event for event in answer.body.split(b"\n\n") if event]
    assert callable(told)
    assert told(events), events[-1]
    assert project.calls() == (0, 1)
    project.groq.script = says("whole")
    assert cache_of(way(project)) == "MISS"
    assert [row["ended"] for row in project.rows(2)] == ["cut", "complete"]


# --- what is left out -------------------------------------------------------------------------------------------------


def test_what_has_no_price_is_no_fallback_of_a_project_that_refuses_it(open_gateway: Gateway) -> None:
    with routed(open_gateway, {"unpriced": "refuse"}) as project:
        project.route("fast", MINI, fallbacks=("groq/nobody-knows-its-price",))
        project.openai.script = fails(500)
        assert project.ask().status == 500
        assert project.calls() == (1, 0)
        project.route("fast", MINI, fallbacks=("groq/nobody-knows-its-price", LLAMA))
        assert text_of(project.ask()) == "groq"
        assert project.calls() == (2, 1)


def test_a_test_key_never_leaves_the_simulator(open_gateway: Gateway, sim: Sim, project: Routed) -> None:
    key = project.installation.key(project.project.id, test=True)
    project.route("fast", MINI, (LLAMA, 5), fallbacks=("openai/gpt-4o",), retries=1, hedge_after=0.05)
    project.route("sim/*", LLAMA)
    with project.installation.control_plane() as plane:
        plane.set_route(project.project.id, RouteRecord("gpt-*", ((LLAMA, 1),)))
    for model in ("fast", "sim/echo", "gpt-4o", MINI, "groq/anything", "unknown"):
        answer = open_gateway.chat(key, "Hello?", model=model)
        assert (answer.status, answer.header("x-watchllm-provider")) == (200, "sim"), answer
    open_gateway.post("/v1/embeddings", key, {"model": "fast", "input": ["x"]})
    open_gateway.post("/v1/messages", key, {"model": "fast", "max_tokens": 5, "messages": []})
    open_gateway.post("/v1/moderations", key, {"model": MINI, "input": "x"})
    assert project.calls() == (0, 0)
    assert sim.calls() == 0  # That is the instance's OpenAI here.


def test_an_alias_is_listed_among_the_models_and_a_pattern_is_not(project: Routed) -> None:
    project.route("fast", f"openai/{MINI}")
    project.route("team-*", f"openai/{MINI}")
    listed = project.gateway.get("/v1/models", project.project.key).json()
    assert isinstance(listed, dict)
    owners = {model["id"]: model["owned_by"] for model in listed["data"]}
    assert owners["fast"] == "route"
    assert "team-*" not in owners
    one = project.gateway.get("/v1/models/fast", project.project.key).json()
    assert isinstance(one, dict)
    assert one["id"] == "fast"
