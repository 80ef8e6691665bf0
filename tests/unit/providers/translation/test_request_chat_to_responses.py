"""Chat requests become the Responses requests that ask the same, or are refused by the field's name."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
from pydantic import TypeAdapter

from tests.unit.providers.answers import json_values
from tests.unit.providers.translation.replaced import replaced
from tests.unit.providers.translation.responses_requests import PDF, PNG, SCHEMA, TWINS
from watchllm.cache.canonical import canonical_form
from watchllm.domain.errors import BadRequest
from watchllm.providers.dialect import CHAT, MESSAGES, RESPONSES
from watchllm.providers.translation import between, request_responses_to_chat
from watchllm.providers.translation.request_chat_to_responses import translate

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def asked(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [*messages] or [{"role": "user", "content": "Hi"}]} | fields


def said(*content: Any, role: str = "user") -> dict[str, Any]:
    return asked({"role": role, "content": list(content)})


@pytest.mark.parametrize(("responses", "chat"), TWINS.values(), ids=TWINS)
def test_a_chat_comes_back_as_it_was(responses: dict[str, Any], chat: dict[str, Any]) -> None:
    before = copy.deepcopy(chat)
    there = translate(chat)
    back = request_responses_to_chat.translate(there.document)
    assert canonical_form(back.document, plain=True) == canonical_form(chat, plain=True)
    assert (there.dropped, there.exact) == ((), True)
    assert (back.dropped, back.exact) == (("store",), True)
    assert chat == before


@pytest.mark.parametrize(("responses", "chat"), TWINS.values(), ids=TWINS)
def test_a_response_request_comes_back_asking_the_same(responses: dict[str, Any], chat: dict[str, Any]) -> None:
    again = translate(request_responses_to_chat.translate(responses).document).document
    assert again["store"] is False
    once_more = request_responses_to_chat.translate(again).document
    assert canonical_form(once_more, plain=True) == canonical_form(chat, plain=True)
    kept = {field: again[field] for field in again if field in responses and field not in ("input", "instructions")}
    for field, value in kept.items():
        bare = {name: member for name, member in value.items() if member} if type(value) is dict else value
        given_ = responses[field]
        assert bare == ({name: m for name, m in given_.items() if m} if type(given_) is dict else given_)


@pytest.mark.parametrize(("responses", "chat"), TWINS.values(), ids=TWINS)
def test_what_is_sent_is_of_the_official_schema(responses: dict[str, Any], chat: dict[str, Any]) -> None:
    document = translate(chat).document
    if type(document["input"]) is list:
        for number, item in enumerate(document["input"]):
            if item.get("role") == "assistant" and type(item["content"]) is list:
                # Its schema has ids in what the model said, as answers do; the reference's examples have none.
                item |= {"id": f"msg_{number}", "status": "completed"}
    plain = {field: value for field, value in document.items() if field != "stream"} | {"model": "m"}
    TypeAdapter(ResponseCreateParamsNonStreaming).validate_python(plain)


def test_a_lone_question_is_a_string_and_nothing_is_left_with_the_provider() -> None:
    assert translate(asked({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})).document == {
        "model": "m", "instructions": "Be brief.", "input": "Hi", "store": False,
    }  # fmt: skip


def test_a_conversation_becomes_items() -> None:
    document = translate(
        asked(
            {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": [
                {"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": PNG, "detail": None}},
                {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
            ]},
            {"role": "assistant", "content": "Let me see.", "refusal": None, "annotations": [],
             "tool_calls": [CALL | {"index": 0}, {"id": "call_2", "type": "custom",
                                                  "custom": {"name": "c", "input": "x"}}]},
            {"role": "tool", "tool_call_id": "call_1", "name": "f", "content": "1"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "2"}]},
            {"role": "assistant", "content": "Sorry", "refusal": "No."},
        )
    ).document  # fmt: skip
    assert "instructions" not in document
    assert document["input"] == [
        {"role": "system", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"role": "user", "content": [
            {"type": "input_text", "text": "What?"},
            {"type": "input_image", "image_url": PNG, "detail": "auto"},
            {"type": "input_file", "file_data": PDF, "filename": "a.pdf"},
        ]},
        {"type": "message", "role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "call_2", "name": "c", "input": "x"},
        {"type": "function_call_output", "call_id": "call_1", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "2"},
        {"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "Sorry"}, {"type": "refusal", "refusal": "No."},
        ]},
    ]  # fmt: skip


def test_instructions_alone_are_still_asked() -> None:
    document = translate(asked({"role": "system", "content": "Greet me."})).document
    assert document["input"] == [{"role": "system", "content": "Greet me."}]


def test_a_function_is_not_strict_unless_the_client_said_so() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g",
             "parameters": SCHEMA, "strict": True}}]  # fmt: skip
    first, second = translate(asked(tools=tools)).document["tools"]
    assert first == {"type": "function", "name": "f", "parameters": None, "strict": False}
    assert (second["strict"], json.dumps(second["parameters"])) == (True, json.dumps(SCHEMA))


@pytest.mark.parametrize(
    "meaningless",
    [
        {"n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "stop": [], "functions": []},
        {"modalities": ["text"], "store": False, "logprobs": False, "top_logprobs": 0, "tools": []},
        {"stream_options": {"include_usage": True}, "response_format": {"type": "text"}, "stop": None, "seed": None},
        {"metadata": {}, "reasoning": {"effort": None}},
    ],
)
def test_what_leaving_it_out_means_is_left_out(meaningless: dict[str, Any]) -> None:
    assert translate(asked(**meaningless)) == translate(asked())


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_limit_are_one(field: str) -> None:
    assert translate(asked(**{field: 9})).document["max_output_tokens"] == 9
    assert translate(asked(max_tokens=9, max_completion_tokens=9)).document["max_output_tokens"] == 9


def test_what_changes_no_answer_is_dropped_by_name() -> None:
    hint = {"cache_control": {"type": "ephemeral"}}
    translated = translate(
        asked(
            {"role": "user", "content": [{"type": "text", "text": "Hi"} | hint]} | hint,
            metadata={"a": "b"},
            safety_identifier="s",
            prompt_cache_key="k",
            service_tier="turbo",
            stream_options={"include_obfuscation": False},
            tools=[{"type": "function", "function": {"name": "f"}} | hint],
        )
    )
    assert set(translated.dropped) == {
        "messages[].cache_control", "messages[].content[].cache_control", "metadata", "safety_identifier",
        "prompt_cache_key", "service_tier", "stream_options.include_obfuscation", "tools[].cache_control",
    }  # fmt: skip
    assert translated.exact
    assert translated.document["input"] == "Hi"


@pytest.mark.parametrize(
    "beside",
    [
        {"reasoning_content": "Hm"},
        {"reasoning": "Hm"},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm", "signature": "s"}]},
        {"annotations": [{"type": "url_citation"}]},
        {"citations": ["x"]},
    ],
)
def test_what_was_thought_before_is_not_sent_back(beside: dict[str, Any]) -> None:
    turns = [{"role": "assistant", "content": "Hello"} | beside, {"role": "user", "content": "Why?"}]
    translated = translate(asked(*turns))
    assert translated.dropped == (f"messages[].{next(iter(beside))}",)
    assert not translated.exact
    assert translated.document["input"][0] == {"type": "message", "role": "assistant", "content": "Hello"}


@pytest.mark.parametrize(
    ("document", "param"),
    [
        (asked(seed=1), "seed"),
        (asked(stop="END"), "stop"),
        (asked(stop=["END"]), "stop"),
        (asked(n=2), "n"),
        (asked(n=True), "n"),
        (asked(presence_penalty=0.5), "presence_penalty"),
        (asked(frequency_penalty=False), "frequency_penalty"),
        (asked(logit_bias={"1": 5}), "logit_bias"),
        (asked(modalities=["text", "audio"]), "modalities"),
        (asked(store=True), "store"),
        (asked(top_k=3), "top_k"),
        (asked(prediction={"type": "content", "content": "x"}), "prediction"),
        (asked(web_search_options={}), "web_search_options"),
        (asked(functions=[{"name": "f"}]), "functions"),
        (asked(temperature=2.5), "temperature"),
        (asked(top_p="1"), "top_p"),
        (asked(max_tokens=0), "max_tokens"),
        (asked(max_tokens=8, max_completion_tokens=9), "max_completion_tokens"),
        (asked(top_logprobs=-1), "top_logprobs"),
        (asked(reasoning={"max_tokens": 9}), "reasoning.max_tokens"),
        (asked(reasoning={"effort": "low"}, reasoning_effort="high"), "reasoning_effort"),
        (asked(response_format={"type": "xml"}), "response_format.type"),
        (asked(response_format={"type": "json_schema"}), "response_format.json_schema"),
        (asked(response_format={"type": "json_schema", "json_schema": {"name": "n"}}),
         "response_format.json_schema.schema"),
        (asked(tools=[{"type": "web_search"}]), "tools[0].type"),
        (asked(tools=[{"type": "function"}]), "tools[0].function"),
        (asked(tools=[{"type": "function", "function": {"name": "f", "returns": {}}}]), "tools[0].function.returns"),
        (asked(tools=[{"type": "custom", "custom": {"name": "c", "format": {"type": "regex"}}}]),
         "tools[0].custom.format.type"),
        (asked(tool_choice="any"), "tool_choice"),
        (asked(tool_choice={"type": "function"}), "tool_choice.function"),
        (asked(tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "mcp"}]}}),
         "tool_choice.allowed_tools.tools[0].type"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        (asked({"role": "function", "name": "f", "content": "x"}), "messages[0].role"),
        (asked({"role": "user", "name": "Ann", "content": "x"}), "messages[0].name"),
        (asked({"role": "user", "content": None}), "messages[0].content"),
        (asked({"role": "assistant", "content": None}), "messages[0].content"),
        (asked({"role": "assistant", "audio": {"id": "a"}}), "messages[0].audio"),
        (asked({"role": "assistant", "tool_calls": [{"id": "c", "type": "function"}]}),
         "messages[0].tool_calls[0].function"),
        (asked({"role": "tool", "content": "x"}), "messages[0].tool_call_id"),
        (said({"type": "video", "video": "x"}), "messages[0].content[0].type"),
        (said({"type": "image_url", "image_url": PNG}), "messages[0].content[0].image_url"),
        (said({"type": "file", "file": {"filename": "a"}}), "messages[0].content[0].file.file_data"),
        (said({"type": "image_url", "image_url": {"url": PNG}}, role="system"), "messages[0].content[0].type"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_name(document: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        translate(document)
    assert refused.value.param == param
    assert f"`{param}`" in refused.value.message


def test_messages_reach_a_provider_of_responses_by_way_of_chat() -> None:
    document = {
        "model": "m",
        "max_tokens": 9,
        "system": "Be brief.",
        "metadata": {"user_id": "u"},
        "cache_control": {"type": "ephemeral"},
        "messages": [{"role": "user", "content": "Hi"}],
    }
    translated = between.request_in(RESPONSES, MESSAGES, document, "m")
    assert translated.document == {
        "model": "m", "max_output_tokens": 9, "user": "u", "instructions": "Be brief.", "input": "Hi", "store": False,
    }  # fmt: skip
    assert translated.dropped == ("cache_control",)
    chat = between.request_in(RESPONSES, CHAT, asked(), "m").document
    assert chat == {"model": "m", "input": "Hi", "store": False}


EVERYTHING = {name: value for _, chat in TWINS.values() for name, value in chat.items()} | {
    "messages": [message for _, chat in TWINS.values() for message in chat["messages"]]
}


def refusal_of(document: dict[str, Any]) -> str | None:
    """The field that a request is refused for; None = it is translated."""
    try:
        translated = translate(document)
    except BadRequest as refused:
        return str(refused.param)
    json.dumps(translated.document)
    assert translated.document["store"] is False
    return None


@given(replaced(EVERYTHING).filter(lambda document: type(document) is dict))
def test_any_json_in_any_place_is_translated_or_refused_by_name(document: dict[str, Any]) -> None:
    before = json.dumps(document)
    refused = refusal_of(document)
    assert refused is None or refused.startswith(tuple(name[:100] for name in (*document, "messages")))
    assert json.dumps(document) == before


@given(st.dictionaries(st.sampled_from(sorted(EVERYTHING)), json_values(5)))
def test_any_document_is_translated_or_refused(document: dict[str, Any]) -> None:
    refused = refusal_of(document)
    assert refused is None or refused.startswith((*document, "messages"))
