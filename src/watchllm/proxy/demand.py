"""The most that a call upstream may use, from what its request says: tokens, and their price at the dearest target."""

from __future__ import annotations

from typing import Any

from watchllm.domain import json_body
from watchllm.domain.billable import SIMULATOR
from watchllm.domain.errors import BadRequest
from watchllm.domain.money import Nanos
from watchllm.domain.usage import MAX_COUNT, TokenUsage
from watchllm.limits.limiter import Demand
from watchllm.providers import tokens
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.routing.target import Target

# Estimates of nine texts in ten are within a fifth of what OpenAI's own tokenizer counts.
_MARGIN_PARTS = 4
_MARGIN_TOKENS = 16
# Images and files are no text: their bytes say nothing of their tokens.
_ENCODED = b"base64"
# The largest that OpenAI's models draw; an answer with several is too long to be read for its usage.
_TOKENS_OF_PICTURE = 6_240
_BOUNDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def demand_of(
    services: Services, request: Request, body: bytes, targets: tuple[Target, ...], *, hedged: bool = False
) -> Demand:
    """What the call for `body` may use at whichever of `targets` it is made. A `hedged` one may be made twice.

    Under a hard budget it is kept on the request, too: that is what a call costs of which nobody hears the end.
    """
    usage = most_used(request, body)
    assert request.principal is not None
    subject = request.principal.subject
    if subject is not None and subject.has_hard_budget:
        request.at_most = usage
    calls = 2 if hedged else 1
    return Demand(calls * usage.total, calls * max((_cost(services, target, usage) for target in targets), default=0))


def most_used(request: Request, body: bytes) -> TokenUsage:
    """The tokens that the answer to `body` may cost."""
    assert request.principal is not None
    assumed = request.principal.tenant.settings.assumed_output_tokens
    try:
        document = json_body.parse(body)
    except BadRequest:
        # A form, or nothing: what is sent, and an answer of the assumed length.
        sent, output = tokens.rough(len(body)), assumed
    else:
        sent = tokens.estimate_request(document)
        if _ENCODED not in body:
            # What the estimate does not look into, such as what tools gave, is text, too.
            sent = max(sent, tokens.rough(len(body)))
        if request.endpoint == "images":
            assumed = max(assumed, _TOKENS_OF_PICTURE)
        output = 0 if request.endpoint == "embeddings" else _most_output(document, assumed)
    return TokenUsage(input=sent + sent // _MARGIN_PARTS + _MARGIN_TOKENS, output=output, estimated=True)


def _cost(services: Services, target: Target, usage: TokenUsage) -> Nanos:
    price = services.tenants.price(target.provider, target.model)
    if price is None:
        # It costs nobody knows how much, which a budget that is spent does not cover.
        return 0 if target.provider == SIMULATOR else 1
    return price.cost(usage)


def _most_output(document: dict[str, Any], assumed: int) -> int:
    """The most tokens that the answer may have, all its choices together."""
    # The largest: a provider may not know the others. None is bounded by 0.
    bounds = [value for name in _BOUNDS if type(value := document.get(name)) is int and value > 0]
    prompts = document.get("prompt")
    answers = max(_count(document.get("n")), _count(document.get("best_of")))
    if type(prompts) is list and prompts and type(prompts[0]) is not int:
        answers *= len(prompts)
    return min((max(bounds) if bounds else assumed) * answers, MAX_COUNT)


def _count(number: Any) -> int:
    return number if type(number) is int and 0 < number <= MAX_COUNT else 1
