"""What a route allows for the calls of one question: the time for each and for all, and the tries at one target."""

from __future__ import annotations

import random
from time import perf_counter

import msgspec

from watchllm.routing import backoff
from watchllm.routing.route import Route
from watchllm.wire.types import TimedOut, Timeouts, WireError


class Allowance:
    """What is left of it; the time for all calls begins with this."""

    __slots__ = ("_deadline", "_retries", "_route")

    def __init__(self, route: Route) -> None:
        self._route = route
        self._retries = 0
        self._deadline = None if route.timeout is None else perf_counter() + route.timeout

    @property
    def left(self) -> float | None:
        """Seconds for all calls that are still to come, None = not bounded."""
        return None if self._deadline is None else self._deadline - perf_counter()

    def ended(self, error: WireError) -> bool:
        """Whether it was the time for all calls that ended one: that may leave little for the last, which is no fault
        of its provider."""
        return self._deadline is not None and isinstance(error, TimedOut) and error.phase == "total"

    def retry_in(self, asked: float | None, left: float | None) -> float | None:
        """Take a further try at the same target: the seconds to wait for it, None = there is none.

        `asked`: the seconds that the provider asks to wait, `left`: those that are left for all.
        """
        if self._retries >= self._route.retries:
            return None
        wait = backoff.delay(self._retries + 1, random=random.random, retry_after=asked, left=left)
        if wait is not None:
            self._retries += 1
        return wait

    def moved_on(self) -> None:
        """Another target is tried, as often as the first was."""
        self._retries = 0

    def timeouts(self, timeouts: Timeouts) -> Timeouts:
        """The gateway's own `timeouts`, as far as the next call may use them."""
        each, left = self._route.try_timeout, self.left
        if each is None and left is None:
            return timeouts
        total = timeouts.total if left is None else min(timeouts.total, max(left, 0.001))
        connect, first_byte = timeouts.connect, timeouts.first_byte
        if each is not None:
            connect, first_byte = min(connect, each), min(first_byte, each)
        return msgspec.structs.replace(timeouts, connect=connect, first_byte=first_byte, total=total)
