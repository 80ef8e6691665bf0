"""A request that waits for a call upstream, what it waits for, and what the call needs beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from watchllm.domain.errors import GatewayError
from watchllm.domain.money import Nanos
from watchllm.domain.usage import TokenUsage
from watchllm.providers.dialect import Verdict
from watchllm.proxy.request import Request
from watchllm.proxy.upstream import Answer


class Landed(NamedTuple):
    """A whole answer. `verdict` is None unless its status is 200; usage and cost are what the call consumed."""

    answer: Answer
    verdict: Verdict | None
    usage: TokenUsage | None
    cost: Nanos | None


class Waiter:
    """A request that waits for a flight.

    `done` resolves to the whole answer, or to None: the answer was relayed as a stream (`relayed`), or this waiter
    cannot be given it in its form and has to ask again. `position` is the number of the next piece to send.
    """

    __slots__ = ("done", "include_usage", "leads", "position", "relayed", "request", "timer")

    def __init__(self, request: Request, done: asyncio.Future[Landed | None], *, include_usage: bool) -> None:
        self.request = request
        self.done = done
        self.include_usage = include_usage
        self.leads = False
        self.relayed = False
        self.position = 0
        self.timer: asyncio.TimerHandle | None = None

    def resolve(self, landed: Landed | None) -> None:
        if not self.done.done():
            self.done.set_result(landed)

    def fail(self, error: GatewayError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            # A client may leave before its request is told; asyncio would then report the error as never looked at.
            self.done.exception()


class FlightPlan(NamedTuple):
    """What the flight needs beside its waiters.

    `judge(body)` of a whole answer, `settle(request, status, ended)`, `account(request, usage)` which prices what was
    used, `store(body)`, and `ended()`, which takes the flight off the list of those that may be joined.
    """

    judge: Callable[[bytes], Verdict]
    settle: Callable[[Request, int, str], None]
    account: Callable[[Request, TokenUsage | None], None]
    store: Callable[[bytes], None]
    ended: Callable[[], None]
