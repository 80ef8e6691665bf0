"""The calls upstream that one process has under way: as many as it may, and then by turns.

While a slot is free, taking it is a comparison and an addition. When none is, who needs one waits in a fair queue
(`limits.queue`); what does not call upstream, a hit or a request that joins a call, never does. A slot is one
question's: its retries and fallbacks are within it. A hedge is a second call at the same time, so it needs a slot of
its own, and is not made where none is free.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final, Protocol

import msgspec

from watchllm.domain.errors import GatewayError, LimitExceeded, TimedOut, Unavailable
from watchllm.limits.drain import Drain
from watchllm.limits.line import Ticket
from watchllm.limits.queue import FairQueue, bounds_for
from watchllm.limits.tiers import TIERS, Tier
from watchllm.proxy.eager import Outcome
from watchllm.proxy.request import Request

WAIT_BOUNDS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram of waits, in seconds; the last bucket is open."""


LATE_SECONDS: Final = 0.25
_PART_WHEN_LATE: Final = 8


class SlotLimits(msgspec.Struct, frozen=True):
    """`calls` under way at once, `queued` requests that may wait for one of them, `wait` seconds at most."""

    calls: int = 1024
    queued: int = 2048
    wait: float = 30.0


class Turn(Protocol):
    """A slot, or a place in the queue for one."""

    def release(self) -> None:
        """Give it back. Once."""
        ...


class Place(Ticket):
    """A request's place in the queue; `granted` is called when its turn has come, `refused` when there will be none."""

    __slots__ = ("_granted", "_refused", "_slots", "entered", "holds_slot", "request", "timeout")

    def __init__(
        self,
        slots: Slots,
        request: Request,
        granted: Callable[[], None],
        refused: Callable[[GatewayError], None],
        *,
        now: float,
        wait: float,
    ) -> None:
        principal = request.principal
        assert principal is not None
        self.entered = now
        self.request = request
        self.timeout = None if request.directives is None else request.directives.timeout
        if self.timeout is not None:
            wait = min(wait, self.timeout)
        super().__init__(principal.tenant.tier, principal.tenant.project.id, now + wait)
        self.holds_slot = False
        self._slots = slots
        self._granted: Callable[[], None] | None = granted
        self._refused: Callable[[GatewayError], None] | None = refused

    def release(self) -> None:
        """Leave the queue, or give the slot back. Idempotent."""
        self._granted = self._refused = None
        if self.holds_slot:
            self.holds_slot = False
            self._slots.release()
        elif self.waits:
            self._slots.leave(self)

    def grant(self, now: float) -> None:
        """Its turn has come."""
        granted, self._granted, self._refused = self._granted, None, None
        self.request.leave_queue(now)
        self.holds_slot = True
        assert granted is not None
        granted()

    def refuse(self, now: float, error: GatewayError) -> None:
        """There will be no turn; nobody hears of it when it was released meanwhile."""
        refused, self._granted, self._refused = self._refused, None, None
        if refused is not None:
            self.request.leave_queue(now)
            refused(error)


class Slots:
    """Those of one process. `is_pressed`: what waits takes what is short, so no more may wait than do now."""

    __slots__ = (
        "_allowed",
        "_drain",
        "_is_pressed",
        "_limits",
        "_loop",
        "_queue",
        "_timer",
        "_timer_due",
        "_wakes",
        "_was_late",
        "refused",
        "under_way",
        "wait_seconds",
        "waits",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limits: SlotLimits, is_pressed: Callable[[], bool] = lambda: False
    ) -> None:
        self.under_way = 0
        self.refused: Counter[tuple[str, str]] = Counter()
        """Requests that got no slot, by tier and error code."""
        self.waits = {tier.name: [0] * (len(WAIT_BOUNDS) + 1) for tier in TIERS}
        """By tier, how many of those that got their turn waited how long."""
        self.wait_seconds = dict.fromkeys(self.waits, 0.0)
        self._allowed = limits.calls
        self._limits = limits
        self._loop = loop
        self._is_pressed = is_pressed
        self._queue = FairQueue(TIERS, bounds_for(limits.queued))
        self._drain = Drain()
        self._wakes = False
        self._was_late = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0

    @property
    def allowed(self) -> int:
        """How many calls may be under way now."""
        return self._allowed

    def waiting_in(self, tier: Tier) -> int:
        return self._queue.waiting_in(tier)

    # --- taking and giving back --------------------------------------------------------------------------------------

    def take(self) -> bool:
        """Take a slot if one is free and nobody waits for it; who takes it gives it back by `release`."""
        if self.under_way < self._allowed and not self._queue.waiting:
            self._begin(perf_counter())
            return True
        return False

    def release(self) -> None:
        """Give a slot back."""
        self._drain.passed(perf_counter(), self.under_way)
        self._drain.ended()
        self.under_way -= 1
        if self._queue.waiting:
            self._wake()

    async def turn(self, request: Request) -> Turn:
        """Wait for a slot, if none is free. Raises GatewayError where there will be none.

        For a coroutine that `eager.run` runs.
        """
        if self.take():
            return self
        outcome: Outcome[None] = Outcome()
        place = self.enter(request, partial(outcome.resolve, None), outcome.fail)
        try:
            await outcome
        except BaseException:
            place.release()
            raise
        return place

    def enter(self, request: Request, granted: Callable[[], None], refused: Callable[[GatewayError], None]) -> Place:
        """Wait for a slot; what becomes of it is told in a later turn of the loop, if the place is not released before.

        Raises GatewayError where there is no room to wait.
        """
        now = perf_counter()
        place = Place(self, request, granted, refused, now=now, wait=self._limits.wait)
        gone = self._queue.push(place, full=self._is_pressed())
        if gone is place:
            raise self._shed(place.tier)
        request.queue_began, request.upstream_began = now, 0.0
        if gone is not None:
            assert isinstance(gone, Place)
            self._loop.call_soon(self._refuse, gone, self._shed(gone.tier))
        self._wake()
        return place

    def leave(self, place: Place) -> None:
        """Who waited does not any more."""
        self._queue.remove(place)

    def loop_was(self, late: float) -> None:
        """The loop came to do a regular thing `late` seconds after its time. When that is much twice running, this
        process has more to do than it can: no more calls are begun than end, until it is in time again.

        Not fewer than a part of them all: what makes it late may be somebody else's work.
        """
        was_late, self._was_late = self._was_late, late > LATE_SECONDS
        most = self._limits.calls
        if not (was_late and self._was_late):
            self._allowed = most
        elif self._allowed == most:
            self._allowed = min(most, max(1, self.under_way, most // _PART_WHEN_LATE))
        if self._queue.waiting:
            self._wake()

    # --- the queue ---------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Look after those who wait, in a turn of the loop of its own: who gives a slot back has its own work to do."""
        if not self._wakes:
            self._wakes = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        self._wakes = False
        queue = self._queue
        now = perf_counter()
        for over in queue.expire(now):
            assert isinstance(over, Place)
            self._refuse(over, self._waited_in_vain(over))
        while self.under_way < self._allowed and (place := queue.pop()) is not None:
            assert isinstance(place, Place)
            self._begin(now)
            self._count_wait(place.tier.name, now - place.entered)
            self._tell(place, partial(place.grant, now))
        self._set_timer()

    def _begin(self, now: float) -> None:
        self._drain.passed(now, self.under_way)
        self.under_way += 1

    def _refuse(self, place: Place, error: GatewayError) -> None:
        self._tell(place, partial(place.refuse, perf_counter(), error))

    def _tell(self, place: Place, what: Callable[[], None]) -> None:
        """What goes wrong with one that waited is no matter of the others."""
        try:
            what()
        except Exception as error:  # noqa: BLE001  (the edge of what one request does)
            message = f"{place.request.id} failed when it had waited for a slot"
            self._loop.call_exception_handler({"message": message, "exception": error})

    def _set_timer(self) -> None:
        """For the next deadline. One that is early finds nothing and is set again: cheaper than one for each."""
        due = self._queue.next_deadline
        if self._timer is not None:
            if due is not None and self._timer_due <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer_due = due
            self._timer = self._loop.call_later(max(0.0, due - perf_counter()), self._deadline_came)

    def _deadline_came(self) -> None:
        self._timer = None
        self._serve()

    def _count_wait(self, tier: str, seconds: float) -> None:
        self.waits[tier][bisect_left(WAIT_BOUNDS, seconds)] += 1
        self.wait_seconds[tier] += seconds

    def _waited_in_vain(self, place: Place) -> GatewayError:
        if place.timeout is not None and place.timeout <= self._limits.wait:
            error = not_begun_within(place.timeout)
            self.refused[place.tier.name, error.code] += 1
            return error
        return self._shed(place.tier)

    def _shed(self, tier: Tier) -> GatewayError:
        """The error of a request for which there is no room, or not soon enough."""
        self._drain.passed(perf_counter(), self.under_way)
        after = self._drain.retry_after(
            places=self._allowed,
            ahead=self._queue.waiting_in(tier),
            share=self._queue.share(tier),
        )
        problem = "Too many requests wait for a call to a provider"
        what_to_do = f"try again in {max(1, round(after))} s"
        error: GatewayError
        if tier.is_shed_first:
            problem = f"{problem}, and those of higher plans than {tier.name} go first"
            error = LimitExceeded(f"{problem}; {what_to_do}.", code="overloaded_tier", retry_after=after)
        else:
            error = Unavailable(f"{problem}; {what_to_do}.", retry_after=after)
        self.refused[tier.name, error.code] += 1
        return error


def not_begun_within(seconds: float) -> TimedOut:
    """The error of a request that waited for a slot for as long as it allows a call to take."""
    return TimedOut(
        f"No call could be begun within the {seconds:g} s that X-WatchLLM-Timeout allows: too many are under way. Try "
        "again or allow more time."
    )
