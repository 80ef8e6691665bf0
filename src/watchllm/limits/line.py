"""Those of one tier that wait, served fairly over their projects: start-time fair queueing.

The source: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queueing" (IEEE/ACM Transactions on Networking 5(5), 1997).
Each project has a start tag, the least goes next, and being served moves it on by one turn. Virtual time is the tag of
who was served last; a project that comes anew begins there, so that nobody saves up turns by staying away.

Joining, leaving and being served take O(log projects). A project that has nothing waiting any more is remembered until
virtual time has come to its tag, else a project that always asks again at once would always go first.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from typing import Final

from watchllm.limits.tiers import Tier

MOST_IDLE: Final = 1024
"""Projects of which none waits that are remembered, beside as many as wait; beyond, they are forgiven their turns."""


class Ticket:
    """One that waits, for whoever derives from it. `deadline` is on the clock of who calls, in seconds."""

    __slots__ = ("deadline", "flow", "project", "tier")

    def __init__(self, tier: Tier, project: str, deadline: float) -> None:
        self.tier = tier
        self.project = project
        self.deadline = deadline
        self.flow: Flow | None = None

    @property
    def waits(self) -> bool:
        """Whether it is in a queue."""
        return self.flow is not None


class Flow:
    """What waits of one project, oldest first."""

    __slots__ = ("project", "start", "waiting")

    def __init__(self, project: str, start: float) -> None:
        self.project = project
        self.start = start
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()


class Line:
    """`waiting` is how many wait."""

    __slots__ = ("_busy", "_by_length", "_flows", "_number", "_order", "_virtual", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self._flows: dict[str, Flow] = {}
        self._busy = 0
        # Every flow is here once, with its start tag; the number tells equal tags apart, first come first.
        self._order: list[tuple[float, int, Flow]] = []
        self._number = 0
        self._virtual = 0.0
        # The flows by how many of each wait: the last place is never empty, the first never used.
        self._by_length: list[OrderedDict[Flow, None]] = [OrderedDict()]

    @property
    def longest(self) -> int:
        """How many wait of the project of which most do."""
        return len(self._by_length) - 1

    @property
    def remembered(self) -> int:
        """Projects that there is anything in memory of."""
        return len(self._flows)

    def waiting_of(self, project: str) -> int:
        flow = self._flows.get(project)
        return 0 if flow is None else len(flow.waiting)

    def newest_of_longest(self) -> Ticket:
        """The last that came of the project of which most wait. Raises KeyError where nobody waits."""
        flow = next(reversed(self._by_length[-1]), None)
        if flow is None:
            raise KeyError("nobody waits")
        return next(reversed(flow.waiting))

    def join(self, ticket: Ticket) -> None:
        flow = self._flows.get(ticket.project)
        if flow is None:
            flow = self._flows[ticket.project] = Flow(ticket.project, self._virtual)
            self._schedule(flow)
        flow.waiting[ticket] = None
        ticket.flow = flow
        self.waiting += 1
        self._grown(flow)

    def leave(self, ticket: Ticket) -> None:
        """Take out one that waits; it is not its turn that is used."""
        flow = ticket.flow
        assert flow is not None
        ticket.flow = None
        del flow.waiting[ticket]
        self.waiting -= 1
        self._shrunk(flow)
        if not self.waiting:
            self._forget_all()
        elif len(self._flows) - self._busy > self._busy + MOST_IDLE:
            self._forget_idle()

    def serve(self) -> Ticket:
        """Take out whose turn it is. Raises IndexError where nobody waits."""
        start, _, flow = heappop(self._order)
        while not flow.waiting:
            del self._flows[flow.project]  # virtual time has come to its tag: it is owed nothing and owes nothing
            start, _, flow = heappop(self._order)
        self._virtual = start
        flow.start = start + 1.0
        self._schedule(flow)
        ticket = next(iter(flow.waiting))
        self.leave(ticket)
        return ticket

    def _schedule(self, flow: Flow) -> None:
        self._number += 1
        heappush(self._order, (flow.start, self._number, flow))

    def _grown(self, flow: Flow) -> None:
        length = len(flow.waiting)
        if length == 1:
            self._busy += 1
        else:
            del self._by_length[length - 1][flow]
        if length == len(self._by_length):
            self._by_length.append(OrderedDict())
        self._by_length[length][flow] = None

    def _shrunk(self, flow: Flow) -> None:
        length = len(flow.waiting)
        del self._by_length[length + 1][flow]
        if length:
            self._by_length[length][flow] = None
        else:
            self._busy -= 1
        if len(self._by_length) > 1 and not self._by_length[-1]:
            self._by_length.pop()

    def _forget_all(self) -> None:
        """Where nobody waits, nobody goes before another."""
        self._flows.clear()
        self._order.clear()
        self._virtual = 0.0

    def _forget_idle(self) -> None:
        self._flows = {project: flow for project, flow in self._flows.items() if flow.waiting}
        self._order = [place for place in self._order if place[2].waiting]
        heapify(self._order)
