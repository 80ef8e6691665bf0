"""Requests of the Messages API, as its users write them."""

from typing import Any

CACHED = {"cache_control": {"type": "ephemeral"}}
PNG = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def asked(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    turns = list(messages) or [user("Hello")]
    return {"model": "m", "max_tokens": 100, "messages": turns} | fields


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words} | more


EVERYTHING = asked(
    user(
        [
            text("What is this?", **CACHED),
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}, **CACHED},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                "title": "a.pdf",
                "citations": {"enabled": False},
            },
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"}},
        ]
    ),
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "b3BhcXVl"},
            text("I will look."),
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
            {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
        ],
    },
    user(
        [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("sunny"), text("25°")]},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "noon", "is_error": False},
            text("And now?"),
        ]
    ),
    system=[text("Be brief.", **CACHED)],
    stream=True,
    temperature=0.5,
    top_p=0.9,
    stop_sequences=["END"],
    tools=[
        {"name": "weather", "description": "Tells the weather", "input_schema": SCHEMA, **CACHED},
        {"type": "custom", "name": "time", "input_schema": {"type": "object"}, "strict": True},
    ],
    tool_choice={"type": "any", "disable_parallel_tool_use": True},
    thinking={"type": "enabled", "budget_tokens": 5000},
    output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    metadata={"user_id": "u1", "trace": "t"},
    service_tier="standard_only",
    context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    cache_control={"type": "ephemeral"},
)
