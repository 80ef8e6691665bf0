"""`/v1/models`: what a key may use, by what the providers that it can reach say that they offer, else by the price
book."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec

from watchllm.domain.errors import NotFound
from watchllm.proxy import egress
from watchllm.proxy.admission import admit
from watchllm.proxy.calls import call_whole, status_refusal
from watchllm.proxy.model_listing import Model
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.routing.resolve import SIMULATOR, Target

if TYPE_CHECKING:
    from watchllm.proxy.model_lists import Offer


async def listing(services: Services, request: Request) -> None:
    """`GET /v1/models`: the models of all usable providers, under the names that lead to them."""
    request.endpoint = "models.list"
    tenant = admit(services, request).tenant
    targets = tenant.router.usable(tenant.project, test_key=tenant.test)
    offers = await _offers(services, request, targets)
    document = await services.model_listings.of(tenant, targets, offers)
    _respond(services, request, document)


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
        _respond(services, request, msgspec.json.encode(Model(id=name, owned_by=target.provider)))
        return
    answer = await call_whole(services, request, target, f"/models/{_quoted(target.model)}", None, b"GET")
    refusal = status_refusal(answer.status)
    if refusal is not None:
        raise refusal
    if answer.status == 404:
        raise NotFound(f"{target.provider} knows no model {target.model!r}.", code="model_not_found", param="model")
    services.settlement.settle(request, answer.status, "complete" if answer.status == 200 else "error")
    request.exchange.respond(answer.status, egress.answer_head(request, egress.JSON, answer.headers), answer.body)


async def _offers(services: Services, request: Request, targets: Sequence[Target]) -> list[Offer]:
    """What the provider of each of `targets` says that it offers; the simulated one is not asked."""
    real = [target for target in targets if target.provider != SIMULATOR]
    if not real:
        return [None] * len(targets)
    request.upstream_began = perf_counter()
    said = iter(await services.model_lists.of(real))
    request.upstream_ended = perf_counter()
    return [None if target.provider == SIMULATOR else next(said) for target in targets]


def _unquoted(path: bytes) -> str:
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(path).decode("utf-8", "replace")


def _quoted(model: str) -> str:
    from urllib.parse import quote

    return quote(model, safe="/:@")


def _respond(services: Services, request: Request, document: bytes) -> None:
    head = egress.answer_head(request, egress.JSON)
    services.settlement.settle(request, 200, "complete")
    request.exchange.respond(200, head, document)
