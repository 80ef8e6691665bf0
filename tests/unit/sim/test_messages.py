"""The Messages API of the simulator says what Anthropic's would (API reference: Messages, Streaming messages, Extended
thinking, Tool use, Citations, Prompt caching, Count tokens)."""

import json
from typing import Any

import jsonschema
import pytest

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
