"""A request that the cache cannot answer: it joins the call that is under way for the same question, or makes one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from time import perf_counter
from typing import Any

from watchllm.cache.entry import Entry
from watchllm.cache.key import KEY_LENGTH
from watchllm.domain.usage_event import HIT, HIT_COALESCED
from watchllm.proxy import egress
from watchllm.proxy.approach import Candidate, candidates_known, candidates_of
from watchllm.proxy.attempts import Attempts
from watchllm.proxy.calls import head_of, pass_status_on
from watchllm.proxy.demand import demand_of
from watchllm.proxy.flight import Flight
from watchllm.proxy.history import miss_reason
from watchllm.proxy.plan import Plan
from watchllm.proxy.request import Request
from watchllm.proxy.retelling import replayed, serve_entry
from watchllm.proxy.services import Services
from watchllm.proxy.single_call import SingleCall, has_one_try
from watchllm.proxy.streamed_flight import StreamedFlight
from watchllm.proxy.unanswered import Unanswered
from watchllm.proxy.waiter import Landed, Waiter
from watchllm.routing.target import Target


async def answer_from_upstream(services: Services, unanswered: Unanswered, stale: Entry | None) -> None:
    """Answer from a call upstream: one that is under way for the same question, or one of its own.

    Where `stale` can answer instead, a provider's failure is raised even where its status could be passed on. Raises
    GatewayError.
    """
    request, endpoint, asked = unanswered.request, unanswered.endpoint, unanswered.asked
    body, key = unanswered.body, unanswered.key
    wishes = request.directives
    principal = request.principal
    assert wishes is not None
    assert principal is not None
    reason = miss_reason(unanswered.entry, wishes, asked.bypass, request.wall_ms)
    services.history.missed(request, asked.target, asked.named, asked.key, body, endpoint.family, reason)
    # A request that must not read or must not store neither leads nor joins.
    tenant = principal.tenant
    place = tenant.partition + key + tenant.joins_as if key is not None and wishes.read and wishes.store else None
    # Between looking for a call under way and making one nothing may wait, or two would be made.
    candidates = candidates_known(services, asked.targets) or await candidates_of(
        services, principal.tenant, asked.targets
    )
    plan = Plan(services, request, endpoint, asked, body, key if wishes.store else None, place)
    if asked.may_name_pictures:
        from watchllm.proxy.pictures import see_to_pictures  # few requests show any

        await see_to_pictures(services, request, plan, candidates)
    if services.cache.is_remote and len(candidates) > 1:
        await plan.bring_stored(candidates)
    if services.leases is not None and place is not None and key is not None and place not in services.flights:
        from watchllm.proxy.elsewhere import answered_elsewhere  # where there is only one process, nothing is

        there = await answered_elsewhere(services, services.leases, request, endpoint, asked, body, key)
        if there is not None:
            services.history.hit(request, asked.named, key, there)
            serve_entry(services, request, endpoint, there, HIT_COALESCED, include_usage=asked.include_usage)
            return
    waiter = await _join_or_reserve(services, request, plan, body) or _lead(services, request, plan, candidates)
    landed = await waiter
    if landed is not None:  # else it was relayed as a stream
        _give(services, unanswered, landed, has_stale=stale is not None)


async def _join_or_reserve(services: Services, request: Request, plan: Plan, body: bytes) -> Waiter | None:
    """Wait for the call that is under way at the plan's place; None = there is none, and what one may use was taken."""
    place = plan.place
    while True:
        if place is not None and place in services.flights:
            waiter = await _join(services, request, plan, place)
            if waiter is not None:
                return waiter
        if request.admission is None or (reserving := _reserve(services, request, plan, body)) is None:
            return None
        await reserving
        if place is None or _to_join(services, request, plan, place, same_form=False) is None:
            return None
        # Meanwhile somebody else began to make it.
        services.limiting.give_back(request)


def _reserve(services: Services, request: Request, plan: Plan, body: bytes) -> Coroutine[Any, Any, None] | None:
    asked = plan.asked
    hedged = asked.route.hedge_after is not None
    return services.limiting.reserve(request, lambda: demand_of(services, request, body, asked.targets, hedged=hedged))


async def _join(services: Services, request: Request, plan: Plan, place: bytes) -> Waiter | None:
    """Wait for the call that is under way at `place`; None = there is none that this request can be given."""
    called_as = request.cache
    same_form = False
    while (flight := _to_join(services, request, plan, place, same_form=same_form)) is not None:
        request.cache = HIT_COALESCED
        request.upstream_began = perf_counter()
        waiter = _waiter(request, plan)
        flight.add(waiter, services.loop)
        landed = await waiter
        if landed is not None or waiter.relayed:
            return waiter
        # The answer cannot be given in this request's form: of those who ask again, one calls and the others join it.
        request.cache = called_as
        same_form = True
    return None


def _lead(services: Services, request: Request, plan: Plan, candidates: tuple[Candidate, ...]) -> Waiter:
    """Make the call, which others may join at the plan's place."""
    stream = plan.shared_stream()
    flight = (
        Flight(request, plan, plan.labels) if stream is None else StreamedFlight(request, plan, stream, plan.labels)
    )
    if plan.place is not None:
        services.flights[plan.place] = flight
    waiter = _waiter(request, plan)
    flight.add(waiter, services.loop)
    flight.take_turn(services.slots, partial(_calls, services, request, plan, candidates, flight))
    return waiter


def _calls(
    services: Services, request: Request, plan: Plan, candidates: tuple[Candidate, ...], flight: Flight
) -> SingleCall | Attempts:
    """What makes the call. Its time begins with this."""
    # Where whom it asks for cannot be called, what is stored of the other's answers may do.
    if has_one_try(plan.asked.route, candidates) and candidates[0].target is plan.asked.target:
        return SingleCall(services, request, candidates[0], plan.approach, flight)
    return _attempts(services, request, plan, candidates, flight)


def _attempts(
    services: Services, request: Request, plan: Plan, candidates: tuple[Candidate, ...], flight: Flight
) -> Attempts:
    """The calls of a question that may be answered by another than the first, for the flight that waits."""
    asked = plan.asked

    def stored(candidate: Candidate) -> Callable[[], None] | None:
        found = plan.stored(candidate)
        return None if found is None else partial(give, candidate.target, *found)

    def give(target: Target, key: bytes, entry: Entry) -> None:
        flight.land_stored(target, entry)
        services.history.hit(request, asked.named, key, entry)

    return Attempts(services, request, asked.route, candidates, plan.approach, flight, plan.standard, stored)


def _waiter(request: Request, plan: Plan) -> Waiter:
    return Waiter(request, include_usage=plan.asked.include_usage, dialect=plan.dialect, labels=plan.labels)


def _to_join(services: Services, request: Request, plan: Plan, place: bytes, *, same_form: bool) -> Flight | None:
    """The call under way at `place` whose answer this request may be given, if there is one."""
    flight = services.flights.get(place)
    asked = plan.asked
    if flight is None or not flight.can_be_joined(
        streamed=asked.streamed,
        include_usage=asked.include_usage,
        dialect=plan.dialect,
        labels=plan.labels,
        same_form=same_form,
    ):
        return None
    assert request.principal is not None
    partition, family = request.principal.tenant.partition, plan.endpoint.family
    key = place[len(partition) : len(partition) + KEY_LENGTH]
    if services.cache.invalidated_since(partition, asked.target.model, family, flight.began_ms, key):
        return None
    return flight


def _give(services: Services, unanswered: Unanswered, landed: Landed, *, has_stale: bool) -> None:
    """Answer a waiter from a whole answer."""
    request, endpoint, asked = unanswered.request, unanswered.endpoint, unanswered.asked
    answer, verdict = landed.answer, landed.verdict
    leads = request.cache != HIT_COALESCED
    if landed.entry is not None and leads:
        serve_entry(services, request, endpoint, landed.entry, HIT, include_usage=asked.include_usage)
        return
    if answer.status != 200 or verdict is None:
        pass_status_on(services, request, answer, has_stale=has_stale)
        return
    if not leads:
        request.usage, request.saved, request.cost = landed.usage, landed.cost, 0
    if request.streamed:
        # The leader asked for a whole answer, this request for a stream.
        head = egress.hit_head(request, egress.EVENT_STREAM)
        told = replayed(endpoint, answer.body, include_usage=asked.include_usage)
        services.settlement.settle(request, 200, "complete")
        request.exchange.start(200, head)
        request.exchange.write(told)
        request.exchange.finish()
        return
    head = head_of(request, answer) if leads else egress.hit_head(request)
    services.settlement.settle(request, 200, "complete")
    request.exchange.respond(200, head, answer.body)
