"""What chat completion requests hold that Anthropic's messages have no counterpart for, and anything in every place."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.providers.anthropic.messages import json_values
from tests.unit.providers.translation.test_request_chat_to_messages import (
    CALL,
    FORMAT,
    NEW,
    OLD,
    PNG,
    TOOL,
    UNTHINKING,
    USER,
)
from watchllm.domain.errors import BadRequest
from watchllm.providers.translation.request_chat_to_messages import translate


def said(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)} | fields]}


def function(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f"} | fields}]}


def calling(**fields: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "tool_calls": [CALL | fields]}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [USER | {"name": "Ada"}]}, "messages[0].name"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "messages[1].content"),
        ({"messages": [USER, {"role": "assistant", "content": "x", "audio": {"id": "a"}}]}, "messages[1].audio"),
        ({"messages": [USER, {"role": "assistant", "function_call": {}}]}, "messages[1].function_call"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        (
            {"messages": [USER, {"role": "assistant", "content": "x", "thinking_blocks": [{"type": "thinking"}]}]},
            "messages[1].thinking_blocks[0].thinking",
        ),
        (said({"type": "input_audio", "input_audio": {}}), "messages[0].content[0].type"),
        (said({"type": "text", "text": 1}), "messages[0].content[0].text"),
        (said({"type": "text", "text": "x", "bold": True}), "messages[0].content[0].bold"),
        (said({"type": "image_url", "image_url": "x"}), "messages[0].content[0].image_url"),
        (said({"type": "image_url", "image_url": {"url": "x"}}), "messages[0].content[0].image_url.url"),
        (
            said({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AA"}}),
            "messages[0].content[0].image_url.url",
        ),
        (
            said({"type": "image_url", "image_url": {"url": "https://a.b/c", "detail": "low"}}),
            "messages[0].content[0].image_url.detail",
        ),
        (said({"type": "file", "file": {"file_id": "file-1"}}), "messages[0].content[0].file.file_id"),
        (said({"type": "file", "file": {"file_data": "AA"}}), "messages[0].content[0].file.file_data"),
        (
            said({"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}),
            "messages[0].content[0].file.file_data",
        ),
        (calling(type="custom"), "messages[1].tool_calls[0].type"),
        (
            calling(function={"name": "f", "arguments": "{"}),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (calling(function={"name": "f", "arguments": "[]"}), "messages[1].tool_calls[0].function.arguments"),
        (calling(function={"name": "f", "arguments": {}}), "messages[1].tool_calls[0].function.arguments"),
        ({"temperature": 1.5}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"seed": 1}, "seed"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -1}, "frequency_penalty"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"store": True}, "store"),
        ({"verbosity": "low"}, "verbosity"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"min_p": 0.1}, "min_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": {}}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"user": 1}, "user"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"response_format": FORMAT | {"json_schema": {"name": "x"}}}, "response_format.json_schema.schema"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tools": [TOOL, {"type": "web_search"}]}, "tools[1]"),
        (function(parameters=[]), "tools[0].function.parameters"),
        (function(name=None), "tools[0].function.name"),
        (function(strict="yes"), "tools[0].function.strict"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"reasoning_effort": "low", "max_tokens": 1024}, "reasoning_effort"),
        ({"reasoning_effort": "low", "reasoning": {"effort": "low"}}, "reasoning"),
        ({"reasoning_effort": "low", "thinking": {"type": "disabled"}}, "thinking"),
        ({"reasoning": {"max_tokens": 10}}, "reasoning.max_tokens"),
        ({"reasoning": {"effort": "low", "exclude": True}}, "reasoning.exclude"),
        ({"model": NEW, "reasoning": {"max_tokens": 2000}}, "reasoning.max_tokens"),
        ({"model": UNTHINKING, "reasoning_effort": "low"}, "reasoning_effort"),
        ({"x" * 500: 1}, "x" * 120 + "…"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_its_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        translate({"model": OLD, "messages": [USER]} | fields, max_tokens=1000)
    assert refused.value.param == param
    assert refused.value.message.startswith(f"`{param}` ")


WHOLE: dict[str, Any] = {
    "model": NEW,
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                {"type": "file", "file": {"file_data": "data:text/plain;base64,SGVsbG8=", "filename": "a.txt"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Hm",
            "thinking_blocks": [{"type": "thinking", "thinking": "Hm", "signature": "s"}],
            "tool_calls": [CALL],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
    ],
    "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "response_format": FORMAT,
    "reasoning": {"effort": "low"},
    "stop": ["a"],
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "max_tokens": 5000,
}


@given(st.data())
def test_any_value_in_any_place_is_translated_or_refused_by_name(data: st.DataObject) -> None:
    document = json.loads(json.dumps(WHOLE))
    place: Any = document
    while True:
        keys = sorted(place) if type(place) is dict else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if type(place[key]) not in (dict, list) or not place[key] or data.draw(st.integers(0, 3)) == 0:
            break
        place = place[key]
    if type(place) is dict and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(["x", "type", "content", "name", "cache_control", "detail", "index"]))
    place[key] = data.draw(json_values)
    before = deepcopy(document)
    refusal = None
    try:
        result = translate(document, max_tokens=1000)
    except BadRequest as refused:
        refusal = refused
    if refusal is None:
        assert json.loads(json.dumps(result.document)) == result.document
    else:
        assert refusal.param
        assert refusal.code == "invalid_request"
    assert document == before
