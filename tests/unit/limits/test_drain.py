"""When those that cannot be taken are told to come again."""

import pytest

from watchllm.limits.drain import DrainRate


def after(rate: DrainRate, now: float, ahead: int, share: float = 1.0) -> float:
    return rate.retry_after(now, ahead=ahead, share=share, unknown=30.0)


@pytest.mark.parametrize("seconds", [2, 10, 100])
def test_it_is_the_time_that_those_ahead_need(seconds: int) -> None:
    rate = DrainRate()
    for turn in range(seconds * 10):
        rate.turn(1_000 + turn / 10)
    now = 1_000.0 + seconds
    assert rate.per_second(now) == pytest.approx(10, rel=0.1)
    assert after(rate, now, 99) == pytest.approx(10, rel=0.1)
    assert after(rate, now, 99, share=0.5) == pytest.approx(20, rel=0.1)


def test_it_is_between_a_second_and_a_minute() -> None:
    rate = DrainRate()
    for turn in range(100):
        rate.turn(turn / 10)
    assert after(rate, 10.0, 0) == 1.0
    assert after(rate, 10.0, 1_000_000) == 60.0


def test_where_nobody_got_a_turn_lately_it_is_what_may_be_waited() -> None:
    rate = DrainRate()
    assert after(rate, 5.0, 3) == 30.0
    rate.turn(5.0)
    assert after(rate, 1_000.0, 3) == 30.0
    rate.turn(1_000.0)
    assert after(rate, 1_000.5, 0) < 5, "a rate is not low because it was measured for a short time"
