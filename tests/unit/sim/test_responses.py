"""The Responses API of the simulator says what OpenAI's would (API reference: Responses, Streaming events)."""

import json
from typing import Any

import jsonschema
import pytest

from watchllm.sim.reply import Refused
from watchllm.sim.responses_store import StoredResponses

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3, "maximum": 7}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
WRITE = {"type": "custom", "name": "write"}
LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
THOUGHT = {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}


def send(sim: Any, given: Any = "Hello there, simulator", *, knobs: str = "", **fields: Any) -> Any:
    return sim.call("/v1/responses", {"model": "gpt-5", "input": given, **fields}, knobs=knobs)


def events(exchange: Any) -> list[dict[str, Any]]:
    """The stream's events, each of which must be named as its data says and numbered in order."""
    found = []
    for number, piece in enumerate(exchange.sent.decode().split("\n\n")[:-1]):
        name, _, data = piece.partition("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        found.append(event)
    return found


def assembled(streamed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output as the deltas tell it, each text checked against the event that says it is done."""
    output: list[dict[str, Any]] = []
    texts: dict[tuple[str, str], str] = {}
    for event in streamed:
        kind, _, step = event["type"].removeprefix("response.").rpartition(".")
        if step == "delta":
            where = (kind, event["item_id"])
            texts[where] = texts.get(where, "") + event["delta"]
        elif step == "done" and kind not in ("output_item", "content_part", "reasoning_summary_part"):
            (said,) = (event[name] for name in ("text", "refusal", "arguments", "input") if name in event)
            assert texts.pop((kind, event["item_id"]), "") == said
        elif kind == "output_item":
            assert event["output_index"] == len(output) - (step == "done")
            if step == "added":
                output.append(event["item"])
            else:
                output[-1] = event["item"]
    assert not texts
    return output


def told(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**item, "id": "", "call_id": ""} for item in output]


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_response_has_the_references_shape_and_echoes_the_request(sim: Any) -> None:
    response = send(sim, instructions="Be brief.", temperature=0.5, metadata={"a": "b"}, user="u").json
    assert (response["object"], response["status"], response["error"]) == ("response", "completed", None)
    assert (response["instructions"], response["temperature"], response["metadata"]) == ("Be brief.", 0.5, {"a": "b"})
    assert response["text"]["format"] == {"type": "text"}
    assert response["created_at"] == response["completed_at"] == 1_800_000_000
    (message,) = response["output"]
    assert (message["type"], message["role"], message["status"]) == ("message", "assistant", "completed")
    assert message["content"][0]["annotations"] == []
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@pytest.mark.parametrize(
    ("text", "knobs", "fields", "end"),
    [
        ("Tell me", "", {}, "completed"),
        ("Tell me", "", LOGPROBS, "completed"),
        ("Tell me", "", THOUGHT, "completed"),
        ("Tell me", "raw_reasoning,reasoning=9", {}, "completed"),
        ("call get_weather and call write", "", {"tools": [WEATHER, WRITE]}, "completed"),
        ("call write", "", {"tools": [WRITE], **THOUGHT}, "completed"),
        ("Tell me", "refusal", {}, "completed"),
        ("Tell me", "cite", {}, "completed"),
        ("Tell me", "blank", {}, "completed"),
        ("Tell me", "tokens=40", {"max_output_tokens": 16}, "incomplete"),
        ("Tell me", "content_filter", {}, "incomplete"),
        ("Tell me", "failed", {}, "failed"),
    ],
)
def test_a_stream_puts_together_to_the_whole_response(
    sim: Any, text: str, knobs: str, fields: dict[str, Any], end: str
) -> None:
    whole = send(sim, text, knobs=knobs, **fields).json
    streamed = events(send(sim, text, knobs=knobs, stream=True, **fields))
    assert [event["type"] for event in streamed[:2]] == ["response.created", "response.in_progress"]
    assert streamed[0]["response"]["status"] == "in_progress"
    assert streamed[0]["response"]["output"] == []
    last = streamed[-1]
    assert last["type"] == f"response.{end}"
    assert last["response"]["status"] == whole["status"] == end
    assert assembled(streamed) == last["response"]["output"]
    assert told(last["response"]["output"]) == told(whole["output"])
    assert last["response"]["usage"] == whole["usage"]


def test_what_is_cut_says_why(sim: Any) -> None:
    cut = send(sim, knobs="tokens=40", max_output_tokens=16).json
    assert cut["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (cut["output"][0]["status"], cut["usage"]["output_tokens"]) == ("incomplete", 16)
    assert send(sim, knobs="content_filter").json["incomplete_details"] == {"reason": "content_filter"}
    failed = send(sim, knobs="failed").json
    assert failed["error"]["code"] == "server_error"
    assert failed["output"] == []


def test_reasoning_comes_first_and_is_told_only_as_asked(sim: Any) -> None:
    plain = send(sim).json
    reasoned = send(sim, knobs="reasoning=30", **THOUGHT).json
    reasoning, message = reasoned["output"]
    assert reasoning["summary"][0]["text"]
    assert reasoning["encrypted_content"]
    assert text_of({"output": [message]}) == text_of(plain)
    assert reasoned["usage"]["output_tokens_details"]["reasoning_tokens"] == 30
    assert reasoned["usage"]["output_tokens"] == plain["usage"]["output_tokens"] + 30
    silent = send(sim, reasoning={"effort": "low"}).json["output"][0]
    assert silent["summary"] == []
    assert "encrypted_content" not in silent
    assert send(sim, reasoning={"effort": "none"}).json["output"][0]["type"] == "message"
    raw = send(sim, knobs="raw_reasoning,reasoning=9").json["output"][0]
    assert raw["content"][0]["type"] == "reasoning_text"


def test_refusals_citations_and_logprobs(sim: Any) -> None:
    assert send(sim, knobs="refusal").json["output"][0]["content"][0]["type"] == "refusal"
    cited = send(sim, knobs="cite").json["output"][0]["content"][0]
    assert cited["annotations"][0]["type"] == "url_citation"
    assert cited["annotations"][0]["end_index"] == len(cited["text"])
    part = send(sim, **LOGPROBS).json["output"][0]["content"][0]
    assert "".join(entry["token"] for entry in part["logprobs"]) == part["text"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in part["logprobs"])
    assert send(sim).json["output"][0]["content"][0]["logprobs"] == []


def test_tools_are_called_side_by_side(sim: Any) -> None:
    weather, write = send(sim, "call write and call get_weather", tools=[WEATHER, WRITE]).json["output"]
    assert (weather["type"], write["type"]) == ("function_call", "custom_tool_call")
    jsonschema.validate(json.loads(weather["arguments"]), WEATHER["parameters"])
    assert write["input"]
    assert weather["call_id"] != write["call_id"]


@pytest.mark.parametrize(
    ("fields", "called"),
    [
        ({"parallel_tool_calls": False}, ["get_weather"]),
        ({"tool_choice": "required", "parallel_tool_calls": False}, ["get_weather"]),
        ({"tool_choice": {"type": "custom", "name": "write"}}, ["write"]),
        ({"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []}}, ["get_weather", "write"]),
        ({"tool_choice": "none"}, [None]),
    ],
)
def test_tool_choice_is_followed(sim: Any, fields: dict[str, Any], called: list[Any]) -> None:
    output = send(sim, "call write, call get_weather", tools=[WEATHER, WRITE], **fields).json["output"]
    assert [item.get("name") for item in output] == called


def test_structured_output_fits_its_schema(sim: Any) -> None:
    format_ = {"type": "json_schema", "name": "w", "schema": WEATHER["parameters"]}
    response = send(sim, text={"format": format_}).json
    jsonschema.validate(json.loads(text_of(response)), WEATHER["parameters"])
    assert response["text"]["format"] == format_
    assert isinstance(json.loads(text_of(send(sim, text={"format": {"type": "json_object"}}).json)), dict)


def test_usage_can_be_missing_late_and_cached(sim: Any) -> None:
    usage = send(sim, "x" * 400, knobs="cached=50,cache_write=20").json["usage"]
    assert usage["input_tokens_details"] == {"cached_tokens": 50, "cache_write_tokens": 20}
    assert send(sim, knobs="usage=none").json["usage"] is None
    late = send(sim, knobs="late_usage=300ms", stream=True)
    assert events(late)[-1]["type"] == "response.output_item.done"
    sim.clock.advance(0.3)
    assert events(late)[-1]["response"]["usage"]["total_tokens"] > 0


# --- what is kept ----------------------------------------------------------------------------------------------------


def read(sim: Any, path: str, method: str = "GET") -> Any:
    return sim.call(f"/v1/responses/{path}", method=method)


def test_a_response_is_kept_read_again_and_deleted(sim: Any) -> None:
    made = send(sim).json
    assert read(sim, made["id"]).json == made
    (item,) = read(sim, f"{made['id']}/input_items").json["data"]
    assert item["content"][0]["text"] == "Hello there, simulator"
    assert read(sim, made["id"], "DELETE").json == {"id": made["id"], "object": "response", "deleted": True}
    for method in ("GET", "DELETE"):
        assert read(sim, made["id"], method).status == 404
    unkept = send(sim, store=False).json
    assert read(sim, unkept["id"]).status == 404
    streamed = events(send(sim, stream=True))[-1]["response"]
    assert read(sim, streamed["id"]).json == streamed
    sim.call("/sim/reset")
    assert read(sim, streamed["id"]).status == 404


def test_a_response_goes_on_from_another_as_if_all_had_been_sent(sim: Any) -> None:
    first = send(sim, "One", model="gpt-5").json
    second = send(sim, "Two", previous_response_id=first["id"]).json
    assert second["previous_response_id"] == first["id"]
    third = send(sim, "Three", previous_response_id=second["id"]).json
    turns: list[Any] = [{"role": "user", "content": "One"}, *first["output"], {"role": "user", "content": "Two"}]
    assert text_of(send(sim, turns).json) == text_of(second)
    whole = send(sim, [*turns, *second["output"], {"role": "user", "content": "Three"}]).json
    assert text_of(whole) == text_of(third)
    assert whole["usage"] == third["usage"]


def test_a_tools_output_can_be_sent_alone(sim: Any) -> None:
    first = send(sim, "call write", tools=[WRITE]).json
    output = {"type": "custom_tool_call_output", "call_id": first["output"][0]["call_id"], "output": "written"}
    second = send(sim, [output], previous_response_id=first["id"], tools=[WRITE]).json
    assert [item["type"] for item in second["output"]] == ["message"]


def test_what_is_kept_is_bounded_in_number_and_bytes(sim: Any) -> None:
    first = send(sim).json["id"]
    for _ in range(1000):
        last = send(sim).json["id"]
    assert read(sim, first).status == 404
    assert read(sim, last).status == 200
    stored = StoredResponses()
    for name in ("a", "b", "c"):
        stored.put(name, bytes(30_000_000), [], [])
    assert stored.body("b")
    with pytest.raises(Refused):
        stored.body("a")
    stored.put("d", bytes(70_000_000), [], [])
    for name in ("b", "c", "d"):
        with pytest.raises(Refused):
            stored.body(name)


# --- errors ----------------------------------------------------------------------------------------------------------

CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": None}, None, None),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": ["Hi"]}, "input[0]", "invalid_type"),
        ({"input": [{"type": "smell"}]}, "input[0].type", "invalid_value"),
        ({"input": [{"content": "Hi"}]}, "input[0].role", "missing_required_parameter"),
        ({"input": [{"role": "robot", "content": "Hi"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        ({"input": [{"role": "user", "content": [{"type": "text"}]}]}, "input[0].content[0].type", "invalid_value"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
            "missing_required_parameter",
        ),
        ({"input": [{"type": "function_call"}]}, "input[0].call_id", "missing_required_parameter"),
        ({"input": [CALL]}, "input", None),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]}, "input", None),
        ({"background": True}, "background", "unsupported_value"),
        ({"previous_response_id": "resp_x"}, "previous_response_id", "previous_response_not_found"),
        ({"max_output_tokens": 15}, "max_output_tokens", "integer_below_min_value"),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"stream": 1}, "stream", "invalid_type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tool_choice": "maybe"}, "tool_choice", "invalid_value"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice", None),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.name", "missing_required_parameter"),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"not": {}}}}},
            "text.format.schema",
            "invalid_json_schema",
        ),
        ({"reasoning": {"effort": "much"}}, "reasoning.effort", "invalid_value"),
        ({"include": ["everything"]}, "include[0]", "invalid_value"),
    ],
)
def test_wrong_requests_are_refused_with_the_parameter(
    sim: Any, change: dict[str, Any], param: str | None, code: str | None
) -> None:
    exchange = sim.call("/v1/responses", {"model": "gpt-5", "input": "Hi", **change})
    assert exchange.status == 400
    error = exchange.json["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
