"""What a project may ask judges for."""

from watchllm.domain.settings import ProjectSettings
from watchllm.proxy.semantic.judging import Allowance

MINUTE_MS = 60_000
DAY_MS = 86_400_000


def test_calls_are_counted_by_the_minute() -> None:
    allowance, settings = Allowance(), ProjectSettings(judge_per_minute=2)
    assert [allowance.take(settings, 5) for _ in range(3)] == [True, True, False]
    assert not allowance.take(settings, MINUTE_MS - 1)
    assert allowance.take(settings, MINUTE_MS)


def test_money_is_counted_by_the_day() -> None:
    allowance, settings = Allowance(), ProjectSettings(judge_usd_day=0.5)
    assert allowance.take(settings, 0)
    allowance.spend(499_999_999, 0)
    assert allowance.take(settings, MINUTE_MS)
    allowance.spend(1, MINUTE_MS)
    assert not allowance.take(settings, DAY_MS - 1)
    assert allowance.take(settings, DAY_MS)


def test_what_costs_nothing_is_bounded_by_calls() -> None:
    allowance, settings = Allowance(), ProjectSettings(judge_per_minute=1, judge_usd_day=0.01)
    assert allowance.take(settings, 0)
    allowance.spend(0, 0)
    assert not allowance.take(settings, 1)
    assert not Allowance().take(ProjectSettings(judge_usd_day=0.0), 0)
