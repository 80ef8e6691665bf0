"""Embeddings, answered item by item: what is known comes from the cache, only the rest is bought, in one call.

    read ▸ look each item up ▸ (all known) answer
                             ▸ (some not) join the calls that buy them already, buy the others ▸ merge ▸ answer ▸ store

A request for nothing known and without repeats passes through, both ways, byte for byte. Work on large batches is done
in slices of a few milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from watchllm.domain.errors import GatewayError, ProviderFailed, TimedOut
from watchllm.domain.money import Nanos, format_usd
from watchllm.domain.usage import TokenUsage
from watchllm.domain.usage_event import HIT, HIT_COALESCED, HIT_PARTIAL, HIT_STALE, MISS
from watchllm.providers.endpoints import Endpoint
from watchllm.providers.openai import embeddings as wire_form
from watchllm.proxy import egress
from watchllm.proxy.admission import admit, require_price
from watchllm.proxy.at_hand import MOST_KEYS, bring
from watchllm.proxy.calls import head_of, pass_status_on
from watchllm.proxy.demand import demand_of
from watchllm.proxy.directives import directives
from watchllm.proxy.embedding_batch import Batch, read_batch
from watchllm.proxy.embedding_calls import EmbeddingCalls
from watchllm.proxy.generation import generate
from watchllm.proxy.history import NOT_ASKED
from watchllm.proxy.intake import json_bytes
from watchllm.proxy.purchase import Bought, Item, Waiter
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.tenant import PARTITION_LENGTH
from watchllm.proxy.turns import Turns

Items = dict[bytes, Item]

_PIECE = 256 * 1024

# A provider's complaint with one of these may be about another request's inputs: who only joined asks for itself.
_ABOUT_INPUTS = (400, 413, 422)


class Embeddings:
    """The stage for `POST /v1/embeddings`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._calls = EmbeddingCalls(services)

    async def answer(self, request: Request, endpoint: Endpoint) -> None:
        """Answer one request. Raises GatewayError for what is refused or failed."""
        batch = self._read(request, endpoint)
        if batch is None:
            going_on = generate(self._services, request, endpoint)
            if going_on is not None:
                await going_on
            return
        if request.limiting is not None and (waiting := self._services.limiting.enter(request)) is not None:
            await waiting
        request.cache = MISS
        turns = Turns()
        known, stale = await self._look_up(request, batch, turns)
        request.looked_up = perf_counter()
        missing = [place for place in batch.first if place not in known]
        if not missing:
            await self._serve(request, batch, known, HIT, turns)
            return
        reason = f"{len(missing)} of {len(batch.first)} different inputs had no answer stored that may be given"
        if batch.wishes.only_if_cached:
            reason = f"{reason}; {NOT_ASKED}"
        services = self._services
        named = batch.document["model"]
        services.history.missed(request, batch.target, named, None, batch.body, endpoint.family, reason)
        if batch.wishes.only_if_cached:
            raise TimedOut(
                "Not all of these are in the cache, and only-if-cached forbids to ask upstream.", code="not_in_cache"
            )
        has_stale = all(place in stale for place in missing)
        if request.admission is not None:
            await self._reserve(request, batch)
        try:
            await self._buy(request, endpoint, batch, known, missing, turns, has_stale=has_stale)
        except GatewayError as error:
            if not has_stale or error.status < 500:
                raise
            request.lost_cost = request.cost or request.lost_cost
            await self._serve(request, batch, stale | known, HIT_STALE, turns)

    async def _reserve(self, request: Request, batch: Batch) -> None:
        """Take what a call for items of the batch may use. Raises LimitExceeded."""
        services, targets = self._services, batch.route.first_targets
        hedged = batch.route.hedge_after is not None
        reserving = services.limiting.reserve(
            request, lambda: demand_of(services, request, batch.body, targets, hedged=hedged)
        )
        if reserving is not None:
            await reserving

    def _read(self, request: Request, endpoint: Endpoint) -> Batch | None:
        """Authenticate and read; None for what has to be answered as a whole."""
        services, exchange = self._services, request.exchange
        tenant = admit(services, request).tenant
        request.directives = wishes = directives(exchange.headers, tenant.settings, embeddings=True)
        if wishes.bypass:
            return None
        body = json_bytes(exchange, services.limits.max_body_bytes)
        batch = read_batch(services.tenants.key_hash, tenant, endpoint, body, exchange.headers, exchange.query, wishes)
        if batch is not None:
            request.target = batch.target
            request.model = batch.target.model
            require_price(services.tenants, tenant, batch.target)
        return batch

    async def _look_up(self, request: Request, batch: Batch, turns: Turns) -> tuple[Items, Items]:
        """The items that may be given, and those that may be given if upstream fails."""
        known: Items = {}
        stale: Items = {}
        wishes = batch.wishes
        if not wishes.read:
            return known, stale
        now, partition = request.wall_ms, batch.tenant.partition
        places = list(batch.first)
        for start in range(0, len(places), MOST_KEYS):
            some = places[start : start + MOST_KEYS]
            brought = bring(self._services, partition, [place[PARTITION_LENGTH:] for place in some])
            if brought is not None:
                await brought
            # All of them at once: what was brought is not at hand for long.
            entries = [self._services.cache.get(partition, place[PARTITION_LENGTH:]) for place in some]
            for place, entry in zip(some, entries, strict=True):
                if entry is not None:
                    accepted = wishes.accept(entry, now)
                    vector = wire_form.unpack(entry.body) if accepted or wishes.accept_stale(entry, now) else None
                    if vector is not None:
                        found = known if accepted else stale
                        found[place] = Item(vector, entry.usage, entry.cost, entry.created_ms)
                if turns.due():
                    await turns.take()
        return known, stale

    async def _serve(self, request: Request, batch: Batch, items: Items, kind: str, turns: Turns) -> None:
        """Answer a request that has bought nothing."""
        request.cache = kind
        request.cost = request.lost_cost
        request.usage = _saved_tokens(items)
        request.saved = _saved_cost(items)
        request.entry_age = _age(request, items)
        frame = wire_form.frame(items[batch.places[0]].vector.model, None)
        await self._send(request, batch, items, frame, lambda: egress.hit_head(request), turns)

    async def _buy(
        self,
        request: Request,
        endpoint: Endpoint,
        batch: Batch,
        known: Items,
        missing: list[bytes],
        turns: Turns,
        *,
        has_stale: bool,
    ) -> None:
        """Get what is missing, and answer."""
        items = dict(known)
        paid: list[Bought] = []
        lacking = missing
        may_join = batch.wishes.read and batch.wishes.store
        untouched = False
        while lacking:
            if request.calls and request.admission is not None:
                await self._reserve_again(request, batch, paid)
            waiters = await self._calls.buy(request, endpoint, batch, lacking, may_join=may_join)
            may_join = False
            for waiter in waiters:
                bought = self._outcome(batch, waiter, paid)
                if bought is None:
                    continue
                if bought.members is None:
                    self._account(request, batch, paid)
                    pass_status_on(self._services, request, bought.answer, has_stale=has_stale)
                    return
                untouched = waiter.buys and len(waiters) == 1 and len(lacking) == len(batch.places)
                if not bought.items and not untouched:
                    self._account(request, batch, paid)
                    raise ProviderFailed(
                        "The provider did not answer with one embedding of the right length for each input; try again."
                    )
                items |= {place: item for place, item in bought.items.items() if place in batch.first}
                if not bought.items:
                    break
            lacking = [] if untouched else [place for place in lacking if place not in items]
        if not paid:
            await self._serve(request, batch, items, HIT_COALESCED, turns)
            return
        await self._give(request, batch, known, items, paid, turns, untouched=untouched)

    async def _reserve_again(self, request: Request, batch: Batch, paid: list[Bought]) -> None:
        """As `_reserve`, for a request that has bought a part of its items already and pays for it, whatever comes."""
        try:
            await self._reserve(request, batch)
        except GatewayError:
            self._account(request, batch, paid)
            raise

    def _outcome(self, batch: Batch, waiter: Waiter, paid: list[Bought]) -> Bought | None:
        """What came, None where it is of no use to this request, which then asks for itself. Notes what it pays for.

        Raises the gateway's error when the call failed.
        """
        outcome = waiter.outcome.result()
        if isinstance(outcome, GatewayError):
            raise outcome
        if waiter.pays and outcome.members is not None:
            paid.append(outcome)
        if not waiter.buys and (
            outcome.answer.status in _ABOUT_INPUTS or not (outcome.items or outcome.members is None)
        ):
            return None
        return outcome

    async def _give(
        self,
        request: Request,
        batch: Batch,
        known: Items,
        items: Items,
        paid: list[Bought],
        turns: Turns,
        *,
        untouched: bool,
    ) -> None:
        """Answer from what was known, joined and bought."""
        self._account(request, batch, paid)
        first = paid[0]
        bought = {place for purchase in paid for place in purchase.items}
        hits = {place: item for place, item in items.items() if place not in bought}
        if untouched:
            head = head_of(request, first.answer)
            self._services.settlement.settle(request, 200, "complete")
            request.exchange.respond(200, head, first.answer.body)
            return
        self._check_lengths(batch, known, items)
        if hits:
            request.cache = HIT_PARTIAL
            request.saved = _saved_cost(hits)

        def head_of_merged() -> bytes:
            return head_of(request, first.answer) + (_partial_lines(request, hits) if hits else b"")

        await self._send(request, batch, items, wire_form.frame(b"", first.members), head_of_merged, turns)

    async def _send(
        self,
        request: Request,
        batch: Batch,
        items: Items,
        frame: tuple[bytes, bytes],
        make_head: Callable[[], bytes],
        turns: Turns,
    ) -> None:
        """Write an answer of `items`; a large one in pieces, as fast as the client reads."""
        exchange = request.exchange
        pieces = [frame[0]]
        size = 0
        for index, place in enumerate(batch.places):
            piece = items[place].vector.item(index, base64=batch.base64)
            size += len(piece)
            pieces.append(b"," + piece if index else piece)
            if size > _PIECE:
                if not exchange.started:
                    exchange.start(200, make_head())
                exchange.write(b"".join(pieces))
                pieces, size = [], 0
                if not exchange.writable:
                    await self._writable(request)
            if turns.due():
                await turns.take()
        pieces.append(frame[1])
        if exchange.started:
            self._services.settlement.settle(request, 200, "complete")
            exchange.write(b"".join(pieces))
            exchange.finish()
            return
        head = make_head()
        self._services.settlement.settle(request, 200, "complete")
        exchange.respond(200, head, b"".join(pieces))

    async def _writable(self, request: Request) -> None:
        """Until the client has read enough of what was written."""
        ready: asyncio.Future[None] = self._services.loop.create_future()

        def on_writable() -> None:
            if not ready.done():
                ready.set_result(None)

        request.exchange.on_writable = on_writable
        await ready

    def _check_lengths(self, batch: Batch, known: Items, items: Items) -> None:
        """Vectors of different lengths cannot stand in one answer: the older ones go, so that the next try buys all."""
        if len({item.vector.dimensions for item in items.values()}) == 1:
            return
        for place in known:
            self._services.cache.remove(batch.tenant.partition, place[PARTITION_LENGTH:])
        raise ProviderFailed(
            "The provider's vectors have another length than those in the cache, which were forgotten; try again."
        )

    def _account(self, request: Request, batch: Batch, paid: list[Bought]) -> None:
        """Put usage, price and cost on the request: of all that it pays for."""
        if not paid:
            return
        usages = [purchase.usage for purchase in paid if purchase.usage is not None]
        costs = [purchase.cost for purchase in paid if purchase.cost is not None]
        request.usage = _sum(usages)
        request.price = self._services.tenants.price(batch.target.provider, batch.target.model)
        request.cost = sum(costs) + request.lost_cost if costs else None


def _sum(usages: list[TokenUsage]) -> TokenUsage:
    return TokenUsage(input=sum(usage.input for usage in usages), estimated=any(usage.estimated for usage in usages))


def _saved_tokens(items: Items) -> TokenUsage:
    return _sum([item.usage for item in items.values() if item.usage is not None])


def _saved_cost(items: Items) -> Nanos | None:
    costs = [item.cost for item in items.values() if item.cost is not None]
    return sum(costs) if len(costs) == len(items) else None


def _age(request: Request, items: Items) -> int:
    """Of the oldest item, in seconds."""
    return max(0, (request.wall_ms - min(item.created_ms for item in items.values())) // 1000)


def _partial_lines(request: Request, hits: Items) -> bytes:
    saved = "" if request.saved is None else f"X-WatchLLM-Saved-USD: {format_usd(request.saved)}\r\n"
    count = _saved_tokens(hits).total
    age = _age(request, hits)
    return f"X-WatchLLM-Cache-Age: {age}\r\n{saved}X-WatchLLM-Tokens-Saved: {count}\r\n".encode("latin-1")
