"""Buys embeddings: joins the calls that bring an item already, makes one for the others, and stores what comes."""

from __future__ import annotations

import asyncio
from time import perf_counter

from watchllm.domain.errors import GatewayError, InternalError, TimedOut
from watchllm.domain.usage import TokenUsage
from watchllm.providers import tokens
from watchllm.providers.endpoints import Endpoint
from watchllm.providers.openai import embeddings as wire_form
from watchllm.providers.openai.answers import upstream_body
from watchllm.proxy import eager, egress
from watchllm.proxy.approach import Approach, Candidate, addressed, candidates_known, candidates_of, upstream_dialect
from watchllm.proxy.embedding_answer import entry_of, read_answer, unreadable
from watchllm.proxy.embedding_batch import Batch
from watchllm.proxy.proof import Standard
from watchllm.proxy.purchase import Bought, Item, Purchase, Waiter
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.single_call import calls_for
from watchllm.proxy.tenant import PARTITION_LENGTH
from watchllm.proxy.turns import Turns
from watchllm.proxy.upstream import Answer, WholeAnswer

_ENDS = 64
"""Bytes at each end of an answer in which it shows whether it may be whole."""


class EmbeddingCalls:
    """The purchases of one process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._under_way: dict[bytes, Purchase] = {}

    async def buy(
        self, request: Request, endpoint: Endpoint, batch: Batch, places: list[bytes], *, may_join: bool
    ) -> list[Waiter]:
        """Wait until all purchases that bring the items at `places` have ended, or the request's own time is over.

        Their outcomes are in the waiters. A request that must not read or must not store may neither lead nor join.
        """
        services = self._services
        joined: dict[Purchase, None] = {}
        own = []
        for place in places:
            purchase = self._under_way.get(place) if may_join else None
            if purchase is not None and (purchase in joined or self._can_join(batch, place, purchase)):
                joined[purchase] = None
            else:
                own.append(place)
        request.upstream_began = request.upstream_began or perf_counter()
        waits = [(purchase, purchase.join(request, services.loop, buys=False)) for purchase in joined]
        # Set before the call is made: leaving must not end it while others wait.
        request.cancel_upstream = lambda: self._leave(request, batch, waits)
        if own:
            purchase = Purchase(request, batch, lambda ended: self._forget(ended, own))
            waits.append((purchase, purchase.join(request, services.loop, buys=True)))
            if may_join:
                self._under_way.update(dict.fromkeys(own, purchase))
            self._begin(purchase, request, endpoint, batch, own)
        await self._wait(request, batch, waits)
        request.upstream_ended = perf_counter()
        return [waiter for _, waiter in waits]

    def _can_join(self, batch: Batch, place: bytes, purchase: Purchase) -> bool:
        return not self._services.cache.invalidated_since(
            batch.tenant.partition, batch.target.model, batch.family, purchase.began_ms, place[PARTITION_LENGTH:]
        )

    def _forget(self, purchase: Purchase, places: list[bytes]) -> None:
        for place in places:
            if self._under_way.get(place) is purchase:
                del self._under_way[place]

    async def _wait(self, request: Request, batch: Batch, waits: list[tuple[Purchase, Waiter]]) -> None:
        seconds = batch.wishes.timeout
        timer = None
        if seconds is not None:
            timer = self._services.loop.call_later(seconds, self._expire, request, batch, waits, seconds)
        try:
            for _, waiter in waits:
                await waiter.outcome
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, request: Request, batch: Batch, waits: list[tuple[Purchase, Waiter]], seconds: float) -> None:
        self._leave(request, batch, waits)
        for _, waiter in waits:
            if not waiter.outcome.done():
                waiter.outcome.set_result(
                    TimedOut(f"The provider did not answer within {seconds:g} s; try again or allow more time.")
                )

    def _leave(self, request: Request, batch: Batch, waits: list[tuple[Purchase, Waiter]]) -> None:
        """This request waits no longer. The call that nobody else waits for ends, and is charged if it was sent."""
        for purchase, waiter in waits:
            buyer = purchase.buyer
            called = buyer.calls > len(buyer.attempts)
            if purchase.leave(waiter):
                if called and buyer.usage is None:
                    self._charge(buyer, purchase.batch)
                self._close_books_of_absent(buyer)

    def _charge(self, buyer: Request, batch: Batch) -> None:
        """Put what a call that was ended may cost on who began it."""
        sent = TokenUsage(input=tokens.estimate_request(batch.document), estimated=True)
        buyer.usage = usage = buyer.at_most or sent
        buyer.price = price = self._services.tenants.price(batch.target.provider, batch.target.model)
        buyer.cost = price.cost(usage) + buyer.lost_cost if price is not None else None

    def _close_books_of_absent(self, buyer: Request) -> None:
        """Settle a buyer that left while others waited, now that all calls for them are known."""
        if buyer.deferred:
            buyer.deferred = False
            if buyer.deferred_end is not None:
                self._services.settlement.settle(buyer, *buyer.deferred_end)

    def _end(self, purchase: Purchase, outcome: Bought | GatewayError) -> None:
        self._close_books_of_absent(purchase.buyer)
        purchase.end(outcome)

    def _begin(
        self, purchase: Purchase, request: Request, endpoint: Endpoint, batch: Batch, places: list[bytes]
    ) -> None:
        def failed(error: BaseException) -> None:
            services = self._services
            services.counters.internal_errors += 1
            services.loop.call_exception_handler({"message": f"the call of {request.id} failed", "exception": error})
            self._end(
                purchase,
                InternalError(f"Something went wrong inside the gateway; report it with the request id {request.id}."),
            )

        # A run of its own: it goes on when the request that began it has ended.
        run = eager.run(self._carry_out(purchase, request, endpoint, batch, places), self._services.loop, failed)
        if run is not None:
            purchase.on_abandoned(run.cancel)

    async def _carry_out(
        self, purchase: Purchase, request: Request, endpoint: Endpoint, batch: Batch, places: list[bytes]
    ) -> None:
        try:
            answer = await self._call(purchase, endpoint, batch, places)
            if answer.status != 200:
                self._end(purchase, Bought(answer, None, {}, None, None))
                return
            bought = await self._bought(batch, places, answer)
        except GatewayError as error:
            buyer = purchase.buyer
            if buyer.upstream_status == 200 and buyer.calls > len(buyer.attempts) and buyer.usage is None:
                self._charge(buyer, batch)  # The provider began to answer, and is paid for that.
            self._end(purchase, error)
            return
        try:
            # Before the answers: who has read one and asks again must find all of it, and until then joins this.
            if batch.wishes.store:
                await self._store(request, batch, bought.items)
        finally:
            self._end(purchase, bought)

    async def _call(self, purchase: Purchase, endpoint: Endpoint, batch: Batch, places: list[bytes]) -> Answer:
        services, request = self._services, purchase.buyer
        done: asyncio.Future[Answer] = services.loop.create_future()

        def head_arrived() -> None:
            request.first_byte = perf_counter()
            request.upstream_status = sink.status

        request.upstream_status = 0
        sink = WholeAnswer(done, head_arrived)
        targets = batch.route.first_targets
        candidates = candidates_known(services, targets) or await candidates_of(services, batch.tenant, targets)

        def approach(candidate: Candidate) -> Approach:
            upstream_dialect(endpoint, candidate.target)
            url, head = addressed(services, request, candidate, endpoint.path)
            return Approach(url, head, _body_for(batch, places, candidate.target.model))

        standard = Standard(streamed=False, fault=_fault)
        turn = await services.slots.turn(request)
        try:
            if turn is not services.slots:
                purchase.turn_came()
            call = calls_for(services, request, batch.route, candidates, approach, sink, standard)
            sink.call = call
            call.begin()
            try:
                answer = await done
            except asyncio.CancelledError:
                call.cancel()
                raise
        finally:
            turn.release()
        if answer.status == 200 and not _looks_whole(answer.body):
            call.spoiled()
        request.upstream_status = answer.status
        egress.remember_upstream_id(request, answer.headers)
        return answer

    async def _bought(self, batch: Batch, places: list[bytes], answer: Answer) -> Bought:
        """Read what came. Raises ProviderFailed where it is not a JSON object."""
        services, target = self._services, batch.target
        price = services.tenants.price(target.provider, target.model)
        return Bought(answer, *await read_answer(batch, places, answer.body, price, services.now_ms))

    async def _store(self, request: Request, batch: Batch, items: dict[bytes, Item]) -> None:
        turns = Turns()
        assert request.principal is not None
        key_id = request.principal.key.id
        for place, item in items.items():
            entry = entry_of(batch, item, key_id)
            self._services.cache.put(batch.tenant.partition, place[PARTITION_LENGTH:], entry, request.wall_ms)
            if turns.due():
                await turns.take()


def _looks_whole(body: bytes) -> bool:
    """Whether it is a JSON object, as far as its ends tell."""
    return body[:_ENDS].lstrip()[:1] == b"{" and body[-_ENDS:].rstrip()[-1:] == b"}"


def _fault(answer: Answer) -> GatewayError | None:
    return unreadable() if wire_form.members(answer.body) is None else None


def _body_for(batch: Batch, places: list[bytes], model: str) -> bytes:
    """The request for the items at `places`: the client's own where those are all."""
    if len(places) != len(batch.places):
        return wire_form.upstream_body(batch.body, [batch.first[place] for place in places], model)
    if batch.document["model"] != model:
        return upstream_body(batch.body, model, include_usage=False)
    return batch.body
