"""`POST /v1/messages/count_tokens`: asked of a provider that speaks Anthropic's dialect, else estimated."""

from __future__ import annotations

import msgspec

from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest
from watchllm.domain.usage_event import BYPASS
from watchllm.limits.limiter import Demand
from watchllm.providers.dialect import CHAT, MESSAGES
from watchllm.providers.openai.answers import upstream_body
from watchllm.proxy import egress
from watchllm.proxy.admission import admit
from watchllm.proxy.approach import Candidate
from watchllm.proxy.calls import call_whole, head_of, pass_status_on
from watchllm.proxy.directives import directives
from watchllm.proxy.intake import json_bytes
from watchllm.proxy.named_pictures import may_name_pictures
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.shared_objects import named_object, refuse_shared

ENDPOINT = "messages.count_tokens"


async def count_tokens(services: Services, request: Request) -> None:
    """Answer with `{"input_tokens": n}`. Raises GatewayError."""
    request.endpoint = ENDPOINT
    exchange = request.exchange
    tenant = admit(services, request).tenant
    body = json_bytes(exchange, services.limits.max_body_bytes)
    document = json_body.parse(body)
    model = document.get("model")
    if type(model) is not str:
        raise BadRequest("Name a model in the field 'model', for example claude-sonnet-4-5.", param="model")
    request.directives = directives(exchange.headers, tenant.settings)
    request.cache = BYPASS
    target = request.target = tenant.target(model)
    request.model = target.model
    if request.limiting is not None and (waiting := services.limiting.enter(request)) is not None:
        await waiting
    if MESSAGES not in target.vendor.dialects:
        from watchllm.providers.translation import between
        from watchllm.providers.translation.count_tokens import count_tokens as estimated

        between.request_in(CHAT, MESSAGES, {"max_tokens": 1, **document}, target.model)  # what it would refuse
        head = egress.answer_head(request, egress.JSON)
        services.settlement.settle(request, 200, "complete")
        counted = {"input_tokens": estimated(document)}
        exchange.respond(200, head, msgspec.json.encode(counted))
        return
    refuse_shared(target, named_object(document, body))
    if may_name_pictures(body):
        from watchllm.proxy.pictures import refuse_neighbours  # few requests show any

        await refuse_neighbours(services, document, Candidate(target, await services.destinations.of(target)))
    if request.admission is not None and (reserving := services.limiting.reserve(request, Demand)) is not None:
        await reserving
    sent = body if target.model == model else upstream_body(body, target.model, include_usage=False)
    answer = await call_whole(services, request, target, "/messages/count_tokens", sent, dialect=MESSAGES)
    if answer.status != 200:
        pass_status_on(services, request, answer, has_stale=False)
        return
    request.cost = 0
    head = head_of(request, answer)
    services.settlement.settle(request, 200, "complete")
    exchange.respond(200, head, answer.body)
