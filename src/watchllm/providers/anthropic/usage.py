"""Token usage as Anthropic reports it: input read from its cache or written to it is counted beside the rest."""

from typing import Any

from watchllm.domain.usage import TIERS, TokenUsage, token_count


def token_usage(reported: Any) -> TokenUsage | None:
    """The counts in a `usage` object; None when it holds no count of input or output tokens.

    `input` of the result is the total, the cached parts included. A part of a wrong type counts as left out.
    """
    if type(reported) is not dict:
        return None
    fresh, output = token_count(reported.get("input_tokens")), token_count(reported.get("output_tokens"))
    if fresh is None and output is None:
        return None
    read = token_count(reported.get("cache_read_input_tokens")) or 0
    written = token_count(reported.get("cache_creation_input_tokens")) or 0
    details = reported.get("output_tokens_details")
    thought = token_count(details.get("thinking_tokens")) if type(details) is dict else None
    return TokenUsage(
        input=(fresh or 0) + read + written,
        output=output or 0,
        cached_input=read,
        cache_write=written,
        reasoning=min(thought or 0, output or 0),
        cache_write_1h=min(_for_an_hour(reported.get("cache_creation")), written),
        tier=_tier(reported),
    )


def _for_an_hour(written: Any) -> int:
    return (token_count(written.get("ephemeral_1h_input_tokens")) or 0) if type(written) is dict else 0


def _tier(reported: dict[str, Any]) -> str:
    """How it was processed, where that has a price of its own: by `speed`, else by `service_tier`."""
    for field in ("speed", "service_tier"):
        value = reported.get(field)
        if type(value) is str and value in TIERS:
            return value
    return ""
