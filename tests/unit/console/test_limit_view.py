"""What a page shows of limits, and what a form changes of them."""

from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader

from watchllm.analytics.spent import Spent
from watchllm.console.limit_view import MEANINGS, Holder, Use, changed, fields, rows, state_of, uses_of
from watchllm.domain.limits import LIMIT_FORMS, LISTS, Limits
from watchllm.domain.money import NANOS_PER_USD

LIMITS = Limits(requests_per_minute=1000, budget_usd_month=50.0, allowed_models=("gpt-4o*", "claude-*"))


def values(limits: Limits) -> dict[str, Any]:
    return {name: getattr(limits, name) for name in LIMIT_FORMS}


def test_every_limit_is_shown_and_can_be_changed() -> None:
    assert list(MEANINGS) == list(LIMIT_FORMS) == list(Limits.__struct_fields__)
    assert [row.name for row in rows([Holder("Project", LIMITS)], Spent())] == list(LIMIT_FORMS)
    assert [field.name for field in fields(LIMITS, {})] == list(LIMIT_FORMS)
    lists = {name for name, value in msgspec.structs.asdict(LIMITS).items() if isinstance(value, tuple)}
    assert lists < {field.name for field in fields(LIMITS, {}) if field.long} == LISTS


def test_each_holder_has_a_cell_and_the_plan_is_named_where_it_gives_the_limit() -> None:
    organization = Holder("Organization", Limits(requests_per_minute=200), "pro", frozenset({"requests_per_minute"}))
    found = {row.name: row.cells for row in rows([Holder("Project", LIMITS), organization], Spent())}
    assert found["requests_per_minute"] == ["1,000", "200 (plan pro)"]
    assert found["budget_usd_month"] == ["$50.00", "–"]
    assert found["allowed_models"] == ["gpt-4o*, claude-*", "–"]


def test_a_use_is_told_with_its_bound() -> None:
    spent = Spent(requests_month=7, nanos_day=NANOS_PER_USD, nanos_month=60 * NANOS_PER_USD, nanos_total=1000)
    uses = uses_of(Limits(monthly_requests=14, budget_usd_month=50.0, budget_usd_day=0.0), spent)
    assert uses["monthly_requests"] == Use("7", "14", 0.5)
    assert uses["budget_usd_month"] == Use("$60.00", "$50.00", 1.0)
    assert uses["budget_usd_total"] == Use("$0.000001", "", None)
    assert uses["budget_usd_day"].share == 1.0  # nothing may be spent, and so nothing is left


def test_a_budget_that_only_alerts_is_not_told_to_be_used_up() -> None:
    spent = Spent(requests_month=20, nanos_day=3 * NANOS_PER_USD)
    limits = Limits(monthly_requests=14, budget_usd_day=2.0, budget_mode="alert")
    uses = uses_of(limits, spent)
    shown = Environment(loader=PackageLoader("watchllm.console")).get_template("limit_pieces.html").module.use  # type: ignore[attr-defined]
    assert "over, alert only" in shown(uses["budget_usd_day"])
    assert "used up" not in shown(uses["budget_usd_day"])
    assert "used up" in shown(uses["monthly_requests"])
    hard = uses_of(msgspec.structs.replace(limits, budget_mode="hard"), spent)
    assert "used up" in shown(hard["budget_usd_day"])


def test_only_what_was_changed_is_changed() -> None:
    as_shown = {field.name: field.value for field in fields(LIMITS, {})}
    assert changed(values(LIMITS), as_shown) == {}
    typed = as_shown | {"requests_per_minute": " ", "budget_usd_day": " 2 ", "allowed_models": "a\r\nb\n"}
    assert changed(values(LIMITS), typed | {"form_token": "x"}) == {
        "requests_per_minute": "",
        "budget_usd_day": "2",
        "allowed_models": "a,b",
    }


def test_a_form_knows_that_values_have_changed() -> None:
    assert state_of(values(LIMITS)) == state_of(values(LIMITS))
    assert state_of(values(LIMITS)) != state_of(values(Limits()))


def test_what_was_typed_stays_in_its_field() -> None:
    shown = {field.name: field.value for field in fields(LIMITS, {"requests_per_minute": "many"})}
    assert shown["requests_per_minute"] == "many"
    assert shown["budget_usd_month"] == "50"
