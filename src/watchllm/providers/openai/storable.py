"""Whether a finished answer may be stored: complete and successful ones only (contract, section 6, "Stored")."""

from typing import Annotated, Any, Literal

import msgspec

from watchllm.domain.usage import MAX_COUNT, TokenUsage
from watchllm.providers.dialect import Verdict
from watchllm.providers.openai.usage import tier, token_usage


def judge(family: str, body: bytes, *, expected: int | None = None) -> Verdict:
    """Judge a non-streamed answer of the endpoint family `generate` (chat), `completions` or `embeddings`.

    `expected` is the number of choices, or of embeddings, that the request asked for, where the caller knows it.
    """
    if family == "embeddings":
        return _judge_embeddings(body, expected)
    if family == "generate" and expected in (None, 1):
        verdict = _judge_usual(body)
        if verdict is not None:
            return verdict
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Verdict("not JSON", (), None, readable=False)
    if type(answer) is not dict:
        return Verdict("not an object", (), None, readable=False)
    usage = token_usage(answer.get("usage"), answer.get("service_tier"))
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


_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]


class _Whole(msgspec.Struct, forbid_unknown_fields=True):
    """Decoded member by member: nothing in it is passed over, so that what is wrong anywhere is found."""


class _UsualMessage(_Whole):
    content: str
    role: str | None = None
    refusal: str | None = None
    annotations: Annotated[list[None], msgspec.Meta(max_length=0)] | None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None


class _UsualChoice(_Whole):
    message: _UsualMessage
    finish_reason: Literal["stop", "length"]
    index: int = 0
    logprobs: None = None


class _UsualInput(_Whole):
    cached_tokens: _Count = 0
    cache_write_tokens: _Count = 0
    audio_tokens: _Count = 0


class _UsualOutput(_Whole):
    reasoning_tokens: _Count = 0
    audio_tokens: _Count = 0
    accepted_prediction_tokens: _Count = 0
    rejected_prediction_tokens: _Count = 0


class _UsualUsage(_Whole):
    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: int = 0
    prompt_tokens_details: _UsualInput | None = None
    completion_tokens_details: _UsualOutput | None = None


class _UsualAnswer(_Whole):
    """What most answers are, OpenAI's own among them: one choice of text, and its usage."""

    choices: Annotated[list[_UsualChoice], msgspec.Meta(min_length=1, max_length=1)]
    usage: _UsualUsage
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None


_decode_usual = msgspec.json.Decoder(_UsualAnswer).decode


def _judge_usual(body: bytes) -> Verdict | None:
    """The verdict on an answer of the usual form that may be stored; None = it has to be looked at closely."""
    try:
        answer = _decode_usual(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    (choice,) = answer.choices
    if not _has_text(choice.message.content):
        return None
    reported = answer.usage
    inputs, outputs = reported.prompt_tokens, reported.completion_tokens
    of_input, of_output = reported.prompt_tokens_details, reported.completion_tokens_details
    if of_input is None and of_output is None:
        return Verdict(None, (choice.finish_reason,), TokenUsage(inputs, outputs, tier=tier(answer.service_tier)))
    of_input, of_output = of_input or _NO_INPUT, of_output or _NO_OUTPUT
    usage = TokenUsage(
        inputs,
        outputs,
        min(of_input.cached_tokens, inputs),
        min(of_input.cache_write_tokens, inputs),
        min(of_output.reasoning_tokens, outputs),
        min(of_input.audio_tokens, inputs),
        min(of_output.audio_tokens, outputs),
        tier=tier(answer.service_tier),
    )
    return Verdict(None, (choice.finish_reason,), usage)


_NO_INPUT, _NO_OUTPUT = _UsualInput(), _UsualOutput()

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
