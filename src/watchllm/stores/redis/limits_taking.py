"""Asks Redis for what a request needs, and waits where waiting helps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import hiredis

from watchllm.domain.errors import Unavailable
from watchllm.domain.ledger import Place
from watchllm.limits.exceeded import Exceeded
from watchllm.limits.spending import Moment
from watchllm.limits.subject import Subject
from watchllm.stores.redis.client import Client
from watchllm.stores.redis.limits_account import Account
from watchllm.stores.redis.limits_asks import Ask, Told, period_ends, refusal
from watchllm.stores.redis.limits_layout import PLACES, REFUSED, UNKNOWN, WANTED, place_text
from watchllm.stores.redis.limits_scripts import TAKE
from watchllm.stores.redis.link import Argument, Unreachable

_LOOK_SECONDS = 0.03
_PATIENCE_SECONDS = 3.0
_LOOKS = 30
_TRIES = 4
# A reply that is late alone is no outage: it is asked again, unless that was in vain just now.
_LATE_TRIES = 3
_IN_VAIN_SECONDS = 1.0
_GRACE_SECONDS = 0.02
# Requests of a minute that all are used cannot be had before; what is left of a month may be found to be more.
_LONGEST_REFUSAL = 1.0
_QUOTA_REFUSAL = 0.1
_UNUSED_SECONDS = 600.0
_RECHECK_SECONDS = 0.1


class Refused(NamedTuple):
    """A refusal that is repeated until then, of the loop's clock; there is room at `room_at`. `is_held`: as of
    `refusal`."""

    ask: Ask
    until: float
    room_at: float
    is_held: bool


class Taking:
    """`end` is the end of this process's journal, `series` its name; `told` the last that was said, by id and kind."""

    def __init__(
        self,
        client: Client,
        loop: asyncio.AbstractEventLoop,
        series: str,
        end: Callable[[], Place | None],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.told: dict[tuple[str, str], Told] = {}
        self.refused: dict[str, Refused] = {}
        """By id, who has just been refused for a while."""
        self.problem: str | None = None
        """Why nobody with a quota or a budget is let on, for the operator; None = they are."""
        self._waiting: asyncio.Task[None] | None = None
        self._client = client
        self._loop = loop
        self._in_vain_until = 0.0
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._series = series
        self._end = end
        self._clock = clock
        self._wall = wall
        self._forgot = clock()

    async def take(self, account: Account, asks: list[Ask], at: Moment) -> list[Told]:
        """Take all that is asked for, or nothing, to be booked in the periods of `at`. Raises Exceeded, Unavailable and
        what the client raises."""
        arguments: list[Argument] = [len(asks), at.day, at.month]
        for ask in asks:
            arguments += (ask.kind, ask.bounds.id, ask.limit, ask.need, ask.more)
        deadline = self._clock() + _PATIENCE_SECONDS
        for attempt in range(_TRIES):
            reply = await self._ask(account, arguments)
            while reply[0] == UNKNOWN:
                if self._clock() > deadline:
                    raise _unknown()
                await self._until_told(account)
                reply = await self._ask(account, arguments)
            if reply[0] != REFUSED:
                return self._keep(account, asks, reply, at)
            _, index, wait, returning, account.live, period, is_held = reply
            if returning:
                await asyncio.sleep(returning / 1000 + _GRACE_SECONDS)
            elif attempt or asks[index - 1].kind in "rtu":
                break
            else:
                # What another has given up a moment ago may not be told yet.
                await asyncio.sleep(_GRACE_SECONDS)
        ask = asks[index - 1]
        ends = period_ends(ask.kind, period)
        if ends is not None:
            # Where the clocks differ it may be over here.
            raise self._refused(ask, max(0.0, ends - self._wall()), at, is_held=bool(is_held))
        raise self._refused(ask, None if wait < 0 else wait / 1000, at, is_held=bool(is_held))

    async def _ask(self, account: Account, arguments: list[Argument]) -> list[Any]:
        tries_left = _LATE_TRIES
        while True:
            try:
                return await account.run(TAKE, tuple(arguments))
            except Unreachable:
                tries_left -= 1
                if self._client.problem is not None or self._clock() < self._in_vain_until:
                    raise
                if not tries_left:
                    self._in_vain_until = self._clock() + _IN_VAIN_SECONDS
                    raise

    async def _until_told(self, account: Account) -> None:
        """Wait for a recorder to write the account, for a while: one look for all who wait."""
        looking = self._looking.get(account.organization)
        if looking is None:
            looking = self._loop.create_task(self._look(account))
            self._looking[account.organization] = looking
        await asyncio.wait({looking})

    async def _look(self, account: Account) -> None:
        try:
            for _ in range(_LOOKS):
                if not any(await self._client.call(account.key, "HMGET", account.key, "ready", "grace")):
                    await self._client.call(WANTED, "SADD", WANTED, account.organization)
                await asyncio.sleep(_LOOK_SECONDS)
                if any(await self._client.call(account.key, "HMGET", account.key, "ready", "grace")):
                    return
        except (Unreachable, hiredis.ReplyError):
            pass  # Who waits finds out by asking.
        finally:
            del self._looking[account.organization]

    def _keep(self, account: Account, asks: list[Ask], reply: list[Any], at: Moment) -> list[Told]:
        account.counted_reply(reply[1], reply[2])
        now = self._clock()
        told = []
        for ask, (extra, left, bucket, reset) in zip(asks, reply[3:], strict=True):
            said = Told(extra, left, bucket, now + reset / 1000, ask.limit, now, at)
            if ask.kind != "h":
                self.told[ask.bounds.id, ask.kind] = said
            told.append(said)
        return told

    def refuse_again(self, subject: Subject, now: float, *, counted: bool) -> None:
        """Refuse whoever was told to wait and does not, without asking Redis again and again. Raises Exceeded."""
        for bounds in subject.bounds:
            last = self.refused.get(bounds.id)
            if last is None:
                continue
            if last.until <= now or last.ask.bounds != bounds:
                del self.refused[bounds.id]
            elif last.ask.kind == "r" or counted:
                raise refusal(last.ask, last.room_at - now, is_held=last.is_held)

    def forget(self, names: Iterable[str]) -> None:
        """Of these nothing was asked for a while."""
        for name in names:
            self.refused.pop(name, None)
            for kind in "rtqcudma":
                self.told.pop((name, kind), None)

    def forget_unused(self, accounts: Iterable[Account]) -> None:
        """Now and then, forget what is known of keys and projects that were not used for that long: an organization may
        have any number of them, and be busy all the time."""
        if self._clock() - self._forgot >= _UNUSED_SECONDS:
            self._forgot = self._clock()
            for account in accounts:
                self.forget(account.forget_unused())

    def _refused(self, ask: Ask, wait: float | None, at: Moment, *, is_held: bool) -> Exceeded:
        if ask.kind in ("r", "q"):
            now = self._clock()
            self.told[ask.bounds.id, ask.kind] = Told(0, 0, 0, now + (wait or 0.0), ask.limit, now, at)
            longest = _LONGEST_REFUSAL if ask.kind == "r" else _QUOTA_REFUSAL
            if ask.kind == "q" or wait is not None:
                until = now + longest if wait is None else now + min(wait, longest)
                self.refused[ask.bounds.id] = Refused(ask, until, now + (wait or longest), is_held)
        return refusal(ask, wait, is_held=is_held)

    async def know(self, account: Account, subject: Subject) -> None:
        """Wait until what this process has written of those who are new to it is counted. Raises Unavailable.

        Also where it has written nothing: only whose journal the database knows is waited for when Redis was emptied,
        and so nobody else may hold anything.
        """
        new = [bounds.id for bounds in subject.bounds if bounds.needs_history and bounds.id not in account.known]
        if not new:
            return
        if self._waiting is not None:
            raise _too_new()  # Others have waited for it in vain.
        place = self._end()
        deadline = self._clock() + _PATIENCE_SECONDS
        while True:
            counted = await self._counted()
            if place is not None and counted is not None and counted.decode() >= place_text(place):
                break
            if self._clock() > deadline:
                if counted is not None:
                    raise _unknown()
                if self._waiting is None:
                    self._waiting = self._loop.create_task(self._until_known())
                raise _too_new()
            await asyncio.sleep(_LOOK_SECONDS)
            place = place or self._end()
        account.known.update(new)

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._waiting is not None:
            self._waiting.cancel()

    async def _until_known(self) -> None:
        """Have the operator told, until the database knows this process's journal."""
        self.problem = (
            "keys with a quota or a budget wait: this proxy's journal has not reached the database yet; the recorder "
            "brings it there when the database answers"
        )
        known = False
        while not known:
            await asyncio.sleep(_RECHECK_SECONDS)
            try:
                known = await self._counted() is not None
            except (Unreachable, hiredis.ReplyError):
                pass  # That is told of by itself.
        self.problem = self._waiting = None

    async def _counted(self) -> bytes | None:
        """Up to where in this process's journal everybody was told of what was used; None = the database does not know
        the journal, or nobody has said so."""
        counted: bytes | None = await self._client.call(PLACES, "HGET", PLACES, self._series)
        return counted


def _unknown() -> Unavailable:
    return Unavailable(
        "It is not known yet how much of this key's quota or budget is used: no recorder has told Redis. Try again in "
        "a moment.",
        retry_after=1,
    )


def _too_new() -> Unavailable:
    return Unavailable(
        "It is not known yet how much of this key's quota or budget is used: this proxy is new, and the database, "
        "which has to know its journal first, has not answered since. Try again in a moment.",
        retry_after=1,
    )
