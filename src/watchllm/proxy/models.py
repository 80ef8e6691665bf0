"""`/v1/models`: what a key may use, by what the providers that it can reach say that they offer, else by the price
book."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from msgspec.structs import replace

from watchllm.domain.errors import GatewayError, NotFound, ProviderFailed
from watchllm.proxy import egress
from watchllm.proxy.admission import admit
from watchllm.proxy.calls import call_whole, status_refusal
from watchllm.proxy.model_forms import Model, described, form_of, listing_in, model_in
from watchllm.proxy.model_listing import ROUTE
from watchllm.proxy.model_lists import upstream_form
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
    _respond(services, request, listing_in(form_of(request.exchange.headers), document))


async def retrieve(services: Services, request: Request) -> None:
    """`GET /v1/models/{id}`: a known model as the listing has it, any other as its provider describes it."""
    request.endpoint = "models.retrieve"
    tenant = admit(services, request).tenant
    name = _unquoted(request.exchange.path[len(b"/v1/models/") :])
    if not {"", ".", ".."}.isdisjoint(name.split("/")) or "\\" in name:
        # Behind /models/ such a name would lead the provider to another of its paths, with the instance's key.
        raise NotFound(f"There is no model {name[:200]!r}.", code="model_not_found", param="model")
    form = form_of(request.exchange.headers)
    target = request.target = tenant.target(name)
    if any(rule.name == name for rule in tenant.project.routes):
        _respond(services, request, model_in(form, Model(id=name, owned_by=ROUTE)))
        return
    rows = services.tenants.price_rows(target.provider)
    if target.provider == SIMULATOR or any(row.model == target.model for row in rows):
        created = await _created(services, request, target)
        _respond(services, request, model_in(form, Model(id=name, created=created, owned_by=target.provider)))
        return
    if (counting := services.limiting.count_call(request)) is not None:
        await counting
    spoken = upstream_form(target)
    path = f"/models/{_quoted(target.model)}"
    answer = await call_whole(services, request, target, path, None, b"GET", dialect=spoken)
    refusal = status_refusal(answer.status)
    if refusal is not None:
        raise refusal
    if answer.status == 404:
        raise NotFound(f"{target.provider} knows no model {target.model!r}.", code="model_not_found", param="model")
    if answer.status == 200 and form != spoken:
        model = described(name, target, answer.body)
        if model is None:
            raise ProviderFailed(f"{target.provider} describes {target.model!r} in a form that cannot be read.")
        _respond(services, request, model_in(form, model))
        return
    if answer.status >= 400 and form != spoken:
        from watchllm.providers.translation.between import error_in  # few models are asked for in another form

        answer = replace(answer, body=error_in(form, spoken, answer.status, answer.body, request.id))
    services.settlement.settle(request, answer.status, "complete" if answer.status == 200 else "error")
    request.exchange.respond(answer.status, egress.answer_head(request, egress.JSON, answer.headers), answer.body)


async def _offers(services: Services, request: Request, targets: Sequence[Target]) -> list[Offer]:
    """What the provider of each of `targets` says that it offers; the simulated one is not asked."""
    real = [target for target in targets if target.provider != SIMULATOR]
    if not real:
        return [None] * len(targets)
    request.upstream_began = perf_counter()
    said = iter(await services.model_lists.of(real, partial(_may_ask, services, request)))
    request.upstream_ended = perf_counter()
    return [None if target.provider == SIMULATOR else next(said) for target in targets]


async def _may_ask(services: Services, request: Request, target: Target) -> bool:
    """Whether the request's limits leave a call for a list that is not known yet; it does without it where not.

    What is asked with the instance's key is for all who share it, whoever comes first: that is nobody's call.
    """
    if target.own_key is None:
        return True
    try:
        if (counting := services.limiting.count_call(request)) is not None:
            await counting
    except GatewayError:
        return False
    return True


async def _created(services: Services, request: Request, target: Target) -> int:
    """When a model was made as the listing tells it, in epoch seconds: as its provider does; 0 = it does not."""
    (offer,) = await _offers(services, request, [target])
    models = () if offer is None else offer.models
    return next((model.created for model in models if model.id == target.model), 0)


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
