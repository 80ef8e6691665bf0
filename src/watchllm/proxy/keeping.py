"""What is kept of a whole answer: whether it may be stored, what it cost, and the entry that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from watchllm.cache.entry import NEVER, Entry
from watchllm.domain.money import Nanos
from watchllm.domain.usage import ModelPrice, TokenUsage
from watchllm.providers.dialect import CHAT, RESPONSES, Verdict
from watchllm.providers.dialects import dialect as dialect_named
from watchllm.providers.endpoints import Endpoint
from watchllm.providers.openai import answers
from watchllm.providers.openai.storable import judge
from watchllm.proxy.asked import Asked
from watchllm.proxy.tenants import Tenants
from watchllm.routing.target import Target


def verdict_on(
    endpoint: Endpoint, asked: Asked, request: bytes, document: Callable[[], dict[str, Any]], answer: bytes
) -> Verdict:
    """What the whole `answer` to a `request` is worth; usage that it lacks is estimated. `document` reads the request
    where something of it is needed."""
    if endpoint.dialect == CHAT:
        verdict = judge(endpoint.family, answer, expected=asked.expected)
    else:
        verdict = dialect_named(endpoint.dialect).judge(answer, document())
    return verdict if verdict.usage is not None else answers.with_usage(verdict, endpoint, answer, request)


def price_and_cost(
    tenants: Tenants, target: Target, usage: TokenUsage | None
) -> tuple[ModelPrice | None, Nanos | None]:
    """The price that applies, and what `usage` costs by it; an unknown price leaves the cost unknown."""
    price = tenants.price(target.provider, target.model, usage.tier if usage is not None else "")
    return price, price.cost(usage) if price is not None and usage is not None else None


def kept_form(endpoint: Endpoint, answer: bytes) -> bytes:
    """The answer without what it repeats of one client's request: those who are given it have labels of their own."""
    if endpoint.dialect != RESPONSES:
        return answer
    from watchllm.providers.responses.echo import labelled  # what speaks chat does without

    return labelled(answer, {})


def entry_of(
    endpoint: Endpoint,
    target: Target,
    ttl: int,
    created_ms: int,
    usage: TokenUsage | None,
    cost: Nanos | None,
    key_id: str,
    body: bytes,
) -> Entry:
    """The entry of an answer in its kept form; `ttl` in seconds, -1 = never expires."""
    return Entry(
        created_ms,
        NEVER if ttl < 0 else created_ms + ttl * 1000,
        endpoint.family,
        target.provider,
        target.model,
        usage,
        cost,
        key_id,
        body,
        endpoint.dialect,
    )
