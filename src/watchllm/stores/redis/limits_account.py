"""What one proxy holds of an organization's limits, and what it has still to tell Redis of them.

Redis is told of the state, not of steps: where it is not certain what Redis has (a reply was lost, it was emptied, the
lease ran out) the proxy joins again, under a new incarnation, with all that it holds. Nothing counts twice, and
commands of an earlier incarnation that arrive late are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import hiredis

from watchllm.domain.ledger import Place
from watchllm.domain.money import Nanos
from watchllm.limits.spending import Moment
from watchllm.stores.redis.client import Client, Script
from watchllm.stores.redis.limits_holding import Holding, Slice, Timing
from watchllm.stores.redis.limits_layout import LOST, account_of, prefix_of
from watchllm.stores.redis.limits_pending import Pending, Segment
from watchllm.stores.redis.limits_scripts import JOIN, REPORT
from watchllm.stores.redis.limits_uses import Uses
from watchllm.stores.redis.link import Argument, Unreachable

REPORT_SECONDS = 0.1
_HURRIED_REPORT_SECONDS = 0.004
_CALM_REPORT_SECONDS = 1.0
_IDLE_SECONDS = 30.0
_LEASE_MS = 5_000
# Longer than a recorder takes to close what a killed proxy left open.
_HOLD_MS = 60_000
_TRIES = 3
# Spare requests of the month that are kept, in terms of those used since the last report.
_SPARE_PARTS = 4


class Account:
    """Of one organization, in one process. For its event loop only. `series` is the process's journal.

    `incarnations` are numbers that no account of this process had before.
    """

    def __init__(
        self,
        organization: str,
        series: str,
        client: Client,
        loop: asyncio.AbstractEventLoop,
        timing: Timing,
        clock: Callable[[], float],
        incarnations: Iterator[int],
    ) -> None:
        self.organization = organization
        self.key = account_of(organization)
        self.joined = False
        self.live = 1
        """Proxies that joined, this one among them."""
        self.counted = ""
        """Up to where in this process's journal the database has counted, as a text of limits_layout."""
        self.holdings: dict[str, Holding] = {}
        self.known: set[str] = set()
        """Of those who have quotas or budgets: whose spending is all in the account."""
        self.heard_at = 0.0
        """When Redis last answered, of the loop's clock."""
        self.under_way = 0
        """Requests that entered and were not settled."""
        self._prefix = prefix_of(organization)
        self._series = series
        self._client = client
        self._loop = loop
        self._timing = timing
        self._incarnations = incarnations
        self._incarnation = 0
        self._in_flight = 0
        self._calm: asyncio.Future[None] | None = None
        self._joining: asyncio.Future[bool] | None = None
        self._pending = Pending()
        self._hurried = False
        self._changed: set[str] = set()
        self._watched: set[str] = set()
        """Whose holdings are not all given back: the others need no look."""
        self._returns: list[tuple[bytes, int, int, int]] = []
        self._uses = Uses(incarnations)
        self._clock = clock
        self._busy_at = clock()
        self._timer: asyncio.TimerHandle | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._telling = asyncio.Lock()

    def holding(self, name: str) -> Holding:
        found = self.holdings.get(name)
        if found is None:
            found = self.holdings[name] = Holding()
        found.is_unused = False
        return found

    def forget_unused(self) -> list[str]:
        """Forget those of whom nothing is held and that were not used since this was last called; who."""
        if self._telling.locked():
            return []
        kept = self._watched | self._changed
        gone = [name for name, holding in self.holdings.items() if not holding.was_used() and name not in kept]
        for name in gone:
            del self.holdings[name]
            self.known.discard(name)
        return gone

    def touch(self) -> None:
        """Somebody comes, and may wait: for a while, and longer than any wait, it is not idle."""
        self._busy_at = self._clock()

    def change(self, name: str) -> None:
        """What is held of `name` has changed."""
        self._changed.add(name)
        self._watched.add(name)
        self._keep_time()

    def book(self, name: str, at: Moment, nanos: Nanos, requests: int, place: Place | None) -> None:
        """As Pending.book."""
        self._pending.book(name, at, nanos, requests, place)
        self._keep_time()

    def hurry(self) -> None:
        """Somebody else may wait for what is given back now."""
        if not self._hurried:
            self._hurried = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._keep_time()

    def use(self, kind: str, name: str, amount: int) -> int:
        """Count more of a minute than was reserved; the number by which a part of it may be undone."""
        self._keep_time()
        return self._uses.add(_window(kind, name), amount)

    def use_less(self, kind: str, name: str, amount: int, number: int) -> None:
        """Undo a part of the `use` of that number, as far as Redis was not told of it."""
        self._uses.take_back(_window(kind, name), amount, number)

    def untold(self, kind: str, name: str) -> int:
        """What was used of a minute and Redis may not know of yet."""
        return self._uses.untold(_window(kind, name))

    def give_back(self, kind: str, name: str, bucket: int, amount: int, slice_size: int = 0) -> None:
        """Count less of a minute than was taken there."""
        self._returns.append((_window(kind, name), bucket, amount, slice_size))
        self._keep_time()

    def begin_slice(self, name: str, holding: Holding, taken: Slice) -> None:
        """It may be used from now on, in place of what was left of the last one."""
        self.end_slice(name, holding)
        holding.slice = taken
        self._watched.add(name)
        self._keep_time()

    def end_slice(self, name: str, holding: Holding) -> None:
        """What is left of its slice may no longer be used."""
        ended, holding.slice = holding.slice, None
        if ended is not None:
            self.give_back("r", name, ended.bucket, ended.left, ended.size)

    async def run(self, script: Script, arguments: tuple[Argument, ...]) -> list[Any]:
        """Run a script of limits_layout that changes what is held; what it says, which is not LOST. Raises Unreachable.

        No one else's turn comes between the reply and the caller's next step.
        """
        for _ in range(_TRIES):
            if not self.joined:
                await self._join()
            reply = await self._call(script, arguments)
            if reply[0] != LOST:
                return reply
        raise Unreachable("it keeps losing what it is told")

    async def report(self) -> None:
        """Tell what there is to tell, after all that is being told. Raises Unreachable."""
        # What changed since is a step from what was told: where that is not known yet, a step would be told twice.
        async with self._telling:
            await self._report()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._reporting is not None:
            self._reporting.cancel()

    async def settled(self) -> None:
        """Tell the last of it, if that can be done now."""
        try:
            await self.report()
        except (Unreachable, hiredis.ReplyError):
            pass  # The recorder counts it from the journal, and what is held ends by itself.

    def counted_reply(self, live: int, counted: bytes) -> None:
        """What a script says of the account."""
        self.live = max(live, 1)
        self.counted = counted.decode()
        self._pending.count(self.counted)

    async def _report(self) -> None:
        if self._pending.merge():
            # Redis keeps what it was told as it was told it, for as long as the database is behind.
            self.joined = False
        if not self.joined:
            await self._join()
        fresh = self._pending.seal()
        states = {name: self.holdings[name].state() for name in self._changed if name in self.holdings}
        told = {name: self.holdings[name].told for name in states}
        self._changed.clear()
        returns, self._returns = self._returns, []
        held = [(name, *_steps(told[name], state)) for name, state in states.items()]
        reply = await self._call_with_uses(REPORT, lambda uses: _told(held, fresh, returns, uses))
        if reply[0] == LOST:
            await self._join()
            return
        self.counted_reply(reply[1], reply[2])
        for name, state in states.items():
            holding = self.holdings[name]
            steps = _steps(told[name], state)
            holding.told = (*(old + step for old, step in zip(holding.told[:3], steps[:3], strict=True)), *state[3:])  # type: ignore[assignment]

    async def _call_with_uses(
        self, script: Script, arguments_of: Callable[[dict[int, dict[bytes, int]]], tuple[Argument, ...]]
    ) -> list[Any]:
        """Tell what was used of minutes, too."""
        reply = await self._call(script, arguments_of(self._uses.send()))
        if reply[0] != LOST:
            self._uses.arrived()
        return reply

    async def _call(self, script: Script, arguments: tuple[Argument, ...]) -> list[Any]:
        timing = self._timing
        who = (self._prefix, self._series, self._incarnation)
        common = (*who, timing.window, timing.bucket, _LEASE_MS, _HOLD_MS, timing.slice)
        self._in_flight += 1
        try:
            reply: list[Any] = await self._client.call_script(script, (self.key,), (*common, *arguments))
        except BaseException:
            # Whether it was done is not known, or nobody will hear of it.
            self.joined = False
            raise
        finally:
            self._in_flight -= 1
            if not self._in_flight and self._calm is not None and not self._calm.done():
                self._calm.set_result(None)
        if reply[0] == LOST:
            self.joined = False
        self.heard_at = self._clock()
        return reply

    async def _join(self) -> None:
        """Tell Redis all that is held and not counted, once for all who wait for it. Raises Unreachable."""
        while self._joining is not None:
            if await asyncio.shield(self._joining):
                raise Unreachable("what is held could not be told")
            if self.joined:
                return
            # Whose request told it for all has left meanwhile: another one does.
        done = self._joining = self._loop.create_future()
        has_failed = False
        try:
            while self._in_flight:
                self._calm = self._loop.create_future()
                await self._calm
            await self._tell_all()
        except (Unreachable, hiredis.ReplyError):
            has_failed = True
            raise
        finally:
            self._joining = None
            done.set_result(has_failed)

    async def _tell_all(self) -> None:
        self._incarnation = next(self._incarnations)
        self._pending.seal()
        self._pending.merge()
        self._changed.clear()
        states = {name: holding.state() for name, holding in self.holdings.items() if any(holding.state())}
        for name, holding in self.holdings.items():
            holding.told = states.get(name, (0, 0, 0, 0, 0))
        held = [(name, *state) for name, state in states.items()]
        segments = self._pending.segments
        reply = await self._call_with_uses(JOIN, lambda uses: _told(held, segments, [], uses))
        self.counted_reply(reply[1], reply[2])
        self.joined = True
        self._keep_time()

    def _keep_time(self) -> None:
        if self._timer is None and self._reporting is None:
            many = self._pending.is_long
            seconds = _CALM_REPORT_SECONDS if many else REPORT_SECONDS
            self._timer = self._loop.call_later(_HURRIED_REPORT_SECONDS if self._hurried else seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._hurried = False
        now = self._clock()
        for name in list(self._watched):
            holding = self.holdings[name]
            if holding.slice is not None and holding.slice.until <= now:
                self.end_slice(name, holding)
            self._shrink(name, holding)
            if holding.slice is None and not any(holding.state()):
                self._watched.discard(name)
        if (
            self._pending.fresh
            or self._changed
            or self._returns
            or self._uses
            or now - self.heard_at >= _CALM_REPORT_SECONDS
        ):
            self._reporting = self._loop.create_task(self._report_now())
        elif self._is_busy(now):
            self._keep_time()

    def _shrink(self, name: str, holding: Holding) -> None:
        """Give back what is more than was needed since the last time."""
        places = max(holding.used_places, 0 if holding.is_near else holding.most_places)
        spare = 0 if holding.is_near else _SPARE_PARTS * holding.drained
        requests = min(holding.requests, holding.used_requests + spare)
        if (places, requests) != (holding.places, holding.requests):
            holding.places, holding.requests = min(places, holding.places), requests
            self._changed.add(name)
        holding.most_places, holding.drained = holding.used_places, 0

    def _is_busy(self, now: float) -> bool:
        if self._pending.segments or self._watched:
            self._busy_at = now
        return now - self._busy_at < _IDLE_SECONDS

    def is_idle(self) -> bool:
        """Whether nothing is held, under way or to be told any more, and was not for a while."""
        return (
            self._timer is None
            and self._reporting is None
            and self._joining is None
            and not self._telling.locked()
            and not self._in_flight
            and not self.under_way
            and not self._is_busy(self._clock())
        )

    async def _report_now(self) -> None:
        try:
            await self.report()
        except (Unreachable, hiredis.ReplyError):
            pass  # Told to the operator by the client's state; the next one joins again.
        finally:
            self._reporting = None
            if self._is_busy(self._clock()):
                self._keep_time()


def _window(kind: str, name: str) -> bytes:
    return f"w|{kind}|{name}".encode()


def _steps(told: tuple[int, ...], state: tuple[int, int, int, int, int]) -> tuple[int, ...]:
    return (*(new - old for old, new in zip(told[:3], state[:3], strict=True)), *state[3:])


def _told(
    held: list[tuple[Any, ...]],
    segments: list[Segment],
    returns: list[tuple[bytes, int, int, int]],
    uses: dict[int, dict[bytes, int]],
) -> tuple[Argument, ...]:
    booked = [
        (segment.place, name, at.day, at.month, nanos, requests)
        for segment in segments
        for (name, at), (nanos, requests) in segment.used.items()
    ]
    used = [(number, len(batch), *(part for row in batch.items() for part in row)) for number, batch in uses.items()]
    arguments: list[Argument] = []
    for rows in (held, booked, returns, used):
        arguments.append(len(rows))
        for row in rows:
            arguments.extend(row)
    return tuple(arguments)
