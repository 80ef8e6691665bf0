"""Chat completion requests as requests to Anthropic's messages.

The requests follow the examples of OpenAI's reference for chat completions; what is expected is valid by the types of
Anthropic's official client.
"""

import json
from copy import deepcopy
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.unit.providers.anthropic.messages import json_values
from watchllm.domain.errors import BadRequest
from watchllm.providers.dialect import TranslatedRequest
from watchllm.providers.translation.request_chat_to_messages import translate

OLD, NEW, UNTHINKING = "claude-sonnet-4-5", "claude-opus-4-6", "claude-3-5-haiku-latest"
USER = {"role": "user", "content": "Hi"}
PNG = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Weather of a city", "parameters": SCHEMA}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}
TEXT = {"type": "text", "text": "Hi"}
PART = TEXT | {"prompt_cache_breakpoint": {"mode": "explicit"}}
NINE = [{"type": "text", "text": "9"}, {"type": "text", "text": "am"}]
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}

_valid = TypeAdapter(MessageCreateParamsNonStreaming)


def translated(**fields: Any) -> TranslatedRequest:
    document = {"model": OLD, "messages": [USER]} | fields
    before = deepcopy(document)
    result = translate(document, max_tokens=1000)
    assert document == before
    # Iterables are validated when they are written.
    _valid.dump_json(_valid.validate_python(result.document | {"stream": False}))
    return result


def asked(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return translated(messages=list(messages) or [USER], **fields).document


def test_a_plain_question() -> None:
    result = translated(messages=[{"role": "system", "content": "Be brief."}, USER], stream=True)
    assert result.document == {
        "model": OLD,
        "max_tokens": 1000,
        "system": "Be brief.",
        "messages": [USER],
        "stream": True,
    }
    assert result.exact
    assert result.dropped == ()


def test_a_whole_conversation_with_tools() -> None:
    thought = {"type": "thinking", "thinking": "Hm", "signature": "s"}
    document = asked(
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "system", "content": "Be kind."},
        USER,
        {
            "role": "assistant",
            "content": "Let me look.",
            "refusal": None,
            "annotations": [],
            "reasoning_content": "Hm",
            "thinking_blocks": [thought | {"index": 0}, {"type": "redacted_thinking", "data": "x", "index": 1}],
            "tool_calls": [CALL, CALL | {"id": "call_2", "function": {"name": "now", "arguments": ""}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
        {"role": "tool", "tool_call_id": "call_2", "content": NINE},
        {"role": "user", "content": "And tomorrow?"},
        tools=[TOOL],
        tool_choice="auto",
    )  # fmt: skip
    assert document["system"] == [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    assert document["messages"] == [
        USER,
        {
            "role": "assistant",
            "content": [
                thought,
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Zürich"}},
                {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "Rain"},
                {
                    "type": "tool_result",
                    "tool_use_id": "call_2",
                    "content": NINE,
                },
                {"type": "text", "text": "And tomorrow?"},
            ],
        },
    ]
    assert document["tools"] == [
        {"name": "weather", "description": "Weather of a city", "input_schema": SCHEMA},
    ]
    assert list(document["tools"][0]["input_schema"]["properties"]) == ["b", "a"]
    assert document["tool_choice"] == {"type": "auto"}


def test_calls_beside_no_text_or_an_empty_one() -> None:
    for content in (None, ""):
        _, turn, *_ = asked(USER, {"role": "assistant", "content": content, "tool_calls": [CALL]})["messages"]
        assert [block["type"] for block in turn["content"]] == ["tool_use"]


def test_tool_results_at_the_end_are_a_turn_of_the_user() -> None:
    result = {"role": "tool", "tool_call_id": "call_1", "content": ""}
    messages = asked(USER, {"role": "assistant", "tool_calls": [CALL]}, result)["messages"]
    assert messages[-1] == {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": ""}],
    }


def test_images_and_files() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "data:text/plain;charset=utf-8;base64,SGVsbG8="}},
    ]
    (turn,) = asked({"role": "user", "content": parts})["messages"]
    assert turn["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.jpg"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            "title": "a.pdf",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hello"}},
    ]


def test_a_single_text_part_is_the_text() -> None:
    assert asked({"role": "user", "content": [{"type": "text", "text": "Hi"}]})["messages"] == [USER]


def test_cache_control_is_anthropics_in_every_dialect() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    document = asked(
        {"role": "system", "content": [{"type": "text", "text": "Long.", **mark}]},
        {"role": "user", "content": "Hi", **mark},
        tools=[TOOL | mark],
    )
    assert document["system"] == [{"type": "text", "text": "Long.", **mark}]
    assert document["messages"][0]["content"] == [{"type": "text", "text": "Hi", **mark}]
    assert document["tools"][0]["cache_control"] == mark["cache_control"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"}),
    ],
)
def test_which_tool_may_be_called(choice: Any, expected: dict[str, Any]) -> None:
    assert asked(tools=[TOOL], tool_choice=choice)["tool_choice"] == expected


def test_one_call_at_a_time() -> None:
    alone = {"disable_parallel_tool_use": True}
    assert asked(tools=[TOOL], parallel_tool_calls=False)["tool_choice"] == {"type": "auto"} | alone
    required = asked(tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    assert required["tool_choice"] == {"type": "any"} | alone
    assert asked(tools=[TOOL], tool_choice="none", parallel_tool_calls=False)["tool_choice"] == {"type": "none"}
    assert "tool_choice" not in asked(tools=[TOOL], parallel_tool_calls=True)
    assert "tool_choice" not in asked(parallel_tool_calls=False, tool_choice="auto")


def test_a_tool_without_parameters_and_a_strict_one() -> None:
    bare = {"type": "function", "function": {"name": "now", "strict": True}}
    assert asked(tools=[bare])["tools"] == [
        {"name": "now", "input_schema": {"type": "object", "properties": {}}, "strict": True}
    ]


def test_structured_output() -> None:
    result = translated(response_format=FORMAT)
    assert result.document["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert result.exact
    loose = FORMAT | {"json_schema": {"name": "answer", "schema": SCHEMA}}
    assert not translated(response_format=loose).exact
    assert "output_config" not in asked(response_format={"type": "text"})


def test_sampling_and_stops() -> None:
    document = asked(temperature=0.5, top_p=0.9, top_k=40, stop=["a", "b"], max_completion_tokens=7)
    wanted = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "stop_sequences": ["a", "b"], "max_tokens": 7}
    assert wanted.items() <= document.items()
    assert asked(stop="x", max_tokens=8) == {
        "model": OLD,
        "max_tokens": 8,
        "messages": [USER],
        "stop_sequences": ["x"],
    }


DEFAULTS = {
    "n": 1,
    "temperature": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "store": False,
    "verbosity": "medium",
    "modalities": ["text"],
    "stop": None,
    "seed": None,
    "audio": None,
    "tools": [],
    "parallel_tool_calls": True,
    "stream_options": {"include_usage": True},
    "metadata": {},
}


def test_what_means_nothing_is_left_out() -> None:
    result = translated(**DEFAULTS)
    assert result.document == {"model": OLD, "max_tokens": 1000, "messages": [USER]}
    assert result.dropped == ()
    assert result.exact


def test_what_changes_no_answer_is_dropped_and_named() -> None:
    result = translated(
        metadata={"a": "b"},
        safety_identifier="u",
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        service_tier="flex",
        messages=[{"role": "user", "content": [PART, PART]}],
        stream_options={"include_usage": True, "include_obfuscation": False},
    )
    assert set(result.dropped) == {
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "messages[].content[].prompt_cache_breakpoint",
        "service_tier",
        "stream_options.include_obfuscation",
    }
    assert len(result.dropped) == 7
    assert result.document == {
        "model": OLD,
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": [TEXT, TEXT]}],
    }
    assert result.exact


def test_the_user_and_the_tier() -> None:
    document = asked(user="u1", service_tier="default")
    assert document["metadata"] == {"user_id": "u1"}
    assert document["service_tier"] == "standard_only"


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "config"),
    [
        (NEW, "low", {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
        (NEW, "minimal", {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
        (NEW, "max", {"type": "adaptive", "display": "summarized"}, {"effort": "max"}),
        (NEW, "none", {"type": "disabled"}, None),
        (OLD, "low", {"type": "enabled", "budget_tokens": 2048}, None),
        (OLD, "high", {"type": "enabled", "budget_tokens": 24_576}, None),
        (OLD, "none", None, None),
        (UNTHINKING, "none", None, None),
    ],
)
def test_reasoning_effort(model: str, effort: str, thinking: Any, config: Any) -> None:
    for fields in ({"reasoning_effort": effort}, {"reasoning": {"effort": effort}}):
        document = asked(model=model, max_tokens=64_000, **fields)
        assert document.get("thinking") == thinking
        assert document.get("output_config") == config


def test_a_budget_of_reasoning_leaves_room_for_the_answer() -> None:
    result = translated(reasoning={"max_tokens": 2000}, max_tokens=4000)
    assert result.document["thinking"] == {"type": "enabled", "budget_tokens": 2000}
    assert result.exact
    result = translated(reasoning={"max_tokens": 9000}, max_tokens=2000)
    assert result.document["thinking"] == {"type": "enabled", "budget_tokens": 1600}
    assert not result.exact


def test_effort_and_format_share_their_place() -> None:
    document = asked(model=NEW, reasoning_effort="high", response_format=FORMAT)
    assert document["output_config"] == {"effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}}


def test_anthropics_own_thinking_goes_along() -> None:
    own = {"type": "enabled", "budget_tokens": 1024}
    assert asked(thinking=own)["thinking"] == own


def test_what_can_be_said_only_about_so_is_not_exact() -> None:
    late = {"role": "system", "content": "Late."}
    moved = translated(messages=[USER, late])
    assert moved.document["system"] == "Late."
    assert not moved.exact
    thought = translated(messages=[USER, {"role": "assistant", "content": "a", "reasoning_content": "Hm"}, USER])
    assert thought.dropped == ("messages[].reasoning_content",)
    assert not thought.exact
    refused = translated(messages=[USER, {"role": "assistant", "content": None, "refusal": "No."}, USER])
    assert refused.document["messages"][1] == {"role": "assistant", "content": "No."}
    assert not refused.exact


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
