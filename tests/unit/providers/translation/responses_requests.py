"""Requests of both dialects that ask the same, written by hand after the API reference ("Create a model response",
"Create chat completion") and the guide "Migrate to the Responses API"."""

from typing import Any

SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "string"}}, "required": ["b", "a"]}
PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="

TWINS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a plain question": (
        {"model": "m", "input": "Hi"},
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    ),
    "instructions": (
        {"model": "m", "instructions": "Be brief.", "input": [{"role": "user", "content": "Hi"}]},
        {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
    ),
    "turns": (
        {
            "input": [
                {"role": "developer", "content": "Be brief."},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {
                    "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
                },
                {
                    "type": "message", "id": "msg_2", "status": "completed", "role": "assistant",
                    "content": [{"type": "refusal", "refusal": "No."}],
                },
                {"role": "user", "content": "Why?"},
            ],
        },
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "assistant", "content": None, "refusal": "No."},
                {"role": "user", "content": "Why?"},
            ],
        },
    ),
    "images and files": (
        {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "What is this?"},
                        {"type": "input_image", "image_url": PNG, "detail": "auto"},
                        {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "high"},
                        {"type": "input_file", "filename": "a.pdf", "file_data": PDF},
                        {"type": "input_file", "file_id": "file-1"},
                    ],
                }
            ]
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": PNG}},
                        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "high"}},
                        {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
                        {"type": "file", "file": {"file_id": "file-1"}},
                    ],
                }
            ]
        },
    ),
    "tools and their results": (
        {
            "input": [
                {"role": "user", "content": "Weather in Zürich and Bern?"},
                {"type": "message", "role": "assistant", "content": "Let me see."},
                {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{}",
                 "status": "completed"},
                {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "sql", "input": "SELECT 1"},
                {"type": "function_call_output", "call_id": "call_1", "output": "7 degrees"},
                {"type": "custom_tool_call_output", "call_id": "call_2",
                 "output": [{"type": "input_text", "text": "1"}]},
                {"type": "function_call", "call_id": "call_3", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "call_3", "output": "8 degrees"},
            ],
            "tools": [
                {"type": "function", "name": "weather", "description": "Weather", "parameters": SCHEMA, "strict": True},
                {"type": "custom", "name": "sql", "description": "SQL", "format": {"type": "text"}},
                {"type": "custom", "name": "p",
                 "format": {"type": "grammar", "syntax": "lark", "definition": "start: A"}},
            ],
            "tool_choice": {"type": "function", "name": "weather"},
            "parallel_tool_calls": False,
        },
        {
            "messages": [
                {"role": "user", "content": "Weather in Zürich and Bern?"},
                {
                    "role": "assistant",
                    "content": "Let me see.",
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                        {"id": "call_2", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}},
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "7 degrees"},
                {"role": "tool", "tool_call_id": "call_2", "content": "1"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "call_3", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
                    ],
                },
                {"role": "tool", "tool_call_id": "call_3", "content": "8 degrees"},
            ],
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "weather", "description": "Weather", "parameters": SCHEMA, "strict": True},
                },
                {"type": "custom", "custom": {"name": "sql", "description": "SQL", "format": {"type": "text"}}},
                {
                    "type": "custom",
                    "custom": {
                        "name": "p",
                        "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: A"}},
                    },
                },
            ],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "parallel_tool_calls": False,
        },
    ),
    "allowed tools": (
        {
            "input": "Hi",
            "tools": [{"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        },
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": False}}],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        },
    ),
    "structured output": (
        {
            "input": "Hi",
            "text": {
                "format": {"type": "json_schema", "name": "n", "description": "d", "schema": SCHEMA, "strict": True},
                "verbosity": "low",
            },
        },
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "schema": SCHEMA, "strict": True},
            },
            "verbosity": "low",
        },
    ),
    "JSON without a schema": (
        {"input": "Hi", "text": {"format": {"type": "json_object"}}},
        {"messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_object"}},
    ),
    "parameters": (
        {
            "input": "Hi",
            "temperature": 0.5,
            "top_p": 0.9,
            "max_output_tokens": 100,
            "reasoning": {"effort": "low", "summary": None},
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 2,
            "user": "u1",
            "service_tier": "flex",
            "stream": True,
            "text": {"format": {"type": "text"}},
            "background": False,
            "conversation": None,
        },
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_completion_tokens": 100,
            "reasoning_effort": "low",
            "logprobs": True,
            "top_logprobs": 2,
            "user": "u1",
            "service_tier": "flex",
            "stream": True,
        },
    ),
    "choices without tools": (
        {"input": "Hi", "tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "top_logprobs": 0},
        {"messages": [{"role": "user", "content": "Hi"}]},
    ),
}  # fmt: skip
"""Pairs of a Responses request and the chat request that a user would have written for it."""
