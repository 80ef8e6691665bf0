"""A few servers, a queue before them and a clock that a test moves: what a gateway with too few slots looks like."""

from collections import Counter
from heapq import heappop, heappush

from watchllm.limits.line import Ticket
from watchllm.limits.queue import Bounds, FairQueue
from watchllm.limits.tiers import TIERS, TIERS_BY_NAME

ROOMY = Bounds(100_000, 100_000, 100_000)


def ticket(tier: str, project: str = "p", deadline: float = 1e9) -> Ticket:
    return Ticket(TIERS_BY_NAME[tier], project, deadline)


def fair_queue(bounds: Bounds = ROOMY) -> FairQueue:
    return FairQueue(TIERS, bounds)


def served(queue: FairQueue, count: int) -> list[tuple[str, str]]:
    """Tier and project of the next `count`."""
    turns = [queue.pop() for _ in range(count)]
    return [(one.tier.name, one.project) for one in turns if one is not None]


class Simulation:
    """`slots` calls at once. Whoever is served asks again at once, so that each client always has one that waits.

    `done` counts the calls that were begun, by client; `waits` has the longest wait of each in seconds.
    """

    def __init__(self, slots: int, bounds: Bounds = ROOMY) -> None:
        self.queue = fair_queue(bounds)
        self.now = 0.0
        self.done: Counter[tuple[str, str]] = Counter()
        self.waits: dict[tuple[str, str], float] = {}
        self._free = slots
        self._ends: list[tuple[float, int]] = []
        self._asked: dict[Ticket, float] = {}

    def ask(self, tier: str, project: str, *, times: int = 1, patience: float = 1e9) -> None:
        for _ in range(times):
            one = ticket(tier, project, self.now + patience)
            gone = self.queue.push(one)
            self._asked[one] = self.now
            if gone is not None:
                del self._asked[gone]

    def run(self, seconds: float, *, each: float = 1.0) -> None:
        """Serve for so long; a call takes `each` seconds."""
        end = self.now + seconds
        self._begin(each)
        while self._ends and self._ends[0][0] <= end:
            self.now = heappop(self._ends)[0]
            self._free += 1
            self._begin(each)
        self.now = end

    def _begin(self, each: float) -> None:
        for over in self.queue.expire(self.now):
            del self._asked[over]
        while self._free and (one := self.queue.pop()) is not None:
            self._free -= 1
            client = one.tier.name, one.project
            self.done[client] += 1
            self.waits[client] = max(self.waits.get(client, 0.0), self.now - self._asked.pop(one))
            heappush(self._ends, (self.now + each, self.done.total()))
            self.ask(*client)

    def share(self, tier: str) -> float:
        return sum(count for client, count in self.done.items() if client[0] == tier) / self.done.total()
