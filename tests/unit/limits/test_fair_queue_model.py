"""The fair queue against a plain model of it, over whatever happens in whatever order."""

from collections import defaultdict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.fair_queue import fair_queue, ticket
from watchllm.limits.line import Ticket
from watchllm.limits.queue import Bounds
from watchllm.limits.tiers import TIERS, Tier

BOUNDS = Bounds(total=12, tier=8, project=5)
WEIGHTS = sum(tier.weight for tier in TIERS)
names = st.sampled_from([tier.name for tier in TIERS])
projects = st.sampled_from("abc")


class Model(RuleBasedStateMachine):
    """Everything in lists and dictionaries that are searched through. A tag is owed until nobody of its kind waits."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = fair_queue(BOUNDS)
        self.waiting: list[Ticket] = []
        self.now = 0.0
        self.tier_tags: dict[Tier, float] = defaultdict(float)
        self.tier_time = 0.0
        self.tags: dict[tuple[Tier, str], float] = {}
        self.times: dict[Tier, float] = defaultdict(float)

    def of(self, tier: Tier, project: str | None = None) -> list[Ticket]:
        return [one for one in self.waiting if one.tier is tier and project in (None, one.project)]

    def longest(self, tier: Tier) -> int:
        return max((len(self.of(tier, project)) for project in "abc"), default=0)

    def part(self, tier: Tier) -> int:
        return max(1, min(BOUNDS.total, len(self.waiting)) * tier.weight // WEIGHTS)

    def loser(self, tier: Tier) -> Tier | None:
        """The tier that gives way in a full queue."""
        over = [one for one in TIERS if len(self.of(one)) > self.part(one)]
        if over and (over[-1].rank >= tier.rank or len(self.of(tier)) < self.part(tier)):
            return over[-1]
        return None

    def takes_from(self, new: Ticket, tier: Tier | None) -> bool:
        if tier is None:
            return False
        return tier is not new.tier or self.longest(tier) > len(self.of(tier, new.project)) + 1

    @rule(name=names, project=projects, patience=st.integers(1, 20), full=st.booleans())
    def push(self, name: str, project: str, patience: int, full: bool) -> None:
        new = ticket(name, project, self.now + patience)
        tier = new.tier
        gone = self.queue.push(new, full=full)
        if len(self.of(tier, project)) >= BOUNDS.project:
            assert gone is new
            return
        if len(self.of(tier)) >= BOUNDS.tier:
            loser: Tier | None = tier
        elif len(self.waiting) >= BOUNDS.total or (full and self.of(tier)):
            loser = self.loser(tier)
        else:
            assert gone is None
            self.joins(new)
            return
        if not self.takes_from(new, loser):
            assert gone is new
            return
        assert gone is not None
        assert loser is not None
        assert gone.tier is loser
        assert len(self.of(loser, gone.project)) == self.longest(loser)
        assert gone is self.of(loser, gone.project)[-1]
        self.goes(gone)
        self.joins(new)

    def joins(self, new: Ticket) -> None:
        if not self.of(new.tier):
            self.tier_tags[new.tier] = max(self.tier_tags[new.tier], self.tier_time)
        known = new.tier, new.project
        if not self.of(*known):
            self.tags[known] = max(self.tags.get(known, 0.0), self.times[new.tier])
        self.waiting.append(new)

    def goes(self, one: Ticket) -> None:
        self.waiting.remove(one)
        assert not one.waits
        if not self.of(one.tier):
            self.times[one.tier] = 0.0
            self.tags = {known: tag for known, tag in self.tags.items() if known[0] is not one.tier}
        if not self.waiting:
            self.tier_tags.clear()
            self.tier_time = 0.0

    @rule()
    def pop(self) -> None:
        one = self.queue.pop()
        if one is None:
            assert not self.waiting
            return
        tags = {tier: self.tier_tags[tier] for tier in TIERS if self.of(tier)}
        assert tags[one.tier] == min(tags.values())
        flows = {project: self.tags[one.tier, project] for project in "abc" if self.of(one.tier, project)}
        assert flows[one.project] == min(flows.values())
        assert one is self.of(one.tier, one.project)[0]
        self.tier_time = tags[one.tier]
        self.tier_tags[one.tier] += 1 / one.tier.weight
        self.times[one.tier] = flows[one.project]
        self.tags[one.tier, one.project] += 1
        self.goes(one)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.waiting))
        self.queue.remove(one)
        self.goes(one)

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        over = self.queue.expire(self.now)
        assert sorted(map(id, over)) == sorted(id(one) for one in self.waiting if one.deadline <= self.now)
        for one in over:
            self.goes(one)

    @invariant()
    def counts_agree(self) -> None:
        assert self.queue.waiting == len(self.waiting) <= BOUNDS.total + len(TIERS)
        for tier in TIERS:
            assert self.queue.waiting_in(tier) == len(self.of(tier))
        due = self.queue.next_deadline
        assert due is None or due <= min((one.deadline for one in self.waiting), default=due)
        assert due is not None or not self.waiting


TestModel = Model.TestCase
TestModel.settings = settings(stateful_step_count=60)
