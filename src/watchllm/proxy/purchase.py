"""One call upstream for embeddings and the requests that wait for items of it.

The first of those who still wait when the answer comes pays for it; to the others its items are hits. A waiter that
leaves takes nobody with it; the last one that leaves ends the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

from watchllm.domain.errors import GatewayError
from watchllm.domain.money import Nanos
from watchllm.domain.usage import TokenUsage
from watchllm.providers.openai.embeddings import Members, Vector
from watchllm.proxy.embedding_batch import Batch
from watchllm.proxy.request import Request
from watchllm.proxy.upstream import Answer


class Item(NamedTuple):
    """One input's vector, and what it cost when it was bought, at `created_ms` (epoch milliseconds)."""

    vector: Vector
    usage: TokenUsage | None
    cost: Nanos | None
    created_ms: int


class Bought(NamedTuple):
    """An answer of upstream. `members` is None unless it is one of status 200; `items`, by place in the cache, is empty
    when it does not give each input one vector of the length that was asked for."""

    answer: Answer
    members: Members | None
    items: dict[bytes, Item]
    usage: TokenUsage | None
    cost: Nanos | None


class Waiter:
    """A request that waits for a purchase. `outcome` resolves to the error, too: it never raises.

    `buys`: the purchase was made for this request alone; `pays`: it is this request that is charged.
    """

    __slots__ = ("buys", "outcome", "pays", "request")

    def __init__(self, request: Request, outcome: asyncio.Future[Bought | GatewayError], *, buys: bool) -> None:
        self.request = request
        self.outcome = outcome
        self.buys = buys
        self.pays = False


class Purchase:
    """A call under way that `buyer` began, from `batch`. `ended` takes it off the list of those that can be joined."""

    __slots__ = ("_cancel", "_ended", "_waiters", "batch", "began_ms", "buyer")

    def __init__(self, buyer: Request, batch: Batch, ended: Callable[[Purchase], None]) -> None:
        self.buyer = buyer
        self.batch = batch
        self.began_ms = buyer.wall_ms
        self._ended = ended
        self._cancel: Callable[[], None] | None = None
        self._waiters: dict[Waiter, None] = {}

    def on_abandoned(self, cancel: Callable[[], None]) -> None:
        """What ends the call when its last waiter leaves."""
        self._cancel = cancel

    def join(self, request: Request, loop: asyncio.AbstractEventLoop, *, buys: bool) -> Waiter:
        waiter = Waiter(request, loop.create_future(), buys=buys)
        self._waiters[waiter] = None
        if self.buyer.queue_began:
            # It waits for the same slot, and not for the provider yet.
            request.queue_began, request.upstream_began = perf_counter(), 0.0
        return waiter

    def turn_came(self) -> None:
        """From now on, all wait for the provider."""
        now = perf_counter()
        for waiter in self._waiters:
            waiter.request.leave_queue(now)
            waiter.request.upstream_began = now

    def leave(self, waiter: Waiter) -> bool:
        """The waiter's client left, or its time is over; True when that ended the call. Idempotent.

        While others wait the call goes on, and what is still tried for it belongs in the buyer's books: they are then
        closed when it ends.
        """
        if waiter not in self._waiters:
            return False
        del self._waiters[waiter]
        if self._waiters:
            if waiter.buys:
                waiter.request.deferred = True
                # Its latency is what it saw itself, not the length of the call.
                waiter.request.head_sent = waiter.request.head_sent or perf_counter()
            return False
        self._ended(self)
        if self._cancel is not None:
            self._cancel()
        return True

    def end(self, outcome: Bought | GatewayError) -> None:
        """The call ended: tell everybody."""
        self._ended(self)
        waiters, self._waiters = self._waiters, {}
        for number, waiter in enumerate(waiters):
            waiter.pays = number == 0
            waiter.outcome.set_result(outcome)
