"""An organization's own people tighten what its plan gives; only whoever runs the installation gives more."""

from typing import TYPE_CHECKING

import pytest

from watchllm.control.errors import BeyondPlan, PlansUnusable
from watchllm.control.organization_plane import OrganizationPlane
from watchllm.control.organizations import parse_changes
from watchllm.domain.settings import parse_settings

if TYPE_CHECKING:
    from tests.unit.control.conftest import World

TEAM = """[team]
requests_per_minute = 10
monthly_requests = 0
budget_usd_month = 5
allowed_models = ["gpt-4o*", "claude-?", "o[13]"]
allowed_providers = ["openai", "anthropic"]
allowed_ips = ["10.0.0.0/8", "2001:db8::/32"]
"""
TIGHTER = [
    *("requests_per_minute=10", "requests_per_minute=9", "requests_per_minute=0", "requests_per_minute="),
    *("monthly_requests=0", "monthly_requests=", "budget_usd_month=4.99", "budget_mode=hard"),
    # The plan does not bound these.
    *("tokens_per_minute=1000000", "concurrent_requests=99", "budget_usd_total=1000000"),
    *("allowed_models=gpt-4o*", "allowed_models=gpt-4o-mini,claude-3", "allowed_models=gpt-4o-?,gpt-4o*mini"),
    *("allowed_models=o3", "allowed_models=o[13]", "allowed_models=claude-?", "allowed_providers=openai"),
    *("allowed_ips=10.1.0.0/16,2001:db8::7", "allowed_ips=10.0.0.0/8", "allowed_models="),
]
WIDER = [
    *("requests_per_minute=11", "monthly_requests=1", "budget_usd_month=5.01", "budget_mode=alert"),
    *("allowed_models=*", "allowed_models=gpt-4*", "allowed_models=gpt-4o,gpt-5", "allowed_models=claude-*"),
    *("allowed_models=o[1-9]", "allowed_models=gpt-4o[", "allowed_models=?"),
    *("allowed_providers=openai,groq", "allowed_ips=0.0.0.0/0", "allowed_ips=10.0.0.1,192.0.2.1", "allowed_ips=::/0"),
    *("plan=enterprise", "plan=self-hosted", "plan=", "overage_cap_usd=1", "overage_cap_usd="),
]


def own_of(world: "World", plan: str) -> OrganizationPlane:
    (world.configuration.home / "plans.toml").write_text(TEAM)
    organization = world.plane.create_organization("Acme", parse_changes({"plan": plan}))
    return OrganizationPlane(world.plane, organization.id, "owner")


@pytest.mark.parametrize("pair", TIGHTER)
def test_what_the_plan_bounds_may_be_bounded_tighter(world: "World", pair: str) -> None:
    name, _, text = pair.partition("=")
    own, changes = own_of(world, "team"), parse_changes({name: text})
    assert getattr(own.set_organization(changes).limits, name) == changes[name]


@pytest.mark.parametrize("pair", WIDER)
def test_what_is_wider_is_for_the_operator_to_give(world: "World", pair: str) -> None:
    name, _, text = pair.partition("=")
    own, changes = own_of(world, "team"), parse_changes({name: text})
    before = own.organization()
    with pytest.raises(BeyondPlan, match=name):
        own.set_organization(parse_changes({"tokens_per_minute": "5"}) | changes)
    assert own.organization() == before
    world.plane.set_organization(before.id, changes)


@pytest.mark.parametrize("pair", WIDER)
def test_a_plan_that_is_the_installations_own_is_changed_freely(world: "World", pair: str) -> None:
    name, _, text = pair.partition("=")
    own_of(world, "self-hosted").set_organization(parse_changes({name: text}))


@pytest.mark.parametrize(("plan", "may"), [("team", False), ("free", True), ("self-hosted", True)])
def test_a_plans_budget_is_not_to_be_walked_past_by_what_has_no_price(world: "World", plan: str, may: bool) -> None:
    own = own_of(world, plan)
    project = own.create_project("Shop")
    allowed = parse_settings({"unpriced": "allow", "cache": "off"})
    if may:
        assert own.set_project(project.id, allowed).settings.unpriced == "allow"
    else:
        with pytest.raises(BeyondPlan, match="unpriced"):
            own.set_project(project.id, allowed)
        assert own.project(project.id) == project
        world.plane.set_project(project.id, allowed)
    for text in ("refuse", ""):
        assert own.set_project(project.id, parse_settings({"unpriced": text})).settings.unpriced == (text or None)


@pytest.mark.parametrize(("plan", "may"), [("team", False), ("free", True), ("self-hosted", True)])
def test_no_less_is_reserved_of_a_plan_than_by_default(world: "World", plan: str, may: bool) -> None:
    own = own_of(world, plan)
    project = own.create_project("Shop")
    for text in ("2000", "1024", ""):
        own.set_project(project.id, parse_settings({"assumed_output_tokens": text}))
    less = parse_settings({"assumed_output_tokens": "1023"})
    if may:
        own.set_project(project.id, less)
    else:
        with pytest.raises(BeyondPlan, match="assumed_output_tokens=1023 is less than the 1024"):
            own.set_project(project.id, less)
        world.plane.set_project(project.id, less)


def test_nothing_is_changed_while_the_plan_is_not_known(world: "World") -> None:
    own = own_of(world, "team")
    (world.configuration.home / "plans.toml").unlink()
    before = own.organization()
    with pytest.raises(PlansUnusable):
        own.set_organization(parse_changes({"requests_per_minute": "1"}))
    assert own.organization() == before


def test_an_organization_sees_the_plan_that_it_has_and_no_other(world: "World") -> None:
    own, free = own_of(world, "team"), own_of(world, "self-hosted")
    assert list(own.plans(own.organization())) == ["team"]
    assert {"self-hosted", "free", "team"} < set(free.plans(free.organization()))
