"""Models on the paths that are passed through: they lead where they lead elsewhere, are allowed or not, and metered."""

import gzip
import json
from collections.abc import Iterator

import pytest

from tests.e2e.test_passthrough import SECRET, ask, error_of
from tests.e2e.test_usage import row_of
from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawConnection, RawResponse, exchange, request_bytes
from tests.support.scripted_upstream import Call, ScriptedUpstream, scripted_upstream

MODERATIONS = "/v1/moderations"


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """Answers with what it was sent."""

    def echo(call: Call) -> None:
        call.reply(200, call.body)

    with scripted_upstream(echo) as server:
        yield server


def own(gateway: Gateway, upstream: ScriptedUpstream, provider: str = "openai", **settings: str) -> Project:
    """A project whose `provider` is `upstream`."""
    project = gateway.installation.project("models", settings=settings)
    with gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, provider, SECRET, base_url=upstream.base_url)
    return project


def chunked(gateway: Gateway, key: str, path: str, body: bytes, content_type: str) -> RawResponse:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: {content_type}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    pieces = [body[at : at + 7_000] for at in range(0, len(body), 7_000)]
    with RawConnection(gateway.port, timeout=30) as connection:
        connection.send(head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces))
        connection.send(b"0\r\n\r\n")
        return connection.response(b"POST")


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_a_model_leads_to_its_provider_under_the_name_that_it_has_there(
    open_gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    project = own(open_gateway, upstream, "groq")
    answer = ask(
        open_gateway, project.key, MODERATIONS, "POST", b'{ "input": "x\\u00e9", "model": "groq/mod", "n": 1.0 }'
    )
    assert answer.status == 200
    assert answer.body == b'{"input":"x\\u00e9","model":"mod","n":1.0}'
    assert (answer.header("X-WatchLLM-Provider"), answer.header("X-WatchLLM-Model")) == ("groq", "mod")


@pytest.mark.parametrize(
    "body", [b'{ "model": "omni-moderation-latest", "n": 1.0 }', b'{ "input" : "x" }', b'{"model":null}']
)
def test_what_need_not_be_rewritten_goes_up_byte_for_byte(
    open_gateway: Gateway, upstream: ScriptedUpstream, body: bytes
) -> None:
    project = own(open_gateway, upstream)
    assert ask(open_gateway, project.key, MODERATIONS, "POST", body).body == body
    assert chunked(open_gateway, project.key, MODERATIONS, body, "application/json; charset=utf-8").body == body


def test_a_rewritten_body_is_encoded_no_more(open_gateway: Gateway) -> None:
    def describe(call: Call) -> None:
        coding = call.headers.get("content-encoding", "none")
        body = gzip.decompress(call.body) if coding == "gzip" else call.body
        call.reply(200, json.dumps({"coding": coding, "body": body.decode()}).encode())

    with scripted_upstream(describe) as upstream:
        project = own(open_gateway, upstream)
        for model, coding in (("openai/omni", "none"), ("omni-moderation-latest", "gzip")):
            body = gzip.compress(json.dumps({"model": model}).encode())
            data = request_bytes(MODERATIONS, key=project.key, body=body, headers={"Content-Encoding": "gzip"})
            seen = exchange(open_gateway.port, data).json()
            assert seen["coding"] == coding
            assert json.loads(seen["body"]) == {"model": model.removeprefix("openai/")}


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"model": "groq/mod"}, (403, "provider_key_missing")),
        ({"model": "claude-x"}, (403, "provider_key_missing")),
        ({"model": "mystery"}, (404, "model_not_found")),
        ({"model": ["omni-moderation-latest"]}, (400, "invalid_request")),
        (b'{"model":"gpt-4o","model":"omni-moderation-latest"}', (400, "invalid_json")),
        (b"not JSON", (400, "invalid_json")),
    ],
)
def test_what_leads_nowhere_is_not_sent(
    gateway: Gateway, sim: Sim, project: Project, body: object, refused: tuple[int, str]
) -> None:
    assert error_of(ask(gateway, project.key, MODERATIONS, "POST", body)) == refused
    assert sim.calls() == 0


# --- allowed_models ---------------------------------------------------------------------------------------------------


def test_allowed_models_hold_for_json(gateway: Gateway, sim: Sim) -> None:
    project = gateway.installation.project("allowed", settings={"allowed_models": "omni-*"})
    assert (
        ask(gateway, project.key, MODERATIONS, "POST", {"model": "omni-moderation-latest", "input": "x"}).status == 200
    )
    assert sim.calls() == 1
    body = {"model": "text-moderation-latest", "input": "x"}
    assert error_of(ask(gateway, project.key, MODERATIONS, "POST", body)) == (403, "model_not_allowed")
    encoded = json.dumps(body).encode()
    answer = chunked(gateway, project.key, MODERATIONS, encoded, "application/json")
    assert error_of(answer) == (403, "model_not_allowed")
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/json, text/plain"):
        answer = chunked(gateway, project.key, MODERATIONS, encoded, content_type)
        assert error_of(answer) == (403, "model_not_allowed")
    assert sim.calls() == 1
    row = row_of(gateway, project, 1)
    assert (row["model"], row["provider"], row["status"]) == ("text-moderation-latest", "openai", 403)


# --- usage ------------------------------------------------------------------------------------------------------------


def test_tokens_of_images_are_metered_and_priced(gateway: Gateway, sim: Sim, project: Project) -> None:
    body = {"model": "gpt-4o-mini", "prompt": "A cat"}
    answer = ask(gateway, project.key, "/v1/images/generations", "POST", body)
    used = answer.json()["usage"]
    row = row_of(gateway, project)
    assert (row["model"], row["provider"], row["endpoint"]) == ("gpt-4o-mini", "openai", "images")
    assert (row["input_tokens"], row["output_tokens"]) == (used["input_tokens"], used["output_tokens"])
    # gpt-4o-mini: 0.15 and 0.60 dollars a million tokens.
    assert row["cost_nanos"] == used["input_tokens"] * 150 + used["output_tokens"] * 600


@pytest.mark.parametrize(
    "answer", [b"[1]", b"{", b'{"usage":7,"model":8}', b'{"usage":{"type":"duration","seconds":9}}']
)
def test_an_answer_that_tells_no_tokens_passes_all_the_same(open_gateway: Gateway, answer: bytes) -> None:
    with scripted_upstream(lambda call: call.reply(200, answer)) as upstream:
        project = own(open_gateway, upstream)
        assert ask(open_gateway, project.key, MODERATIONS, "POST", {}).body == answer
        row = row_of(open_gateway, project)
    assert (row["status"], row["input_tokens"] or 0, row["cost_nanos"]) == (200, 0, None)


def test_a_model_that_only_the_answer_names_is_in_the_row(open_gateway: Gateway) -> None:
    answer = b'{"model":"gpt-4o-mini","usage":{"prompt_tokens":10,"completion_tokens":0}}'
    with scripted_upstream(lambda call: call.reply(200, answer)) as upstream:
        project = own(open_gateway, upstream)
        assert ask(open_gateway, project.key, MODERATIONS, "POST", {}).body == answer
        row = row_of(open_gateway, project)
    assert (row["model"], row["input_tokens"], row["cost_nanos"]) == ("gpt-4o-mini", 10, 1500)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (MODERATIONS, b'{"input":"x"}'),
        (MODERATIONS, b'{"input":"x","model":null}'),
        ("/v1/images/generations", b'{"prompt":"a cat"}'),
        ("/v1/batches", b'{"input_file_id":"file-1","endpoint":"/v1/chat/completions","completion_window":"24h"}'),
        ("/v1/threads/thread_1/runs", b'{"assistant_id":"asst_1"}'),
        ("/v1/images/generations", b""),
    ],
)
def test_who_may_use_some_models_only_has_to_name_one(
    open_gateway: Gateway, upstream: ScriptedUpstream, path: str, body: bytes
) -> None:
    project = own(open_gateway, upstream, allowed_models="gpt-4o-mini")
    answer = ask(open_gateway, project.key, path, "POST", body)
    assert (answer.status, answer.json()["error"]["code"]) == (403, "model_not_allowed")
    assert not upstream.calls
    assert ask(open_gateway, project.key, "/v1/files", "GET", b"").status == 200
