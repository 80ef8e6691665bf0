"""The life of a request that is answered by a model or from the cache; read it top to bottom.

    authenticate ▸ read ▸ route ▸ look up ▸ (hit) replay
                                          ▸ (miss) call upstream ▸ settle ▸ store ▸ answer

Up to the call upstream nothing waits: an exact hit is answered in the parser's callback that completed the request.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from watchllm.cache.bypass import bypass_reason
from watchllm.cache.entry import NEVER, Entry
from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest, GatewayError, ProviderFailed, TimedOut
from watchllm.domain.usage import TokenUsage
from watchllm.domain.usage_event import BYPASS, HIT, HIT_STALE, MISS
from watchllm.providers.openai.endpoints import Endpoint
from watchllm.proxy import egress
from watchllm.proxy.directives import Directives, directives
from watchllm.proxy.intake import json_bytes
from watchllm.proxy.lookup import Lookup, request_key
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.stream import StreamedAnswer
from watchllm.proxy.upstream import Answer, WholeAnswer, upstream_error, with_timeout
from watchllm.routing.resolve import Target
from watchllm.wire.client import Upload
from watchllm.wire.types import Call, ResponseSink, WireError

async def generate(services: Services, request: Request, endpoint: Endpoint) -> None:
    """Answer one request to a cached endpoint. Raises GatewayError for what is refused or failed."""
    exchange = request.exchange
    headers = exchange.headers
    request.principal = principal = services.tenants.authenticate(headers, request.wall_ns / 1e9)
    request.authenticated = perf_counter()
    principal.require("inference")

    body = json_bytes(exchange, services.limits.max_body_bytes)
    document = json_body.parse(body)
    streamed = request.streamed = _wants_stream(document, endpoint)
    target = request.target = principal.tenant.target(_model(document))
    request.model = target.model

    wishes = request.directives = directives(
        headers, principal.tenant.settings, embeddings=endpoint.family == "embeddings"
    )
    lookup = None
    if wishes.bypass or bypass_reason(document) is not None:
        request.cache = BYPASS
    else:
        request.cache = MISS
        lookup = request_key(services, request, endpoint, document, body)
    entry = services.cache.get(lookup.partition, lookup.key) if lookup is not None and wishes.read else None
    request.looked_up = perf_counter()
    if entry is not None and _answers(entry, wishes, request.wall_ms):
        serve_entry(services, request, endpoint, entry, document, HIT)
        return
    if wishes.only_if_cached:
        raise TimedOut("The answer is not in the cache, and only-if-cached forbids to ask upstream.", code="not_in_cache")
    if not wishes.store:
        lookup = None

    try:
        if streamed:
            await _stream(services, request, endpoint, target, document, body, lookup)
        else:
            await _answer_whole(services, request, endpoint, target, document, body, lookup)
    except GatewayError as error:
        if entry is None or error.status < 500 or not _may_be_stale(entry, wishes, request.wall_ms):
            raise
        serve_entry(services, request, endpoint, entry, document, HIT_STALE)


def serve_entry(
    services: Services, request: Request, endpoint: Endpoint, entry: Entry, document: dict[str, Any], kind: str
) -> None:
    """Answer from a stored entry, as a stream where one was asked for."""
    request.cache = kind
    request.entry_age = max(0, (request.wall_ms - entry.created_ms) // 1000)
    request.usage = entry.usage
    request.cost = 0
    request.saved = entry.cost
    if request.streamed:
        head = egress.hit_head(request, egress.EVENT_STREAM)
        body = endpoint.replay(entry.body, include_usage=_asked_for_usage(document))
        services.settlement.settle(request, 200, "complete")
        if request.exchange.http_1_0:
            request.exchange.respond(200, head, body)
            return
        request.exchange.start(200, head)
        request.exchange.write(body)
        request.exchange.finish()
        return
    head = egress.hit_head(request)
    services.settlement.settle(request, 200, "complete")
    request.exchange.respond(200, head, entry.body)


async def _answer_whole(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    target: Target,
    document: dict[str, Any],
    body: bytes,
    lookup: Lookup | None,
) -> None:
    upstream_body = endpoint.upstream_body(document, body, target.model, include_usage=False)
    answer = await call_whole(services, request, target, endpoint.path, upstream_body)
    if answer.status != 200:
        refuse_upstream_status(request, answer)
        services.settlement.settle(request, answer.status, "error")
        request.exchange.respond(answer.status, _head_of(request, answer), answer.body)
        return
    verdict = endpoint.judge(answer.body, document)
    if not verdict.readable:
        raise ProviderFailed("The provider's answer is not JSON of the expected form; check its base URL.")
    account(services, request, target, verdict.usage)
    head = _head_of(request, answer)
    services.settlement.settle(request, 200, "complete")
    request.exchange.respond(200, head, answer.body)
    if lookup is not None and verdict.storable:
        store(services, request, endpoint, target, lookup, answer.body)


async def _stream(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    target: Target,
    document: dict[str, Any],
    body: bytes,
    lookup: Lookup | None,
) -> None:
    add_usage = not _asked_for_usage(document) and target.vendor.stream_usage
    upstream_body = endpoint.upstream_body(document, body, target.model, include_usage=add_usage)
    done: asyncio.Future[Answer | None] = services.loop.create_future()
    relay = StreamedAnswer(services, request, endpoint.assembler(document), done, strip_usage=add_usage)
    relay.call = await send(services, request, target, endpoint.path, upstream_body, relay)
    answer = await done
    if answer is not None:  # upstream answered with something else than a stream
        refuse_upstream_status(request, answer)
        if answer.status == 200:
            raise ProviderFailed("The provider did not answer with an event stream, though one was asked for.")
        services.settlement.settle(request, answer.status, "error")
        request.exchange.respond(answer.status, _head_of(request, answer), answer.body)
        return
    if lookup is not None and relay.completion is not None and endpoint.judge(relay.completion, document).storable:
        store(services, request, endpoint, target, lookup, relay.completion)


async def call_whole(
    services: Services, request: Request, target: Target, path: str, body: bytes | None, method: bytes = b"POST"
) -> Answer:
    """Call upstream and collect the answer. Raises GatewayError; a client that leaves cancels the call."""
    done: asyncio.Future[Answer] = services.loop.create_future()

    def head_arrived() -> None:
        request.first_byte = perf_counter()

    sink = WholeAnswer(done, head_arrived)
    sink.call = await send(services, request, target, path, body, sink, method)
    answer = await done
    request.upstream_ended = perf_counter()
    egress.remember_upstream_id(request, answer.headers)
    return answer


async def send(
    services: Services,
    request: Request,
    target: Target,
    path: str,
    body: bytes | None,
    sink: ResponseSink,
    method: bytes = b"POST",
    upload: Upload | None = None,
) -> Call:
    """Begin a call upstream; `path` is below the base URL, the client's query string goes along."""
    destination = await services.destinations.of(target)
    exchange = request.exchange
    url = destination.prefix + path.encode("ascii")
    if exchange.query:
        url += b"?" + exchange.query
    head = destination.credential + services.forwarded(exchange.headers, own_key=target.own_key is not None)
    wishes = request.directives
    timeouts = with_timeout(services.timeouts, wishes.timeout if wishes is not None else None)
    request.upstream_began = perf_counter()
    try:
        call = services.pool.send(destination.origin, method, url, head, body, sink, timeouts, upload=upload)
    except WireError as error:
        raise upstream_error(error) from None
    request.cancel_upstream = call.cancel
    return call


def account(services: Services, request: Request, target: Target, usage: TokenUsage | None) -> None:
    """Put usage, price and cost on the request; an unknown price leaves the cost unknown."""
    request.usage = usage
    request.price = price = services.tenants.price(target.provider, target.model)
    if price is not None and usage is not None:
        request.cost = price.cost(usage)


def store(
    services: Services, request: Request, endpoint: Endpoint, target: Target, lookup: Lookup, body: bytes
) -> None:
    """Keep a complete answer, unless an invalidation came since its call began."""
    assert request.directives is not None and request.principal is not None
    ttl = request.directives.ttl
    now = services.now_ms()
    entry = Entry(
        now,
        NEVER if ttl < 0 else now + ttl * 1000,
        endpoint.family,
        target.provider,
        target.model,
        request.usage,
        request.cost,
        request.principal.key.id,
        body,
    )
    services.cache.put(lookup.partition, lookup.key, entry, request.wall_ms)


def status_refusal(status: int) -> GatewayError | None:
    """The error for an upstream status that must not reach the client as it is; None = it may."""
    if status in (401, 403):
        return ProviderFailed(
            f"The provider refused this gateway's key (status {status}); check the provider key of the project or of "
            "the instance.",
            code="provider_auth_failed",
        )
    if 300 <= status < 400:
        return ProviderFailed(f"The provider answered with a redirect (status {status}), which is not followed.")
    return None


def refuse_upstream_status(request: Request, answer: Answer) -> None:
    """Raise for statuses that must not reach the client as they are; note the error code of the others."""
    refusal = status_refusal(answer.status)
    if refusal is not None:
        raise refusal
    if answer.status >= 400:
        request.error = "provider_error" if answer.status >= 500 else "upstream_refused"


def _head_of(request: Request, answer: Answer) -> bytes:
    content_type = answer.header(b"content-type").decode("latin-1") or egress.JSON
    return egress.answer_head(request, content_type, answer.headers)


def _model(document: dict[str, Any]) -> str:
    model = document.get("model")
    if type(model) is not str:
        raise BadRequest("Name a model in the field 'model', for example gpt-4o-mini.", param="model")
    return model


def _wants_stream(document: dict[str, Any], endpoint: Endpoint) -> bool:
    stream = document.get("stream")
    if stream is None or stream is False:
        return False
    if stream is not True:
        raise BadRequest("The field 'stream' is true or false.", param="stream")
    if not endpoint.streams:
        raise BadRequest("This endpoint does not stream; leave the field 'stream' out.", param="stream")
    return True


def _asked_for_usage(document: dict[str, Any]) -> bool:
    options = document.get("stream_options")
    return type(options) is dict and options.get("include_usage") is True


def _answers(entry: Entry, wishes: Directives, now_ms: int) -> bool:
    if not entry.is_fresh(now_ms):
        return False
    return wishes.max_age is None or now_ms - entry.created_ms <= wishes.max_age * 1000


def _may_be_stale(entry: Entry, wishes: Directives, now_ms: int) -> bool:
    if wishes.stale_if_error is None:
        return False
    return entry.is_fresh(now_ms) or now_ms - entry.expires_ms <= wishes.stale_if_error * 1000
