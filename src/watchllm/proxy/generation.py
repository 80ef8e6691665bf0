"""The life of a request that is answered by a model or from the cache; read it top to bottom.

    authenticate ▸ read ▸ route ▸ look up ▸ (hit) replay
                                          ▸ (miss) call upstream ▸ settle ▸ store ▸ answer

Up to the call upstream nothing waits: an exact hit is answered in the parser's callback that completed the request.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from watchllm.cache.entry import NEVER, Entry
from watchllm.domain import json_body
from watchllm.domain.errors import GatewayError, ProviderFailed, TimedOut, Unavailable
from watchllm.domain.usage import TokenUsage
from watchllm.domain.usage_event import BYPASS, HIT, HIT_COALESCED, HIT_STALE, MISS
from watchllm.providers.openai.endpoints import Endpoint
from watchllm.proxy import egress
from watchllm.proxy.asked import Asked
from watchllm.proxy.directives import Directives, directives
from watchllm.proxy.flight import Flight, FlightPlan
from watchllm.proxy.intake import json_bytes
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.shared_stream import SharedStream
from watchllm.proxy.upstream import Answer, Destination, WholeAnswer, upstream_error, with_timeout
from watchllm.proxy.waiter import Landed, Waiter
from watchllm.routing.resolve import Target
from watchllm.wire.client import Upload
from watchllm.wire.types import Call, ResponseSink, Timeouts, WireError


async def generate(services: Services, request: Request, endpoint: Endpoint) -> None:
    """Answer one request to a cached endpoint. Raises GatewayError for what is refused or failed."""
    exchange = request.exchange
    headers = exchange.headers
    tenants = services.tenants
    request.principal = principal = tenants.authenticate(headers, request.wall_ns / 1e9)
    request.authenticated = perf_counter()
    principal.require("inference")
    if services.settlement.journal.refusal is not None:
        raise Unavailable(services.settlement.journal.refusal, retry_after=1)
    tenant = principal.tenant

    body = json_bytes(exchange, services.limits.max_body_bytes)
    wishes = request.directives = directives(headers, tenant.settings, embeddings=endpoint.family == "embeddings")
    asked, document = tenants.reader.read(tenant, endpoint, body, headers, exchange.query, wishes.user)
    request.target = asked.target
    request.model = asked.target.model
    request.streamed = asked.streamed

    key = None if wishes.bypass else asked.key
    request.cache = BYPASS if key is None else MISS
    entry = services.cache.get(tenant.partition, key) if key is not None and wishes.read else None
    request.looked_up = perf_counter()
    if entry is not None and _answers(entry, wishes, request.wall_ms):
        serve_entry(services, request, endpoint, entry, HIT, include_usage=asked.include_usage)
        return
    if wishes.only_if_cached:
        raise TimedOut(
            "The answer is not in the cache, and only-if-cached forbids to ask upstream.", code="not_in_cache"
        )

    stale = entry if entry is not None and _may_be_stale(entry, wishes, request.wall_ms) else None
    try:
        landed = await _fly(services, request, endpoint, asked, body, document, key)
        if landed is not None:
            _give(services, request, endpoint, asked, landed, has_stale=stale is not None)
    except GatewayError as error:
        if stale is None or error.status < 500 or exchange.started:
            raise
        serve_entry(services, request, endpoint, stale, HIT_STALE, include_usage=asked.include_usage)


async def _fly(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    asked: Asked,
    body: bytes,
    document: dict[str, Any] | None,
    key: bytes | None,
) -> Landed | None:
    """Join the call that is under way for the same question, or make one; None = the answer was relayed as a stream.

    A request that must not read or must not store neither leads nor joins.
    """
    wishes = request.directives
    assert wishes is not None
    assert request.principal is not None
    partition = request.principal.tenant.partition
    place = partition + key if key is not None and wishes.read and wishes.store else None
    # Between looking for a call under way and making one nothing may wait, or two would be made.
    destination = await services.destinations.of(asked.target)
    called_as = request.cache
    same_form = False
    while (flight := _to_join(services, request, endpoint, asked, place, same_form=same_form)) is not None:
        request.cache = HIT_COALESCED
        request.upstream_began = perf_counter()
        waiter = Waiter(request, services.loop.create_future(), include_usage=asked.include_usage)
        flight.add(waiter, services.loop)
        landed = await waiter.done
        if landed is not None or waiter.relayed:
            return landed
        # The answer cannot be given in this request's form: of those who ask again, one calls and the others join it.
        request.cache = called_as
        same_form = True
    document = document or json_body.parse(body)
    waiter = Waiter(request, services.loop.create_future(), include_usage=asked.include_usage)
    flight = _flight(services, request, endpoint, asked, document, key if wishes.store else None, place)
    if place is not None:
        services.flights[place] = flight
    flight.add(waiter, services.loop)
    add_usage = asked.streamed and not asked.include_usage and _adds_usage(endpoint, asked, document)
    upstream_body = endpoint.upstream_body(document, body, asked.target.model, include_usage=add_usage)
    flight.begin(lambda sink: send(services, request, destination, endpoint.path, upstream_body, sink))
    return await waiter.done


def _to_join(
    services: Services, request: Request, endpoint: Endpoint, asked: Asked, place: bytes | None, *, same_form: bool
) -> Flight | None:
    """The call under way at `place` whose answer this request may be given, if there is one."""
    flight = services.flights.get(place) if place is not None else None
    if flight is None or not flight.can_be_joined(
        streamed=asked.streamed, include_usage=asked.include_usage, same_form=same_form
    ):
        return None
    assert request.principal is not None
    partition = request.principal.tenant.partition
    if services.cache.invalidated_since(partition, asked.target.model, endpoint.family, flight.began_ms):
        return None
    return flight


def _flight(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    asked: Asked,
    document: dict[str, Any],
    key: bytes | None,
    place: bytes | None,
) -> Flight:
    """A flight led by `request`, whose answer is stored under `key` and which can be joined at `place`."""

    def keep(body: bytes) -> None:
        if key is not None:
            store(services, request, endpoint, asked.target, key, body)

    def ended() -> None:
        if place is not None and services.flights.get(place) is flight:
            del services.flights[place]

    assembler = endpoint.assembler(document) if asked.streamed else None

    def pay(leader: Request, usage: TokenUsage | None) -> None:
        account(services, leader, asked.target, usage or endpoint.usage_so_far(document, assembler))

    plan = FlightPlan(
        judge=lambda body: endpoint.judge(body, document),
        settle=services.settlement.settle,
        account=pay,
        store=keep,
        ended=ended,
    )
    stream = None
    if assembler is not None:
        has_usage = asked.include_usage or _adds_usage(endpoint, asked, document)
        stream = SharedStream(assembler, has_usage=has_usage)
    flight = Flight(request, plan, stream)
    return flight


def _give(
    services: Services, request: Request, endpoint: Endpoint, asked: Asked, landed: Landed, *, has_stale: bool
) -> None:
    """Answer a waiter from a whole answer."""
    answer, verdict = landed.answer, landed.verdict
    leads = request.cache != HIT_COALESCED
    if answer.status != 200 or verdict is None:
        _pass_status_on(services, request, answer, has_stale=has_stale)
        return
    if not leads:
        request.usage, request.saved, request.cost = landed.usage, landed.cost, 0
    if request.streamed:
        # The leader asked for a whole answer, this request for a stream.
        head = egress.hit_head(request, egress.EVENT_STREAM)
        body = endpoint.replay(answer.body, include_usage=asked.include_usage)
        services.settlement.settle(request, 200, "complete")
        request.exchange.start(200, head)
        request.exchange.write(body)
        request.exchange.finish()
        return
    head = _head_of(request, answer) if leads else egress.hit_head(request)
    services.settlement.settle(request, 200, "complete")
    request.exchange.respond(200, head, answer.body)


def _adds_usage(endpoint: Endpoint, asked: Asked, document: dict[str, Any]) -> bool:
    """Whether the gateway asks for usage where the client did not."""
    return not asked.include_usage and asked.target.vendor.stream_usage and endpoint.takes_usage(document)


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
    body = endpoint.replay(entry.body, include_usage=include_usage)
    services.settlement.settle(request, 200, "complete")
    exchange.start(200, head)
    exchange.write(body)
    exchange.finish()


async def call_whole(
    services: Services, request: Request, target: Target, path: str, body: bytes | None, method: bytes = b"POST"
) -> Answer:
    """Call upstream and collect the answer. Raises GatewayError; a client that leaves cancels the call."""
    done: asyncio.Future[Answer] = services.loop.create_future()

    def head_arrived() -> None:
        request.first_byte = perf_counter()

    sink = WholeAnswer(done, head_arrived)
    destination = await services.destinations.of(target)
    wishes = request.directives
    timeouts = with_timeout(services.timeouts, wishes.timeout if wishes is not None else None)
    sink.call = send(services, request, destination, path, body, sink, method, timeouts=timeouts)
    answer = await done
    request.upstream_ended = perf_counter()
    request.upstream_status = answer.status
    egress.remember_upstream_id(request, answer.headers)
    return answer


def send(
    services: Services,
    request: Request,
    destination: Destination,
    path: str,
    body: bytes | None,
    sink: ResponseSink,
    method: bytes = b"POST",
    *,
    upload: Upload | None = None,
    timeouts: Timeouts | None = None,
) -> Call:
    """Begin a call upstream; `path` is below the base URL, the client's query string goes along.

    Raises GatewayError when it cannot even be queued.
    """
    exchange = request.exchange
    url = destination.prefix + path.encode("ascii")
    if exchange.query:
        url += b"?" + exchange.query
    head = destination.credential + services.forwarded(exchange.headers, own_key=destination.own_key)
    request.upstream_began = perf_counter()
    services.settlement.open_call(request, 0 if body is None else len(body))
    try:
        call = services.pool.send(
            destination.origin, method, url, head, body, sink, timeouts or services.timeouts, upload=upload
        )
    except WireError as error:
        raise upstream_error(error) from None
    if request.cancel_upstream is None:
        request.cancel_upstream = call.cancel
    return call


def account(services: Services, request: Request, target: Target, usage: TokenUsage | None) -> None:
    """Put usage, price and cost on the request; an unknown price leaves the cost unknown."""
    request.usage = usage
    request.price = price = services.tenants.price(target.provider, target.model)
    if price is not None and usage is not None:
        request.cost = price.cost(usage)


def store(services: Services, request: Request, endpoint: Endpoint, target: Target, key: bytes, body: bytes) -> None:
    """Keep a complete answer, unless an invalidation came since its call began."""
    assert request.directives is not None
    assert request.principal is not None
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
    services.cache.put(request.principal.tenant.partition, key, entry, request.wall_ms)


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


def _pass_status_on(services: Services, request: Request, answer: Answer, *, has_stale: bool) -> None:
    """Answer with the provider's own status and body, or raise where they must not reach the client."""
    refusal = status_refusal(answer.status)
    if refusal is not None:
        raise refusal
    if answer.status >= 500 and has_stale:
        raise ProviderFailed(f"The provider answered with status {answer.status}.")
    if answer.status >= 400:
        request.error = "provider_error" if answer.status >= 500 else "upstream_refused"
    head = _head_of(request, answer)
    services.settlement.settle(request, answer.status, "error" if answer.status >= 400 else "complete")
    request.exchange.respond(answer.status, head, answer.body)


def _head_of(request: Request, answer: Answer) -> bytes:
    content_type = answer.header(b"content-type").decode("latin-1") or egress.JSON
    return egress.answer_head(request, content_type, answer.headers)


def _answers(entry: Entry, wishes: Directives, now_ms: int) -> bool:
    if not entry.is_fresh(now_ms):
        return False
    return wishes.max_age is None or now_ms - entry.created_ms <= wishes.max_age * 1000


def _may_be_stale(entry: Entry, wishes: Directives, now_ms: int) -> bool:
    if wishes.stale_if_error is None:
        return False
    return entry.is_fresh(now_ms) or now_ms - entry.expires_ms <= wishes.stale_if_error * 1000
