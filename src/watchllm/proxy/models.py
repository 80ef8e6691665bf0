"""`/v1/models`: what a key may use, by the price book and the providers that it can reach."""

from __future__ import annotations

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
    """`GET /v1/models`: known models of all usable providers, under the names that lead to them."""
    request.endpoint = "models.list"
    tenant = admit(services, request).tenant
    found = []
    for target in tenant.router.usable(tenant.project, test_key=tenant.test):
        provider = target.provider
        known = (
            SIMULATED_MODELS if provider == SIMULATOR else [row.model for row in services.tenants.price_rows(provider)]
        )
        for model in known:
            name = model if tenant.router.is_family_name(model, provider) else f"{provider}/{model}"
            if model and _allowed(tenant, name):
                found.append(_model_object(name, provider))
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


def _allowed(tenant: Tenant, name: str) -> bool:
    try:
        tenant.target(name)
    except GatewayError:
        return False
    return True


def _model_object(name: str, provider: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": provider}


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
