"""Stored answers given: as they are, as a stream, in another dialect, and to who labels them otherwise."""

from __future__ import annotations

import msgspec

from watchllm.cache.entry import Answers, Entry
from watchllm.cache.key import key_in_dialect
from watchllm.domain import json_body
from watchllm.providers.dialect import CHAT, RESPONSES
from watchllm.providers.endpoints import Endpoint
from watchllm.providers.openai.replay import replay
from watchllm.proxy import egress
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.routing.target import Target


def told_in(endpoint: Endpoint, entry: Entry, body: bytes) -> Entry | None:
    """`entry` as a request with that `body` may be given it; None where the endpoint's dialect would say less."""
    if entry.dialect == endpoint.dialect:
        if entry.dialect != RESPONSES:
            return entry
        from watchllm.providers.responses.echo import labelled  # as below

        return msgspec.structs.replace(entry, body=labelled(entry.body, json_body.parse(body)))
    from watchllm.providers.translation import between  # most answers are asked for in the words they were given in

    told = between.retold_in(
        endpoint.dialect, entry.dialect, entry.body, json_body.parse(body), created=entry.created_ms // 1000
    )
    return None if told is None else msgspec.structs.replace(entry, body=told, dialect=endpoint.dialect)


def kept_for_dialect(
    cache: Answers, partition: bytes, key: bytes, endpoint: Endpoint, target: Target, body: bytes
) -> Entry | None:
    """The answer to the question of `key` that is kept for requests in the endpoint's dialect alone, because its
    translation lost something. Of who speaks that dialect there is none."""
    if endpoint.dialect in target.vendor.dialects:
        return None
    entry = cache.get(partition, key_in_dialect(key, endpoint.dialect))
    return None if entry is None else told_in(endpoint, entry, body)


def replayed(endpoint: Endpoint, body: bytes, *, include_usage: bool) -> bytes:
    """A whole answer in the endpoint's own dialect, as the stream that a client there expects."""
    if endpoint.dialect == CHAT:
        return replay(endpoint.family, body, include_usage=include_usage)
    from watchllm.providers.dialects import dialect  # as above

    return dialect(endpoint.dialect).replay(body, include_usage=include_usage)


def serve_entry(
    services: Services, request: Request, endpoint: Endpoint, entry: Entry, kind: str, *, include_usage: bool
) -> None:
    """Answer from a stored entry, as a stream where one was asked for."""
    exchange = request.exchange
    take_over(request, entry, kind)
    if not request.streamed:
        head = egress.stored_head(request)
        services.settlement.settle(request, 200, "complete")
        exchange.respond(200, head, entry.body)
        return
    head = egress.stored_head(request, egress.EVENT_STREAM)
    body = replayed(endpoint, entry.body, include_usage=include_usage)
    services.settlement.settle(request, 200, "complete")
    exchange.start(200, head)
    exchange.write(body)
    exchange.finish()


def take_over(request: Request, entry: Entry, kind: str) -> None:
    """Make what a stored answer says of itself the facts of the request that it answers."""
    request.cache = kind
    request.entry_age = max(0, (request.wall_ms - entry.created_ms) // 1000)
    request.usage = entry.usage
    request.cost = request.lost_cost
    request.saved = entry.cost
