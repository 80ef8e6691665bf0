"""What enters, what a call may reserve, and what is booked: with clocks of our own."""

from collections.abc import Callable

import pytest

from watchllm.domain.limits import Limits
from watchllm.limits.exceeded import Exceeded
from watchllm.limits.limiter import NOTHING, Admission, Demand, Limiter
from watchllm.limits.spending import Spent, moment
from watchllm.limits.subject import KEY, ORGANIZATION, PROJECT, Subject, bounds_of, subject_of

NOVEMBER = 1_795_995_200.0  # 2026-11-29T23:33:20Z
USD = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = NOVEMBER

    def go(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> Limiter:
    return Limiter(lambda: clock.now, lambda: clock.wall)


def subject(key: Limits | None = None, project: Limits | None = None, organization: Limits | None = None) -> Subject:
    made = subject_of(
        None if key is None else bounds_of("key_1", KEY, key),
        None if project is None else bounds_of("prj_1", PROJECT, project),
        None if organization is None else bounds_of("org_1", ORGANIZATION, organization),
    )
    assert made is not None
    return made


def refused(action: Callable[[], object]) -> Exceeded:
    with pytest.raises(Exceeded) as caught:
        action()
    return caught.value


def finish(limiter: Limiter, admission: Admission, *, tokens: int = 0, nanos: int = 0, billable: bool = True) -> None:
    limiter.settle(admission, Demand(tokens, nanos), billable=billable)


def test_who_has_no_limits_is_no_subject() -> None:
    assert subject_of(bounds_of("prj_1", PROJECT, Limits(allowed_models=("gpt-*",)))) is None


def test_requests_of_a_minute_and_the_seconds_until_there_is_room(limiter: Limiter, clock: Clock) -> None:
    who = subject(project=Limits(requests_per_minute=3))
    for _ in range(3):
        limiter.enter(who, counted=True)
        clock.go(1)
    error = refused(lambda: limiter.enter(who, counted=True))
    assert (error.code, error.retry_after) == ("rate_limit_exceeded", pytest.approx(57.0))
    clock.go(57)
    limiter.enter(who, counted=True)


def test_a_request_that_one_of_them_refuses_uses_nothing_of_the_others(limiter: Limiter) -> None:
    who = subject(Limits(concurrent_requests=1), Limits(requests_per_minute=2, monthly_requests=2))
    first = limiter.enter(who, counted=True)
    for _ in range(5):
        assert refused(lambda: limiter.enter(who, counted=True)).code == "concurrency_exceeded"
    finish(limiter, first)
    finish(limiter, limiter.enter(who, counted=True))
    assert refused(lambda: limiter.enter(who, counted=True)).code == "rate_limit_exceeded"


def test_the_monthly_quota_counts_what_is_billable_and_begins_anew(limiter: Limiter, clock: Clock) -> None:
    who = subject(organization=Limits(monthly_requests=2))
    finish(limiter, limiter.enter(who, counted=True), billable=False)
    finish(limiter, limiter.enter(who, counted=True))
    under_way = limiter.enter(who, counted=True)
    error = refused(lambda: limiter.enter(who, counted=True))
    assert (error.code, error.retry_after) == ("concurrency_exceeded", 1)  # the one under way may not count
    limiter.enter(who, counted=False)  # what is not billed is not refused
    finish(limiter, under_way, billable=False)
    finish(limiter, limiter.enter(who, counted=True))
    error = refused(lambda: limiter.enter(who, counted=True))
    assert error.code == "quota_exceeded"
    assert error.retry_after == pytest.approx(1_796_083_200 - NOVEMBER)
    clock.go(error.retry_after or 0)
    limiter.enter(who, counted=True)


def test_use_beyond_the_quota_that_is_paid_for_is_served_up_to_its_cap(limiter: Limiter) -> None:
    who = subject_of(bounds_of("org_1", ORGANIZATION, Limits(monthly_requests=2), overage=3))
    assert who is not None
    for _ in range(5):
        finish(limiter, limiter.enter(who, counted=True))
    assert refused(lambda: limiter.enter(who, counted=True)).code == "quota_exceeded"
    _, _, standing = limiter.standings(who)
    assert standing is not None
    assert standing[:2] == (2, 0)


def test_tokens_are_reserved_and_then_what_was_not_used_is_free_again(limiter: Limiter) -> None:
    who = subject(Limits(tokens_per_minute=1000))
    first = limiter.enter(who, counted=True)
    limiter.reserve(first, Demand(700, 0))
    second = limiter.enter(who, counted=True)
    error = refused(lambda: limiter.reserve(second, Demand(400, 0)))
    assert (error.code, error.retry_after) == ("rate_limit_exceeded", pytest.approx(60.0))
    finish(limiter, first, tokens=100)
    limiter.reserve(second, Demand(400, 0))
    finish(limiter, second, tokens=900)  # more than was reserved: all of it counts
    third = limiter.enter(who, counted=True)
    assert refused(lambda: limiter.reserve(third, Demand(1, 0))).retry_after == pytest.approx(60.0)
    assert refused(lambda: limiter.reserve(third, Demand(1001, 0))).retry_after is None


def test_a_hit_takes_a_request_and_no_tokens(limiter: Limiter) -> None:
    who = subject(Limits(tokens_per_minute=10, requests_per_minute=5))
    finish(limiter, limiter.enter(who, counted=True))
    requests, tokens, _ = limiter.standings(who)
    assert tokens is not None
    assert requests is not None
    assert (tokens[1], requests[1]) == (10, 4)


def test_what_is_given_back_is_free_again(limiter: Limiter) -> None:
    who = subject(Limits(tokens_per_minute=10, upstream_per_minute=1, budget_usd_day=1))
    limiter.learn("key_1", moment(NOVEMBER), Spent())
    first, second = limiter.enter(who, counted=True), limiter.enter(who, counted=True)
    limiter.reserve(first, Demand(10, USD))
    assert refused(lambda: limiter.reserve(second, Demand(0, 0))).code == "rate_limit_exceeded"
    limiter.give_back(first)
    limiter.reserve(second, Demand(10, USD))


def test_500_at_once_against_a_budget_for_100(limiter: Limiter) -> None:
    who = subject(project=Limits(budget_usd_month=1.0))
    each = USD // 100
    let_in, turned_away = [], []
    for _ in range(500):
        admission = limiter.enter(who, counted=True)
        try:
            limiter.reserve(admission, Demand(0, each))
        except Exceeded as error:
            turned_away.append((error.code, error.retry_after))
        else:
            let_in.append(admission)
    assert len(let_in) == 100
    # What they hold may come back.
    assert turned_away == [("concurrency_exceeded", 1)] * 400
    for admission in let_in:
        finish(limiter, admission, nanos=each)
    late = limiter.enter(who, counted=True)
    spent_up = refused(lambda: limiter.reserve(late, Demand(0, each)))
    assert (spent_up.code, spent_up.retry_after) == ("insufficient_quota", 88_000)  # until December
    spent = limiter.spent("prj_1")
    assert spent is not None
    assert spent.month == USD


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [(Limits(budget_usd_day=1.0), 1_600), (Limits(budget_usd_month=1.0), 88_000), (Limits(budget_usd_total=1.0), None)],
)
def test_a_budget_ends_with_its_period(limiter: Limiter, clock: Clock, limits: Limits, seconds: int | None) -> None:
    who = subject(limits)
    first = limiter.enter(who, counted=True)
    limiter.reserve(first, Demand(0, USD))
    finish(limiter, first, nanos=USD)
    second = limiter.enter(who, counted=True)
    assert refused(lambda: limiter.reserve(second, Demand(0, 1))).code == "insufficient_quota"
    clock.go(86_400 * 3 if seconds is None else seconds)
    if seconds is None:
        assert refused(lambda: limiter.reserve(second, Demand(0, 1))).code == "insufficient_quota"
    else:
        limiter.reserve(second, Demand(0, USD))


def test_of_two_budgets_the_one_that_is_spent_is_told_and_not_the_one_that_is_held(limiter: Limiter) -> None:
    who = subject(Limits(budget_usd_day=3.0, budget_usd_total=4.0))
    first, second = (limiter.enter(who, counted=True) for _ in range(2))
    limiter.begin_anew("key_1")
    limiter.learn("key_1", moment(NOVEMBER), Spent(0, 0, 0, 3 * USD))
    limiter.reserve(first, Demand(0, USD))
    held = refused(lambda: limiter.reserve(second, Demand(0, USD)))
    assert (held.code, held.retry_after, "budget_usd_total" in held.message) == ("concurrency_exceeded", 1, True)
    spent = refused(lambda: limiter.reserve(second, Demand(0, 3 * USD)))
    assert (spent.code, "budget_usd_total" in spent.message) == ("insufficient_quota", True)
    limiter.give_back(first)
    limiter.reserve(second, Demand(0, USD))


def test_a_budget_that_only_alerts_refuses_nothing(limiter: Limiter) -> None:
    who = subject(Limits(budget_usd_day=0.5, budget_mode="alert"))
    admission = limiter.enter(who, counted=True)
    limiter.reserve(admission, Demand(0, USD))
    finish(limiter, admission, nanos=USD)
    assert not who.has_hard_budget
    spent = limiter.spent("key_1")
    assert spent is not None
    assert spent.day == USD


def test_what_a_request_used_belongs_to_the_day_it_began_in(limiter: Limiter, clock: Clock) -> None:
    who = subject(Limits(budget_usd_day=1.0, budget_usd_month=10.0))
    admission = limiter.enter(who, counted=True)
    limiter.reserve(admission, Demand(0, USD))
    clock.go(1_600)
    finish(limiter, admission, nanos=USD)
    spent = limiter.spent("key_1")
    assert spent == Spent(1, 0, USD, USD)


def test_what_was_spent_before_is_asked_for_once_and_added(limiter: Limiter) -> None:
    who = subject(Limits(budget_usd_month=3.0), Limits(requests_per_minute=100))
    assert limiter.unknown(who) == ["key_1"]
    limiter.charge(who, Demand(0, USD), requests=0)  # is in the journal by now
    limiter.begin_anew("key_1")
    limiter.charge(who, Demand(0, USD), requests=0)  # is not
    limiter.learn("key_1", moment(NOVEMBER), Spent(requests=4, day=0, month=USD, total=5 * USD))
    limiter.learn("key_1", moment(NOVEMBER), Spent(month=USD))
    assert limiter.unknown(who) == []
    assert limiter.spent("key_1") == Spent(4, USD, 2 * USD, 6 * USD)


def test_who_was_idle_is_forgotten_and_who_has_something_under_way_is_not(limiter: Limiter, clock: Clock) -> None:
    idle, busy = subject(Limits(requests_per_minute=1)), subject(project=Limits(requests_per_minute=1))
    finish(limiter, limiter.enter(idle, counted=True))
    limiter.enter(busy, counted=True)
    clock.go(1000)
    limiter.enter(subject(organization=Limits(requests_per_minute=1)), counted=True)
    assert sorted(limiter._meters) == ["org_1", "prj_1"]


def test_who_only_makes_requests_that_cannot_be_read_is_not_forgotten_with_its_minute(
    limiter: Limiter, clock: Clock
) -> None:
    who, other = subject(Limits(requests_per_minute=2)), subject(project=Limits(requests_per_minute=9))
    limiter.charge(who, NOTHING, requests=1)
    clock.go(299)
    limiter.charge(who, NOTHING, requests=2)
    clock.go(10)
    limiter.enter(other, counted=True)
    assert refused(lambda: limiter.enter(who, counted=True)).code == "rate_limit_exceeded"


def test_a_clock_that_is_set_back_opens_no_budget(limiter: Limiter, clock: Clock) -> None:
    who = subject(Limits(budget_usd_day=2, monthly_requests=3))
    clock.wall += 40 * 86_400  # As a host's that has not been told the time yet.
    assert not limiter.knows(who)
    limiter.learn("key_1", moment(clock.wall), Spent())
    under_way = limiter.enter(who, counted=True)
    clock.wall -= 40 * 86_400
    assert not limiter.knows(who)
    limiter.begin_anew("key_1")
    limiter.learn("key_1", moment(clock.wall), Spent(1, USD, USD, USD))
    assert limiter.knows(who)
    for _ in range(2):
        admission = limiter.enter(who, counted=True)
        limiter.reserve(admission, Demand(0, USD // 2))
        finish(limiter, admission, nanos=USD // 2, billable=False)
    admission = limiter.enter(who, counted=True)
    assert "budget_usd_day" in refused(lambda: limiter.reserve(admission, Demand(0, 1))).message
    assert "held by requests under way" in refused(lambda: limiter.enter(who, counted=True)).message
    finish(limiter, admission)
    finish(limiter, under_way, billable=False)
    assert limiter.spent("key_1") == Spent(2, 2 * USD, 2 * USD, 2 * USD)


def test_a_call_that_is_let_on_after_midnight_is_of_the_new_day(limiter: Limiter, clock: Clock) -> None:
    who = subject(Limits(budget_usd_day=1.0))
    waiting = limiter.enter(who, counted=True)
    first = limiter.enter(who, counted=True)
    limiter.reserve(first, Demand(0, USD))
    finish(limiter, first, nanos=USD)
    clock.go(1_600)
    limiter.reserve(waiting, Demand(0, USD))
    assert waiting.at == moment(clock.wall)
    finish(limiter, waiting, nanos=USD)
    assert limiter.spent("key_1") == Spent(2, USD, 2 * USD, 2 * USD)
    admission = limiter.enter(who, counted=True)
    assert "budget_usd_day" in refused(lambda: limiter.reserve(admission, Demand(0, 1))).message


def test_a_day_that_comes_again_gives_no_budget_again(limiter: Limiter, clock: Clock) -> None:
    who = subject(Limits(budget_usd_day=2))
    clock.go(1_600)  # Just into the 30th,
    assert not limiter.knows(who)
    limiter.learn("key_1", moment(clock.wall), Spent())
    admission = limiter.enter(who, counted=True)
    limiter.reserve(admission, Demand(0, 2 * USD))
    finish(limiter, admission, nanos=2 * USD)
    clock.wall -= 3600  # an hour back into the 29th,
    assert not limiter.knows(who)
    limiter.begin_anew("key_1")
    limiter.learn("key_1", moment(clock.wall), Spent(total=2 * USD))
    assert limiter.knows(who)
    clock.wall += 3600  # and into the 30th again.
    assert not limiter.knows(who)
    limiter.begin_anew("key_1")
    limiter.learn("key_1", moment(clock.wall), Spent(1, 2 * USD, 2 * USD, 2 * USD))
    assert limiter.knows(who)
    admission = limiter.enter(who, counted=True)
    assert "budget_usd_day" in refused(lambda: limiter.reserve(admission, Demand(0, 1))).message


def test_a_clock_that_is_set_right_at_midnight_stays_in_the_new_day(limiter: Limiter, clock: Clock) -> None:
    who = subject(Limits(budget_usd_day=2))
    clock.go(1_600)
    assert not limiter.knows(who)
    limiter.learn("key_1", moment(clock.wall), Spent())
    today = moment(clock.wall)
    for wall in (clock.wall, clock.wall - 2):
        clock.wall = wall
        assert limiter.knows(who)
        admission = limiter.enter(who, counted=True)
        limiter.reserve(admission, Demand(0, USD))
        finish(limiter, admission, nanos=USD)
        assert admission.at == today
    clock.wall += 2
    assert limiter.knows(who)
    admission = limiter.enter(who, counted=True)
    assert "budget_usd_day" in refused(lambda: limiter.reserve(admission, Demand(0, 1))).message
