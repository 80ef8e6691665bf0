"""The simulator refuses what Anthropic would, in its words (API reference: Errors, Versions, Messages)."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.sim.conftest import FakeExchange
from tests.unit.sim.test_messages import CLOCK, DOCUMENTS, THINKING, VERSION, cached, send
from watchllm.domain.errors import WireRefusal

USED = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "get_time", "input": {}}]}
ASKED = {"role": "user", "content": "Hi"}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "12:00"}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "model: Field required"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": None}, "messages: Field required"),
        ({"model": 5}, "model: Input should be a valid string"),
        ({"max_tokens": "5"}, "max_tokens: Input should be a valid integer"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
        ({"messages": "Hi"}, "messages: Input should be a valid list"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": ["Hi"]}, "messages.0: Input should be a valid dictionary"),
        ({"messages": [{"content": "Hi"}]}, "messages.0.role: Field required"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages.0.role: Input should be 'user' or 'assistant'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: Input should be a valid list"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0: all messages must have non-empty content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "messages: text content blocks"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages.0.content.0: Input tag 'smell'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text.text: Field req"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}]},
            "messages.0.content.0.image.source.base64.data: Field required",
        ),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, 'messages: first message must use the "user" role'),
        (
            {"messages": [ASKED, {"role": "assistant", "content": "So "}]},
            "messages: final assistant content cannot end",
        ),
        ({"messages": [ASKED, USED]}, "messages.1: `tool_use` ids were found without `tool_result` blocks"),
        ({"messages": [ASKED, USED, ASKED]}, "messages.1: `tool_use` ids were found without `tool_result` blocks"),
        ({"messages": [RESULT]}, "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: t1"),
        ({"system": 5}, "system: Input should be a valid string or list"),
        ({"temperature": 1.5}, "temperature: Input should be less than or equal to 1"),
        ({"top_p": True}, "top_p: Input should be a valid number"),
        ({"stop_sequences": [" "]}, "stop_sequences: each stop sequence must contain non-whitespace"),
        ({"n": 2}, "n: Extra inputs are not permitted"),
        ({"metadata": {"trace": "x"}}, "metadata.trace: Extra inputs are not permitted"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking.enabled.budget_tokens: Input should be"),
        ({"thinking": THINKING, "max_tokens": 1024}, "`max_tokens` must be greater than `thinking.budget_tokens`."),
        ({"thinking": THINKING, "temperature": 0.5}, "`temperature` may only be set to 1 when thinking is enabled."),
        (
            {"thinking": THINKING, "tools": [CLOCK], "tool_choice": {"type": "any"}},
            "Thinking may not be enabled when tool_choice forces tool use.",
        ),
        ({"tools": [{"name": "a b", "input_schema": {"type": "object"}}]}, "tools.0.custom.name: String should match"),
        ({"tools": [{"name": "a"}]}, "tools.0.custom.input_schema: Field required"),
        ({"tools": [{"name": "a", "input_schema": {}}]}, "tools.0.custom.input_schema.type: Field required"),
        ({"tools": [CLOCK, CLOCK]}, "tools: Tool names must be unique."),
        ({"tool_choice": {"type": "any"}}, "tool_choice: tool_choice may only be specified while providing tools."),
        ({"tools": [CLOCK], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice: Tool 'x' not found"),
        ({"output_config": {"format": {"type": "json"}}}, "output_config.format: Input tag 'json' does not match"),
        ({"system": cached("a") * 5}, "A maximum of 4 blocks with cache_control may be provided. Found 5."),
        (
            {
                "messages": [{"role": "user", "content": [DOCUMENTS[0]]}],
                "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
            },
            "output_config.format: Citations are not supported",
        ),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"not": {}}}}}, "output_config.format.schema"),
    ],
)
def test_wrong_requests_are_refused_in_anthropics_words(sim: Any, change: dict[str, Any], message: str) -> None:
    body = {"model": "claude", "max_tokens": 2000, "messages": [ASKED], **change}
    body = {name: value for name, value in body.items() if value is not None}
    exchange = sim.call("/v1/messages", body, headers=VERSION)
    assert exchange.status == 400
    assert exchange.json["type"] == "error"
    assert exchange.json["error"]["type"] == "invalid_request_error"
    assert exchange.json["error"]["message"].startswith(message)
    assert exchange.json["request_id"] == exchange.head_lines("request-id")[0]


def test_turns_of_one_role_that_follow_each_other_are_one_turn(sim: Any) -> None:
    assert send(sim, messages=[ASKED, ASKED]).status == 200
    other = {"role": "assistant", "content": [{"type": "tool_use", "id": "t2", "name": "get_time", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t2"}]}
    assert send(sim, messages=[ASKED, USED, other, RESULT, result], tools=[CLOCK]).status == 200
    assert send(sim, messages=[ASKED, {"role": "assistant", "content": "So"}]).status == 200


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_a_status_is_an_error_in_anthropics_form(sim: Any, status: int, kind: str) -> None:
    exchange = send(sim, knobs=f"status={status}")
    assert exchange.status == status
    assert exchange.json["error"]["type"] == kind
    assert send(sim, knobs=f"status={status},code=billing_error").json["error"]["type"] == "billing_error"


def test_the_version_is_required_and_must_be_known(sim: Any) -> None:
    body = {"model": "claude", "max_tokens": 5, "messages": [ASKED]}
    for headers in ({}, {b"anthropic-version": b"2020-01-01"}):
        for path, method in (("/v1/messages", "POST"), ("/v1/messages/count_tokens", "POST")):
            exchange = sim.call(path, body, headers=headers, method=method)
            assert exchange.status == 400
            assert exchange.json["error"]["message"].startswith("anthropic-version: ")


CITED = {"type": "text", "text": "a", "citations": [{"type": "char_location"}]}


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 1},
        {"top_p": 1},
        {"top_k": 5},
        {"messages": [{"role": "user", "content": [CITED]}]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "search_result", "source": "s", "title": "t", "content": [CITED]}],
                }
            ]
        },
        {"messages": [ASKED, {"role": "assistant", "content": [DOCUMENTS[0]]}, ASKED]},
    ],
)
def test_the_newest_version_refuses_what_the_older_takes(sim: Any, change: dict[str, Any]) -> None:
    body = {"model": "claude", "max_tokens": 5, "messages": [ASKED], **change}
    assert sim.call("/v1/messages", body, headers=VERSION).status == 200
    refused = sim.call("/v1/messages", body, headers={b"anthropic-version": b"2026-10-21"})
    assert refused.status == 400
    assert "not permitted" in refused.json["error"]["message"]


def test_a_named_beta_may_bring_fields_of_its_own(sim: Any) -> None:
    body = {"model": "claude", "max_tokens": 5, "messages": [ASKED], "context_management": {}}
    assert sim.call("/v1/messages", body, headers=VERSION).status == 400
    assert sim.call("/v1/messages", body, headers={**VERSION, b"anthropic-beta": b"x-2025-01-01"}).status == 200


def test_the_key_comes_by_either_header(make_sim: Callable[..., Any]) -> None:
    sim = make_sim(require_key="k")
    body = {"model": "claude", "max_tokens": 5, "messages": [ASKED]}
    for headers, status in (
        ({b"x-api-key": b"k"}, 200),
        ({b"authorization": b"Bearer k"}, 200),
        ({b"x-api-key": b"other"}, 401),
        ({}, 401),
    ):
        exchange = sim.call("/v1/messages", body, headers={**VERSION, **headers})
        assert exchange.status == status
        if status == 401:
            assert exchange.json["error"]["type"] == "authentication_error"


def test_errors_of_the_path_and_the_body_have_the_dialects_form(sim: Any) -> None:
    for exchange, status in (
        (sim.call("/v1/messages", b"{", headers=VERSION), 400),
        (sim.call("/v1/messages", method="GET", headers=VERSION), 405),
    ):
        assert exchange.status == status
        assert exchange.json["error"]["type"] == "invalid_request_error"
        assert "OpenAI" not in exchange.json["error"]["message"]


def test_models_have_the_shape_of_whom_the_headers_mean(sim: Any) -> None:
    openai = sim.call("/v1/models", method="GET").json
    assert openai["object"] == "list"
    page = sim.call("/v1/models", method="GET", headers=VERSION).json
    assert page["has_more"] is False
    assert page["first_id"] == page["data"][0]["id"]
    assert {model["type"] for model in page["data"]} == {"model"}
    assert sim.call("/v1/models/claude-x", method="GET", headers=VERSION).json["id"] == "claude-x"


def test_anthropics_headers_are_there_to_be_filtered(sim: Any) -> None:
    exchange = send(sim)
    for name in ("request-id", "anthropic-organization-id", "anthropic-ratelimit-tokens-remaining", "set-cookie"):
        assert exchange.head_lines(name), name
    assert not exchange.head_lines("openai-organization")


def test_what_the_wire_refuses_is_told_in_the_paths_dialect(sim: Any) -> None:
    error = WireRefusal("The body is too large.")
    exchange = FakeExchange(b"POST", "/v1/messages", VERSION, b"")
    told_here = json.loads(sim.app.on_refusal(exchange, error)[1])
    assert (told_here["type"], told_here["error"]["type"]) == ("error", "request_too_large")
    for elsewhere in (None, FakeExchange(b"POST", "/v1/responses", {}, b"")):
        assert "param" in json.loads(sim.app.on_refusal(elsewhere, error)[1])["error"]
