"""Messages requests become the chat requests that a chat user would have written, or are refused by the field's name.

The requests follow Anthropic's public reference: API reference "Messages" (create), and the guides "Tool use",
"Vision", "PDF support", "Extended thinking", "Structured outputs" and "Prompt caching".
"""

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given

from tests.unit.providers.translation.message_requests import CACHED, EVERYTHING, PNG, SCHEMA, asked, text, user
from tests.unit.providers.translation.replaced import replaced
from watchllm.cache.canonical import canonical_form
from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest
from watchllm.providers.translation.request_messages_to_chat import translate
from watchllm.sim.openai_validation import check_chat


def messages_of(*messages: dict[str, Any], **fields: Any) -> Any:
    return translate(asked(*messages, **fields)).document["messages"]


def test_everything_that_has_a_counterpart() -> None:
    translated = translate(EVERYTHING)
    assert translated.document == {
        "model": "m",
        "max_completion_tokens": 100,
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                    {
                        "type": "file",
                        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
                    },
                    {
                        "type": "file",
                        "file": {
                            "filename": "document.txt",
                            "file_data": "data:text/plain;base64," + base64.b64encode("Grüße".encode()).decode(),
                        },
                    },
                ],
            },
            {
                "role": "assistant",
                "content": "I will look.",
                "tool_calls": [
                    {
                        "id": "toolu_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
                    },
                    {"id": "toolu_2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
                ],
            },
            {
                "role": "tool",
                "tool_call_id": "toolu_1",
                "content": [{"type": "text", "text": "sunny"}, {"type": "text", "text": "25°"}],
            },
            {"role": "tool", "tool_call_id": "toolu_2", "content": "noon"},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "Tells the weather", "parameters": SCHEMA},
            },
            {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}, "strict": True}},
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "response", "schema": SCHEMA, "strict": True},
        },
        "user": "u1",
        "service_tier": "default",
    }
    check_chat(translated.document)
    assert not translated.exact
    assert set(translated.dropped) == {
        "system[].cache_control",
        "messages[].content[].cache_control",
        "messages[].content[].thinking",
        "tools[].cache_control",
        "metadata",
        "context_management",
        "cache_control",
    }


SHARED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a question": (
        asked(user("Hello")),
        {"messages": [user("Hello")], "max_completion_tokens": 100},
    ),
    "blocks against plain text": (
        asked(user([text("Hello")]), system=[text("Be brief.", **CACHED)], stream=True, metadata={"user_id": "u"}),
        {"messages": [{"role": "system", "content": "Be brief."}, user("Hello")], "max_completion_tokens": 100},
    ),
    "an empty system prompt is none": (
        asked(system="", top_k=None, stop_sequences=[], tools=[]),
        {"messages": [user("Hello")], "max_completion_tokens": 100},
    ),
    "several texts": (
        asked(user([text("a"), text("b")]), temperature=0),
        {"messages": [user([text("a"), text("b")])], "max_completion_tokens": 100, "temperature": 0},
    ),
    "a tool's result, and more words": (
        asked(
            user("Weather?"),
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "w", "input": {"a": [1]}}]},
            user([{"type": "tool_result", "tool_use_id": "c", "content": [text("rain")]}, text("So?")]),
            tools=[{"name": "w", "input_schema": SCHEMA}],
            tool_choice={"type": "tool", "name": "w"},
        ),
        {
            "messages": [
                user("Weather?"),
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c", "type": "function", "function": {"name": "w", "arguments": '{"a":[1]}'}},
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "rain"},
                user("So?"),
            ],
            "max_completion_tokens": 100,
            "tools": [{"type": "function", "function": {"name": "w", "parameters": SCHEMA}}],
            "tool_choice": {"type": "function", "function": {"name": "w"}},
        },
    ),
    "a schema for the answer": (
        asked(output_config={"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "high"}),
        {
            "messages": [user("Hello")],
            "max_completion_tokens": 100,
            "reasoning_effort": "high",
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "response", "strict": True, "schema": SCHEMA},
            },
        },
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_the_same_question_has_one_canonical_form_in_both_dialects(name: str) -> None:
    as_messages, as_chat = SHARED[name]
    translated = translate(json_body.parse(json.dumps(as_messages).encode()))
    assert translated.exact
    chat = json_body.parse(json.dumps({"model": "m"} | as_chat).encode())
    assert canonical_form(translated.document, plain=True) == canonical_form(chat, plain=True)


def test_different_questions_keep_different_canonical_forms() -> None:
    documents = [as_messages for as_messages, _ in SHARED.values()]
    documents += [asked(user("hello")), asked(system="Hello"), asked(user("Hello"), max_tokens=101)]
    forms = {canonical_form(translate(document).document, plain=True) for document in documents}
    # "a question" is asked twice.
    assert len(forms) == len(documents) - 1


def test_the_order_of_a_schema_is_kept() -> None:
    schema = {"type": "object", "properties": {"z": {}, "a": {}}}
    tools = translate(asked(tools=[{"name": "w", "input_schema": schema}])).document["tools"]
    assert list(tools[0]["function"]["parameters"]["properties"]) == ["z", "a"]


@pytest.mark.parametrize(
    ("budget", "effort"), [(1024, "low"), (4095, "low"), (4096, "medium"), (16383, "medium"), (16384, "high")]
)
def test_a_budget_of_thinking_becomes_the_nearest_effort(budget: int, effort: str) -> None:
    translated = translate(asked(thinking={"type": "enabled", "budget_tokens": budget}))
    assert translated.document["reasoning_effort"] == effort
    assert not translated.exact


def test_adaptive_thinking_is_a_chat_models_default() -> None:
    translated = translate(asked(thinking={"type": "adaptive", "display": "omitted"}))
    assert "reasoning_effort" not in translated.document
    assert (translated.dropped, translated.exact) == (("thinking.display",), False)


def test_that_a_model_is_not_to_think_is_not_the_same_as_saying_nothing() -> None:
    translated = translate(asked(thinking={"type": "disabled"}))
    assert "reasoning_effort" not in translated.document
    assert not translated.exact


def turn(*blocks: dict[str, Any]) -> Any:
    return messages_of(user("?"), {"role": "assistant", "content": list(blocks)}, user("!"))[1]


def test_citations_of_an_earlier_answer_are_dropped() -> None:
    cited = text("It is tall.", citations=[{"type": "char_location", "cited_text": "tall"}])
    translated = translate(asked(user("?"), {"role": "assistant", "content": [cited]}, user("!")))
    assert translated.document["messages"][1] == {"role": "assistant", "content": "It is tall."}
    assert (translated.dropped, translated.exact) == (("messages[].content[].citations",), False)


class TestReasoning:
    THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": ""}  # noqa: RUF012

    def told(self, *blocks: dict[str, Any]) -> Any:
        document = asked(user("?"), {"role": "assistant", "content": [*blocks, text("Yes")]}, user("!"))
        translated = translate(document, reasoning_back=True)
        assert translated.exact
        return translated.document["messages"][1]

    def test_is_dropped_where_the_provider_does_not_take_it_back(self) -> None:
        translated = translate(asked(user("?"), {"role": "assistant", "content": [self.THOUGHT]}, user("!")))
        assert translated.document["messages"][1] == {"role": "assistant", "content": ""}
        assert (translated.dropped, translated.exact) == (("messages[].content[].thinking",), False)

    def test_goes_back_as_the_chat_provider_had_told_it(self) -> None:
        assert self.told(self.THOUGHT) == {"role": "assistant", "content": "Yes", "reasoning_content": "Hm."}
        assert self.told({"type": "thinking", "thinking": "Hm."})["reasoning_content"] == "Hm."

    def test_keeps_what_is_signed(self) -> None:
        signed = self.THOUGHT | {"signature": "s"}
        redacted = {"type": "redacted_thinking", "data": "d"}
        message = self.told(signed, redacted)
        assert message["reasoning_content"] == "Hm."
        assert message["thinking_blocks"] == [signed, redacted]
        assert self.told(signed)["thinking_blocks"] == [signed]
        assert self.told(redacted)["thinking_blocks"] == [redacted]


class TestToolResults:
    IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.com/i.png"}}  # noqa: RUF012

    def result(self, content: Any, **more: Any) -> dict[str, Any]:
        return {"type": "tool_result", "tool_use_id": "c", "content": content} | more

    def test_an_error_keeps_its_text(self) -> None:
        translated = translate(asked(user([self.result("no such city", is_error=True)])))
        assert translated.document["messages"] == [{"role": "tool", "tool_call_id": "c", "content": "no such city"}]
        assert not translated.exact

    @pytest.mark.parametrize("content", [None, "", []])
    def test_nothing_is_an_empty_text(self, content: Any) -> None:
        assert messages_of(user([self.result(content)])) == [{"role": "tool", "tool_call_id": "c", "content": ""}]

    def test_comes_before_the_words_that_were_written_first(self) -> None:
        translated = translate(asked(user([text("first"), self.result("r")])))
        assert [message["role"] for message in translated.document["messages"]] == ["tool", "user"]
        assert not translated.exact

    def test_images_follow_in_a_user_message(self) -> None:
        translated = translate(asked(user([self.result([text("seen"), self.IMAGE]), text("Well?")])))
        assert translated.document["messages"] == [
            {"role": "tool", "tool_call_id": "c", "content": "seen"},
            user(
                [
                    text("Shown by the tool call c:"),
                    {"type": "image_url", "image_url": {"url": "https://example.com/i.png"}},
                    text("Well?"),
                ]
            ),
        ]
        assert not translated.exact


def test_the_assistants_words_behind_its_calls_are_no_exact_counterpart() -> None:
    call = {"type": "tool_use", "id": "c", "name": "w", "input": {}}
    translated = translate(asked(user("?"), {"role": "assistant", "content": [call, text("So")]}, user("!")))
    assert not translated.exact
    assert turn()["content"] == ""
    assert turn(text("a"), text("b"))["content"] == [text("a"), text("b")]


def block(content: dict[str, Any]) -> dict[str, Any]:
    return asked(user([text("See:"), content]))


def source(kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return block({"type": kind, "source": value} | more)


PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("top_k", asked(top_k=40)),
    ("container", asked(container="c")),
    ("mcp_servers", asked(mcp_servers=[{"type": "url"}])),
    ("inference_geo", asked(inference_geo="us")),
    ("diagnostics", asked(diagnostics={})),
    ("speed", asked(speed="fast")),
    ("temperature", asked(temperature=1.5)),
    ("temperature", asked(temperature=True)),
    ("top_p", asked(top_p="1")),
    ("max_tokens", asked(max_tokens=0)),
    ("max_tokens", asked(max_tokens=10.5)),
    ("model", asked(model=7)),
    ("stream", asked(stream="yes")),
    ("stop_sequences", asked(stop_sequences=["a", "b", "c", "d", "e"])),
    ("stop_sequences[0]", asked(stop_sequences=[1])),
    ("metadata.user_id", asked(metadata={"user_id": 1})),
    ("thinking.type", asked(thinking={"type": "between_tools"})),
    ("thinking.budget_tokens", asked(thinking={"type": "enabled"})),
    ("output_config.effort", asked(output_config={"effort": "huge"})),
    ("output_config.task_budget", asked(output_config={"task_budget": 1})),
    ("output_config.format.type", asked(output_config={"format": {"type": "regex"}})),
    ("output_format.schema", asked(output_format={"type": "json_schema"})),
    ("context_management.edits[0]", asked(context_management={"edits": [{"type": "clear_tool_uses_20250919"}]})),
    ("system[1]", asked(system=[text("a"), {"type": "image"}])),
    ("messages", asked() | {"messages": None}),
    ("messages", asked() | {"messages": []}),
    ("messages", asked(user("Say A"), {"role": "assistant", "content": "A"})),
    ("messages[0]", asked() | {"messages": ["Hello"]}),
    ("messages[0].role", asked({"role": "tool", "content": "x"})),
    ("messages[0].name", asked({"role": "user", "content": "x", "name": "n"})),
    ("messages[0].content", asked(user(None))),
    ("messages[0].content", asked(user([]))),
    ("messages[0].content[1]", block({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})),
    ("messages[0].content[1]", block({"type": "search_result", "source": "s", "title": "t", "content": []})),
    ("messages[0].content[1].type", block({"type": None})),
    ("messages[0].content[1].text", block({"type": "text", "text": 5})),
    ("messages[0].content[1].source", source("image", {"type": "file", "file_id": "f"})),
    ("messages[0].content[1].source.media_type", source("image", PDF)),
    ("messages[0].content[1].source.url", source("image", {"type": "url"})),
    ("messages[0].content[1].source.crop", source("image", {"type": "url", "url": "u", "crop": [0, 1]})),
    (
        "messages[0].content[1].transformations",
        source("image", {"type": "url", "url": "u"}, transformations={"oversized_image": "error"}),
    ),
    ("messages[0].content[1].source", source("document", {"type": "url", "url": "https://example.com/a.pdf"})),
    ("messages[0].content[1].source", source("document", {"type": "content", "content": "x"})),
    ("messages[0].content[1].citations", source("document", PDF, citations={"enabled": True})),
    ("messages[0].content[1].context", source("document", PDF, context="from the archive")),
    (
        "messages[0].content[0].content[0]",
        asked(
            user(
                [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c",
                        "content": [{"type": "tool_reference", "tool_name": "w"}],
                    }
                ]
            )
        ),
    ),
    (
        "messages[0].content[0].input",
        asked({"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "w", "input": "{}"}]}),
    ),
    ("tools[0]", asked(tools=[{"type": "web_search_20250305", "name": "web_search"}])),
    ("tools[1]", asked(tools=[{"name": "w", "input_schema": {}}, {"type": "bash_20250124", "name": "bash"}])),
    ("tools[0].input_schema", asked(tools=[{"name": "w"}])),
    ("tools[0].defer_loading", asked(tools=[{"name": "w", "input_schema": {}, "defer_loading": True}])),
    ("tools[0].input_examples", asked(tools=[{"name": "w", "input_schema": {}, "input_examples": [{}]}])),
    (
        "tools[0].allowed_callers",
        asked(tools=[{"name": "w", "input_schema": {}, "allowed_callers": ["code_execution_20250825"]}]),
    ),
    ("tool_choice.type", asked(tool_choice={"type": ["auto"]})),
    ("tool_choice.name", asked(tool_choice={"type": "tool"})),
]


@pytest.mark.parametrize(("field", "document"), REFUSED, ids=[f"{n}-{field}" for n, (field, _) in enumerate(REFUSED)])
def test_what_has_no_counterpart_is_refused_by_its_name(field: str, document: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refusal:
        translate(document)
    assert refusal.value.param == field
    assert field in refusal.value.message


def test_a_field_that_nobody_knows_is_refused_shortly_unless_it_is_null() -> None:
    assert translate(asked(novel=None)).exact
    with pytest.raises(BadRequest) as refusal:
        translate(asked(**{"x" * 10_000: 1}))
    assert len(refusal.value.message) < 400


@given(replaced(EVERYTHING))
def test_whatever_comes_is_translated_or_refused_by_a_field_and_never_changed(document: Any) -> None:
    if type(document) is not dict:
        return
    before = copy.deepcopy(document)
    refused = False
    field = None
    try:
        translated = translate(document)
    except BadRequest as refusal:
        refused, field = True, refusal.param
    assert document == before
    if refused:
        assert field is not None
    else:
        json.dumps(translated.document)
        assert translated.document["messages"]
