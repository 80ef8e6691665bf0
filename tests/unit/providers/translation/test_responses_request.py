"""Responses requests become the chat requests that a user would have written, or are refused by the field's name."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter

from tests.unit.providers.answers import json_values
from tests.unit.providers.translation.responses_requests import SCHEMA, TWINS
from watchllm.cache.canonical import canonical_form, is_plain
from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest
from watchllm.providers.translation import responses_reasoning
from watchllm.providers.translation.request_responses_to_chat import translate


def asked(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "input": "Hi"} | fields


def said(*content: Any, role: str = "user") -> dict[str, Any]:
    return asked(input=[{"role": role, "content": list(content)}])


def canonical(document: dict[str, Any]) -> bytes:
    body = json.dumps(document, ensure_ascii=False).encode()
    return canonical_form(json_body.parse(body), plain=is_plain(body))


@pytest.mark.parametrize(("given", "expected"), TWINS.values(), ids=TWINS)
def test_a_request_becomes_what_a_user_of_chat_completions_would_have_written(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = copy.deepcopy(given)
    translated = translate(given)
    assert translated.document == expected
    assert (translated.dropped, translated.exact) == ((), True)
    assert given == before


@pytest.mark.parametrize(("given", "expected"), TWINS.values(), ids=TWINS)
def test_both_forms_of_a_question_have_one_canonical_form(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert canonical(translate(given).document) == canonical(expected)


@pytest.mark.parametrize(("given", "expected"), TWINS.values(), ids=TWINS)
def test_the_twins_are_requests_of_the_official_schema(given: dict[str, Any], expected: dict[str, Any]) -> None:
    for schema, document in ((ResponseCreateParamsNonStreaming, given), (CompletionCreateParamsNonStreaming, expected)):
        plain = {field: value for field, value in document.items() if field != "stream"} | {"model": "m"}
        TypeAdapter(schema).validate_python(plain)


def test_the_order_of_a_schemas_keys_is_kept() -> None:
    text = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
    written = translate(asked(text=text)).document["response_format"]["json_schema"]["schema"]
    assert json.dumps(written) == json.dumps(SCHEMA)


def test_audio_is_told_though_the_reference_says_coming_soon() -> None:
    part = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    assert translate(said(part)).document["messages"] == [{"role": "user", "content": [part]}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"store": True}, "store"),
        ({"truncation": "auto"}, "truncation"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"moderation": {"model": "omni-moderation-latest"}}, "moderation"),
        ({"seed": 1}, "seed"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "mcp", "server_label": "s"}]}, "tools[1]"),
        ({"tools": [{"type": "function", "name": "f", "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{"type": "function", "name": "f", "output_schema": {}}]}, "tools[0].output_schema"),
        ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
         "tool_choice.tools[0]"),
        ({"include": ["something.new"]}, "include[0]"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"reasoning": {"context": "all_turns"}}, "reasoning.context"),
        ({"reasoning": {"budget": 3}}, "reasoning.budget"),
        ({"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": "a"}, {"type": "web_search_call", "id": "ws_1"}]}, "input[1]"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0]"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "", "namespace": "n"}]},
         "input[0].namespace"),
        ({"input": [{"type": "function_call_output", "call_id": "c",
                     "output": [{"type": "input_image", "image_url": "https://example.org/a.png"}]}]},
         "input[0].output[0]"),
        (said({"type": "input_file", "file_url": "https://example.org/a.pdf"}), "input[0].content[0].file_url"),
        (said({"type": "input_text", "text": "a"}, {"type": "input_image", "file_id": "file-1"}),
         "input[0].content[1].file_id"),
        (said({"type": "input_image", "image_url": "https://example.org/a.png"}, role="system"),
         "input[0].content[0]"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        translate(asked(**fields))
    assert refused.value.param == param
    assert f"`{param}` has no counterpart" in refused.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": ["Hi"]}, "input[0]"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "tool", "content": "Hi"}]}, "input[0].role"),
        ({"input": [{"role": ["user"], "content": "Hi"}]}, "input[0].role"),
        ({"input": [{"type": {}, "role": "user", "content": "Hi"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "reasoning", "summary": "x"}]}, "input[0].summary"),
        (said({"type": "input_text"}), "input[0].content[0].text"),
        (said({"type": "input_file", "filename": "a"}), "input[0].content[0].file_data"),
        (said("Hi"), "input[0].content[0]"),
        ({"instructions": ["Hi"]}, "instructions"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"stream": "yes"}, "stream"),
        ({"store": "no"}, "store"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "f", "strict": "yes"}]}, "tools[0].strict"),
        ({"tools": [{"type": "custom", "name": "f", "format": {"type": "regex"}}]}, "tools[0].format.type"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": "low"}, "text"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"include": "logprobs"}, "include"),
        ({"metadata": "x"}, "metadata"),
    ],
)
def test_wrong_types_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        translate(asked(**fields))
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "dropped", "exact"),
    [
        ({"metadata": {"a": "b"}}, ("metadata",), True),
        ({"store": False}, ("store",), True),
        ({"truncation": "disabled"}, ("truncation",), True),
        ({"prompt_cache_key": "k", "safety_identifier": "s"}, ("prompt_cache_key", "safety_identifier"), True),
        ({"prompt_cache_options": {"mode": "implicit"}}, ("prompt_cache_options",), True),
        ({"service_tier": "ultrafast"}, ("service_tier",), True),
        ({"stream_options": {"include_obfuscation": False}}, ("stream_options",), True),
        ({"include": ["message.output_text.logprobs", "file_search_call.results"]}, ("include[]",), True),
        ({"include": ["reasoning.encrypted_content"]}, ("include[]",), False),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, ("reasoning.summary",), False),
        ({"tools": [{"type": "function", "name": "f", "parameters": SCHEMA}]}, (), False),
        (
            said({"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}),
            ("input[].content[].prompt_cache_breakpoint",),
            True,
        ),
        (
            {"input": [{"role": "assistant", "content": "a", "phase": "commentary"}]},
            ("input[].phase",),
            False,
        ),
    ],
)
def test_what_is_dropped_is_named(fields: dict[str, Any], dropped: tuple[str, ...], exact: bool) -> None:
    translated = translate(asked(**fields))
    assert (translated.dropped, translated.exact) == (dropped, exact)


def test_names_of_what_is_dropped_are_bounded() -> None:
    part = {"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert len(translate(said(*[part] * 1000)).dropped) <= 32


def test_a_name_that_the_client_made_up_is_not_repeated_at_length() -> None:
    with pytest.raises(BadRequest) as refused:
        translate(asked(**{"x" * 100_000: 1}))
    assert len(refused.value.message) < 1000


CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
BLOCKS = [{"type": "thinking", "thinking": "Hm", "signature": "c2ln"}, {"type": "redacted_thinking", "data": "eA=="}]


def reasoning(*summary: str, **more: Any) -> dict[str, Any]:
    parts = [{"type": "summary_text", "text": text} for text in summary]
    return {"type": "reasoning", "id": "rs_1", "summary": parts} | more


def test_reasoning_joins_the_turn_that_it_led_to() -> None:
    translated = translate(
        asked(
            input=[
                reasoning("Hm", "So", encrypted_content=responses_reasoning.pack(BLOCKS)),
                {"role": "assistant", "content": "Wait."},
                reasoning("Then"),
                CALL,
                {"type": "function_call_output", "call_id": "call_1", "output": "1"},
                reasoning(content=[{"type": "reasoning_text", "text": "Raw"}]),
                CALL | {"call_id": "call_2"},
            ]
        )
    )
    assert translated.document["messages"] == [
        {
            "role": "assistant",
            "content": "Wait.",
            "reasoning_content": "Hm\n\nSo\n\nThen",
            "thinking_blocks": BLOCKS,
            "tool_calls": [TOOL_CALL],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Raw",
            "tool_calls": [TOOL_CALL | {"id": "call_2"}],
        },
    ]
    assert (translated.dropped, translated.exact) == ((), False)


def test_reasoning_that_no_answer_followed_and_a_providers_sealed_reasoning_are_dropped() -> None:
    items = [reasoning("Hm"), {"role": "user", "content": "Go on"}, reasoning(encrypted_content="gAAAAA")]
    translated = translate(asked(input=items))
    assert translated.document["messages"] == [{"role": "user", "content": "Go on"}]
    assert translated.dropped == ("input[]", "input[].encrypted_content")
    assert not translated.exact


def test_what_was_said_after_a_call_is_told_before_it() -> None:
    items = [
        CALL,
        {"role": "assistant", "content": "Wait."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"type": "function_call_output", "call_id": "call_1", "output": "1"},
    ]
    translated = translate(asked(input=items))
    parts = [{"type": "text", "text": "Wait."}, {"type": "refusal", "refusal": "No."}]
    assert translated.document["messages"] == [
        {"role": "assistant", "content": parts, "tool_calls": [TOOL_CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
    ]
    assert not translated.exact


@pytest.mark.parametrize("packed", ["", "!", "ÿ", "WzFd", "e30=", "W3si"])
def test_only_blocks_that_were_packed_are_unpacked(packed: str) -> None:
    prefix, dot, _ = responses_reasoning.pack(BLOCKS).rpartition(".")
    assert responses_reasoning.unpack(prefix + dot + packed) is None
    assert responses_reasoning.unpack(packed) is None


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a document."""
    yield path
    members = value.items() if type(value) is dict else enumerate(value) if type(value) is list else ()
    for name, member in members:
        yield from places(member, (*path, name))


EVERYTHING = {
    name: value
    for given, _ in TWINS.values()
    for name, value in given.items()
} | {"input": [item for given, _ in TWINS.values() if type(given["input"]) is list for item in given["input"]]
     + [reasoning("Hm", encrypted_content=responses_reasoning.pack(BLOCKS))]}  # fmt: skip


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.copy(document)
    changed[path[0]] = replaced(document[path[0]], path[1:], value)
    return changed


@given(st.sampled_from(sorted(filter(None, places(EVERYTHING)), key=repr)), json_values(5))
def test_any_json_in_any_place_is_translated_or_refused_by_name(path: tuple[Any, ...], value: Any) -> None:
    document = replaced(EVERYTHING, path, value)
    before = json.dumps(document)
    refused = refusal_of(document)
    if refused is not None:
        assert refused.startswith(str(path[0]))
    assert json.dumps(document) == before


@given(st.dictionaries(st.sampled_from(sorted(EVERYTHING)), json_values(5)))
def test_any_document_is_translated_or_refused_by_name(document: dict[str, Any]) -> None:
    refused = refusal_of(document)
    assert refused is None or refused.partition(".")[0].partition("[")[0] in {*document, "input"}


def refusal_of(document: dict[str, Any]) -> str | None:
    """The field that a request is refused for; None = it is translated."""
    try:
        translated = translate(document)
    except BadRequest as refused:
        return str(refused.param)
    json.dumps(translated.document)
    assert translated.document["messages"]
    return None
