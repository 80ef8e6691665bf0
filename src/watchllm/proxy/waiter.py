"""A request that waits for a call upstream, what it waits for, and what the call needs beside it."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import msgspec

from watchllm.cache.entry import Entry
from watchllm.domain.errors import GatewayError
from watchllm.domain.money import Nanos
from watchllm.domain.usage import TokenUsage
from watchllm.providers.dialect import CHAT, Verdict
from watchllm.proxy.eager import Outcome
from watchllm.proxy.request import Request
from watchllm.proxy.upstream import Answer

if TYPE_CHECKING:
    from watchllm.proxy.flight import Flight


class Landed(msgspec.Struct, frozen=True):
    """A whole answer. `verdict` is None unless its status is 200; usage and cost are what the call consumed, or saved
    where it is an `entry` of the cache."""

    answer: Answer
    verdict: Verdict | None
    usage: TokenUsage | None
    cost: Nanos | None
    entry: Entry | None = None


class Waiter(Outcome[Landed | None]):
    """A request that waits for a flight.

    Its outcome is the whole answer, or None: the answer was relayed as a stream (`relayed`), or this waiter cannot be
    given it in its form and has to ask again. `position` is the number of the next piece to send, `labels` are what its
    answer repeats of its request alone.
    """

    __slots__ = ("dialect", "include_usage", "labels", "leads", "position", "relayed", "request", "timer")

    def __init__(self, request: Request, *, include_usage: bool, dialect: str = CHAT, labels: bytes = b"") -> None:
        super().__init__()
        self.request = request
        self.include_usage = include_usage
        self.dialect = dialect
        self.labels = labels
        self.leads = False
        self.relayed = False
        self.position = 0
        self.timer: asyncio.TimerHandle | None = None

    def accepts(self, entry: Entry) -> bool:
        """Whether it may be given this instead of an answer made for it, as its age goes."""
        wishes = self.request.directives
        return wishes is None or wishes.accept(entry, self.request.wall_ms)

    def defer(self) -> None:
        """The waiter goes while the call goes on: if it pays, its books are closed when the cost is known."""
        if self.leads:
            request = self.request
            request.deferred = True
            # Its latency is what it saw itself, not the length of the call.
            request.head_sent = request.head_sent or perf_counter()


class FlightPlan(Protocol):
    """What the flight needs beside its waiters."""

    dialect: str
    """The dialect of the answer, and of those who can be relayed a stream."""

    def judge(self, body: bytes) -> Verdict:
        """What a whole answer is, its usage estimated where it reports none."""
        ...

    def settle(self, request: Request, status: int, ended: str) -> None: ...

    def account(self, request: Request, usage: TokenUsage | None) -> None:
        """Put usage, price and cost on the request that pays; None = estimate what was used so far."""
        ...

    def account_unfinished(self, request: Request, usage: TokenUsage | None) -> None:
        """As `account`, of a call of which nobody hears the end: `usage` is what it told so far."""
        ...

    def store(self, body: bytes) -> None: ...

    def error_event(self, error: GatewayError) -> bytes:
        """The error as it is told inside the stream."""
        ...

    def told_to(self, request: Request, dialect: str, landed: Landed) -> Landed | None:
        """A whole answer as a request in `dialect` may be given it; None where it has to ask for itself."""
        ...

    def ended(self, flight: Flight) -> None:
        """Take the flight off the list of those that may be joined."""
        ...


def close_books_of_absent(leader: Request, plan: FlightPlan) -> None:
    """Settle a leader that left while others waited, now that the cost is known."""
    if leader.deferred:
        leader.deferred = False
        if leader.deferred_end is not None:
            plan.settle(leader, *leader.deferred_end)
