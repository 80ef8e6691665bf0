"""Who asks a judge, how often, for how much, and when it is left alone."""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any, TypeVarTuple, Unpack, cast

import pytest

from watchllm.cache.semantic.verdicts import Pair
from watchllm.domain.errors import Forbidden, GatewayError, ProviderFailed, TimedOut, Unavailable
from watchllm.domain.settings import ProjectSettings
from watchllm.proxy.request import Request
from watchllm.proxy.semantic import judging
from watchllm.proxy.semantic.judging import Allowance, Judgement, Judges
from watchllm.proxy.services import Services
from watchllm.routing.breaker import FIRST_OPEN_SECONDS, MINIMUM_OUTCOMES, TIME_OUTS_IN_A_ROW, Breakers

_Ts = TypeVarTuple("_Ts")

MINUTE_MS = 60_000
DAY_MS = 86_400_000
A_CALL = 250_000_000
"""Nano-dollars."""
PATIENCE = ProjectSettings().judge_timeout_ms / 1e3


def allowance(*spent: tuple[int, int]) -> Allowance:
    return Allowance(lambda day: dict(spent).get(day, 0))


def test_calls_are_counted_by_the_minute() -> None:
    allowed, settings = allowance(), ProjectSettings(judge_per_minute=2)
    assert [allowed.take(settings, 5) for _ in range(3)] == [True, True, False]
    assert not allowed.take(settings, MINUTE_MS - 1)
    assert allowed.take(settings, MINUTE_MS)


def test_money_is_counted_by_the_day() -> None:
    allowed, settings = allowance(), ProjectSettings(judge_usd_day=0.5)
    assert allowed.take(settings, 0)
    assert allowed.spend(499_999_999, 0) == 0
    assert allowed.take(settings, MINUTE_MS)
    allowed.spend(1, MINUTE_MS)
    assert not allowed.take(settings, DAY_MS - 1)
    assert allowed.take(settings, DAY_MS)
    assert allowed.spend(1, DAY_MS) == 1


def test_what_was_spent_before_counts_on_its_day() -> None:
    settings = ProjectSettings(judge_usd_day=0.5)
    allowed = allowance((0, 500_000_000), (1, 499_999_999))
    assert not allowed.take(settings, 0)
    assert allowed.take(settings, DAY_MS)
    allowed.spend(1, DAY_MS)
    assert not allowed.take(settings, DAY_MS)


def test_what_costs_nothing_is_bounded_by_calls() -> None:
    allowed, settings = allowance(), ProjectSettings(judge_per_minute=1, judge_usd_day=0.01)
    assert allowed.take(settings, 0)
    allowed.spend(0, 0)
    assert not allowed.take(settings, 1)
    assert not allowance().take(ProjectSettings(judge_usd_day=0.0), 0)


class Timers(asyncio.SelectorEventLoop):
    """A loop whose timers are due when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._timers: list[tuple[float, asyncio.TimerHandle]] = []

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(0.0, callback, args, self, context)
        self._timers.append((delay, handle))
        return handle

    def passes(self, seconds: float) -> None:
        """So much time goes by for the timers that run."""
        due = [handle for delay, handle in self._timers if delay <= seconds]
        self._timers = [(delay - seconds, handle) for delay, handle in self._timers if delay > seconds]
        for handle in due:
            if not handle.cancelled():
                handle._run()


class Court:
    """Judges whose calls end as the test says; time and what is remembered are the test's, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = Timers()
        self.now = 0.0
        self.called = 0
        self.says: bool | GatewayError | Callable[[], Coroutine[Any, Any, bool]] | None = True
        self.calls_made = 1
        self.unanswered: asyncio.Future[bool] = self.loop.create_future()
        self.spent: dict[tuple[bytes, int], int] = {}
        self.verdicts: dict[Pair, bool] = {}
        self.judges = self.anew()
        monkeypatch.setattr(judging, "JudgeCall", self._call)

    async def never(self) -> bool:
        """Says nothing for longer than anybody waits."""
        self.loop.passes(PATIENCE)
        return await self.unanswered

    async def late(self) -> bool:
        """Says yes when its time is over."""
        self.loop.passes(PATIENCE)
        return True

    def anew(self) -> Judges:
        """Those of a process that starts, over what an earlier one left."""
        engine = SimpleNamespace(
            verdicts=SimpleNamespace(put=lambda pair, *, equal: self.verdicts.update({pair: equal})),
            spent_on_judges=lambda project, day: self.spent.get((project, day), 0),
            spend_on_judge=self._spend,
        )
        services = SimpleNamespace(
            loop=self.loop,
            breakers=Breakers(lambda: self.now),
            now_ms=lambda: int(self.now * 1e3),
            semantic=SimpleNamespace(engine=engine),
        )
        return Judges(cast(Services, services))

    def _spend(self, project: bytes, day: int, cost: int) -> None:
        self.spent[project, day] = self.spent.get((project, day), 0) + cost

    def _call(self, _services: Services, _client: Request) -> Any:
        return SimpleNamespace(
            request=SimpleNamespace(calls=self.calls_made, cost=A_CALL, lost_cost=0), verdict=self._verdict
        )

    async def _verdict(self, _document: dict[str, Any]) -> bool | None:
        self.called += 1
        if isinstance(self.says, GatewayError):
            raise self.says
        return await self.says() if callable(self.says) else self.says

    def ask(self, number: int, *, project: int = 1, test: bool = False, **settings: Any) -> Judgement | str:
        """Ask about the pair of that number."""
        told = ProjectSettings(judge_model="openai/small", judge_usd_day=1e6, semantic="on", judge_per_minute=1_000)
        tenant = SimpleNamespace(
            project=SimpleNamespace(id=f"prj_{project}"),
            partition=bytes([project, test] * 8),
            settings=ProjectSettings(**{name: getattr(told, name) for name in told.__struct_fields__} | settings),
            test=test,
        )
        client = cast(Request, SimpleNamespace(id="req_1", principal=SimpleNamespace(tenant=tenant)))
        pair = Pair(tenant.partition, b"k", 0, number.to_bytes(16, "big"))
        return self.judges.ask(client, pair, "a", "b", "c")

    def outcome(self, number: int, *, patience: float = PATIENCE, **how: Any) -> str | None:
        """The reason that who asks about that pair, and waits so long, is given."""

        async def wait() -> str | None:
            asked = self.ask(number, **how)
            return asked if isinstance(asked, str) else await asked.outcome(self.loop, patience)

        return self.loop.run_until_complete(wait())


@pytest.fixture
def court(monkeypatch: pytest.MonkeyPatch) -> Iterator[Court]:
    made = Court(monkeypatch)
    yield made
    made.judges.close()
    made.loop.close()


def test_who_is_too_late_time_and_again_is_left_alone_for_a_while(court: Court) -> None:
    court.says = court.never
    told = [court.outcome(number) for number in range(TIME_OUTS_IN_A_ROW + 2)]
    assert told == ["judge_timeout"] * TIME_OUTS_IN_A_ROW + ["judge_resting"] * 2
    assert court.called == TIME_OUTS_IN_A_ROW
    court.now += FIRST_OPEN_SECONDS
    court.says = True
    assert [court.outcome(100), court.outcome(101)] == [None, None]


def test_a_verdict_that_comes_too_late_does_not_speak_for_its_judge(court: Court) -> None:
    court.says = court.late
    for number in range(TIME_OUTS_IN_A_ROW):
        assert court.outcome(number, patience=2 * PATIENCE) is None
    assert court.outcome(100) == "judge_resting"
    assert list(court.verdicts.values()) == [True] * TIME_OUTS_IN_A_ROW


def test_in_shadow_nothing_is_too_late(court: Court) -> None:
    court.says = court.late
    how: dict[str, Any] = {"patience": 2 * PATIENCE, "semantic": "shadow"}
    told = [court.outcome(number, **how) for number in range(2 * TIME_OUTS_IN_A_ROW)]
    assert told == [None] * 2 * TIME_OUTS_IN_A_ROW


@pytest.mark.parametrize("error", [TimedOut("late"), ProviderFailed("broken"), Forbidden("no credit")])
def test_who_fails_again_and_again_is_left_alone_too(court: Court, error: GatewayError) -> None:
    court.says = error
    told = [court.outcome(number) for number in range(MINIMUM_OUTCOMES + 1)]
    bound = TIME_OUTS_IN_A_ROW if isinstance(error, TimedOut) else MINIMUM_OUTCOMES
    assert told == ["judge_failed"] * bound + ["judge_resting"] * (MINIMUM_OUTCOMES + 1 - bound)
    assert court.called == bound


def test_who_answers_in_time_is_asked_on_whatever_it_says(court: Court) -> None:
    for number, (says, reason) in enumerate([(False, "judge"), (None, "judge_unclear"), (True, None)] * 10):
        court.says = says
        assert court.outcome(number) == reason


def test_a_judge_rests_for_its_project_and_kind_of_key_alone(court: Court) -> None:
    court.says = court.never
    for number in range(TIME_OUTS_IN_A_ROW):
        court.outcome(number)
    court.says = True
    assert court.outcome(100) == "judge_resting"
    assert court.outcome(100, project=2) is None
    assert court.outcome(100, test=True) is None
    assert court.outcome(100, judge_model="openai/other") is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Forbidden("no price"), "judge_unusable"),
        (Unavailable("its breakers are open"), "judge_resting"),
        (ProviderFailed("its key does not open"), "judge_failed"),
    ],
)
def test_who_was_not_called_is_not_to_blame(court: Court, error: GatewayError, reason: str) -> None:
    court.says, court.calls_made = error, 0
    assert [court.outcome(number) for number in range(2 * MINIMUM_OUTCOMES)] == [reason] * 2 * MINIMUM_OUTCOMES


def test_beyond_the_calls_of_a_minute_nobody_is_asked(court: Court) -> None:
    told = [court.outcome(number, judge_per_minute=2) for number in range(3)]
    assert (told, court.called) == ([None, None, "judge_budget"], 2)
    assert court.outcome(3, project=2, judge_per_minute=2) is None
    court.now += 60
    assert court.outcome(3, judge_per_minute=2) is None


def test_the_budget_of_a_day_is_each_projects_own(court: Court) -> None:
    budget = {"judge_usd_day": 2 * A_CALL / 1e9}
    told = [court.outcome(number, **budget) for number in range(3)]
    assert (told, court.called) == ([None, None, "judge_budget"], 2)
    assert court.outcome(0, project=2, **budget) is None


def test_a_restart_is_no_new_day(court: Court) -> None:
    budget = {"judge_usd_day": 2 * A_CALL / 1e9}
    assert court.outcome(0, **budget) is None
    court.judges = court.anew()
    assert [court.outcome(number, **budget) for number in (1, 2)] == [None, "judge_budget"]
    court.judges = court.anew()
    assert court.outcome(3, **budget) == "judge_budget"
    court.now += 86_400
    assert court.outcome(3, **budget) is None
    assert court.spent == {(bytes([1, 0] * 8), 0): 2 * A_CALL, (bytes([1, 0] * 8), 1): A_CALL}


def test_what_was_refused_for_the_budget_leaves_the_probe_to_the_next(court: Court) -> None:
    court.says = court.never
    for number in range(TIME_OUTS_IN_A_ROW):
        court.outcome(number)
    court.now += FIRST_OPEN_SECONDS
    court.says = True
    assert court.outcome(100, judge_per_minute=0) == "judge_budget"
    assert court.outcome(100) is None


def test_one_pair_is_asked_about_once_at_a_time(court: Court) -> None:
    async def several() -> str | None:
        first, second, other = court.ask(1), court.ask(1), court.ask(1, project=2)
        assert isinstance(first, Judgement)
        assert first is second
        assert first is not other
        return await first.outcome(court.loop, PATIENCE)

    assert court.loop.run_until_complete(several()) is None
    assert court.called == 2


def test_nobody_begins_to_wait_for_who_is_late_already(court: Court) -> None:
    court.says = court.never
    assert [court.outcome(1), court.ask(1)] == ["judge_timeout", "judge_timeout"]
    assert court.called == 1


def test_only_so_many_are_under_way_at_a_time(court: Court) -> None:
    court.says = court.never

    async def many() -> list[Judgement | str]:
        return [court.ask(number) for number in range(judging.MOST_UNDER_WAY)] + [court.ask(0, project=2)]

    *asked, other = court.loop.run_until_complete(many())
    half = judging.MOST_UNDER_WAY // 2
    assert all(isinstance(one, Judgement) for one in asked[:half])
    assert asked[half:] == ["judge_busy"] * half
    assert isinstance(other, Judgement), "one project leaves places to others"


@pytest.mark.parametrize("settings", [{}, {"judge_per_minute": 0}])
def test_who_is_through_gives_its_place_back(court: Court, settings: dict[str, int]) -> None:
    reason = "judge_budget" if settings else None
    for number in range(2 * judging.MOST_UNDER_WAY):
        assert court.outcome(number, **settings) == reason


def test_who_is_left_alone_takes_no_place(court: Court) -> None:
    court.says = court.never
    told = [court.outcome(number) for number in range(TIME_OUTS_IN_A_ROW + 2 * judging.MOST_UNDER_WAY)]
    assert set(told[TIME_OUTS_IN_A_ROW:]) == {"judge_resting"}
