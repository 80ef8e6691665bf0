"""Whether a finished response may be stored: complete and successful ones only (contract, section 6, "Stored")."""

from collections.abc import Callable
from typing import Any

import msgspec

from watchllm.providers.dialect import Verdict
from watchllm.providers.responses.usage import token_usage


def judge(body: bytes, document: dict[str, Any]) -> Verdict:
    """Judge a non-streamed response to the request `document`.

    Its finish reason is its status, or why it is incomplete: `completed`, `max_output_tokens`, `content_filter`,
    `failed`…
    """
    try:
        response = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Verdict("not JSON", (), None, readable=False)
    if type(response) is not dict:
        return Verdict("not an object", (), None, readable=False)
    usage = token_usage(response.get("usage"))
    reasons = finish_reasons(response)
    if response.get("error"):
        return Verdict("an error", reasons, usage)
    if not reasons:
        return Verdict("no status", (), usage)
    if reasons[0] not in _SUCCESSFUL:
        return Verdict(f"status {reasons[0]}"[:80], reasons, usage)
    return Verdict(_refuse_output(response.get("output")), reasons, usage)


def finish_reasons(response: dict[str, Any]) -> tuple[str, ...]:
    """The status of a response or, of an incomplete one, the reason; empty where neither is told."""
    status = response.get("status")
    if status == "incomplete":
        details = response.get("incomplete_details")
        reason = details.get("reason") if type(details) is dict else None
        return (reason,) if type(reason) is str else ("incomplete",)
    return (status,) if type(status) is str else ()


_decode = msgspec.json.Decoder().decode

_SUCCESSFUL = ("completed", "max_output_tokens")


def _refuse_output(output: Any) -> str | None:
    if type(output) is not list:
        return "no output"
    says_something = False
    for item in output:
        kind = item.get("type") if type(item) is dict else None
        check = _CHECKS.get(kind) if type(kind) is str else None
        if check is None:
            # What a tool at the provider found out, or a model's state in a form of its own, is not to be told again.
            return f"an item of type {kind}"[:80]
        if type(item.get("id", "")) is not str:
            return f"a malformed {kind}"
        told = check(item)
        if told is None:
            return f"a malformed {kind}"
        says_something = says_something or told
    return None if says_something else "empty"


def _message(item: dict[str, Any]) -> bool | None:
    """Whether it says something; None = it is malformed. So do all checks."""
    parts = item.get("content")
    if type(parts) is not list:
        return None
    told = False
    for part in parts:
        kind = part.get("type") if type(part) is dict else None
        text = part.get({"output_text": "text", "refusal": "refusal"}.get(kind, "")) if type(kind) is str else None
        if type(text) is not str:
            return None
        for details in ("annotations", "logprobs"):
            if part.get(details) is not None and type(part[details]) is not list:
                return None
        told = told or (text != "" and not text.isspace())
    return told


def _reasoning(item: dict[str, Any]) -> bool | None:
    for field in ("summary", "content"):
        parts = item.get(field)
        if parts is not None and not (
            type(parts) is list and all(type(part) is dict and type(part.get("text")) is str for part in parts)
        ):
            return None
    # A model that only thought has not answered.
    return False


def _call(field: str) -> Callable[[dict[str, Any]], bool | None]:
    def check(item: dict[str, Any]) -> bool | None:
        return True if all(type(item.get(name)) is str for name in ("call_id", "name", field)) else None

    return check


_CHECKS: dict[str, Callable[[dict[str, Any]], bool | None]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _call("arguments"),
    "custom_tool_call": _call("input"),
}
