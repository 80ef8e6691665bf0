"""Token usage as OpenAI and its compatible vendors report it, or an estimate where they report none."""

from collections.abc import Iterator
from typing import Any

from watchllm.domain.usage import TIERS, TokenUsage, token_count
from watchllm.providers import tokens


def token_usage(reported: Any, service_tier: Any = None) -> TokenUsage | None:
    """The counts in a `usage` object; None when it holds no count of input or output tokens.

    `service_tier` is what the answer says beside it.
    Vendors leave parts out or send null; a part of a wrong type counts as left out. Parts never exceed their total.
    """
    if type(reported) is not dict:
        return None
    prompt = token_count(reported.get("prompt_tokens"))
    completion = token_count(reported.get("completion_tokens"))
    if prompt is None and completion is None:
        return None
    inputs = prompt or 0
    outputs = completion or 0
    of_input = reported.get("prompt_tokens_details")
    of_output = reported.get("completion_tokens_details")
    return TokenUsage(
        input=inputs,
        output=outputs,
        cached_input=_part(of_input, "cached_tokens", inputs),
        cache_write=_part(of_input, "cache_write_tokens", inputs),
        reasoning=_part(of_output, "reasoning_tokens", outputs),
        audio_input=_part(of_input, "audio_tokens", inputs),
        audio_output=_part(of_output, "audio_tokens", outputs),
        tier=tier(service_tier),
    )


def tier(service_tier: Any) -> str:
    """The tier of an answer's `service_tier`; empty for what is charged as usual, or is not known."""
    return service_tier if type(service_tier) is str and service_tier in TIERS else ""


def media_usage(reported: Any) -> TokenUsage | None:
    """The counts in the `usage` object of an answer about images or audio; None when it counts no tokens."""
    if type(reported) is not dict:
        return None
    inputs, outputs = token_count(reported.get("input_tokens")), token_count(reported.get("output_tokens"))
    if inputs is None and outputs is None:
        return token_usage(reported)
    # Images have the plural, transcriptions the singular.
    of_input = reported.get("input_tokens_details", reported.get("input_token_details"))
    of_output = reported.get("output_tokens_details", reported.get("output_token_details"))
    return TokenUsage(
        input=inputs or 0,
        output=outputs or 0,
        cached_input=_part(of_input, "cached_tokens", inputs or 0),
        audio_input=_part(of_input, "audio_tokens", inputs or 0),
        audio_output=_part(of_output, "audio_tokens", outputs or 0),
    )


def estimated_usage(request: dict[str, Any], output: str) -> TokenUsage:
    """About what `request` and its answer so far consumed; 2 ms at most. Hidden reasoning is not seen."""
    return TokenUsage(input=tokens.estimate_request(request), output=tokens.estimate(output), estimated=True)


def text_of(written: Any) -> str:
    """All that a model wrote in a message, a delta or a list of choices: text, reasoning, arguments of calls."""
    return " ".join(_texts(written))


def _texts(written: Any) -> Iterator[str]:
    if type(written) is str:
        yield written
    elif type(written) is dict:
        for field, value in written.items():
            if field not in _NOT_WRITTEN:
                yield from _texts(value)
    elif type(written) is list:
        for value in written:
            yield from _texts(value)


_NOT_WRITTEN = frozenset(("role", "id", "type", "finish_reason", "logprobs", "audio", "image_url", "annotations"))


def _part(details: Any, name: str, total: int) -> int:
    if type(details) is not dict:
        return 0
    return min(token_count(details.get(name)) or 0, total)
