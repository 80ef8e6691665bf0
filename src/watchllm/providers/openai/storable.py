"""Whether a finished answer may be stored: complete and successful ones only (contract, section 6, "Stored")."""

from typing import Any

import msgspec

from watchllm.providers.dialect import Verdict
from watchllm.providers.openai.usage import token_usage


def judge(family: str, body: bytes, *, expected: int | None = None) -> Verdict:
    """Judge a non-streamed answer of the endpoint family `generate` (chat), `completions` or `embeddings`.

    `expected` is the number of choices, or of embeddings, that the request asked for, where the caller knows it.
    """
    if family == "embeddings":
        return _judge_embeddings(body, expected)
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Verdict("not JSON", (), None, readable=False)
    if type(answer) is not dict:
        return Verdict("not an object", (), None, readable=False)
    usage = token_usage(answer.get("usage"))
    choices = answer.get("choices")
    if answer.get("error"):
        return Verdict("an error", (), usage)
    if type(choices) is not list or not choices or not all(type(choice) is dict for choice in choices):
        return Verdict("no choices", (), usage)
    indexes = [choice.get("index", 0) for choice in choices]
    if not all(type(index) is int for index in indexes) or len(set(indexes)) < len(choices):
        return Verdict("choices are not numbered", (), usage)
    reasons = tuple(str(choice.get("finish_reason")) for choice in choices)
    refused = None
    if expected is not None and len(choices) < expected:
        refused = "choices are missing"
    else:
        for choice in choices:
            refused = refused or _refuse_choice(family, choice)
    return Verdict(refused, reasons, usage)


_decode = msgspec.json.Decoder().decode

# A list, because `in` must take any JSON value.
_SUCCESSFUL = ["stop", "tool_calls", "length", "function_call"]


def _refuse_choice(family: str, choice: dict[str, Any]) -> str | None:
    reason = choice.get("finish_reason")
    if reason not in _SUCCESSFUL:
        return f"finish_reason {reason}" if type(reason) is str else "no finish_reason"
    if choice.get("error"):
        return "an error"
    if _filtered(choice.get("content_filter_results")):
        return "filtered content"
    if family == "completions":
        return None if _has_text(choice.get("text")) else "empty"
    message = choice.get("message")
    if type(message) is not dict:
        return "no message"
    calls = message.get("tool_calls")
    if calls is not None and not (type(calls) is list and all(type(call) is dict for call in calls)):
        return "malformed tool calls"
    if message.get("function_call") is not None and type(message["function_call"]) is not dict:
        return "malformed function call"
    return None if _says_something(message) else "empty"


def _says_something(message: dict[str, Any]) -> bool:
    content = message.get("content")
    return bool(
        _has_text(content)
        or (type(content) is list and content)
        # The model's own refusal in a structured answer is an answer; a filter's has another finish_reason.
        or _has_text(message.get("refusal"))
        or any(message.get(field) for field in ("tool_calls", "function_call", "audio", "images"))
    )


def _has_text(value: Any) -> bool:
    return type(value) is str and not value.isspace() and value != ""


def _filtered(results: Any) -> bool:
    """Azure's verdicts by category: `{"hate": {"filtered": false, …}, …}`."""
    return type(results) is dict and any(
        type(result) is dict and result.get("filtered") is True for result in results.values()
    )


class _Embedding(msgspec.Struct):
    """One vector, left as it is written: a batch holds millions of numbers that nobody here needs."""

    index: int
    embedding: msgspec.Raw


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    usage: Any = None
    error: Any = None


_decode_embeddings = msgspec.json.Decoder(_Embeddings).decode


def _judge_embeddings(body: bytes, expected: int | None) -> Verdict:
    try:
        answer = _decode_embeddings(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Verdict("not an embeddings answer", (), None, readable=False)
    usage = token_usage(answer.usage)
    wanted = len(answer.data) if expected is None else expected
    if answer.error:
        return Verdict("an error", (), usage)
    if not answer.data or sorted(item.index for item in answer.data) != list(range(wanted)):
        return Verdict("embeddings are missing", (), usage)
    if not all(_is_vector(bytes(item.embedding)) for item in answer.data):
        return Verdict("empty", (), usage)
    return Verdict(None, (), usage)


def _is_vector(written: bytes) -> bool:
    """Whether it is a non-empty array or a non-empty (base64) text."""
    return (written[:1] == b"[" and written[1:].lstrip()[:1] != b"]") or (written[:1] == b'"' and written != b'""')
