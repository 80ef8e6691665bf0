"""Chat completions as whole answers and as streams, written by hand after OpenAI's API reference ("Chat completions"
and "Streaming"), and those of other vendors after their own (DeepSeek's `reasoning_content`, Groq's `x_groq`)."""

import json
from typing import Any

from tests.unit.providers.responses.responses import token

USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}
CUSTOM_CALL = {"id": "call_2", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
CITATION = {"url": "https://example.org/", "title": "Example", "start_index": 0, "end_index": 5}
ANNOTATION = {"type": "url_citation", "url_citation": CITATION}
TOKENS = [token("Hello"), token(" there")]
BLOCKS = [{"type": "thinking", "thinking": "Hm, so", "signature": "c2ln"}]


def answer(finish: Any = "stop", logprobs: Any = None, **message: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None, "annotations": []} | message
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish}
    head = {"id": "chatcmpl-B9MBs8", "object": "chat.completion", "created": 1741569952, "model": "gpt-4.1-2025-04-14"}
    return head | {"choices": [choice], "usage": USAGE, "service_tier": "default"}


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-B9MBs8", "object": "chat.completion.chunk", "created": 1741569952, "model": "gpt-4.1"}
    choices = [] if delta is None else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
    return head | {"choices": choices, "usage": None} | more


def data_of(*chunks: Any) -> list[bytes]:
    """The data of the events; None stands for `[DONE]`."""
    return [b"[DONE]" if piece is None else json.dumps(piece).encode() for piece in chunks]
