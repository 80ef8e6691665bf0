"""The life of a request that is answered by a model or from the cache; read it top to bottom.

    authenticate ▸ read ▸ route ▸ limits ▸ look up ▸ (hit) replay
                                                   ▸ (miss) look up by meaning: semantic/ ▸ (hit) replay
                                                   ▸ (miss) call upstream ▸ settle ▸ store ▸ answer: miss.py

Up to the call upstream nothing waits: an exact hit is answered in the parser's callback that completed the request, by
a plain function, and so is one by meaning. Only what goes on upstream, reads a long question, or has to ask a shared
cache first, is a coroutine.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import cache
from time import perf_counter
from typing import Any

from watchllm.cache.entry import Entry
from watchllm.cache.key import ANSWER_HEADERS
from watchllm.domain.errors import GatewayError, TimedOut
from watchllm.domain.usage_event import BYPASS, HIT, HIT_SEMANTIC, HIT_STALE, MISS
from watchllm.providers.dialect import CHAT
from watchllm.providers.endpoints import Endpoint
from watchllm.proxy import egress
from watchllm.proxy.admission import admit, require_known_cost, require_price
from watchllm.proxy.asked import Asked
from watchllm.proxy.at_hand import bring, places_of
from watchllm.proxy.directives import HEADERS
from watchllm.proxy.eager import Outcome
from watchllm.proxy.history import miss_reason
from watchllm.proxy.intake import json_bytes
from watchllm.proxy.request import Request
from watchllm.proxy.retelling import kept_for_dialect, serve_entry, take_over, told_in
from watchllm.proxy.services import Services
from watchllm.proxy.settle import LABELS
from watchllm.proxy.unanswered import Unanswered

# A request with none of these takes the short way: one look at its headers instead of one for each of their meanings.
_UNUSUAL = HEADERS | ANSWER_HEADERS | LABELS


def generate(services: Services, request: Request, endpoint: Endpoint) -> Coroutine[Any, Any, None] | None:
    """Answer one request to a cached endpoint from the cache, or return what goes on to answer it from upstream.

    Raises GatewayError for what is refused.
    """
    exchange = request.exchange
    headers = exchange.headers
    tenant = admit(services, request).tenant

    body = json_bytes(exchange, services.limits.max_body_bytes)
    usual = _UNUSUAL.isdisjoint(headers)
    of_embeddings = endpoint.family == "embeddings"
    if usual:
        wishes = tenant.usual_embeddings if of_embeddings else tenant.usual
    else:
        wishes = tenant.wishes(headers, embeddings=of_embeddings)
    request.directives = wishes
    reader = services.tenants.reader
    asked = reader.read(tenant, endpoint, body, headers, exchange.query, wishes.user, usual=usual)
    request.target = target = asked.target
    request.model = target.model
    request.streamed = asked.streamed
    require_price(services.tenants, tenant, target)
    if asked.in_background:
        require_known_cost(tenant, target, "a response that is made in the background")
    if request.limiting is not None:
        waiting = services.limiting.enter(request, asked.targets)
        if waiting is not None:
            return _when_admitted(services, request, endpoint, asked, body, waiting, usual=usual)
    return _from_cache(services, request, endpoint, asked, body, usual=usual)


async def _when_admitted(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    asked: Asked,
    body: bytes,
    waiting: Coroutine[Any, Any, None],
    *,
    usual: bool,
) -> None:
    """Answer a request of which it has to be found out first whether it may go on."""
    principal, wishes, key = request.principal, request.directives, asked.key
    assert principal is not None
    assert wishes is not None
    if services.cache.is_remote and key is not None and wishes.read and not wishes.bypass:
        # In one write with what the limits are asked, and before it: when that is answered, it is in the cache's tier.
        bring(services, principal.tenant.partition, places_of(key, endpoint, asked.target))
    await waiting
    going_on = _from_cache(services, request, endpoint, asked, body, usual=usual)
    if going_on is not None:
        await going_on


def _from_cache(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    asked: Asked,
    body: bytes,
    *,
    usual: bool,
    is_brought: bool = False,
) -> Coroutine[Any, Any, None] | None:
    """Answer an admitted request from the cache, or return what goes on to answer it from upstream. `is_brought`: what
    other processes have stored for it is at hand."""
    exchange, wishes, principal, target = request.exchange, request.directives, request.principal, asked.target
    assert wishes is not None
    assert principal is not None
    tenant, reader = principal.tenant, services.tenants.reader
    key = None if wishes.bypass else asked.key
    request.cache = BYPASS if key is None else MISS
    if services.cache.is_remote and not is_brought and key is not None and wishes.read:
        brought = bring(services, tenant.partition, places_of(key, endpoint, target))
        if brought is not None:
            return _when_brought(services, request, endpoint, asked, body, brought, usual=usual)
    entry = services.cache.get(tenant.partition, key) if key is not None and wishes.read else None
    request.looked_up = perf_counter()
    if entry is not None and not (entry.dialect == endpoint.dialect == CHAT):
        entry = told_in(endpoint, entry, body)
    if key is not None and wishes.read and (entry is None or not wishes.accept(entry, request.wall_ms)):
        entry = kept_for_dialect(services.cache, tenant.partition, key, endpoint, target, body) or entry
    if entry is not None and key is not None and wishes.accept(entry, request.wall_ms):
        services.history.hit(request, asked.named, key, entry)
        if asked is reader.newest:
            reader.newest = None
            services.history.first_seen(request, target, key, body, endpoint.family)
        if asked.streamed or not usual:
            serve_entry(services, request, endpoint, entry, HIT, include_usage=asked.include_usage)
            return None
        take_over(request, entry, HIT)
        head = egress.hit_head(request)
        services.settlement.settle_hit(request, target)
        exchange.respond(200, head, entry.body)
        return None
    unanswered = Unanswered(request, endpoint, asked, body, key, entry)
    if key is not None and tenant.semantic and wishes.read and wishes.semantic:
        like = services.semantic.look_up(services, unanswered)
        if isinstance(like, Entry):
            _serve_like(services, unanswered, like)
            return None
        if like is not None:
            return _when_read(services, unanswered, like)
    return _otherwise(services, unanswered)


async def _when_brought(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    asked: Asked,
    body: bytes,
    brought: Outcome[None],
    *,
    usual: bool,
) -> None:
    """Answer a question whose answer another process may have stored."""
    await brought
    going_on = _from_cache(services, request, endpoint, asked, body, usual=usual, is_brought=True)
    if going_on is not None:
        await going_on


def _otherwise(services: Services, unanswered: Unanswered) -> Coroutine[Any, Any, None]:
    """What goes on to answer from upstream what the cache cannot."""
    wishes = unanswered.request.directives
    if wishes is not None and wishes.only_if_cached:
        request, asked = unanswered.request, unanswered.asked
        reason = miss_reason(unanswered.entry, wishes, asked.bypass, request.wall_ms)
        family = unanswered.endpoint.family
        services.history.missed(request, asked.target, asked.named, asked.key, unanswered.body, family, reason)
        raise TimedOut(
            "The answer is not in the cache, and only-if-cached forbids to ask upstream.", code="not_in_cache"
        )
    if unanswered.entry is None:
        return _upstream()(services, unanswered, None)
    return _refresh(services, unanswered, unanswered.entry)


async def _when_read(services: Services, unanswered: Unanswered, reading: Coroutine[Any, Any, Entry | None]) -> None:
    """Answer a question that is so long that a thread reads it, or that a judge is asked about."""
    like = await reading
    if like is not None:
        _serve_like(services, unanswered, like)
    else:
        await _otherwise(services, unanswered)


def _serve_like(services: Services, unanswered: Unanswered, entry: Entry) -> None:
    """Answer from the entry of a like question."""
    request, asked = unanswered.request, unanswered.asked
    if request.looked is not None:
        services.history.like(request, asked.named, request.looked, entry)
    serve_entry(services, request, unanswered.endpoint, entry, HIT_SEMANTIC, include_usage=asked.include_usage)


@cache
def _upstream() -> Callable[[Services, Unanswered, Entry | None], Coroutine[Any, Any, None]]:
    """Loaded when first needed: the first answer of a process comes from the cache, and need not wait for it."""
    from watchllm.proxy.miss import answer_from_upstream

    return answer_from_upstream


async def _refresh(services: Services, unanswered: Unanswered, entry: Entry) -> None:
    """Answer from upstream; where that fails, from the `entry` that is too old if the request allows it."""
    request = unanswered.request
    wishes = request.directives
    assert wishes is not None
    stale = entry if wishes.accept_stale(entry, request.wall_ms) else None
    try:
        await _upstream()(services, unanswered, stale)
    except GatewayError as error:
        if stale is None or error.status < 500 or request.exchange.started:
            raise
        # What the call that failed was charged for stays charged.
        request.lost_cost = request.cost or request.lost_cost
        include_usage = unanswered.asked.include_usage
        serve_entry(services, request, unanswered.endpoint, stale, HIT_STALE, include_usage=include_usage)
