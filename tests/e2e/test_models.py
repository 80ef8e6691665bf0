"""`GET /v1/models`: what the providers of a project say that they offer, by the names that lead there."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.scripted_upstream import Call, Script, ScriptedUpstream, scripted_upstream

OFFERED = ("gpt-new", "text-embedding-9", "ft:gpt-new:acme::1", "gpt-4o-mini")


def offers(*models: str) -> Script:
    """A provider that offers `models`."""
    data = [{"id": model, "object": "model", "created": 1_700_000_000, "owned_by": "them"} for model in models]
    return lambda call: call.reply(200, json.dumps({"object": "list", "data": data}).encode())


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream(offers(*OFFERED)) as server:
        yield server


def behind(
    gateway: Gateway, upstream: ScriptedUpstream, provider: str = "openai", secret: str = "sk-own-1", **settings: str
) -> Project:
    """A project whose `provider` is `upstream`."""
    project = gateway.installation.project("models", settings=settings)
    with gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, provider, secret, base_url=upstream.base_url)
    return project


def listed(gateway: Gateway, project: Project, provider: str = "openai") -> list[str]:
    answer = gateway.get("/v1/models", project.key)
    assert answer.status == 200, answer
    return [model["id"] for model in answer.json()["data"] if model["owned_by"] == provider]


def test_a_provider_is_asked_what_it_offers_with_the_projects_key(
    open_gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    keys: list[str | None] = []

    def note(call: Call) -> None:
        keys.append(call.headers.get("authorization"))
        offers(*OFFERED)(call)

    upstream.script = note
    project = behind(open_gateway, upstream)
    assert listed(open_gateway, project) == ["gpt-new", "text-embedding-9", "ft:gpt-new:acme::1", "gpt-4o-mini"]
    assert (upstream.calls, keys) == (["GET /v1/models"], ["Bearer sk-own-1"])
    answer = open_gateway.get("/v1/models", project.key).json()
    assert {"id": "gpt-new", "object": "model", "created": 1_700_000_000, "owned_by": "openai"} in answer["data"]
    assert {"id": "sim/echo", "object": "model", "created": 0, "owned_by": "sim"} in answer["data"]


def test_a_model_is_as_old_as_the_list_says(open_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    project = behind(open_gateway, upstream)
    path = "/v1/models/gpt-4o-mini"
    told = {"id": "gpt-4o-mini", "object": "model", "created": 1_700_000_000, "owned_by": "openai"}
    assert open_gateway.get(path, project.key).json() == told
    assert told in open_gateway.get("/v1/models", project.key).json()["data"]
    assert upstream.calls == ["GET /v1/models"]
    upstream.script = lambda call: call.reply(500, b"{}")
    other = behind(open_gateway, upstream, secret="sk-own-2")
    assert open_gateway.get(path, other.key).json() == told | {"created": 0}, "the price book knows no age"


def test_what_is_listed_can_be_asked_for(open_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    project = behind(open_gateway, upstream, "mine")
    assert listed(open_gateway, project, "mine") == [f"mine/{model}" for model in OFFERED]
    asked: list[str] = []

    def note(call: Call) -> None:
        asked.append(json.loads(call.body)["model"])
        call.reply(400, b"{}")

    upstream.script = note
    for name in listed(open_gateway, project, "mine"):
        assert open_gateway.chat(project.key, "Hi", model=name).status == 400
    assert asked == list(OFFERED)


def test_a_list_is_asked_for_once_by_however_many(open_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    project = behind(open_gateway, upstream)
    with ThreadPoolExecutor(8) as threads:
        lists = list(threads.map(lambda _: listed(open_gateway, project), range(24)))
    assert all(names == lists[0] for names in lists)
    assert len(upstream.calls) == 1


def test_a_projects_own_models_are_only_its_own(open_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    def by_key(call: Call) -> None:
        offers("gpt-of-" + call.headers["authorization"].removeprefix("Bearer "))(call)

    upstream.script = by_key
    projects = {secret: behind(open_gateway, upstream, secret=secret) for secret in ("sk-own-1", "sk-own-2")}
    for _ in range(2):
        for secret, project in projects.items():
            assert listed(open_gateway, project) == [f"gpt-of-{secret}"]
    # A key that is changed is another one.
    with open_gateway.installation.control_plane() as plane:
        other = open_gateway.installation.project("none")
        assert not [name for name in listed(open_gateway, other) if name.startswith("gpt-of-")]
        plane.add_provider_key(other.id, "openai", "sk-own-3", base_url=upstream.base_url)
    assert listed(open_gateway, other) == ["gpt-of-sk-own-3"]


def test_only_what_the_project_may_use_is_listed(open_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    allowed = behind(open_gateway, upstream, allowed_models="gpt-*")
    assert listed(open_gateway, allowed) == ["gpt-new", "gpt-4o-mini"]
    assert listed(open_gateway, allowed, "sim") == []
    none = behind(open_gateway, upstream, allowed_providers="sim")
    assert listed(open_gateway, none) == []
    assert listed(open_gateway, none, "sim") == ["sim/echo"]


FAILURES: dict[str, Script] = {
    "refuses": lambda call: call.reply(401, b'{"error":{}}'),
    "has no list": lambda call: call.reply(404, b"{}"),
    "is down": lambda call: call.hang_up(),
    "leads elsewhere": lambda call: call.reply(302, b"", location="http://127.0.0.1:1/v1/models"),
    "says something else": lambda call: call.reply(200, b'{"data":[{"id":7}]}'),
    "is no JSON": lambda call: call.reply(200, b"<html>"),
    "says too much": lambda call: call.reply(200, b'{"data":[]}' + b" " * (3 << 20)),
    "is silent": lambda call: call.server.hang(call),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("how", FAILURES)
def test_where_a_provider_does_not_say_the_price_book_does(
    open_gateway: Gateway, upstream: ScriptedUpstream, how: str
) -> None:
    upstream.script = FAILURES[how]
    project = behind(open_gateway, upstream)
    names = listed(open_gateway, project)
    assert "gpt-4o-mini" in names
    assert "gpt-new" not in names
    asked = len(upstream.calls)
    assert listed(open_gateway, project) == names
    assert len(upstream.calls) == asked, "not again at once"


def test_names_that_lead_nowhere_are_left_out(open_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    upstream.script = offers("gpt-\n", "", "gpt-é", "gpt-" + "x" * 300, "gpt-fine", *(f"gpt-{n}" for n in range(3_000)))
    names = listed(open_gateway, behind(open_gateway, upstream))
    assert names[0] == "gpt-fine"
    assert len(names) < 2_001


def test_a_test_key_sees_the_simulated_provider_only(open_gateway: Gateway, upstream: ScriptedUpstream) -> None:
    project = behind(open_gateway, upstream)
    key = open_gateway.installation.key(project.id, test=True)
    assert {model["owned_by"] for model in open_gateway.get("/v1/models", key).json()["data"]} == {"sim"}
    assert upstream.calls == []


def test_fine_tuned_models_of_the_instance_are_not_told_to_all(
    installation: Installation, sim: Sim, upstream: ScriptedUpstream
) -> None:
    project = installation.project("shared")
    gateway = installation.start_proxy(environment=upstream_environment(upstream.base_url))
    names = listed(gateway, project)
    assert "gpt-new" in names
    assert not [name for name in names if "ft:" in name]
