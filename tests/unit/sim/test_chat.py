"""Chat completions of the simulator say what OpenAI's would, and the same request gets the same words."""

import json
from typing import Any

import jsonschema
import pytest

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3, "maximum": 7}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}


def message(exchange: Any) -> Any:
    return exchange.json["choices"][0]["message"]


def test_the_same_request_gets_the_same_words_under_a_new_id(sim: Any) -> None:
    first, second = sim.chat("What is a cache?"), sim.chat("What is a cache?")
    assert message(first) == message(second)
    assert first.json["id"] != second.json["id"]
    assert first.json["created"] == 1_800_000_000


@pytest.mark.parametrize(
    "other",
    [
        {"text": "what is a cache?"},
        {"temperature": 0.5},
        {"seed": 7},
        {"top_p": 0.2},
        {"tools": [CLOCK]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "What is a cache?"}]},
        {"some_new_field": 1},
    ],
)
def test_whatever_may_change_the_answer_changes_the_words(sim: Any, other: dict[str, Any]) -> None:
    asked = {"text": "What is a cache?", **other}
    assert message(sim.chat("What is a cache?"))["content"] != message(sim.chat(**asked))["content"]


def test_echo_answers_the_last_user_message(sim: Any) -> None:
    content = [
        {"type": "text", "text": "  odd\n"},
        {"type": "image_url", "image_url": {"url": "data:,"}},
        {"type": "text", "text": "日本 "},
    ]
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": content},
    ]
    for model in ("sim/echo", "echo"):
        assert message(sim.chat(model=model, messages=messages))["content"] == "  odd\n日本 "


def test_any_model_name_is_accepted_and_echoed(sim: Any) -> None:
    assert sim.chat(model="org/some-model:v2").json["model"] == "org/some-model:v2"


def test_a_stream_joins_to_the_whole_answer(sim: Any) -> None:
    whole = sim.chat("Tell me", n=2).json
    events = sim.chat("Tell me", n=2, stream=True).events
    assert events.pop() == "[DONE]"
    for index in (0, 1):
        pieces = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
        assert pieces[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert (
            "".join(piece["delta"].get("content", "") for piece in pieces)
            == whole["choices"][index]["message"]["content"]
        )
        assert [piece["finish_reason"] for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert whole["choices"][0]["message"]["content"] != whole["choices"][1]["message"]["content"]
    assert all("usage" not in event for event in events)
    assert len({event["id"] for event in events}) == 1


def test_include_usage_adds_null_usage_and_a_last_event_without_choices(sim: Any) -> None:
    whole = sim.chat("Tell me").json
    *chunks, last, done = sim.chat("Tell me", stream=True, stream_options={"include_usage": True}).events
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]


def test_usage_adds_up_and_has_its_details(sim: Any) -> None:
    usage = sim.chat(knobs="tokens=40,reasoning=7,cached=3").json["usage"]
    assert usage["completion_tokens"] == 47
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 7
    assert usage["prompt_tokens_details"]["cached_tokens"] == 3
    assert usage["total_tokens"] == usage["prompt_tokens"] + 47


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_cuts_the_answer_with_finish_reason_length(sim: Any, field: str) -> None:
    full = message(sim.chat())["content"]
    cut = sim.chat(**{field: 5}).json
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] == 5
    assert full.startswith(cut["choices"][0]["message"]["content"])


def test_a_stop_sequence_ends_the_answer_before_it(sim: Any) -> None:
    body = sim.chat("one two STOP three END four", model="echo", stop=["END", "STOP"]).json
    assert body["choices"][0]["message"]["content"] == "one two "
    assert body["choices"][0]["finish_reason"] == "stop"


def test_logprobs_name_every_token_with_its_alternatives(sim: Any) -> None:
    body = sim.chat(logprobs=True, top_logprobs=3).json
    entries = body["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == body["choices"][0]["message"]["content"]
    assert all(
        len(entry["top_logprobs"]) == 3 and entry["top_logprobs"][0]["token"] == entry["token"] for entry in entries
    )
    assert bytes(entries[0]["bytes"]).decode() == entries[0]["token"]


@pytest.mark.parametrize(
    ("choice", "finish"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "get_weather"}}, "stop")],
)
def test_a_demanded_tool_is_called_with_arguments_that_fit_its_schema(sim: Any, choice: Any, finish: str) -> None:
    body = sim.chat(tools=[WEATHER, CLOCK], tool_choice=choice).json
    assert body["choices"][0]["finish_reason"] == finish
    assert body["choices"][0]["message"]["content"] is None
    (call,) = body["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    jsonschema.validate(json.loads(call["function"]["arguments"]), WEATHER["function"]["parameters"])


def test_tools_named_in_the_prompt_are_called_side_by_side_and_streamed_alike(sim: Any) -> None:
    asked: dict[str, Any] = {"text": "call get_time, then call get_weather.", "tools": [WEATHER, CLOCK]}
    calls = message(sim.chat(**asked))["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["get_weather", "get_time"]
    assert len({call["id"] for call in calls}) == 2

    streamed: dict[int, str] = {}
    events = sim.chat(**asked, stream=True).events[:-1]
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    for event in events:
        for part in event["choices"][0]["delta"].get("tool_calls", ()):
            streamed[part["index"]] = streamed.get(part["index"], "") + part["function"]["arguments"]
    assert [streamed[0], streamed[1]] == [call["function"]["arguments"] for call in calls]
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"

    assert len(message(sim.chat(**asked, parallel_tool_calls=False))["tool_calls"]) == 1
    assert "tool_calls" not in message(sim.chat(**asked, tool_choice="none"))
    assert "tool_calls" not in message(sim.chat("call get_weather_now", tools=[WEATHER]))


def test_after_a_tools_result_the_answer_is_words(sim: Any) -> None:
    messages = [
        {"role": "user", "content": "call get_time"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "12:00"},
    ]
    assert message(sim.chat(messages=messages, tools=[CLOCK]))["content"]


def test_older_functions_and_custom_tools_are_answered_in_their_own_form(sim: Any) -> None:
    legacy = sim.chat("call get_time", functions=[CLOCK["function"]]).json["choices"][0]
    assert legacy["message"]["function_call"] == {"name": "get_time", "arguments": "{}"}
    assert legacy["finish_reason"] == "function_call"
    custom = message(sim.chat("call write", tools=[{"type": "custom", "custom": {"name": "write"}}]))["tool_calls"][0]
    assert custom["custom"]["name"] == "write"
    assert custom["custom"]["input"]


def test_a_json_schema_is_answered_with_a_value_that_fits(sim: Any) -> None:
    schema = {
        "type": "object",
        "properties": {
            "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}},
            "sure": {"type": ["boolean", "null"]},
        },
        "required": ["steps", "sure"],
        "$defs": {"step": {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}, "required": ["kind"]}},
    }
    asked = {"type": "json_schema", "json_schema": {"name": "plan", "strict": True, "schema": schema}}
    jsonschema.validate(json.loads(message(sim.chat(response_format=asked))["content"]), schema)
    assert isinstance(json.loads(message(sim.chat(response_format={"type": "json_object"}))["content"]), dict)


def test_refusal_and_content_filter_have_their_own_finish(sim: Any) -> None:
    refused = message(sim.chat(knobs="refusal"))
    assert refused["content"] is None
    assert refused["refusal"]
    deltas = [event["choices"][0]["delta"] for event in sim.chat(knobs="refusal", stream=True).events[:-1]]
    assert "".join(delta.get("refusal") or "" for delta in deltas) == refused["refusal"]
    assert sim.chat(model="sim/content-filter").json["choices"][0]["finish_reason"] == "content_filter"
    assert message(sim.chat(knobs="blank"))["content"] == ""


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "smell"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"top_logprobs": 2}, "top_logprobs", None),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name", "missing_required_parameter"),
        ({"tool_choice": "required"}, "tool_choice", None),
        (
            {"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "none_such"}}},
            "tool_choice",
            "invalid_value",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "array", "minItems": "two"}},
                }
            },
            "response_format",
            "invalid_json_schema",
        ),
    ],
)
def test_bad_requests_are_refused_as_openai_refuses_them(
    sim: Any, change: dict[str, Any], param: str, code: str | None
) -> None:
    exchange = sim.chat(**change)
    assert exchange.status == 400
    error = exchange.json["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "\xff"}', b'{"a":' * 5000, b'{"temperature": NaN}'])
def test_a_body_that_is_no_json_object_is_a_400(sim: Any, body: bytes) -> None:
    exchange = sim.call("/v1/chat/completions", body)
    assert exchange.status == 400
    assert "JSON" in exchange.json["error"]["message"]


def test_a_missing_model_is_a_400(sim: Any) -> None:
    exchange = sim.call("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
    assert exchange.status == 400
    assert exchange.json["error"]["message"] == "you must provide a model parameter"
