"""Usage that is right: asked for and taken out again, estimated where nobody tells it, charged when a client leaves."""

import json
import sqlite3
from typing import Any

import openai
import pytest

from tests.support.journal import usage_in
from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawConnection, RawResponse, exchange, request_bytes
from tests.support.scripted_upstream import Call, scripted_upstream
from tests.support.waiting import wait_for
from watchllm.providers.tokens import estimate

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


def chat(text: str = "Why?", model: str = "gpt-4o-mini", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def row_of(gateway: Gateway, project: Project, number: int = 0) -> dict[str, Any]:
    """The `number`-th row of the project in `usage_logs`, as the recorder writes it."""

    def look() -> dict[str, Any] | None:
        with usage_in(gateway.installation.home) as usage:
            usage.record()
            with sqlite3.connect(usage.database) as connection:
                connection.row_factory = sqlite3.Row
                rows = connection.execute(
                    "SELECT * FROM usage_logs WHERE project_id = ? ORDER BY id", (project.id,)
                ).fetchall()
            connection.close()
        return dict(rows[number]) if len(rows) > number else None

    return wait_for(look, "the usage row")


# --- include_usage -------------------------------------------------------------------------------------------------


def unnamed(body: bytes) -> bytes:
    """A stream without what differs from call to call: its id and time."""
    events = []
    for event in body.split(b"\n\n"):
        if event.startswith(b"data: {"):
            chunk = json.loads(event[6:])
            for field in ("id", "created"):
                event = event.replace(json.dumps(chunk[field]).encode(), b"0", 1)
        events.append(event)
    return b"\n\n".join(events)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}])
def test_a_stream_is_byte_for_byte_what_the_client_would_have_got_without_the_gateway(
    gateway: Gateway, sim: Sim, project: Project, path: str, options: dict[str, Any] | None
) -> None:
    body = chat(stream=True) if path == CHAT else {"model": "gpt-3.5-turbo-instruct", "prompt": "Why?", "stream": True}
    if options is not None:
        body["stream_options"] = options
    ours = gateway.post(path, project.key, body)
    asked = json.loads(sim.requests()[-1]["body"])
    theirs = exchange(sim.port, request_bytes(path, key="any", body=body))
    assert asked["stream_options"]["include_usage"] is True
    assert (ours.status, b'"usage"' in ours.body) == (200, False)
    assert unnamed(ours.body) == unnamed(theirs.body)
    # The usage was read on the way.
    assert row_of(gateway, project)["output_tokens"] > 0


def test_a_client_that_asks_for_usage_gets_the_providers_bytes(gateway: Gateway, sim: Sim, project: Project) -> None:
    body = chat(stream=True, stream_options={"include_usage": True})
    ours = gateway.post(CHAT, project.key, body)
    theirs = exchange(sim.port, request_bytes(CHAT, key="any", body=body))
    assert unnamed(ours.body) == unnamed(theirs.body)
    assert ours.body.count(b'"usage":null') > 1
    assert json.loads(sim.requests()[0]["body"]) == body


@pytest.mark.parametrize("include_usage", [False, True])
def test_the_official_client_sees_usage_only_when_it_asked(
    client: openai.OpenAI, sim: Sim, include_usage: bool
) -> None:
    fields: dict[str, Any] = {"stream_options": {"include_usage": True}} if include_usage else {}
    for _ in range(2):  # A miss, then a hit.
        stream = client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Why?"}], stream=True, **fields
        )
        chunks = list(stream)
        assert sum(chunk.usage is not None for chunk in chunks) == include_usage
        assert all(chunk.choices for chunk in chunks[:-1])
        assert bool(chunks[-1].choices) != include_usage
    assert sim.calls() == 1


# --- estimates -----------------------------------------------------------------------------------------------------


def text_of(answer: RawResponse) -> str:
    """What the model wrote, of a whole answer or a stream."""
    if not answer.body.startswith(b"data:"):
        choice = answer.json()["choices"][0]
        return str(choice["message"]["content"] if "message" in choice else choice["text"])
    chunks = [json.loads(event[6:]) for event in answer.body.split(b"\n\n") if event.startswith(b"data: {")]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" if "delta" in choice else choice["text"] for choice in choices)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_a_provider_that_tells_no_usage_has_it_estimated(
    gateway: Gateway, sim: Sim, project: Project, path: str, stream: bool
) -> None:
    question = "Tell me about caches, please. " * 20
    model = "gpt-4o-mini+no-usage+tokens-120"
    body = chat(question, model) if path == CHAT else {"model": model, "prompt": question, "max_tokens": 200}
    answer = gateway.post(path, project.key, body | {"stream": stream})
    row = row_of(gateway, project)
    assert row["estimated"] == 1
    assert row["output_tokens"] == pytest.approx(estimate(text_of(answer)), abs=5)
    assert row["input_tokens"] == pytest.approx(estimate(question), abs=10)
    again = gateway.post(path, project.key, body | {"stream": stream})
    tokens = row["input_tokens"] + row["output_tokens"]
    assert (again.header("X-WatchLLM-Cache"), again.header("X-WatchLLM-Tokens-Saved")) == ("HIT", str(tokens))


def test_reported_usage_is_not_marked(gateway: Gateway, sim: Sim, project: Project) -> None:
    answer = gateway.chat(project.key, "Why?", model="gpt-4o-mini+cached-1+reasoning-5")
    usage, row = answer.json()["usage"], row_of(gateway, project)
    assert (row["estimated"], row["input_tokens"], row["output_tokens"]) == (
        0, usage["prompt_tokens"], usage["completion_tokens"],
    )  # fmt: skip
    assert (row["cached_input_tokens"], row["reasoning_tokens"]) == (1, 5)


def test_a_cut_stream_is_charged_for_what_came(gateway: Gateway, sim: Sim, project: Project) -> None:
    question = "Why is that so? " * 30
    answer = gateway.post(CHAT, project.key, chat(question, "gpt-4o-mini+tokens-100+cut-40", stream=True))
    row = row_of(gateway, project)
    assert (row["ended"], row["estimated"]) == ("cut", 1)
    assert row["input_tokens"] == pytest.approx(estimate(question), abs=10)
    assert row["output_tokens"] == pytest.approx(estimate(text_of(answer)), abs=5)
    assert row["output_tokens"] > 20


# --- clients that leave ----------------------------------------------------------------------------------------------


def test_a_stream_that_its_client_leaves_is_charged_for_what_came(gateway: Gateway, sim: Sim, project: Project) -> None:
    question = "Why is that so? " * 30
    body = chat(question, "gpt-4o-mini+tokens-100+stall-40", stream=True)
    with RawConnection(gateway.port) as connection:
        connection.send(request_bytes(CHAT, key=project.key, body=body))
        received = b""
        while received.count(b"data: ") < 35:
            received += connection.receive()
    row = row_of(gateway, project)
    assert (row["ended"], row["status"], row["estimated"]) == ("cancelled", 499, 1)
    assert row["input_tokens"] == pytest.approx(estimate(question), abs=10)
    assert 20 < row["output_tokens"] < 90


def test_a_priced_stream_that_its_client_leaves_costs_what_was_used(open_gateway: Gateway, sim: Sim) -> None:
    project = open_gateway.installation.project("left")

    def half(call: Call) -> None:
        call.send_response_only(200)
        call.send_header("content-type", "text/event-stream")
        call.end_headers()
        for word in ("So ", "it ", "is."):
            chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": word * 50}, "finish_reason": None}]}
            call.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        call.wfile.flush()
        upstream.hang(call)

    with scripted_upstream(half) as upstream:
        with open_gateway.installation.control_plane() as plane:
            plane.add_provider_key(project.id, "openai", "sk-own-0123456789abcdef", base_url=upstream.base_url)
        with RawConnection(open_gateway.port) as connection:
            body = chat("Why? " * 100, stream=True)
            connection.send(request_bytes(CHAT, key=project.key, body=body))
            received = b""
            while b"is." not in received:
                received += connection.receive()
        row = row_of(open_gateway, project)
    assert row["ended"] == "cancelled"
    # gpt-4o-mini: 0.15 and 0.60 dollars a million tokens.
    assert row["cost_nanos"] == row["input_tokens"] * 150 + row["output_tokens"] * 600
    assert row["input_tokens"] > 100
    assert row["output_tokens"] > 100


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings"])
def test_a_whole_answer_that_its_client_does_not_wait_for_is_charged_for_its_input(
    gateway: Gateway, sim: Sim, project: Project, path: str
) -> None:
    question = "Why is that so? " * 30
    body = (
        chat(question, "gpt-4o-mini+hang")
        if path == CHAT
        else {"model": "text-embedding-3-small+hang", "input": [question]}
    )
    with RawConnection(gateway.port) as connection:
        connection.send(request_bytes(path, key=project.key, body=body))
        wait_for(lambda: sim.stats()["open"], "the call upstream")
    row = row_of(gateway, project)
    assert (row["ended"], row["estimated"], row["output_tokens"]) == ("cancelled", 1, 0)
    assert row["input_tokens"] == pytest.approx(estimate(question), abs=10)


# --- embeddings ------------------------------------------------------------------------------------------------------


def test_a_partial_hit_is_a_row_with_what_was_bought_and_what_was_saved(
    gateway: Gateway, sim: Sim, project: Project
) -> None:
    body = {"model": "text-embedding-3-small", "input": ["a" * 400]}
    gateway.post("/v1/embeddings", project.key, body)
    gateway.post("/v1/embeddings", project.key, body | {"input": ["a" * 400, "b" * 800]})
    gateway.post("/v1/embeddings", project.key, body | {"input": ["a" * 400, "b" * 800]})
    rows = [row_of(gateway, project, number) for number in range(3)]
    assert [row["cache"] for row in rows] == ["MISS", "HIT-PARTIAL", "HIT"]
    assert [(row["input_tokens"], row["cost_nanos"], row["saved_nanos"]) for row in rows] == [
        (100, 2_000, None), (200, 4_000, 2_000), (300, 0, 6_000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "labels"),
    [
        ({}, (None, None, None)),
        ({"X-WatchLLM-User": "ann"}, ("ann", None, None)),
        ({"X-WatchLLM-Session": "s1"}, (None, "s1", None)),
        ({"X-WatchLLM-Tags": "team=a"}, (None, None, '{"team":"a"}')),
    ],
)
def test_a_hit_is_a_row_with_its_labels(
    gateway: Gateway, sim: Sim, project: Project, headers: dict[str, str], labels: tuple[str | None, ...]
) -> None:
    for _ in range(2):
        gateway.chat(project.key, "Hello", headers=headers)
    row = row_of(gateway, project, 1)
    assert (row["cache"], row["status"], row["ended"], row["cost_nanos"]) == ("HIT", 200, "complete", 0)
    assert (row["user_id"], row["session_id"], row["tags"]) == labels


@pytest.mark.parametrize(
    ("model", "settings", "status", "provider"),
    [
        ("gpt-4o", {"allowed_models": "sim/*"}, 403, "openai"),
        ("groq/llama-3.1-8b-instant", {}, 403, "groq"),
        ("mystery-1", {}, 404, ""),
        ("claude-x", {}, 403, "anthropic"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings"])
def test_a_refused_request_is_a_row_with_what_was_asked_for(
    gateway: Gateway, sim: Sim, model: str, settings: dict[str, str], status: int, provider: str, path: str
) -> None:
    project = gateway.installation.project("refused", settings=settings)
    assert gateway.post(path, project.key, chat(model=model) | {"input": "Hi"}).status == status
    row = row_of(gateway, project)
    assert (row["model"], row["provider"] or "", row["status"]) == (model, provider, status)
    assert sim.calls() == 0
