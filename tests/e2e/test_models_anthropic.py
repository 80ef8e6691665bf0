"""`GET /v1/models` for clients of Anthropic's API, and for both where the provider is Anthropic."""

import json
from collections.abc import Iterator

import anthropic
import pytest

from tests.support.product import Gateway, Project
from tests.support.scripted_upstream import Call, ScriptedUpstream, scripted_upstream

VERSION = {"anthropic-version": "2023-06-01"}
RELEASED = "2026-05-04T12:30:00Z"
RELEASED_S = 1_777_897_800
MODELS = [
    {"type": "model", "id": f"claude-new-{number}", "display_name": f"Claude New {number}", "created_at": RELEASED}
    for number in range(30)
]


def anthropics(call: Call) -> None:
    """Anthropic's models, as its reference describes the endpoint: 20 on a page, refused without a version."""
    path, _, query = call.path.partition("?")
    if "anthropic-version" not in call.headers:
        call.reply(400, b'{"type":"error","error":{"type":"invalid_request_error","message":"no version"}}')
    elif path == "/v1/models":
        page = MODELS[: int(query.removeprefix("limit=") or 20)]
        more = {"has_more": len(page) < len(MODELS), "first_id": page[0]["id"], "last_id": page[-1]["id"]}
        call.reply(200, json.dumps({"data": page, **more}).encode())
    elif path == "/v1/models/claude-odd":
        call.reply(400, b'{"type":"error","error":{"type":"invalid_request_error","message":"odd"}}')
    else:
        call.reply(200, json.dumps({**MODELS[0], "id": path.rpartition("/")[2]}).encode())


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream(anthropics) as server:
        yield server


@pytest.fixture
def project(open_gateway: Gateway, upstream: ScriptedUpstream) -> Project:
    project = open_gateway.installation.project("models")
    with open_gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, "anthropic", "sk-own", base_url=upstream.base_url)
    return project


@pytest.fixture
def client(open_gateway: Gateway, project: Project) -> Iterator[anthropic.Anthropic]:
    url = f"http://127.0.0.1:{open_gateway.port}"
    with anthropic.Anthropic(base_url=url, api_key=project.key, max_retries=0) as client:
        yield client


def test_the_listing_is_anthropics_to_its_clients(client: anthropic.Anthropic) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {model["id"] for model in MODELS} <= listed.keys()
    new = listed["claude-new-7"]
    assert (new.type, new.display_name) == ("model", "claude-new-7")
    assert int(new.created_at.timestamp()) == RELEASED_S
    assert listed["sim/echo"].created_at.timestamp() == 0


def test_it_is_one_page_that_names_its_ends(open_gateway: Gateway, project: Project) -> None:
    page = open_gateway.get("/v1/models", project.key, headers=VERSION).json()
    assert set(page) == {"data", "has_more", "first_id", "last_id"}
    assert page["has_more"] is False
    assert [page["first_id"], page["last_id"]] == [page["data"][0]["id"], page["data"][-1]["id"]]
    assert set(page["data"][0]) == {"type", "id", "display_name", "created_at"}


def test_without_any_model_it_has_no_ends(open_gateway: Gateway) -> None:
    project = open_gateway.installation.project("none", settings={"allowed_models": "nothing"})
    page = open_gateway.get("/v1/models", project.key, headers=VERSION).json()
    assert page == {"data": [], "has_more": False, "first_id": None, "last_id": None}


def test_the_same_models_are_openais_to_its_clients(open_gateway: Gateway, project: Project) -> None:
    answer = open_gateway.get("/v1/models", project.key).json()
    assert answer["object"] == "list"
    new = {"id": "claude-new-7", "object": "model", "created": RELEASED_S, "owned_by": "anthropic"}
    assert new in answer["data"]


def test_one_model_in_the_clients_form(open_gateway: Gateway, project: Project, client: anthropic.Anthropic) -> None:
    told = client.models.retrieve("claude-new-3")
    assert (told.id, told.type, told.display_name) == ("claude-new-3", "model", "Claude New 0")
    other = open_gateway.get("/v1/models/claude-new-3", project.key).json()
    assert other == {"id": "claude-new-3", "object": "model", "created": RELEASED_S, "owned_by": "anthropic"}
    known = client.models.retrieve("sim/echo")
    assert (known.id, known.type, known.created_at.timestamp()) == ("sim/echo", "model", 0)


def test_an_error_is_told_in_the_clients_form(open_gateway: Gateway, project: Project) -> None:
    ours = open_gateway.get("/v1/models/claude-odd", project.key)
    assert (ours.status, ours.json()["error"]["message"]) == (400, "odd")
    assert "type" not in ours.json()
    theirs = open_gateway.get("/v1/models/claude-odd", project.key, headers=VERSION)
    assert theirs.json()["type"] == "error"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"id":7}'])
def test_what_cannot_be_read_is_the_providers_error(
    open_gateway: Gateway, project: Project, upstream: ScriptedUpstream, body: bytes
) -> None:
    upstream.script = lambda call: call.reply(200, body)
    answer = open_gateway.get("/v1/models/claude-new-3", project.key)
    assert (answer.status, answer.json()["error"]["code"]) == (502, "provider_error")
