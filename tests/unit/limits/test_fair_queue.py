"""Who is served, who waits and who goes when there is not enough for all."""

from collections import Counter

import pytest

from tests.support.fair_queue import Simulation, fair_queue, served, ticket
from watchllm.limits.queue import Bounds, bounds_for
from watchllm.limits.tiers import TIERS, TIERS_BY_NAME


def test_the_tiers_go_from_the_best_served_down_and_the_lowest_has_a_part() -> None:
    assert [tier.rank for tier in TIERS] == list(range(len(TIERS)))
    assert [tier.weight for tier in TIERS] == sorted((tier.weight for tier in TIERS), reverse=True)
    assert TIERS[-1].weight >= 1


@pytest.mark.parametrize(
    "present",
    [
        ("enterprise", "pro", "starter", "free"),
        ("enterprise", "free"),
        ("pro", "starter"),
        ("enterprise", "self-hosted", "pro", "starter", "free"),
    ],
)
def test_under_saturation_each_tier_gets_its_weights_part(present: tuple[str, ...]) -> None:
    simulation = Simulation(slots=7)
    for tier in present:
        for project in range(3):
            simulation.ask(tier, f"{tier}-{project}", times=20)
    simulation.run(300)
    weights = sum(TIERS_BY_NAME[tier].weight for tier in present)
    for tier in present:
        assert simulation.share(tier) == pytest.approx(TIERS_BY_NAME[tier].weight / weights, rel=0.05)


def test_what_a_tier_does_not_use_is_the_others() -> None:
    simulation = Simulation(slots=4)
    simulation.ask("free", "f", times=20)
    simulation.run(100)
    assert simulation.share("free") == 1.0
    assert simulation.done.total() >= 4 * 100


def test_the_lowest_tier_is_served_however_many_of_higher_ones_come() -> None:
    simulation = Simulation(slots=1)
    simulation.ask("free", "f")
    simulation.ask("enterprise", "e", times=5_000)
    simulation.run(200)
    assert simulation.share("free") == pytest.approx(1 / 9, rel=0.05)
    assert simulation.waits["free", "f"] <= 9


def test_a_tier_that_comes_late_is_owed_nothing_for_the_time_before() -> None:
    simulation = Simulation(slots=1)
    simulation.ask("free", "f", times=20)
    simulation.ask("starter", "s", times=20)
    simulation.run(300)
    simulation.ask("pro", "p", times=20)
    before = simulation.done.copy()
    simulation.run(70)
    since = simulation.done - before
    assert since["pro", "p"] == pytest.approx(40, abs=2)
    assert since["free", "f"] == pytest.approx(10, abs=2)


def test_a_project_that_floods_does_not_take_the_turns_of_another_of_its_tier() -> None:
    simulation = Simulation(slots=3)
    simulation.ask("pro", "floods", times=2_000)
    for project in ("a", "b", "c"):
        simulation.ask("pro", project, times=3)
    simulation.run(300)
    for project in ("floods", "a", "b", "c"):
        assert simulation.done["pro", project] == pytest.approx(simulation.done.total() / 4, rel=0.05)


def test_a_project_that_comes_late_is_owed_nothing_for_the_time_before() -> None:
    simulation = Simulation(slots=1)
    simulation.ask("pro", "early", times=20)
    simulation.run(300)
    simulation.ask("pro", "late", times=20)
    before = simulation.done.copy()
    simulation.run(20)
    assert (simulation.done - before)["pro", "late"] == pytest.approx(10, abs=1)


def test_one_that_asks_again_when_it_was_served_does_not_always_go_first() -> None:
    """What is left of a project when nothing of it waits is what keeps it from beginning anew each time."""
    queue = fair_queue()
    for project in ("a", "b", "c", "d"):
        for _ in range(50):
            queue.push(ticket("pro", project))
    turns: Counter[str] = Counter()
    queue.push(ticket("pro", "again"))
    for _ in range(100):
        ((_, project),) = served(queue, 1)
        turns[project] += 1
        if project == "again":
            queue.push(ticket("pro", "again"))
    assert turns["again"] == pytest.approx(20, abs=1)


def test_within_a_project_first_come_first_served() -> None:
    queue = fair_queue()
    order = [ticket("free", "f") for _ in range(5)]
    for one in order:
        queue.push(one)
    assert [queue.pop() for _ in range(5)] == order
    assert queue.pop() is None


def test_who_left_is_not_served_and_leaves_its_turn_to_the_next() -> None:
    queue = fair_queue()
    first, second = ticket("free", "f"), ticket("free", "f")
    queue.push(first)
    queue.push(second)
    queue.remove(first)
    queue.remove(first)
    assert queue.waiting == 1
    assert queue.pop() is second
    queue.remove(second)
    assert queue.waiting == 0


def test_a_deadline_takes_out_who_still_waits_and_nobody_before() -> None:
    queue = fair_queue()
    soon, later, left = ticket("free", "f", 1.0), ticket("free", "f", 2.0), ticket("free", "g", 0.5)
    for one in (later, soon, left):
        queue.push(one)
    queue.remove(left)
    assert queue.expire(0.9) == []
    assert queue.next_deadline == 1.0
    assert queue.expire(1.0) == [soon]
    assert queue.pop() is later
    assert queue.expire(5.0) == []
    assert queue.next_deadline is None


def test_nobody_waits_longer_than_its_patience() -> None:
    simulation = Simulation(slots=1)
    simulation.ask("free", "f", times=50, patience=10)
    simulation.run(60)
    assert max(simulation.waits.values()) <= 10


# --- room -------------------------------------------------------------------------------------------------------------


def test_a_full_queue_sheds_the_newest_of_the_lowest_tier_for_a_higher_one() -> None:
    queue = fair_queue(Bounds(10, 10, 10))
    of_free = [ticket("free", "f") for _ in range(10)]
    for one in of_free:
        assert queue.push(one) is None
    assert queue.push(ticket("pro", "p")) is of_free[-1]
    assert queue.push(ticket("starter", "s")) is of_free[-2]
    assert queue.waiting == 10


def test_the_lowest_tier_that_comes_to_a_full_queue_is_refused() -> None:
    queue = fair_queue(Bounds(10, 10, 10))
    for number in range(10):
        queue.push(ticket("pro" if number else "free", f"p{number}"))
    late = ticket("free", "late")
    assert queue.push(late) is late
    assert not late.waits


def test_however_many_of_higher_tiers_come_the_lowest_keeps_its_part_of_the_room() -> None:
    queue = fair_queue(Bounds(230, 230, 230))
    for _ in range(230):
        queue.push(ticket("free", "f"))
    for number in range(1_000):
        queue.push(ticket("enterprise", f"e{number}"))
    assert queue.waiting == 230
    assert queue.waiting_in(TIERS_BY_NAME["free"]) == 10


def test_a_tier_below_its_part_of_the_room_gets_it_back_from_a_higher_one() -> None:
    queue = fair_queue(Bounds(23, 23, 23))
    for number in range(23):
        queue.push(ticket("enterprise", f"e{number}"))
    gone = queue.push(ticket("free", "f"))
    assert gone is not None
    assert gone.tier.name == "enterprise"
    late = ticket("free", "g")
    assert queue.push(late) is late


def test_in_a_full_tier_the_project_of_which_most_wait_gives_way() -> None:
    queue = fair_queue(Bounds(100, 10, 9))
    flood = [ticket("free", "floods") for _ in range(9)]
    for one in (*flood, ticket("free", "a")):
        assert queue.push(one) is None
    assert queue.push(ticket("free", "b")) is flood[-1]
    too_many = ticket("free", "floods")
    assert queue.push(too_many) is too_many


def test_where_all_projects_have_as_many_the_newcomer_is_refused() -> None:
    queue = fair_queue(Bounds(4, 4, 4))
    for project in ("a", "b", "a", "b"):
        queue.push(ticket("free", project))
    one = ticket("free", "a")
    assert queue.push(one) is one
    other = ticket("free", "c")
    gone = queue.push(other)
    assert gone is not None
    assert gone.project in ("a", "b")


def test_one_project_and_one_tier_have_bounds_of_their_own() -> None:
    bounds = bounds_for(100)
    queue = fair_queue(bounds)
    refused = 0
    for project in range(4):
        for _ in range(60):
            one = ticket("free", f"p{project}")
            refused += queue.push(one) is one
    assert queue.waiting == bounds.tier == 75
    assert queue.push(ticket("pro", "p")) is None
    alone = fair_queue(bounds)
    for _ in range(60):
        alone.push(ticket("free", "f"))
    assert alone.waiting == bounds.project == 50
    assert min(bounds_for(1)) == 1


def test_where_there_is_no_more_than_is_taken_a_higher_tier_takes_the_place_of_a_lower_one() -> None:
    queue = fair_queue()
    last = None
    for _ in range(5):
        last = ticket("free", "f")
        queue.push(last)
    assert queue.push(ticket("pro", "p"), full=True) is None, "the first of a tier is let in"
    assert queue.push(ticket("pro", "q"), full=True) is last
    refused = ticket("free", "f")
    assert queue.push(refused, full=True) is refused


# --- memory -----------------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_projects_when_nobody_waits() -> None:
    queue = fair_queue()
    for number in range(3_000):
        queue.push(ticket("free", f"p{number}"))
    for _ in range(3_000):
        queue.pop()
    assert queue.remembered == 0


def test_little_is_left_of_those_that_come_and_go_while_others_wait() -> None:
    queue = fair_queue()
    queue.push(ticket("free", "waits"))
    for number in range(20_000):
        one = ticket("free", f"p{number}")
        queue.push(one)
        queue.remove(one)
        assert queue.remembered < 3_000
    for number in range(20_000):
        queue.push(ticket("free", f"q{number}"))
        queue.pop()
        assert queue.remembered < 3_000
    assert queue.waiting == 1


def test_the_part_of_the_turns_depends_on_who_waits() -> None:
    queue = fair_queue()
    free = TIERS_BY_NAME["free"]
    assert queue.share(free) == 1.0
    queue.push(ticket("enterprise", "e"))
    assert queue.share(free) == pytest.approx(1 / 9)
