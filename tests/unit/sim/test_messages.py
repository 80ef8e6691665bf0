"""The Messages API of the simulator says what Anthropic's would (API reference: Messages, Streaming messages, Extended
thinking, Tool use, Citations, Prompt caching, Errors, Count tokens, Versions)."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from tests.unit.sim.conftest import FakeExchange
from watchllm.domain.errors import WireRefusal

VERSION = {b"anthropic-version": b"2023-06-01"}
WEATHER = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3, "maximum": 7}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
CLOCK = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}
THINKING = {"type": "enabled", "budget_tokens": 1024}
DOCUMENTS: list[dict[str, Any]] = [
    {
        "type": "document",
        "title": "Notes",
        "source": {"type": "text", "media_type": "text/plain", "data": "Grass is green."},
        "citations": {"enabled": True},
    },
    {
        "type": "document",
        "source": {"type": "content", "content": [{"type": "text", "text": "The sky is blue."}]},
        "citations": {"enabled": True},
    },
    {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
        "citations": {"enabled": True},
    },
    {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
]


def send(sim: Any, text: Any = "Hello there, simulator", *, knobs: str = "", **fields: Any) -> Any:
    body = {"model": "claude", "max_tokens": 2000, "messages": [{"role": "user", "content": text}], **fields}
    return sim.call("/v1/messages", body, headers=VERSION, knobs=knobs)


def events(exchange: Any) -> list[dict[str, Any]]:
    """The stream's events, each of which must be named as its data says."""
    found = []
    for piece in exchange.sent.decode().split("\n\n")[:-1]:
        name, _, data = piece.partition("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def assembled(streamed: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client puts together from its events."""
    message: dict[str, Any] = {}
    arguments: dict[int, str] = {}
    for event in streamed:
        kind = event["type"]
        if kind == "message_start":
            message = event["message"]
        elif kind == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"])
        elif kind == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            if delta["type"] == "input_json_delta":
                arguments[event["index"]] = arguments.get(event["index"], "") + delta["partial_json"]
            elif delta["type"] == "citations_delta":
                block["citations"].append(delta["citation"])
            else:
                field = delta["type"].removesuffix("_delta")
                block[field] = block[field] + delta[field]
        elif kind == "message_delta":
            message |= event["delta"]
            message["usage"] |= event["usage"]
    for index, text in arguments.items():
        message["content"][index]["input"] = json.loads(text)
    return message


def told(message: dict[str, Any]) -> dict[str, Any]:
    """A message without what is new in each."""
    content = [{**block, "id": ""} if "id" in block else block for block in message["content"]]
    return {**message, "id": "", "content": content}


# --- answers ---------------------------------------------------------------------------------------------------------


def test_an_answer_has_the_references_shape(sim: Any) -> None:
    first, second = send(sim).json, send(sim).json
    assert first["id"] != second["id"]
    assert told(first) == told(second)
    assert (first["type"], first["role"], first["model"]) == ("message", "assistant", "claude")
    assert (first["stop_reason"], first["stop_sequence"]) == ("end_turn", None)
    assert first["usage"]["input_tokens"] > 0
    assert first["usage"]["output_tokens"] > 0


@pytest.mark.parametrize(
    ("text", "knobs", "fields"),
    [
        ("Tell me", "", {}),
        ("Tell me", "", {"thinking": THINKING}),
        ("Tell me", "redacted", {"thinking": THINKING}),
        ("Tell me", "", {"thinking": {"type": "adaptive", "display": "omitted"}}),
        ("call get_time, then call get_weather", "", {"tools": [WEATHER, CLOCK]}),
        ("call get_time", "", {"tools": [CLOCK], "thinking": THINKING}),
        ([*DOCUMENTS, {"type": "text", "text": "What colour?"}], "", {}),
        ("Tell me", "refusal", {}),
        ("Tell me", "cite", {}),
        ("Tell me", "blank", {}),
        ("Tell me", "", {"max_tokens": 3}),
        ("one STOP two", "echo", {"stop_sequences": ["STOP"]}),
    ],
)
def test_a_stream_puts_together_to_the_whole_answer(sim: Any, text: Any, knobs: str, fields: dict[str, Any]) -> None:
    whole = send(sim, text, knobs=knobs, **fields).json
    streamed = events(send(sim, text, knobs=knobs, stream=True, **fields))
    assert told(assembled(streamed)) == told(whole)
    kinds = [event["type"] for event in streamed]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("ping") == min(len(whole["content"]), 1)
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == len(whole["content"])


def test_thinking_comes_first_with_a_signature_and_counts_as_output(sim: Any) -> None:
    plain = send(sim).json
    thought = send(sim, knobs="reasoning=30", thinking=THINKING).json
    thinking, text = thought["content"]
    assert (thinking["type"], text["type"]) == ("thinking", "text")
    assert thinking["thinking"]
    assert thinking["signature"]
    assert text == plain["content"][0]
    assert thought["usage"]["output_tokens"] == plain["usage"]["output_tokens"] + 30
    assert thought["usage"]["output_tokens_details"]["thinking_tokens"] == 30
    redacted = send(sim, knobs="redacted", thinking=THINKING).json["content"][0]
    assert redacted["type"] == "redacted_thinking"
    assert redacted["data"]
    hidden = send(sim, thinking={"type": "adaptive", "display": "omitted"}).json["content"][0]
    assert hidden["thinking"] == ""
    assert [block["type"] for block in send(sim, thinking={"type": "disabled"}).json["content"]] == ["text"]


def test_tools_are_called_side_by_side_with_arguments_that_fit(sim: Any) -> None:
    message = send(sim, "call get_time and call get_weather", tools=[WEATHER, CLOCK]).json
    assert message["stop_reason"] == "tool_use"
    weather, clock = message["content"]
    assert (weather["name"], clock["name"]) == ("get_weather", "get_time")
    assert clock["input"] == {}
    assert weather["id"] != clock["id"]
    jsonschema.validate(weather["input"], WEATHER["input_schema"])


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ({"type": "auto", "disable_parallel_tool_use": True}, ["get_weather"]),
        ({"type": "any", "disable_parallel_tool_use": True}, ["get_weather"]),
        ({"type": "tool", "name": "get_time"}, ["get_time"]),
        ({"type": "none"}, []),
    ],
)
def test_tool_choice_is_followed(sim: Any, choice: Any, called: list[str]) -> None:
    message = send(sim, "call get_time, call get_weather", tools=[WEATHER, CLOCK], tool_choice=choice).json
    assert [block["name"] for block in message["content"] if block["type"] == "tool_use"] == called
    assert message["stop_reason"] == ("tool_use" if called else "end_turn")


def test_stop_reasons(sim: Any) -> None:
    cut = send(sim, max_tokens=3).json
    assert (cut["stop_reason"], cut["usage"]["output_tokens"]) == ("max_tokens", 3)
    stopped = send(sim, "one two STOP three END", knobs="echo", stop_sequences=["END", "STOP"]).json
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "STOP")
    assert stopped["content"][0]["text"] == "one two "
    for knobs in ("refusal", "content_filter"):
        refused = send(sim, knobs=knobs).json
        assert refused["stop_reason"] == "refusal"
        assert refused["stop_details"]["type"] == "refusal"
    assert send(sim, max_tokens=0).json["content"] == []


def test_documents_with_citations_enabled_are_cited_in_their_kinds_form(sim: Any) -> None:
    message = send(sim, [*DOCUMENTS, {"type": "text", "text": "What colour?"}]).json
    own, resting = message["content"]
    assert "citations" not in own
    chars, blocks, pages = resting["citations"]
    assert (chars["type"], chars["document_title"], chars["cited_text"]) == (
        "char_location",
        "Notes",
        "Grass is green."[: chars["end_char_index"]],
    )
    assert (blocks["type"], blocks["document_index"], blocks["cited_text"]) == (
        "content_block_location",
        1,
        "The sky is blue.",
    )
    assert (pages["type"], pages["document_index"]) == ("page_location", 2)


def test_structured_output_fits_its_schema(sim: Any) -> None:
    schema = WEATHER["input_schema"]
    format_ = {"type": "json_schema", "schema": schema}
    for fields in ({"output_config": {"format": format_}}, {"output_format": format_}):
        message = send(sim, **fields).json
        jsonschema.validate(json.loads(message["content"][0]["text"]), schema)


# --- usage -----------------------------------------------------------------------------------------------------------


def cached(text: str, ttl: str = "") -> list[dict[str, Any]]:
    return [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"} | ({"ttl": ttl} if ttl else {})}]


def test_what_was_marked_before_is_read_and_what_is_new_is_written(sim: Any) -> None:
    plain = send(sim, "Hi", system="x" * 400).json["usage"]
    assert (plain["cache_creation_input_tokens"], plain["cache_read_input_tokens"]) == (0, 0)
    first = send(sim, "Hi", system=cached("x" * 400)).json["usage"]
    written = first["cache_creation_input_tokens"]
    assert written >= 100
    assert first["cache_read_input_tokens"] == 0
    assert first["input_tokens"] + written == plain["input_tokens"]
    second = send(sim, "Another question", system=cached("x" * 400)).json["usage"]
    assert (second["cache_read_input_tokens"], second["cache_creation_input_tokens"]) == (written, 0)
    longer = send(sim, cached("y" * 40), system=cached("x" * 400)).json["usage"]
    assert longer["cache_read_input_tokens"] == written
    assert longer["cache_creation_input_tokens"] >= 10
    other = send(sim, "Hi", system=cached("z" * 400)).json["usage"]
    assert other["cache_read_input_tokens"] == 0
    sim.call("/sim/reset")
    assert send(sim, "Hi", system=cached("x" * 400)).json["usage"] == first


def test_cache_counts_by_ttl_and_by_knob(sim: Any) -> None:
    hour = send(sim, "Hi", system=cached("x" * 400, "1h")).json["usage"]
    assert hour["cache_creation"]["ephemeral_1h_input_tokens"] == hour["cache_creation_input_tokens"] > 0
    assert hour["cache_creation"]["ephemeral_5m_input_tokens"] == 0
    whole = send(sim, "Hi", cache_control={"type": "ephemeral"}).json["usage"]
    assert (whole["input_tokens"], whole["cache_creation_input_tokens"] > 0) == (0, True)
    usage = send(sim, "x" * 400, knobs="cached=50,cache_write=30").json["usage"]
    assert (usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (50, 30)
    start, *_ = events(send(sim, "x" * 400, knobs="cached=50,cache_write=30", stream=True))
    assert start["message"]["usage"]["cache_read_input_tokens"] == 50


def test_usage_can_be_missing_or_late(sim: Any) -> None:
    assert "usage" not in send(sim, knobs="usage=none").json
    streamed = events(send(sim, knobs="usage=none", stream=True))
    assert "usage" not in streamed[0]["message"]
    assert "usage" not in streamed[-2]
    late = send(sim, knobs="late_usage=300ms", stream=True)
    assert events(late)[-1]["type"] == "content_block_stop"
    sim.clock.advance(0.3)
    assert events(late)[-2]["usage"]["output_tokens"] > 0


def test_tokens_are_counted_as_they_are_billed(sim: Any) -> None:
    body = {
        "model": "claude",
        "messages": [{"role": "user", "content": [*DOCUMENTS, {"type": "text", "text": "Why?"}]}],
        "system": "s",
        "tools": [WEATHER],
    }
    count = sim.call("/v1/messages/count_tokens", body, headers=VERSION).json
    usage = sim.call("/v1/messages", {**body, "max_tokens": 5}, headers=VERSION).json["usage"]
    assert count == {"input_tokens": usage["input_tokens"]}


# --- errors ----------------------------------------------------------------------------------------------------------

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
