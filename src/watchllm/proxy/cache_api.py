"""`/v1/cache/…`: what a key's project holds in the cache, and forgetting it."""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil, floor
from typing import Any

import msgspec

from watchllm.cache.entry import InvalidationFilter
from watchllm.cache.key import entry_id, key_in_dialect, key_of
from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest, NotFound
from watchllm.providers.dialect import CHAT, MESSAGES, RESPONSES
from watchllm.proxy import egress
from watchllm.proxy.admission import admit
from watchllm.proxy.intake import json_bytes
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.tenant import Tenant

KINDS = ("generate", "completions", "embeddings")
_FIELDS = ("model", "kind", "before", "after", "entry", "request_id", "all")
_DIALECTS = (CHAT, MESSAGES, RESPONSES)
# Decimals of milliseconds. Beyond them lies what the multiplication of a float adds to a time or takes from it.
_MICROSECONDS = 3


async def invalidate(services: Services, request: Request) -> None:
    """`POST /v1/cache/invalidate`: forget the project's entries that match; answers with their number."""
    request.endpoint = "cache.invalidate"
    principal = admit(services, request, "cache:write")
    body = json_bytes(request.exchange, services.limits.max_body_bytes)
    tenant = principal.tenant
    document = json_body.parse(body)
    if document.get("request_id") is not None:
        document = _with_entry(services, tenant, document)
    what = invalidation_filter(document, lambda model: tenant.router.without_provider(model, tenant.project))
    count = await services.cache.invalidate(tenant.partition, what)
    engine = services.semantic.engine
    if engine is not None:
        await engine.purge(tenant.partition, what)  # whose answers are gone by now, and cannot be served any more
    _respond(services, request, {"object": "cache.invalidation", "invalidated": count})


async def stats(services: Services, request: Request) -> None:
    """`GET /v1/cache/stats`: entries and bytes of the project."""
    request.endpoint = "cache.stats"
    principal = admit(services, request, None)
    held = await services.cache.stats(principal.tenant.partition)
    _respond(services, request, {"object": "cache.stats", **msgspec.to_builtins(held)})


def invalidation_filter(document: dict[str, Any], plain_model: Any) -> InvalidationFilter:
    """The filter that `{model?, kind?, before?, after?, entry?, all?}` describes; `plain_model` takes `provider/` off a
    name. `entry` is an entry's id; what is kept of it for one dialect alone goes with it.

    Times are epoch seconds or ISO 8601, fractions included; what was stored in the millisecond that a time lies in is
    forgotten wherever it may be meant. Raises BadRequest; a filter that names nothing needs `all: true`.
    """
    unknown = document.keys() - set(_FIELDS)
    if unknown:
        raise BadRequest(f"Unknown field {min(unknown)!r}; known are {', '.join(_FIELDS)}.", param=min(unknown))
    everything = document.get("all", False)
    if type(everything) is not bool:
        raise BadRequest("The field 'all' is true or false.", param="all")
    model, kind = document.get("model"), document.get("kind")
    if model is not None and (type(model) is not str or not model):
        raise BadRequest("The field 'model' is a model's name.", param="model")
    if kind is not None and kind not in KINDS:
        raise BadRequest(f"The field 'kind' is one of {', '.join(KINDS)}.", param="kind")
    before, after = time_ms(document, "before"), time_ms(document, "after")
    keys = _keys(document)
    if not everything and (model, kind, before, after, keys) == (None, None, None, None, None):
        raise BadRequest("Name what to forget: model, kind, before, after, entry, request_id, or all: true.")
    # Entries know the millisecond in which they were stored: one that may lie on the named side of a time is forgotten.
    return InvalidationFilter(
        None if model is None else plain_model(model),
        kind,
        None if before is None else ceil(before),
        None if after is None else floor(after) - 1,
        keys,
    )


def _keys(document: dict[str, Any]) -> tuple[bytes, ...] | None:
    """The keys of the entry that the field `entry` names."""
    name = document.get("entry")
    if name is None:
        return None
    try:
        if type(name) is not str:
            raise ValueError("an entry's id is a text")
        key = key_of(name)
    except ValueError as error:
        raise BadRequest(f"The field 'entry': {error}.", param="entry") from None
    return (key, *(key_in_dialect(key, dialect) for dialect in _DIALECTS))


def _with_entry(services: Services, tenant: Tenant, document: dict[str, Any]) -> dict[str, Any]:
    """The filter with the entry that a request of this project stored or was given, in place of the request's id."""
    request_id = document["request_id"]
    if type(request_id) is not str:
        raise BadRequest("The field 'request_id' is the X-Request-Id of an answer.", param="request_id")
    if document.get("entry") is not None:
        raise BadRequest("Name an entry, or a request whose entry is meant: not both.", param="request_id")
    key = services.history.entry_of(tenant.partition, request_id)
    if key is None:
        raise NotFound(
            "No such request of this project is remembered that stored an answer or was given one from the cache; "
            "forget by entry, model, kind or time."
        )
    return {name: value for name, value in document.items() if name != "request_id"} | {"entry": entry_id(key)}


def time_ms(document: dict[str, Any], field: str) -> float | None:
    """Epoch milliseconds of a field in epoch seconds or ISO 8601; None = it is not there. Raises BadRequest."""
    value = document.get(field)
    if value is None:
        return None
    if type(value) in (int, float) and 0 <= value < 1e11:
        return round(float(value) * 1000, _MICROSECONDS)
    if type(value) is str:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            return round(moment.timestamp() * 1000, _MICROSECONDS)
    raise BadRequest(f"The field {field!r} is epoch seconds or an ISO 8601 time.", param=field)


def _respond(services: Services, request: Request, document: object) -> None:
    head = egress.answer_head(request, egress.JSON)
    services.settlement.settle(request, 200, "complete")
    request.exchange.respond(200, head, msgspec.json.encode(document))
