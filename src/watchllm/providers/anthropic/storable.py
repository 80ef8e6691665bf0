"""Whether a finished message may be stored: complete and successful ones only (contract, section 6, "Stored")."""

from typing import Any

import msgspec

from watchllm.providers.anthropic.usage import token_usage
from watchllm.providers.dialect import Verdict

_decode = msgspec.json.Decoder().decode

# A turn that is paused goes on in another request, and a refusal is a filter's.
_SUCCESSFUL = frozenset(("end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"))


def judge(body: bytes) -> Verdict:
    """Judge a whole answer; 2 µs for a short one."""
    try:
        message = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Verdict("not JSON", (), None, readable=False)
    if type(message) is not dict:
        return Verdict("not an object", (), None, readable=False)
    usage = token_usage(message.get("usage"))
    if message.get("type") == "error" or message.get("error"):
        return Verdict("an error", (), usage)
    content = message.get("content")
    if message.get("type") != "message" or type(content) is not list:
        return Verdict("not a message", (), usage, readable=False)
    reason = message.get("stop_reason")
    if type(reason) is not str:
        return Verdict("no stop_reason", (), usage)
    if reason not in _SUCCESSFUL:
        return Verdict(f"stop_reason {reason}", (reason,), usage)
    return Verdict(_refuse_content(content), (reason,), usage)


def _refuse_content(content: list[Any]) -> str | None:
    says_something = False
    for block in content:
        if type(block) is not dict or type(block.get("type")) is not str:
            return "malformed content"
        kind = block["type"]
        if kind == "text":
            text = block.get("text")
            if type(text) is not str:
                return "malformed text"
            says_something = says_something or not (text == "" or text.isspace())
        elif kind == "tool_use":
            if not (_is_name(block.get("id")) and _is_name(block.get("name")) and type(block.get("input")) is dict):
                return "malformed tool use"
            says_something = True
        elif _is_error(block.get("content")):
            return "a tool's error"
    return None if says_something else "empty"


def _is_name(value: Any) -> bool:
    return type(value) is str and value != ""


def _is_error(result: Any) -> bool:
    """Whether a tool of the provider's own failed: `{"type": "web_search_tool_result_error", …}`."""
    return type(result) is dict and type(result.get("type")) is str and result["type"].endswith("_error")
