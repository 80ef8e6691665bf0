"""A project's own provider keys through the socket: which is used, what follows when it is refused, who is told."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.embeddings import MODEL, vectors
from tests.support.product import UPSTREAM_KEY, Gateway, Sim
from tests.support.raw_http import RawResponse
from tests.support.routing import LLAMA, MINI, Asks, Routed, by_key, fails, routed, says, text_of, tried
from tests.support.scripted_upstream import Call
from watchllm.analytics import key_use_log

INSTANCE_MODEL = "gpt-4o-mini"


@pytest.fixture
def project(open_gateway: Gateway) -> Iterator[Routed]:
    with routed(open_gateway) as project:
        yield project


def chat(project: Routed) -> RawResponse:
    return project.ask(model=MINI)


def chat_streamed(project: Routed) -> RawResponse:
    return project.ask(model=MINI, stream=True)


def messages(project: Routed) -> RawResponse:
    body = {"model": LLAMA, "max_tokens": 9, "messages": [{"role": "user", "content": "Hello?"}]}
    return project.gateway.post("/v1/messages", project.project.key, body)


def responses(project: Routed) -> RawResponse:
    return project.gateway.post("/v1/responses", project.project.key, {"model": LLAMA, "input": "Hello?"})


def embeddings(project: Routed) -> RawResponse:
    body = {"model": f"openai/{MODEL}", "input": "Hello?"}
    return project.gateway.post("/v1/embeddings", project.project.key, body)


WAYS = [chat, chat_streamed, messages, responses, embeddings]


def key_ids(project: Routed, provider: str) -> list[str]:
    with project.installation.control_plane() as plane:
        return [key.id for key in plane.provider_keys(project.project.id) if key.provider == provider]


def states(project: Routed) -> dict[str, dict[str, Any]]:
    """What `watchllm provider-key list` says of the project's keys, by id."""
    listed = project.installation.run_json("provider-key", "list", "--project", project.project.id)
    return {key["id"]: key for key in listed}


def damage(project: Routed, key_id: str) -> None:
    """Make a key such that the proxies' secret does not open it, and publish that."""
    with sqlite3.connect(project.installation.home / "watchllm.db") as database:
        database.execute("UPDATE provider_keys SET sealed = randomblob(60) WHERE id = ?", (key_id,))
    database.close()
    project.route("published", MINI)


# --- which is used ----------------------------------------------------------------------------------------------------


def test_the_key_of_the_lowest_priority_is_used_and_the_row_names_it(project: Routed) -> None:
    last = project.add_key("openai", "last", priority=9)
    first = project.add_key("openai", "first", priority=1)
    project.installation.run("provider-key", "remove", key_ids(project, "openai")[0])
    project.openai.script = by_key(first=says("first"), last=says("last"))
    assert text_of(chat(project)) == "first"
    [row] = project.rows(1)
    assert [one["key_id"] for one in row["attempts"]] == [first]
    project.installation.run("provider-key", "remove", first)
    assert text_of(project.ask("Another?", model=MINI)) == "last"
    assert project.rows(2)[1]["attempts"][0]["key_id"] == last


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("way", WAYS)
def test_a_refused_key_is_followed_by_the_next_and_the_project_is_told(project: Routed, way: Asks, status: int) -> None:
    provider, upstream = ("groq", project.groq) if way in (messages, responses) else ("openai", project.openai)
    [first] = key_ids(project, provider)
    second = project.add_key(provider, "two", priority=1)
    upstream.script = by_key(one=fails(status), two=vectors if way is embeddings else says("second"))
    answer = way(project)
    assert (answer.status, tried(answer)) == (200, (provider, None)), answer
    assert len(upstream.calls) == 2
    [row] = project.rows(1)
    assert [(one["key_id"], one["status"]) for one in row["attempts"]] == [(first, status), (second, 200)]
    assert row["cost_nanos"] == row["attempts"][1]["cost"] > 0
    with project.installation.control_plane() as plane, plane.database.reading() as connection:
        known = key_use_log.states(connection, project.project.id)
    assert (known[first].refused_ms is None, known[second].refused_ms is None) == (False, True)


def test_the_list_of_keys_and_the_audit_tell_which_is_refused(project: Routed) -> None:
    [first] = key_ids(project, "openai")
    second = project.add_key("openai", "two", priority=1)
    unused = project.add_key("openai", "three", priority=2)
    project.openai.script = by_key(one=fails(401), two=says("second"))
    for text in ("One?", "Two?"):
        assert project.ask(text, model=MINI).status == 200
    project.rows(2)
    shown = states(project)
    assert [shown[key]["state"] for key in (first, second, unused)] == ["refused", "used", "unused"]
    audit = project.installation.run_json("audit", "list", "--project", project.project.id)
    uses = {line["object_id"]: line["details"] for line in audit if line["action"] == "provider_key.use"}
    assert {key: (use["uses"], use["refused"]) for key, use in uses.items()} == {first: (2, 2), second: (2, 0)}
    assert "sk-0123456789" not in str(shown) + str(audit) + project.gateway.process.log()


@pytest.mark.parametrize("way", WAYS)
def test_when_all_keys_are_refused_the_client_learns_that_and_nothing_of_the_account(
    project: Routed, way: Asks
) -> None:
    provider, upstream = ("groq", project.groq) if way in (messages, responses) else ("openai", project.openai)
    project.add_key(provider, "two", priority=1)
    upstream.script = fails(401)
    answer = way(project)
    assert answer.status == 502
    assert b"scripted" not in answer.body
    [row] = project.rows(1)
    assert ([one["status"] for one in row["attempts"]], row["error"]) == ([401, 401], "provider_auth_failed")
    assert {key["state"] for key in states(project).values() if key["provider"] == provider} == {"refused"}


# --- keys at their limit ----------------------------------------------------------------------------------------------


def test_a_spent_key_is_followed_by_the_next_then_by_the_provider_and_then_passed_on(project: Routed) -> None:
    project.add_key("openai", "two", priority=1)
    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script = by_key(one=fails(429, retry_after="30"), two=says("second"))
    assert text_of(project.ask("One?")) == "second"
    project.openai.script = fails(429, retry_after="30")
    answer = project.ask("Two?")
    assert (text_of(answer), tried(answer)) == ("groq", ("groq", "openai"))
    project.groq.script = fails(429, retry_after="12")
    answer = project.ask("Three?")
    assert (answer.status, answer.header("retry-after"), tried(answer)) == (429, "12", ("groq", "openai"))
    assert b"scripted 429" in answer.body
    assert project.calls() == (6, 2)
    assert [len(row["attempts"]) for row in project.rows(3)] == [2, 3, 3]


# --- the instance's key -----------------------------------------------------------------------------------------------


def test_a_key_that_does_not_open_is_left_out_and_the_others_are_used(project: Routed) -> None:
    [first] = key_ids(project, "openai")
    project.add_key("openai", "two", priority=1)
    project.openai.script = by_key(two=says("second"))
    damage(project, first)
    assert text_of(chat(project)) == "second"
    project.openai.script = by_key(two=vectors)
    assert embeddings(project).status == 200
    assert len(project.openai.calls) == 2
    assert text_of(project.ask(model=LLAMA)) == "groq"


def test_where_no_key_opens_the_answer_says_so(project: Routed) -> None:
    damage(project, key_ids(project, "openai")[0])
    for way in (chat, chat_streamed, embeddings):
        answer = way(project)
        assert (answer.status, answer.json()["error"]["code"]) == (403, "provider_key_missing")
        assert "WATCHLLM_SECRET_KEY" in answer.json()["error"]["message"]
    assert project.calls() == (0, 0)
    project.route("fast", MINI, fallbacks=(LLAMA,))
    assert text_of(project.ask()) == "groq"


def test_the_instance_key_follows_unless_the_project_may_not_use_it(open_gateway: Gateway, sim: Sim) -> None:
    with routed(open_gateway) as project:
        project.installation.run("provider-key", "remove", key_ids(project, "openai")[0])
        with project.installation.control_plane() as plane:
            own = plane.add_provider_key(project.project.id, "openai", "sk-own-0123456789")
        damage(project, own.id)  # It leads to the provider's own address, to which no test may go.
        assert project.ask(model=INSTANCE_MODEL).status == 200
        assert [one["headers"]["authorization"] for one in sim.requests()] == [f"Bearer {UPSTREAM_KEY}"]
        project.installation.run("project", "set", project.project.id, "instance_keys=off")
        refused = project.ask("Another?", model=INSTANCE_MODEL)
        assert (refused.status, refused.json()["error"]["code"]) == (403, "provider_key_missing")
        assert sim.calls() == 1
        project.installation.run("provider-key", "remove", own.id)
        refused = project.ask("Another?", model=INSTANCE_MODEL)
        assert (refused.status, refused.json()["error"]["code"]) == (403, "provider_key_missing")
        project.installation.run("project", "set", project.project.id, "instance_keys=on")
        assert project.ask("Another?", model=INSTANCE_MODEL).status == 200


def test_what_was_moved_to_an_address_of_the_projects_own_never_goes_to_the_instances(
    project: Routed, sim: Sim
) -> None:
    project.openai.script = fails(401)
    assert chat(project).status == 502
    assert sim.calls() == 0


# --- other paths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403, 429])
def test_json_on_other_paths_goes_to_the_next_key(project: Routed, status: int) -> None:
    project.add_key("openai", "two", priority=1)
    received: list[tuple[str, bytes]] = []

    def echo(call: Call) -> None:
        received.append((call.command + " " + call.path, call.body))
        call.reply(200, b'{"usage": {"input_tokens": 3, "output_tokens": 0}}')

    project.openai.script = by_key(one=fails(status), two=echo)
    key = project.project.key
    images = {"model": MINI, "prompt": "x"}
    assert project.gateway.post("/v1/images/generations?size=1", key, images).status == 200
    assert project.gateway.post("/v1/batches", key, {"input_file_id": "f"}).status == 200  # An object of its own.
    assert received == [
        ("POST /v1/images/generations?size=1", b'{"model":"gpt-4o-mini","prompt":"x"}'),
        ("POST /v1/batches", b'{"input_file_id":"f"}'),
    ]
    assert [[one["status"] for one in row["attempts"]] for row in project.rows(2)] == [[status, 200]] * 2


def test_what_may_have_been_done_on_other_paths_is_not_done_again(project: Routed) -> None:
    project.add_key("openai", "two", priority=1)
    project.route(MINI, MINI, fallbacks=(LLAMA,), retries=3)
    # In this order: what an old connection loses is sent once more over a new one, whoever asked.
    for script in (lambda call: call.hang_up(), fails(500)):
        project.openai.script = script
        assert project.gateway.post("/v1/images/generations", project.project.key, {"model": MINI}).status >= 500
    assert project.calls() == (2, 0)


def test_on_other_paths_all_refused_is_told_as_elsewhere_and_a_limit_is_passed_on(project: Routed) -> None:
    project.add_key("openai", "two", priority=1)
    project.openai.script = fails(401)
    refused = project.gateway.post("/v1/moderations", project.project.key, {"model": MINI, "input": "x"})
    assert (refused.status, refused.json()["error"]["code"]) == (502, "provider_auth_failed")
    project.openai.script = fails(429, retry_after="9")
    spent = project.gateway.post("/v1/moderations", project.project.key, {"model": MINI, "input": "x"})
    assert (spent.status, spent.header("retry-after")) == (429, "9")
    assert len(project.openai.calls) == 4


def test_objects_of_a_project_never_come_under_the_instances_key(open_gateway: Gateway, sim: Sim) -> None:
    with routed(open_gateway) as project:
        project.installation.run("provider-key", "remove", key_ids(project, "openai")[0])
        with project.installation.control_plane() as plane:
            own = plane.add_provider_key(project.project.id, "openai", "sk-own-0123456789")
        damage(project, own.id)  # Only the instance's key is left.
        refused = open_gateway.post("/v1/batches", project.project.key, {"input_file_id": "f"})
        assert (refused.status, refused.json()["error"]["code"]) == (403, "provider_key_missing")
        assert sim.calls() == 0
        moderated = open_gateway.post("/v1/moderations", project.project.key, {"model": MINI, "input": "x"})
        assert (moderated.status, sim.calls()) == (200, 1)
