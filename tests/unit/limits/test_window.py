"""The window of a minute against a plain list of everything that was used."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.limits.window import Window

STEPS = st.lists(
    st.tuples(st.floats(0, 90, allow_nan=False).map(lambda seconds: round(seconds, 3)), st.integers(1, 5)),
    max_size=200,
)


def admit(window: Window, limit: int, now: float, amount: int) -> bool:
    if window.used(now) + amount > limit:
        return False
    window.add(now, amount)
    return True


@given(STEPS, st.integers(1, 40))
def test_no_minute_ever_holds_more_than_the_limit(steps: list[tuple[float, int]], limit: int) -> None:
    window, now, used = Window(), 0.0, list[tuple[float, int]]()
    for wait, amount in steps:
        now += wait
        if admit(window, limit, now, amount):
            used.append((now, amount))
    for begin, _ in used:
        assert sum(amount for at, amount in used if begin <= at < begin + 60) <= limit


@given(STEPS)
def test_what_it_holds_is_never_less_than_a_minute_and_never_more_than_a_second_longer(
    steps: list[tuple[float, int]],
) -> None:
    window, now, used = Window(), 0.0, list[tuple[float, int]]()
    for wait, amount in steps:
        now += wait
        window.add(now, amount)
        used.append((now, amount))
        least = sum(amount for at, amount in used if at + 60 > now)
        most = sum(amount for at, amount in used if at + 61 > now)
        assert least <= window.used(now) <= most


@given(STEPS, st.integers(1, 40), st.integers(1, 45))
def test_who_waits_as_long_as_was_said_finds_room_and_who_waits_less_does_not(
    steps: list[tuple[float, int]], limit: int, amount: int
) -> None:
    window, now = Window(), 0.0
    for wait, some in steps:
        now += wait
        admit(window, limit, now, some)
    wait_for = window.wait_for(limit, amount, now)
    if amount > limit:
        assert wait_for is None
        return
    assert wait_for is not None
    assert 0 <= wait_for <= 60
    if wait_for > 0.001:
        assert window.used(now + wait_for - 0.001) + amount > limit
    assert window.used(now + wait_for + 1e-6) + amount <= limit


def test_an_idle_user_may_use_all_at_once_and_again_after_a_minute() -> None:
    window = Window()
    assert sum(admit(window, 30, 5.0, 1) for _ in range(50)) == 30
    assert window.wait_for(30, 1, 5.5) == pytest.approx(59.5)
    assert ceil(window.reset_in(5.5)) == 60
    assert sum(admit(window, 30, 64.999, 1) for _ in range(50)) == 0
    assert sum(admit(window, 30, 65.0, 1) for _ in range(50)) == 30


def test_who_always_asks_gets_more_than_97_percent() -> None:
    window = Window()
    asked = (number / 50 for number in range(50 * 3600))
    assert sum(admit(window, 60, now, 1) for now in asked) >= 0.97 * 60 * 60


def test_what_is_taken_back_is_free_again_unless_it_has_passed() -> None:
    window = Window()
    early = window.add(0.0, 8)
    window.add(30.0, 2)
    window.take_back(early, 5)
    assert window.used(31.0) == 5
    assert window.used(60.0) == 2
    window.take_back(early, 3)
    assert window.used(61.0) == 2


def test_it_keeps_one_portion_a_second() -> None:
    window = Window()
    for number in range(100_000):
        window.add(number / 1000, 1)
    assert window.used(100.0) <= 61_000
    assert len(window._portions) <= 61


def test_what_is_used_after_all_was_forgotten_counts_for_a_minute() -> None:
    window = Window()
    before = window.add(10.0, 5)
    window.clear()
    assert window.used(10.1) == 0
    window.take_back(before, 5)
    window.add(10.2, 3)
    assert window.used(70.1) == 3
    assert window.used(70.2) == 0
    assert window.reset_in(70.2) == 0.0
