"""Circuit breakers: a target that fails is left alone for a while, and asked again by one probe at a time.

    closed     calls go through; opens at 10 outcomes within 30 s of which half failed, or at 5 time-outs in a row
    open       no call goes through, for 5 s, twice as long after each probe that failed, up to 60 s
    half-open  one call goes through, the probe: it closes the breaker when it works, and opens it again when not

After Michael Nygard, "Release It!" (2nd edition, 2018). Each call takes a ticket and gives it back with what came of
it; what a call that began before the breaker last changed has to say is out of date and does not count.

A breaker belongs to one project: what its requests and time-outs do to a provider closes the way to nobody else, even
where all use the instance's key.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from watchllm.routing.outcome import Health
from watchllm.routing.target import Target

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"

WINDOW_SECONDS = 30.0
WINDOW_OUTCOMES = 100
MINIMUM_OUTCOMES = 10
FAILED_SHARE = 0.5
TIME_OUTS_IN_A_ROW = 5
FIRST_OPEN_SECONDS = 5.0
LONGEST_OPEN_SECONDS = 60.0
MAX_BREAKERS = 4096

BreakerKey: TypeAlias = tuple[str, str, str, str]
"""Project, provider, base URL and the key's label."""


def breaker_key(project_id: str, target: Target) -> BreakerKey:
    """What a target's breaker is known by: all models of one provider under one key share it."""
    return project_id, target.provider, target.base_url, target.key_label


class BreakerState(msgspec.Struct, frozen=True):
    """A breaker for operators. `retry_in` is the seconds until the next probe, 0 where none is waited for; `outcomes`
    and `failures` are those of the last 30 s, at most the latest 100. `key` is a key's id or `instance`; of a judge,
    whose `provider` is `semantic.judge`, the model's name."""

    project_id: str
    provider: str
    base_url: str
    key: str
    state: str
    retry_in: float
    outcomes: int
    failures: int
    time_outs_in_row: int


class Ticket:
    """The leave to make one call. Give it back exactly once; what comes later is ignored."""

    __slots__ = ("_breaker", "_generation", "_told", "is_probe")

    def __init__(self, breaker: "_Breaker", generation: int, *, is_probe: bool) -> None:
        self._breaker = breaker
        self._generation = generation
        self._told: Health | None = None
        self.is_probe = is_probe

    def give_back(self, health: Health) -> None:
        """Tell what came of the call; NOTHING where it says nothing: the client left, its own short time-out ended the
        call, a hedge lost, or a limit of ours was met."""
        if self._told is None:
            self._told = health
            self._breaker.take_back(self._generation, health)

    def recant(self) -> None:
        """What was given back as WORKED, at the head of an answer, turned out to be none: it counts as a failure.

        Without effect on any other ticket, and the second time.
        """
        if self._told is Health.WORKED:
            self._told = Health.FAILED
            self._breaker.recant(self._generation)


class Breakers:
    """The breakers of one process; `clock` gives monotonic seconds. At most `MAX_BREAKERS` are kept: those used
    longest ago are forgotten, and begin anew as closed. Not for several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._breakers: OrderedDict[BreakerKey, _Breaker] = OrderedDict()

    def admit(self, key: BreakerKey) -> Ticket | None:
        """The leave for one call, None while the breaker is open or its probe is under way."""
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = _Breaker(self._clock)
            if len(self._breakers) > MAX_BREAKERS:
                self._breakers.popitem(last=False)
        else:
            self._breakers.move_to_end(key)
        return breaker.admit()

    def retry_in(self, key: BreakerKey) -> float:
        """Seconds until the next probe may go through, 0 = a call may go through now, or a probe is under way."""
        breaker = self._breakers.get(key)
        return 0.0 if breaker is None else breaker.retry_in()

    def states(self) -> list[BreakerState]:
        """All breakers that have seen a failure or are not closed, for operators."""
        shown = (breaker.shown(key) for key, breaker in self._breakers.items())
        return [state for state in shown if state.state != CLOSED or state.failures]


class _Breaker:
    __slots__ = (
        "_clock",
        "_failures",
        "_generation",
        "_open_for",
        "_outcomes",
        "_probe_until",
        "_reopens_at",
        "_state",
        "_time_outs",
    )

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._state = CLOSED
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=WINDOW_OUTCOMES)
        self._failures = 0
        self._time_outs = 0
        self._generation = 0
        self._open_for = FIRST_OPEN_SECONDS
        self._reopens_at = 0.0
        self._probe_until = 0.0

    def admit(self) -> Ticket | None:
        if self._state == CLOSED:
            return Ticket(self, self._generation, is_probe=False)
        now = self._clock()
        if self._state == OPEN and now < self._reopens_at:
            return None
        if self._state == HALF_OPEN and now < self._probe_until:
            return None
        # A probe whose end nobody told must not keep the way closed for good: after a while another one goes.
        self._state = HALF_OPEN
        self._probe_until = now + LONGEST_OPEN_SECONDS
        self._generation += 1
        return Ticket(self, self._generation, is_probe=True)

    def take_back(self, generation: int, health: Health) -> None:
        if generation != self._generation or self._state == OPEN:
            return
        if self._state == HALF_OPEN:
            self._end_probe(health)
        elif health is not Health.NOTHING:
            self._count(health)

    def recant(self, generation: int) -> None:
        """One of the successes of late was none."""
        if generation != self._generation or self._state != CLOSED:
            return
        outcomes = self._outcomes
        for at in range(len(outcomes) - 1, -1, -1):
            began, failed = outcomes[at]
            if not failed:
                outcomes[at] = (began, True)
                self._failures += 1
                break
        self._forget_old(self._clock())
        if self._has_failed_often:
            self._open()

    def retry_in(self) -> float:
        return max(self._reopens_at - self._clock(), 0.0) if self._state == OPEN else 0.0

    def shown(self, key: BreakerKey) -> BreakerState:
        self._forget_old(self._clock())
        return BreakerState(*key, self._state, self.retry_in(), len(self._outcomes), self._failures, self._time_outs)

    def _end_probe(self, health: Health) -> None:
        if health is Health.WORKED:
            self._change(CLOSED)
            self._open_for = FIRST_OPEN_SECONDS
        elif health is Health.NOTHING:
            self._probe_until = self._clock()
        else:
            self._open_for = min(self._open_for * 2, LONGEST_OPEN_SECONDS)
            self._open()

    def _count(self, health: Health) -> None:
        now = self._clock()
        failed = health is not Health.WORKED
        if not failed and not self._failures:
            # The usual case: nothing is forgotten that would have to be counted off.
            self._time_outs = 0
            self._outcomes.append((now, False))
            return
        self._forget_old(now)
        if len(self._outcomes) >= WINDOW_OUTCOMES:
            self._forget_first()
        self._outcomes.append((now, failed))
        self._failures += failed
        self._time_outs = self._time_outs + 1 if health is Health.TIMED_OUT else 0
        # A success never opens it, whatever came before.
        if failed and (self._has_failed_often or self._time_outs >= TIME_OUTS_IN_A_ROW):
            self._open()

    @property
    def _has_failed_often(self) -> bool:
        return len(self._outcomes) >= MINIMUM_OUTCOMES and self._failures >= FAILED_SHARE * len(self._outcomes)

    def _open(self) -> None:
        self._change(OPEN)
        self._reopens_at = self._clock() + self._open_for

    def _change(self, state: str) -> None:
        self._state = state
        self._generation += 1
        self._outcomes.clear()
        self._failures = self._time_outs = 0

    def _forget_old(self, now: float) -> None:
        while self._outcomes and now - self._outcomes[0][0] > WINDOW_SECONDS:
            self._forget_first()

    def _forget_first(self) -> None:
        self._failures -= self._outcomes.popleft()[1]
