"""Token usage as Responses reports it."""

from typing import Any

from watchllm.domain.usage import TokenUsage, token_count


def token_usage(reported: Any) -> TokenUsage | None:
    """The counts in a `usage` object; None when it holds no count of input or output tokens.

    A part of a wrong type counts as left out. Parts never exceed their total.
    """
    if type(reported) is not dict:
        return None
    inputs, outputs = token_count(reported.get("input_tokens")), token_count(reported.get("output_tokens"))
    if inputs is None and outputs is None:
        return None
    of_input, of_output = reported.get("input_tokens_details"), reported.get("output_tokens_details")
    return TokenUsage(
        input=inputs or 0,
        output=outputs or 0,
        cached_input=_part(of_input, "cached_tokens", inputs or 0),
        cache_write=_part(of_input, "cache_write_tokens", inputs or 0),
        reasoning=_part(of_output, "reasoning_tokens", outputs or 0),
        audio_input=_part(of_input, "audio_tokens", inputs or 0),
        audio_output=_part(of_output, "audio_tokens", outputs or 0),
    )


def _part(details: Any, name: str, total: int) -> int:
    if type(details) is not dict:
        return 0
    return min(token_count(details.get(name)) or 0, total)
