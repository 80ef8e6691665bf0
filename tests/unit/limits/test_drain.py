"""When those that cannot be taken are told to come again."""

import pytest

from watchllm.limits.drain import Drain


def after(drain: Drain, ahead: int, share: float = 1.0) -> float:
    return drain.retry_after(places=4, ahead=ahead, share=share)


def use(drain: Drain, begin: float, rounds: int, seconds: float) -> None:
    """All four places are used for calls of so many seconds, round after round."""
    drain.passed(begin, 0)
    for number in range(rounds):
        now = begin + (number + 1) * seconds
        for left in range(4, 0, -1):
            drain.passed(now, left)
            drain.ended()


@pytest.mark.parametrize("rounds", [1, 5, 100])
def test_it_is_the_time_that_those_ahead_need(rounds: int) -> None:
    drain = Drain()
    use(drain, 1_000.0, rounds, 0.5)
    assert drain.seconds_a_call() == pytest.approx(0.5, rel=0.05)
    assert after(drain, 79) == pytest.approx(10, rel=0.05)
    assert after(drain, 79, share=0.5) == pytest.approx(20, rel=0.05)


def test_time_without_calls_is_no_slowness() -> None:
    drain = Drain()
    use(drain, 0.0, 3, 0.5)
    use(drain, 10_000.0, 1, 0.5)
    assert after(drain, 79) == pytest.approx(10, rel=0.05)


def test_what_was_long_ago_is_forgotten() -> None:
    drain = Drain()
    use(drain, 0.0, 100, 0.5)
    use(drain, 100.0, 100, 2.0)
    assert drain.seconds_a_call() == pytest.approx(2.0, rel=0.05)


def test_it_is_between_a_second_and_a_minute() -> None:
    drain = Drain()
    use(drain, 0.0, 3, 0.5)
    assert after(drain, 0) == 1.0
    assert after(drain, 1_000_000) == 60.0


def test_before_any_call_has_ended_it_is_by_what_those_under_way_have_had() -> None:
    drain = Drain()
    drain.passed(1_000.0, 0)
    assert after(drain, 79) == 1.0
    drain.passed(1_000.5, 4)
    assert after(drain, 79) == pytest.approx(10)
    drain.passed(1_010.0, 4)
    assert after(drain, 79) == 60.0
