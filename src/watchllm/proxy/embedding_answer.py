"""A provider's answer to a call for embeddings, read: each input's vector and what it cost, as the cache keeps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from watchllm.cache.entry import NEVER, Entry
from watchllm.domain.errors import ProviderFailed
from watchllm.domain.money import Nanos
from watchllm.domain.usage import ModelPrice, TokenUsage
from watchllm.providers import tokens
from watchllm.providers.openai import embeddings as wire_form
from watchllm.proxy.embedding_batch import Batch
from watchllm.proxy.purchase import Item
from watchllm.proxy.turns import Turns


class EmbeddingAnswer(NamedTuple):
    """`items`, by place in the cache, is empty when the answer does not give each input one vector of the length that
    was asked for."""

    members: wire_form.Members
    items: dict[bytes, Item]
    usage: TokenUsage
    cost: Nanos | None


async def read_answer(
    batch: Batch, places: list[bytes], body: bytes, price: ModelPrice | None, now_ms: Callable[[], int]
) -> EmbeddingAnswer:
    """Read the answer to a request for the items at `places`. Raises ProviderFailed where it is not a JSON object."""
    turns = Turns()
    members = wire_form.members(body)
    if members is None:
        raise unreadable()
    inputs = batch.inputs
    asked = [inputs[batch.first[place]] for place in places]
    usage = wire_form.usage(members)
    if usage is None:
        usage = TokenUsage(input=tokens.estimate_request({"input": asked}), estimated=True)
    cost = price.cost(usage) if price is not None else None
    await turns.take()
    vectors = await _vectors(batch, members, len(places), turns)
    if not vectors:
        return EmbeddingAnswer(members, {}, usage, cost)
    weights = []
    for item in asked:
        weights.append(tokens.estimate(item) if type(item) is str else len(item))
        if turns.due():
            await turns.take()
    shares = wire_form.apportioned(usage.input, weights)
    costs: list[Nanos | None] = [None] * len(places)
    if cost is not None:
        costs = [*wire_form.apportioned(cost, shares)]
    now = now_ms()
    items = {
        place: Item(vector, TokenUsage(input=share, estimated=usage.estimated), item_cost, now)
        for place, vector, share, item_cost in zip(places, vectors, shares, costs, strict=True)
    }
    return EmbeddingAnswer(members, items, usage, cost)


def unreadable() -> ProviderFailed:
    """The error for an answer that is no JSON object."""
    return ProviderFailed("The provider's answer is not JSON of the expected form; check its base URL.")


def entry_of(batch: Batch, item: Item, key_id: str) -> Entry:
    """What is stored of an item, for as long as the request allows."""
    ttl = batch.wishes.ttl
    return Entry(
        item.created_ms,
        NEVER if ttl < 0 else item.created_ms + ttl * 1000,
        batch.family,
        batch.target.provider,
        batch.target.model,
        item.usage,
        item.cost,
        key_id,
        wire_form.pack(item.vector),
    )


async def _vectors(batch: Batch, members: wire_form.Members, expected: int, turns: Turns) -> list[wire_form.Vector]:
    """The vector for each input, all of the length that was asked for; none at all when one is not."""
    items = wire_form.items(members, expected)
    if items is None:
        return []
    model = bytes(members.get("model", b'""'))
    wanted = batch.document.get("dimensions")
    lengths = {wanted} if type(wanted) is int else set()
    vectors = []
    for item in items:
        vector = wire_form.vector(item, model)
        if vector is None:
            return []
        vectors.append(vector)
        lengths.add(vector.dimensions)
        if turns.due():
            await turns.take()
    return vectors if len(lengths) == 1 else []
