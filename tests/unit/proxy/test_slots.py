"""Taking a slot, waiting for one, giving it back: exactly once, whatever happens."""

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from watchllm.domain.errors import GatewayError
from watchllm.limits.tiers import TIERS_BY_NAME
from watchllm.proxy import eager
from watchllm.proxy.request import Request
from watchllm.proxy.slots import LATE_SECONDS, Place, SlotLimits, Slots, Turn


class Loop:
    """Does what is due when it is told to."""

    def __init__(self) -> None:
        self.soon: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.timers: list[SimpleNamespace] = []
        self.complaints: list[dict[str, Any]] = []

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self.soon.append((callback, arguments))

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        timer = SimpleNamespace(delay=delay, callback=callback)
        timer.cancel = lambda: self.timers.remove(timer)
        self.timers.append(timer)
        return timer

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.complaints.append(context)

    def run(self) -> None:
        while self.soon:
            callback, arguments = self.soon.pop(0)
            callback(*arguments)


class Waiting:
    """One that waits for a slot, and what it was told."""

    def __init__(self, slots: Slots, tier: str = "self-hosted", project: str = "p") -> None:
        self.told: list[str | GatewayError] = []
        self.request = request_of(tier, project)
        self.place = slots.enter(self.request, lambda: self.told.append("granted"), self.told.append)

    @property
    def errors(self) -> list[tuple[int, str]]:
        return [(error.status, error.code) for error in self.told if isinstance(error, GatewayError)]


def request_of(tier: str, project: str = "p") -> Request:
    request = Request(cast(Any, SimpleNamespace(began=0.0, headers={})), "chat.completions")
    tenant = SimpleNamespace(tier=TIERS_BY_NAME[tier], project=SimpleNamespace(id=project))
    request.principal = cast(Any, SimpleNamespace(tenant=tenant))
    return request


@pytest.fixture
def loop() -> Loop:
    return Loop()


def slots_on(
    loop: Loop, calls: int = 1, queued: int = 100, wait: float = 30.0, is_pressed: Callable[[], bool] = lambda: False
) -> Slots:
    return Slots(cast(Any, loop), SlotLimits(calls, queued, wait), is_pressed)


def test_a_free_slot_is_taken_at_once_and_the_loop_hears_nothing_of_it(loop: Loop) -> None:
    slots = slots_on(loop, calls=2)
    assert slots.take()
    assert slots.take()
    assert not slots.take()
    slots.release()
    assert slots.under_way == 1
    assert slots.take()
    assert not loop.soon
    assert not loop.timers


def test_nobody_overtakes_those_who_wait(loop: Loop) -> None:
    slots = slots_on(loop)
    slots.take()
    waiting = Waiting(slots)
    loop.run()
    assert waiting.told == []
    slots.release()
    assert not slots.take(), "it is free, but not for who comes now"
    loop.run()
    assert waiting.told == ["granted"]
    assert slots.under_way == 1


def test_a_place_gives_back_what_it_has_once(loop: Loop) -> None:
    slots = slots_on(loop)
    slots.take()
    leaves, stays = Waiting(slots), Waiting(slots)
    leaves.place.release()
    leaves.place.release()
    assert slots.under_way == 1
    slots.release()
    loop.run()
    assert (leaves.told, stays.told) == ([], ["granted"])
    stays.place.release()
    stays.place.release()
    assert slots.under_way == 0


def test_who_goes_for_another_and_has_left_before_hears_nothing(loop: Loop) -> None:
    slots = slots_on(loop, queued=4)
    slots.take()
    free = [Waiting(slots, "free", project) for project in ("f", "f", "g")]
    Waiting(slots, "starter")
    Waiting(slots, "pro")
    (gone,) = [one for one in free if not one.place.waits]
    gone.place.release()
    loop.run()
    assert gone.told == []
    assert slots.under_way == 1


def test_a_thousand_that_give_their_slot_back_at_once_are_served_one_after_the_other(loop: Loop) -> None:
    slots = slots_on(loop, queued=4000)
    slots.take()
    places: deque[Place] = deque()
    for _ in range(1000):
        places.append(slots.enter(request_of("pro"), lambda: places.popleft().release(), lambda _error: None))
    slots.release()
    loop.run()
    assert not places
    assert slots.under_way == 0


def test_what_goes_wrong_with_one_is_reported_and_harms_no_other(loop: Loop) -> None:
    slots = slots_on(loop, calls=2)
    slots.take()
    slots.take()

    def broken() -> None:
        raise RuntimeError("a bug")

    slots.enter(request_of("pro"), broken, lambda _error: None)
    behind = Waiting(slots, "pro")
    slots.release()
    slots.release()
    loop.run()
    assert [str(context["exception"]) for context in loop.complaints] == ["a bug"]
    assert behind.told == ["granted"]


def test_a_deadline_that_came_is_told_and_one_timer_is_enough(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("watchllm.proxy.slots.perf_counter", lambda: now)
    slots = slots_on(loop, wait=30.0)
    slots.take()
    first = Waiting(slots, "free")
    loop.run()
    now = 110.0
    second = Waiting(slots, "enterprise")
    loop.run()
    (timer,) = loop.timers
    assert timer.delay == 30.0
    loop.timers.clear()
    now = 130.0
    timer.callback()
    assert first.errors == [(429, "overloaded_tier")]
    assert first.request.waited_for_slot(now) == 30.0
    assert second.told == []
    (timer,) = loop.timers
    assert timer.delay == 10.0
    loop.timers.clear()
    now = 140.0
    timer.callback()
    assert second.errors == [(503, "overloaded")]
    assert not loop.timers


def test_the_timer_goes_with_the_last_that_waits(loop: Loop) -> None:
    slots = slots_on(loop)
    slots.take()
    waiting = Waiting(slots)
    loop.run()
    assert len(loop.timers) == 1
    slots.release()
    loop.run()
    assert waiting.told == ["granted"]
    assert not loop.timers


def test_where_memory_is_short_no_more_may_wait_but_the_first_of_a_tier(loop: Loop) -> None:
    pressed = False
    slots = slots_on(loop, is_pressed=lambda: pressed)
    slots.take()
    free = [Waiting(slots, "free", project) for project in "abc"]
    pressed = True
    Waiting(slots, "pro")
    Waiting(slots, "pro", "q")
    with pytest.raises(GatewayError) as refused:
        Waiting(slots, "free", "d")
    assert refused.value.code == "overloaded_tier"
    loop.run()
    assert [error for one in free for error in one.errors] == [(429, "overloaded_tier")]


def test_a_process_that_is_late_twice_running_begins_no_more_calls_than_end(loop: Loop) -> None:
    slots = slots_on(loop, calls=16)
    for _ in range(5):
        assert slots.take()
    slots.loop_was(10.0)
    slots.loop_was(LATE_SECONDS)
    slots.loop_was(10.0)
    assert slots.allowed == 16, "not twice running"
    slots.loop_was(10.0)
    assert slots.allowed == 5
    assert not slots.take()
    waiting = Waiting(slots)
    slots.release()
    loop.run()
    assert waiting.told == ["granted"]
    behind = Waiting(slots)
    slots.loop_was(10.0)
    loop.run()
    assert behind.told == []
    slots.loop_was(0.0)
    loop.run()
    assert behind.told == ["granted"]
    assert slots.allowed == 16


@pytest.mark.parametrize(("calls", "left"), [(16, 2), (1, 1)])
def test_however_late_a_part_of_the_calls_may_be_under_way(loop: Loop, calls: int, left: int) -> None:
    slots = slots_on(loop, calls=calls)
    for _ in range(3):
        slots.loop_was(10.0)
    for _ in range(left):
        assert slots.take()
    assert not slots.take()


def test_a_coroutine_waits_for_its_turn_goes_on_in_it_and_leaves_when_it_is_cancelled(loop: Loop) -> None:
    slots = slots_on(loop)
    turns: list[Turn] = []

    async def waits() -> None:
        turns.append(await slots.turn(request_of("pro")))

    def run() -> eager.EagerRun | None:
        return eager.run(waits(), cast(Any, loop), lambda error: loop.complaints.append({"error": error}))

    assert run() is None
    assert turns == [slots]
    cancelled, served = run(), run()
    assert cancelled is not None
    assert served is not None
    cancelled.cancel()
    turns[0].release()
    loop.run()
    assert len(turns) == 2
    assert slots.under_way == 1
    turns[1].release()
    assert slots.under_way == 0
    assert not loop.complaints


def test_a_coroutine_for_which_there_is_no_room_is_told(loop: Loop) -> None:
    slots = slots_on(loop, queued=1)
    slots.take()
    Waiting(slots)
    errors: list[BaseException] = []

    async def waits() -> None:
        await slots.turn(request_of("self-hosted"))

    assert eager.run(waits(), cast(Any, loop), errors.append) is None
    (error,) = errors
    assert isinstance(error, GatewayError)
    assert error.code == "overloaded"
    assert slots.under_way == 1


def test_the_time_in_the_queue_is_taken_off_the_time_that_a_request_allows_its_call() -> None:
    request = request_of("pro")
    assert request.time_left() is None
    request.directives = cast(Any, SimpleNamespace(timeout=5.0))
    assert request.time_left() == 5.0
    request.queue_began = 10.0
    request.leave_queue(12.0)
    request.leave_queue(99.0)
    assert request.time_left() == 3.0
    request.queue_began = 20.0
    assert request.waited_for_slot(21.0) == 3.0
    request.leave_queue(24.0)
    assert request.queued == 6.0
    left = request.time_left()
    assert left is not None
    assert 0 < left < 0.01


def test_who_finds_no_room_is_told_when_there_will_be_by_how_long_calls_took(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("watchllm.proxy.slots.perf_counter", lambda: now[0])
    slots = slots_on(loop, calls=2, queued=8, wait=30.0)

    def refused() -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            Waiting(slots)
        return caught.value

    for _ in range(2):
        slots.take()
    waiting = [Waiting(slots) for _ in range(4)]
    assert refused().retry_after == 1.0, "nothing is known yet"
    now[0] += 2.0
    assert refused().retry_after == pytest.approx(5.0), "none has ended, and two are under way for 2 s"
    now[0] -= 2.0
    while waiting:
        now[0] += 3.0
        for _ in range(2):
            slots.release()
        loop.run()
        del waiting[:2]
    now[0] += 3.0
    for _ in range(2):
        slots.release()
    now[0] += 1_000.0  # Nothing to do.
    for _ in range(2):
        slots.take()
    waiting = [Waiting(slots) for _ in range(4)]
    assert refused().retry_after == pytest.approx(7.5), "five calls of 3 s at two places"
