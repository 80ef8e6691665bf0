"""Circuit breakers: when they open, how one probe closes them, and that they stay few."""

import random

import pytest

from watchllm.domain.snapshot import Vendor
from watchllm.routing import breaker
from watchllm.routing.breaker import CLOSED, HALF_OPEN, OPEN, BreakerKey, Breakers, Ticket, breaker_key
from watchllm.routing.outcome import Health
from watchllm.routing.target import Target

KEY: BreakerKey = ("prj_1", "openai", "https://api.openai.com/v1", "pvk_1")
WORKED, FAILED, TIMED_OUT, NOTHING = Health.WORKED, Health.FAILED, Health.TIMED_OUT, Health.NOTHING


class World:
    """Breakers over a clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.breakers = Breakers(lambda: self.now)

    def ticket(self) -> Ticket:
        ticket = self.breakers.admit(KEY)
        assert ticket is not None
        return ticket

    def calls(self, *healths: Health, every: float = 0.0) -> None:
        for health in healths:
            self.ticket().give_back(health)
            self.now += every

    def is_open(self) -> bool:
        return self.breakers.admit(KEY) is None

    def state(self) -> str:
        states = self.breakers.states()
        return states[0].state if states else CLOSED

    def probe(self, health: Health) -> None:
        """Wait until a probe may go through, and have it end so."""
        self.now += self.breakers.retry_in(KEY)
        ticket = self.ticket()
        assert ticket.is_probe
        ticket.give_back(health)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def opened(world: World) -> World:
    world.calls(*[FAILED] * 10)
    return world


def test_it_opens_when_half_of_ten_failed(world: World) -> None:
    world.calls(*[WORKED] * 5, *[FAILED] * 4)
    assert world.state() == CLOSED
    world.calls(FAILED)
    assert world.is_open()
    assert world.breakers.retry_in(KEY) == 5.0


def test_less_than_ten_outcomes_or_less_than_half_do_not_open_it(world: World) -> None:
    world.calls(*[FAILED] * 9)
    assert world.state() == CLOSED
    world = World()
    world.calls(*[WORKED] * 6, *[FAILED] * 5)
    assert world.state() == CLOSED


def test_what_worked_does_not_open_it_whatever_came_before(world: World) -> None:
    world.calls(*[FAILED] * 9, WORKED)
    assert world.state() == CLOSED
    world.calls(FAILED)
    assert world.is_open()


def test_only_the_last_thirty_seconds_count(world: World) -> None:
    world.calls(*[FAILED] * 9)
    world.now += 30.001
    world.calls(FAILED, *[WORKED] * 9)
    assert world.state() == CLOSED
    [shown] = world.breakers.states()
    assert (shown.outcomes, shown.failures) == (10, 1)


def test_five_time_outs_in_a_row_open_it(world: World) -> None:
    world.calls(*[WORKED] * 50, *[TIMED_OUT] * 4, WORKED, *[TIMED_OUT] * 4)
    assert world.state() == CLOSED
    world.calls(TIMED_OUT)
    assert world.is_open()


def test_a_failure_that_is_no_time_out_breaks_their_row(world: World) -> None:
    world.calls(*[WORKED] * 50, *[TIMED_OUT] * 4, FAILED, *[TIMED_OUT] * 4)
    assert world.state() == CLOSED


def test_what_says_nothing_does_not_count(world: World) -> None:
    world.calls(*[NOTHING] * 50, *[FAILED] * 9, *[NOTHING] * 50)
    assert world.state() == CLOSED
    [shown] = world.breakers.states()
    assert (shown.outcomes, shown.failures) == (9, 9)


def test_an_open_one_lets_nothing_through_until_its_time_and_then_one_probe(opened: World) -> None:
    opened.now += 4.999
    assert opened.is_open()
    opened.now += 0.001
    probe = opened.ticket()
    assert probe.is_probe
    assert opened.state() == HALF_OPEN
    assert opened.is_open(), "a second call waits for the probe"
    probe.give_back(WORKED)
    assert opened.state() == CLOSED
    assert not opened.ticket().is_probe


def test_it_stays_open_twice_as_long_after_each_probe_that_failed_up_to_a_minute(opened: World) -> None:
    waits = []
    for health in (FAILED, TIMED_OUT, FAILED, FAILED, FAILED):
        opened.probe(health)
        waits.append(opened.breakers.retry_in(KEY))
        assert opened.is_open()
    assert waits == [10.0, 20.0, 40.0, 60.0, 60.0]
    opened.probe(WORKED)
    opened.calls(*[FAILED] * 10)
    assert opened.breakers.retry_in(KEY) == 5.0, "one that worked begins anew"


def test_a_probe_that_says_nothing_lets_the_next_one_go(opened: World) -> None:
    opened.probe(NOTHING)
    probe = opened.ticket()
    assert probe.is_probe
    assert opened.is_open()
    probe.give_back(WORKED)
    assert opened.state() == CLOSED


def test_a_probe_whose_end_nobody_tells_does_not_keep_the_way_closed(opened: World) -> None:
    opened.now += 5
    lost = opened.ticket()
    opened.now += 60
    probe = opened.ticket()
    assert probe.is_probe
    lost.give_back(WORKED)
    assert opened.state() == HALF_OPEN, "the lost one's end is out of date"
    probe.give_back(FAILED)
    assert opened.is_open()


def test_calls_that_began_before_it_opened_have_no_say(world: World) -> None:
    slow = [world.ticket() for _ in range(30)]
    world.calls(*[FAILED] * 10)
    for ticket in slow[:10]:
        ticket.give_back(FAILED)
    assert world.breakers.retry_in(KEY) == 5.0
    world.now += 5
    probe = world.ticket()
    for ticket in slow[10:20]:
        ticket.give_back(WORKED)
    assert world.state() == HALF_OPEN
    probe.give_back(WORKED)
    for ticket in slow[20:]:
        ticket.give_back(FAILED)
    assert world.state() == CLOSED
    assert world.breakers.states() == []


def test_a_ticket_counts_once(world: World) -> None:
    ticket = world.ticket()
    for _ in range(50):
        ticket.give_back(FAILED)
    [shown] = world.breakers.states()
    assert shown.failures == 1


def test_the_window_is_bounded_and_its_sums_are_right(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Never to open.
    monkeypatch.setattr(breaker, "FAILED_SHARE", 2.0)
    choose, latest = random.Random(4), list[bool]()
    for _ in range(2000):
        failed = choose.random() < 0.5
        latest = [*latest[-99:], failed]
        world.calls(FAILED if failed else WORKED, every=choose.random() * 0.01)
        [shown] = world.breakers.states() or [None]
        assert shown is None or (shown.outcomes, shown.failures) == (len(latest), sum(latest))


def test_operators_see_which_are_not_well(opened: World) -> None:
    opened.breakers.admit(("prj_2", "groq", "https://api.groq.com", "instance"))
    [shown] = opened.breakers.states()
    assert (shown.project_id, shown.provider, shown.base_url, shown.key) == KEY
    assert (shown.state, shown.retry_in) == (OPEN, 5.0)


def test_they_stay_few_and_the_one_used_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "MAX_BREAKERS", 3)
    world = World()
    world.calls(*[FAILED] * 10)
    for number in range(2):
        world.breakers.admit(("prj_1", "openai", f"https://{number}", "instance"))
    assert world.is_open()
    world.breakers.admit(("prj_1", "openai", "https://2", "instance"))
    assert world.is_open(), "it was used just now, others longer ago"
    for number in range(3, 6):
        world.breakers.admit(("prj_1", "openai", f"https://{number}", "instance"))
    assert not world.is_open()
    assert len(world.breakers._breakers) == 3


def test_projects_do_not_share_one_even_under_the_instances_key() -> None:
    one = Target("openai", Vendor("openai", "https://a"), "https://a", "gpt-4o", None, "sk-hidden", True)
    keys = {breaker_key(project, one) for project in ("prj_1", "prj_2")}
    assert keys == {("prj_1", "openai", "https://a", "instance"), ("prj_2", "openai", "https://a", "instance")}


# --- what was taken for an answer and was none ------------------------------------------------------------------------


def test_answers_that_turned_out_to_be_none_open_it_as_failures_do(world: World) -> None:
    for number in range(10):
        assert not world.is_open(), number
        ticket = world.ticket()
        ticket.give_back(WORKED)
        ticket.recant()
    assert world.is_open()


def test_half_of_them_are_half(world: World) -> None:
    tickets = [world.ticket() for _ in range(10)]
    for ticket in tickets:
        ticket.give_back(WORKED)
    for ticket in tickets[:4]:
        ticket.recant()
    assert (world.is_open(), world.breakers.states()[0].failures) == (False, 4)
    tickets[4].recant()
    assert world.is_open()


@pytest.mark.parametrize("health", [FAILED, TIMED_OUT, NOTHING])
def test_only_what_worked_can_be_recanted_and_only_once(world: World, health: Health) -> None:
    worked, other = world.ticket(), world.ticket()
    worked.give_back(WORKED)
    other.give_back(health)
    before = sum(state.failures for state in world.breakers.states())
    other.recant()
    world.ticket().recant()
    assert sum(state.failures for state in world.breakers.states()) == before
    for _ in range(3):
        worked.recant()
    assert world.breakers.states()[0].failures == before + 1


def test_what_began_before_it_last_changed_is_out_of_date(world: World) -> None:
    early = world.ticket()
    early.give_back(WORKED)
    world.calls(*[FAILED] * 9)
    world.probe(WORKED)
    early.recant()
    assert world.state() == CLOSED
    assert not world.breakers.states()
