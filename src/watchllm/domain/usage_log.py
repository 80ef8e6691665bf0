"""A usage event as the flat row that people query, export and watch: names, order and values of its columns."""

from typing import Any

import msgspec

from watchllm.domain.usage import ModelPrice, TokenUsage
from watchllm.domain.usage_event import Attempt, UsageEvent

COLUMNS = (
    "request_id",
    "at_ms",
    "project_id",
    "key_id",
    "endpoint",
    "provider",
    "model",
    "region",
    "status",
    "cache",
    "streamed",
    "ended",
    "error",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "estimated",
    "cost_nanos",
    "saved_nanos",
    "price",
    "latency_us",
    "overhead_us",
    "first_byte_us",
    "total_us",
    "user_id",
    "session_id",
    "tags",
    "upstream_request_id",
    "attempts",
    "provider_key_id",
    "hedged",
    "semantic",
    "similarity",
    "confidence",
    "semantic_reason",
)
"""`price`, `tags` and `attempts` are JSON texts; rates in nano-dollars a million tokens, as in ModelPrice.
`provider_key_id` is the project's provider key of the last call upstream, None where that was made with the instance's
or none was made; `hedged` whether a call was begun beside another; the last four are what UsageEvent has."""

_NO_ATTEMPTS = (None, None, False)
_NO_TOKENS = (None,) * 7 + (False,)
_MAX_PRICES = 1024
_prices: dict[ModelPrice, str] = {}


def row_of(event: UsageEvent, region: str) -> tuple[Any, ...]:
    """The values of COLUMNS. A clock that stood before 1970 counts as 1970."""
    usage = event.usage
    if usage is None:
        tokens: tuple[Any, ...] = _NO_TOKENS
    else:
        tokens = (
            usage.input,
            usage.output,
            usage.cached_input,
            usage.cache_write,
            usage.reasoning,
            usage.audio_input,
            usage.audio_output,
            usage.estimated,
        )
    return (
        event.request_id,
        max(event.at_ns, 0) // 1_000_000,
        event.project_id,
        event.key_id,
        event.endpoint,
        event.provider,
        event.model,
        region,
        event.status,
        event.cache,
        event.streamed,
        event.ended,
        event.error,
        *tokens,
        event.cost,
        event.saved,
        None if event.price is None else _price_json(event.price),
        event.latency_us,
        event.overhead_us,
        event.first_byte_us,
        event.total_us,
        event.user,
        event.session,
        None if event.tags is None else _json(tags_of(event.tags)),
        event.upstream_request_id,
        *(_attempts(event.attempts) if event.attempts else _NO_ATTEMPTS),
        event.semantic,
        event.similarity,
        event.confidence,
        event.semantic_reason,
    )


def tags_of(text: str) -> dict[str, str]:
    """The pairs of an `X-WatchLLM-Tags: k=v,…` header; a name without a value has an empty one."""
    pairs = (part.partition("=") for part in text.split(","))
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}


def _price_json(price: ModelPrice) -> str:
    known = _prices.get(price)
    if known is None:
        if len(_prices) >= _MAX_PRICES:
            _prices.clear()
        known = _prices[price] = _json(_rates(price))
    return known


def _rates(price: ModelPrice) -> dict[str, Any]:
    rates: dict[str, Any] = {name: rate for name, rate in msgspec.structs.asdict(price).items() if rate is not None}
    del rates["tiers"]
    if not price.per_request:
        del rates["per_request"]
    if price.tiers:
        rates["tiers"] = [{"above": tier.above, **_rates(tier.price)} for tier in price.tiers]
    return rates


def _attempts(attempts: tuple[Attempt, ...]) -> tuple[str, str | None, bool]:
    hedged = any(attempt.hedged for attempt in attempts)
    return _json([_attempt(attempt) for attempt in attempts]), attempts[-1].key_id, hedged


def _attempt(attempt: Attempt) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name: value
        for name, value in msgspec.structs.asdict(attempt).items()
        if value is not None and value is not False
    }
    if attempt.price is not None:
        fields["price"] = _rates(attempt.price)
    if attempt.usage is not None:
        fields["usage"] = _tokens(attempt.usage)
    return fields


def _tokens(usage: TokenUsage) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(usage).items() if value}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
