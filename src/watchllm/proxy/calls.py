"""Calls upstream, for whoever makes them: sending, collecting a whole answer, pricing what was used, storing it."""

from __future__ import annotations

import asyncio
from time import perf_counter

from watchllm.domain.errors import GatewayError, ProviderFailed
from watchllm.domain.usage import TokenUsage
from watchllm.providers.dialect import CHAT
from watchllm.providers.endpoints import Endpoint
from watchllm.proxy import egress
from watchllm.proxy.bad_answers import USUAL_TYPE
from watchllm.proxy.keeping import entry_of, price_and_cost
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.upstream import Answer, Destination, WholeAnswer, upstream_error, with_timeout
from watchllm.routing.target import Target
from watchllm.wire.client import Upload
from watchllm.wire.types import Call, ResponseSink, Timeouts, WireError


async def call_whole(
    services: Services,
    request: Request,
    target: Target,
    path: str,
    body: bytes | None,
    method: bytes = b"POST",
    *,
    dialect: str = CHAT,
) -> Answer:
    """Call upstream, in a slot, and collect the answer. Raises GatewayError; a client that leaves cancels the call."""
    done: asyncio.Future[Answer] = services.loop.create_future()

    def head_arrived() -> None:
        request.first_byte = perf_counter()

    sink = WholeAnswer(done, head_arrived)
    destination = await services.destinations.of(target)
    turn = await services.slots.turn(request)
    try:
        timeouts = with_timeout(services.timeouts, request.time_left())
        sink.call = send(services, request, destination, path, body, sink, method, timeouts=timeouts, dialect=dialect)
        answer = await done
    finally:
        turn.release()
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
    lines: bytes = b"",
    dialect: str = CHAT,
) -> Call:
    """Begin a call upstream; `path` is below the base URL, the client's query string goes along. `lines` are header
    lines beside those that always go up in `dialect`.

    Raises GatewayError when it cannot even be queued.
    """
    exchange = request.exchange
    url = destination.prefix + path.encode()
    if exchange.query:
        url += b"?" + exchange.query
    assert request.principal is not None
    partition = request.principal.tenant.partition
    forwarded = services.forwarded(exchange.headers, partition, destination, dialect=dialect)
    head = destination.credential + forwarded + lines
    request.upstream_began = perf_counter()
    services.settlement.open_call(request, 0 if body is None else len(body))
    try:
        call = services.outbound.pool.send(
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
    request.price, cost = price_and_cost(services.tenants, target, usage)
    if cost is not None:
        request.cost = cost + request.lost_cost


def store(services: Services, request: Request, endpoint: Endpoint, target: Target, key: bytes, body: bytes) -> None:
    """Keep a complete answer, unless an invalidation came since its call began."""
    assert request.directives is not None
    assert request.principal is not None
    key_id = request.principal.key.id
    ttl, now = request.directives.ttl, services.now_ms()
    entry = entry_of(endpoint, target, ttl, now, request.usage, request.cost, key_id, body)
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


def pass_status_on(services: Services, request: Request, answer: Answer, *, has_stale: bool) -> None:
    """Answer with the provider's own status and body, or raise where they must not reach the client."""
    refusal = status_refusal(answer.status)
    if refusal is not None:
        raise refusal
    if answer.status >= 500 and has_stale:
        raise ProviderFailed(f"The provider answered with status {answer.status}.")
    if answer.status >= 400:
        request.error = "provider_error" if answer.status >= 500 else "upstream_refused"
    head = head_of(request, answer)
    services.settlement.settle(request, answer.status, "error" if answer.status >= 400 else "complete")
    request.exchange.respond(answer.status, head, answer.body)


def head_of(request: Request, answer: Answer) -> bytes:
    """Header lines of an answer that a provider gave whole."""
    headers = answer.headers
    usual = USUAL_TYPE in headers
    content_type = egress.JSON if usual else answer.header(b"content-type").decode("latin-1") or egress.JSON
    return egress.answer_head(request, content_type, headers)
