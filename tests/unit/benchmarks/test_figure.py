"""A benchmark's verdict is what its figures say."""

import importlib

import pytest

from benchmarks import prompts
from benchmarks.__main__ import FIGURES, ON_REQUEST
from benchmarks.figure import Row, Target
from benchmarks.load import added


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (None, None),
        (Target("≥", 0.5, "ratio"), True),
        (Target("≥", 0.51, "ratio"), False),
        (Target("≤", 50.0), True),
        (Target("≤", 49.9), False),
    ],
)
def test_a_target_is_met_by_the_value_or_by_the_ratio(target: Target | None, met: bool | None) -> None:
    assert Row("figure", 50.0, "ms", 100.0, "yardstick", target).met is met


def test_a_ratio_without_a_yardstick_is_a_missed_target() -> None:
    assert Row("figure", 50.0, "ms", target=Target("≥", 0.1, "ratio")).met is False


def test_added_time_is_the_difference_of_the_medians() -> None:
    assert added([3.0, 100.0, 4.0], [1.0, 2.0, 1.0]) == 3.0


def test_requests_rotate_over_ten_thousand_different_prompts() -> None:
    assert len({prompts.body(number) for number in range(prompts.COUNT)}) == prompts.COUNT >= 10_000


@pytest.mark.parametrize("name", [*FIGURES, *ON_REQUEST])
def test_every_figure_can_be_run_by_its_name(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").run)
