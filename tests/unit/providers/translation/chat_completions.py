"""Chat completions, as OpenAI and its compatible vendors answer them."""

from typing import Any

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}


def completion(finish: Any = "stop", *, choice: dict[str, Any] | None = None, **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": None} | message
    usage = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_730_000_000,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": finish} | (choice or {})],
        "usage": usage,
    }
