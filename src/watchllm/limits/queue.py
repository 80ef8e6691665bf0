"""Whose turn it is when there is not enough for all: weighted fair queueing over tiers, and within each over projects.

Start-time fair queueing twice (its source is in `line`): a tier is moved on by 1/weight for each turn, so each that
waits gets its weight's part of the turns, the lowest one as well. A turn is one call, however long it takes.

Room is bounded: in all, for a tier and for a project. When it is used up, the lowest tier gives way to a higher one,
but every tier keeps its weight's part of the room: none is kept from its turns by never being let in. Within a tier the
project of which most wait gives way (P. E. McKenney, "Stochastic Fairness Queueing", INFOCOM 1990), its newest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from watchllm.limits.line import Line, Ticket
from watchllm.limits.tiers import Tier

# So many deadlines of those that wait no longer are kept, beside as many as wait.
_MOST_OVER: Final = 64


class Bounds(NamedTuple):
    """How many may wait: in all, of one tier, of one project."""

    total: int
    tier: int
    project: int


def bounds_for(total: int) -> Bounds:
    """No tier may take all of `total`, nor may a project take all that its tier may: others find room at once."""
    return Bounds(total, max(1, total * 3 // 4), max(1, total // 2))


class FairQueue:
    """The clock is the caller's; `waiting` is how many wait. `tiers` by rank."""

    __slots__ = ("_bounds", "_deadlines", "_lines", "_number", "_starts", "_tiers", "_virtual", "_weight", "waiting")

    def __init__(self, tiers: Sequence[Tier], bounds: Bounds) -> None:
        self.waiting = 0
        self._tiers = tiers
        self._bounds = bounds
        self._weight = sum(tier.weight for tier in tiers)
        self._lines = [Line() for _ in tiers]
        self._starts = [0.0] * len(tiers)
        self._virtual = 0.0
        # Those that left are taken out when they come up, or when they are many.
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._number = 0

    def waiting_in(self, tier: Tier) -> int:
        return self._lines[tier.rank].waiting

    @property
    def remembered(self) -> int:
        """Projects and deadlines that there is anything in memory of."""
        return sum(line.remembered for line in self._lines) + len(self._deadlines)

    def share(self, tier: Tier) -> float:
        """The part of the turns that a tier gets while those wait that wait now, and itself."""
        waiting = sum(one.weight for one in self._tiers if self._lines[one.rank].waiting or one is tier)
        return tier.weight / waiting

    def push(self, ticket: Ticket, *, full: bool = False) -> Ticket | None:
        """Let `ticket` wait, if there is room. `full`: there is no more than is taken, whatever the bounds say, but for
        the first of a tier.

        Returns who has to go for it, and is out of the queue: the ticket itself where that is refused, None = nobody.
        """
        line = self._lines[ticket.tier.rank]
        if line.waiting_of(ticket.project) >= self._bounds.project:
            return ticket
        gone = None
        if line.waiting >= self._bounds.tier:
            gone = self._gives_way(line, ticket)
        elif self.waiting >= self._bounds.total or (full and line.waiting):
            other = self._line_that_gives_way(ticket.tier)
            gone = ticket if other is None else self._gives_way(other, ticket)
        if gone is ticket:
            return ticket
        if gone is not None:
            self.remove(gone)
        if not line.waiting:
            # It begins where the others are, whatever it had before.
            self._starts[ticket.tier.rank] = max(self._starts[ticket.tier.rank], self._virtual)
        line.join(ticket)
        self.waiting += 1
        self._number += 1
        heappush(self._deadlines, (ticket.deadline, self._number, ticket))
        return gone

    def remove(self, ticket: Ticket) -> None:
        """Take out one that waits no longer. Idempotent."""
        if ticket.waits:
            self._lines[ticket.tier.rank].leave(ticket)
            self._one_less()

    def pop(self) -> Ticket | None:
        """Take out whose turn it is, None = nobody waits."""
        if not self.waiting:
            return None
        rank = min((rank for rank, line in enumerate(self._lines) if line.waiting), key=self._starts.__getitem__)
        self._virtual = self._starts[rank]
        self._starts[rank] += 1.0 / self._tiers[rank].weight
        ticket = self._lines[rank].serve()
        self._one_less()
        return ticket

    def expire(self, now: float) -> list[Ticket]:
        """Take out those whose deadline has come."""
        over = []
        while self._deadlines and (self._deadlines[0][0] <= now or not self._deadlines[0][2].waits):
            ticket = heappop(self._deadlines)[2]
            if ticket.waits:
                self.remove(ticket)
                over.append(ticket)
        return over

    @property
    def next_deadline(self) -> float | None:
        """When `expire` has something to do, at the earliest."""
        return self._deadlines[0][0] if self._deadlines else None

    def _line_that_gives_way(self, tier: Tier) -> Line | None:
        """The lowest that has more than its part of the room, if it may have to go for one of `tier`."""
        room = min(self._bounds.total, self.waiting)
        own = self._lines[tier.rank]
        for other in reversed(self._tiers):
            line = self._lines[other.rank]
            if line.waiting > self._part(other, room):
                has_to_go = other.rank >= tier.rank or own.waiting < self._part(tier, room)
                return line if has_to_go else None
        return None

    def _part(self, tier: Tier, room: int) -> int:
        return max(1, room * tier.weight // self._weight)

    def _gives_way(self, line: Line, ticket: Ticket) -> Ticket:
        """Who goes: of another tier its newest, of the ticket's own only one whose project has more than the ticket's
        would have then."""
        own = self._lines[ticket.tier.rank]
        if line is own and line.longest <= line.waiting_of(ticket.project) + 1:
            return ticket
        return line.newest_of_longest()

    def _one_less(self) -> None:
        self.waiting -= 1
        if not self.waiting:
            self._deadlines.clear()
            self._starts = [0.0] * len(self._tiers)
            self._virtual = 0.0
        elif len(self._deadlines) > 2 * self.waiting + _MOST_OVER:
            self._deadlines = [place for place in self._deadlines if place[2].waits]
            heapify(self._deadlines)
