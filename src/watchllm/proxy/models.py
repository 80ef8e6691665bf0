"""`/v1/models`: what a key may use, by what the providers that it can reach say that they offer, else by the price
book."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import msgspec

from watchllm.domain.errors import GatewayError, NotFound
from watchllm.proxy import egress
from watchllm.proxy.admission import admit
from watchllm.proxy.calls import call_whole, status_refusal
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.tenant import Tenant
from watchllm.routing.resolve import SIMULATOR

SIMULATED_MODELS = ("echo",)


async def listing(services: Services, request: Request) -> None:
    """`GET /v1/models`: the models of all usable providers, under the names that lead to them."""
    request.endpoint = "models.list"
    tenant = admit(services, request).tenant
    found = []
    for provider, models in await _offers(services, request, tenant):
        for model, created in models:
            name = model if tenant.router.is_family_name(model, provider) else f"{provider}/{model}"
            if model and _allowed(tenant, name):
                found.append(_model_object(name, provider, created))
    _respond(services, request, 200, {"object": "list", "data": found})


async def retrieve(services: Services, request: Request) -> None:
    """`GET /v1/models/{id}`: a known model from the price book, any other as its provider describes it."""
    request.endpoint = "models.retrieve"
    tenant = admit(services, request).tenant
    name = _unquoted(request.exchange.path[len(b"/v1/models/") :])
    if not {"", ".", ".."}.isdisjoint(name.split("/")) or "\\" in name:
        # Behind /models/ such a name would lead the provider to another of its paths, with the instance's key.
        raise NotFound(f"There is no model {name[:200]!r}.", code="model_not_found", param="model")
    target = request.target = tenant.target(name)
    rows = services.tenants.price_rows(target.provider)
    if target.provider == SIMULATOR or any(row.model == target.model for row in rows):
        _respond(services, request, 200, _model_object(name, target.provider))
        return
    answer = await call_whole(services, request, target, f"/models/{_quoted(target.model)}", None, b"GET")
    refusal = status_refusal(answer.status)
    if refusal is not None:
        raise refusal
    if answer.status == 404:
        raise NotFound(f"{target.provider} knows no model {target.model!r}.", code="model_not_found", param="model")
    services.settlement.settle(request, answer.status, "complete" if answer.status == 200 else "error")
    request.exchange.respond(answer.status, egress.answer_head(request, egress.JSON, answer.headers), answer.body)


async def _offers(services: Services, request: Request, tenant: Tenant) -> list[tuple[str, Sequence[tuple[str, int]]]]:
    """Each usable provider and its models: name there, and when it was made."""
    targets = tenant.router.usable(tenant.project, test_key=tenant.test)
    real = [target for target in targets if target.provider != SIMULATOR]
    offers: dict[str, Sequence[tuple[str, int]]] = {SIMULATOR: [(model, 0) for model in SIMULATED_MODELS]}
    if real:
        request.upstream_began = perf_counter()
        for target, offer in zip(real, await services.model_lists.of(real), strict=True):
            rows = services.tenants.price_rows(target.provider) if offer is None else ()
            offers[target.provider] = [(row.model, 0) for row in rows] if offer is None else offer
        request.upstream_ended = perf_counter()
    return [(target.provider, offers[target.provider]) for target in targets]


def _allowed(tenant: Tenant, name: str) -> bool:
    try:
        # Not by way of what the tenant remembers: thousands of names would drive out those that are in use.
        tenant.router.resolve(name, tenant.project, test_key=tenant.test)
    except GatewayError:
        return False
    return True


def _model_object(name: str, provider: str, created: int = 0) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": provider}


def _unquoted(path: bytes) -> str:
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(path).decode("utf-8", "replace")


def _quoted(model: str) -> str:
    from urllib.parse import quote

    return quote(model, safe="/:@")


def _respond(services: Services, request: Request, status: int, document: object) -> None:
    head = egress.answer_head(request, egress.JSON)
    services.settlement.settle(request, status, "complete")
    request.exchange.respond(status, head, msgspec.json.encode(document))
