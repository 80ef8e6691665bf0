"""A request that the cache cannot answer: it joins the call that is under way for the same question, or makes one."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from watchllm.cache.bypass import bypass_reason
from watchllm.cache.entry import Entry
from watchllm.domain import json_body
from watchllm.domain.usage import TokenUsage
from watchllm.domain.usage_event import HIT_COALESCED
from watchllm.providers.openai import answers
from watchllm.providers.openai.endpoints import Endpoint
from watchllm.providers.openai.replay import replay
from watchllm.proxy import egress
from watchllm.proxy.asked import Asked
from watchllm.proxy.calls import account, head_of, pass_status_on, send, store
from watchllm.proxy.flight import Flight
from watchllm.proxy.history import miss_reason
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.shared_stream import SharedStream
from watchllm.proxy.waiter import FlightPlan, Landed, Waiter


async def answer_from_upstream(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    asked: Asked,
    body: bytes,
    document: dict[str, Any] | None,
    key: bytes | None,
    entry: Entry | None,
    stale: Entry | None,
) -> None:
    """Answer `request` from a call upstream; `document` is the parsed body where it was parsed already.

    The answer is stored under `key`, None = nowhere. `entry` is what the cache had and could not give. Where `stale`
    can answer instead, a provider's failure is raised even where its status could be passed on. Raises GatewayError.
    """
    wishes = request.directives
    assert wishes is not None
    document = document or json_body.parse(body)
    reason = miss_reason(entry, wishes, bypass_reason(document), request.wall_ms)
    services.history.missed(request, asked.target, asked.key, body, document, endpoint.family, reason)
    landed = await _fly(services, request, endpoint, asked, body, document, key)
    if landed is not None:
        _give(services, request, endpoint, asked, landed, has_stale=stale is not None)


async def _fly(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    asked: Asked,
    body: bytes,
    document: dict[str, Any],
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
    waiter = Waiter(request, services.loop.create_future(), include_usage=asked.include_usage)
    flight = _flight(services, request, endpoint, asked, document, key if wishes.store else None, place)
    if place is not None:
        services.flights[place] = flight
    flight.add(waiter, services.loop)
    add_usage = asked.streamed and not asked.include_usage and _adds_usage(asked, document)
    sent = answers.upstream_body(document, body, asked.target.model, include_usage=add_usage)
    flight.begin(lambda sink: send(services, request, destination, endpoint.path, sent, sink))
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

    assembler = answers.assembler_of(endpoint, document) if asked.streamed else None

    def pay(leader: Request, usage: TokenUsage | None) -> None:
        account(services, leader, asked.target, usage or answers.usage_so_far(document, assembler))

    plan = FlightPlan(
        judge=lambda body: answers.judge_answer(endpoint, body, document),
        settle=services.settlement.settle,
        account=pay,
        store=keep,
        ended=ended,
    )
    stream = None
    if assembler is not None:
        has_usage = asked.include_usage or _adds_usage(asked, document)
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
        pass_status_on(services, request, answer, has_stale=has_stale)
        return
    if not leads:
        request.usage, request.saved, request.cost = landed.usage, landed.cost, 0
    if request.streamed:
        # The leader asked for a whole answer, this request for a stream.
        head = egress.hit_head(request, egress.EVENT_STREAM)
        body = replay(endpoint.family, answer.body, include_usage=asked.include_usage)
        services.settlement.settle(request, 200, "complete")
        request.exchange.start(200, head)
        request.exchange.write(body)
        request.exchange.finish()
        return
    head = head_of(request, answer) if leads else egress.hit_head(request)
    services.settlement.settle(request, 200, "complete")
    request.exchange.respond(200, head, answer.body)


def _adds_usage(asked: Asked, document: dict[str, Any]) -> bool:
    """Whether the gateway asks for usage where the client did not."""
    return not asked.include_usage and asked.target.vendor.stream_usage and answers.takes_usage(document)
