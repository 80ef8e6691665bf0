"""The life of a request that is answered by a model or from the cache; read it top to bottom.

    authenticate ▸ read ▸ route ▸ look up ▸ (hit) replay
                                          ▸ (miss) call upstream ▸ settle ▸ store ▸ answer: miss.py

Up to the call upstream nothing waits: an exact hit is answered in the parser's callback that completed the request.
"""

from __future__ import annotations

from time import perf_counter

from watchllm.cache.entry import Entry
from watchllm.domain.errors import GatewayError, TimedOut
from watchllm.domain.usage_event import BYPASS, HIT, HIT_STALE, MISS
from watchllm.providers.openai.endpoints import Endpoint
from watchllm.providers.openai.replay import replay
from watchllm.proxy import egress
from watchllm.proxy.admission import admit
from watchllm.proxy.directives import directives
from watchllm.proxy.intake import json_bytes
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services


async def generate(services: Services, request: Request, endpoint: Endpoint) -> None:
    """Answer one request to a cached endpoint. Raises GatewayError for what is refused or failed."""
    exchange = request.exchange
    headers = exchange.headers
    tenants = services.tenants
    tenant = admit(services, request).tenant

    body = json_bytes(exchange, services.limits.max_body_bytes)
    wishes = request.directives = directives(headers, tenant.settings, embeddings=endpoint.family == "embeddings")
    asked = tenants.reader.read(tenant, endpoint, body, headers, exchange.query, wishes.user)
    request.target = asked.target
    request.model = asked.target.model
    request.streamed = asked.streamed

    key = None if wishes.bypass else asked.key
    request.cache = BYPASS if key is None else MISS
    entry = services.cache.get(tenant.partition, key) if key is not None and wishes.read else None
    request.looked_up = perf_counter()
    if entry is not None and wishes.accept(entry, request.wall_ms):
        if key is not None:
            services.history.hit(request, key, entry)
        serve_entry(services, request, endpoint, entry, HIT, include_usage=asked.include_usage)
        return
    if wishes.only_if_cached:
        raise TimedOut(
            "The answer is not in the cache, and only-if-cached forbids to ask upstream.", code="not_in_cache"
        )

    stale = entry if entry is not None and wishes.accept_stale(entry, request.wall_ms) else None
    # Here, not above: the first answer of a process comes from the cache, and need not wait for this to load.
    from watchllm.proxy.miss import answer_from_upstream

    try:
        await answer_from_upstream(services, request, endpoint, asked, body, key, entry, stale)
    except GatewayError as error:
        if stale is None or error.status < 500 or exchange.started:
            raise
        serve_entry(services, request, endpoint, stale, HIT_STALE, include_usage=asked.include_usage)


def serve_entry(
    services: Services, request: Request, endpoint: Endpoint, entry: Entry, kind: str, *, include_usage: bool
) -> None:
    """Answer from a stored entry, as a stream where one was asked for."""
    exchange = request.exchange
    request.cache = kind
    request.entry_age = max(0, (request.wall_ms - entry.created_ms) // 1000)
    request.usage = entry.usage
    request.cost = 0
    request.saved = entry.cost
    if not request.streamed:
        head = egress.hit_head(request)
        services.settlement.settle(request, 200, "complete")
        exchange.respond(200, head, entry.body)
        return
    head = egress.hit_head(request, egress.EVENT_STREAM)
    body = replay(endpoint.family, entry.body, include_usage=include_usage)
    services.settlement.settle(request, 200, "complete")
    exchange.start(200, head)
    exchange.write(body)
    exchange.finish()
