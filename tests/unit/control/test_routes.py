"""What a project's routes may be, and that they reach the proxies."""

from typing import TYPE_CHECKING, Any

import pytest

from watchllm.control.errors import Invalid, NotFound
from watchllm.domain.settings import parse_settings
from watchllm.domain.snapshot import RouteRecord

if TYPE_CHECKING:
    from tests.unit.control.conftest import World


def rule(name: str = "fast", *models: str, **fields: Any) -> RouteRecord:
    return RouteRecord(name, tuple((model, 1) for model in models or ("openai/gpt-4o",)), **fields)


@pytest.fixture
def project(world: "World") -> str:
    return world.plane.create_project("Mine").id


def test_routes_reach_the_snapshot_and_leave_it(world: "World", project: str) -> None:
    other = world.plane.create_project("Other").id
    first, second = rule("a"), rule("b*", "gpt-4o", fallbacks=("sim/echo",), retries=5, timeout=3600.0)
    for each in (second, first):
        world.plane.set_route(project, each)
    record = world.reader.project(project)
    assert record is not None
    assert record.routes == (first, second)
    world.plane.remove_route(project, "a")
    record, untouched = world.reader.project(project), world.reader.project(other)
    assert record is not None
    assert untouched is not None
    assert (record.routes, untouched.routes) == ((second,), ())
    assert world.plane.publisher.is_in_step()
    actions = [line.action for line in world.plane.audit(project_id=project)]
    assert actions == ["route.remove", "route.set", "route.set", "project.create"]
    with pytest.raises(NotFound):
        world.plane.remove_route(other, "b*")
    with pytest.raises(NotFound):
        world.plane.set_route("prj_unknown", first)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (rule(""), "1 to 256 printable characters"),
        (rule("a b"), "without spaces"),
        (rule("a,b"), "or commas"),
        (rule("é"), "printable"),
        (rule("a*b"), "with a [*] at the end"),
        (rule("x" * 257), "256"),
        (RouteRecord("fast", ()), "1 to 8 models"),
        (rule("fast", *(f"openai/{number}" for number in range(9))), "1 to 8 models"),
        (rule(fallbacks=tuple(f"openai/{number}" for number in range(9))), "at most 8 fallbacks"),
        (RouteRecord("fast", (("openai/x", 0),)), "weight of openai/x is a whole number from 1 to 1000"),
        (RouteRecord("fast", (("openai/x", 1001),)), "weight"),
        (rule("fast", "openai/*"), "no model's name"),
        (rule("fast", "openai/a", fallbacks=("openai/b", "openai/a")), "names openai/a twice"),
        (rule(retries=-1), "retries is a whole number from 0 to 5"),
        (rule(retries=6), "retries"),
        (rule(try_timeout=0.0), "try_timeout is 0.05 to 3600 seconds"),
        (rule(timeout=float("nan")), "timeout is 0.05 to 3600"),
        (rule(hedge_after=float("inf")), "hedge_after is 0.05 to 3600"),
        (rule(try_timeout=10.0, timeout=9.0), "not longer than timeout"),
        (rule(hedge_after=9.0, timeout=9.0), "hedge_after is shorter"),
        (rule("fast", "opnai/gpt-4o"), "opnai/gpt-4o leads to no provider"),
        (rule("fast", "mystery"), "mystery leads to no provider"),
        (rule("fast", "openai/x", fallbacks=("mystery",)), "mystery leads to no provider"),
    ],
)
def test_a_wrong_rule_is_refused_and_said_to_be(world: "World", project: str, wrong: RouteRecord, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        world.plane.set_route(project, wrong)
    assert world.plane.routes(project) == []


def test_names_lead_to_the_projects_own_providers_and_its_default_one(world: "World", project: str) -> None:
    world.plane.add_provider_key(project, "mine", "sk-x", base_url="http://127.0.0.1:1/v1")
    world.plane.set_route(project, rule("a", "mine/llama"))
    world.plane.set_project(project, parse_settings({"default_provider": "mine"}))
    world.plane.set_route(project, rule("b", "mystery"))
    with pytest.raises(Invalid, match="leads to no provider"):
        world.plane.set_route(project, rule("c", "opnai/mystery"))


def test_routes_do_not_lead_to_routes(world: "World", project: str) -> None:
    world.plane.set_route(project, rule("gpt-4o", "gpt-4o", fallbacks=("sim/echo",)))
    with pytest.raises(Invalid, match=r"gpt-4o is a route of this project.*write provider/gpt-4o"):
        world.plane.set_route(project, rule("fast", "sim/echo", fallbacks=("gpt-4o",)))
    world.plane.set_route(project, rule("fast", "openai/gpt-4o", fallbacks=("gpt-3.5-turbo",)))
    with pytest.raises(Invalid, match=r"the route fast leads to the model gpt-3.5-turbo"):
        world.plane.set_route(project, rule("gpt-3.5-turbo", "sim/echo"))
    # A rule in another project, or one that only matches the name, is no other route of this name.
    world.plane.set_route(world.plane.create_project("Other").id, rule("gpt-3.5-turbo"))
    world.plane.set_route(project, rule("gpt-*"))


def test_a_project_has_at_most_64_routes(world: "World", project: str) -> None:
    for number in range(64):
        world.plane.set_route(project, rule(f"r{number}"))
    with pytest.raises(Invalid, match="at most 64 routes"):
        world.plane.set_route(project, rule("one-more"))
    world.plane.set_route(project, rule("r0", "sim/echo"))


def test_an_audit_line_cannot_be_passed_off_as_another_projects(world: "World", project: str) -> None:
    other = world.plane.create_project("Other").id
    world.plane.create_key(other, name=f'"project":"{project}"')
    assert [line.action for line in world.plane.audit(project_id=project)] == ["project.create"]
