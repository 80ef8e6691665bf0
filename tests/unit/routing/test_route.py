"""All that may answer a model, and in which order: credentials, weights, fallbacks, and what a project may not use."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.domain.errors import GatewayError
from watchllm.domain.settings import ProjectSettings
from watchllm.domain.snapshot import ProjectRecord, ProviderKeyRecord, RouteRecord, Vendor
from watchllm.routing.resolve import InstanceCredential, Router
from watchllm.routing.route import Choice, Route, rule_for
from watchllm.routing.target import Target

VENDORS = (
    Vendor("openai", "https://api.openai.com/v1", families=("gpt-",)),
    Vendor("groq", "https://api.groq.com/openai/v1", families=("llama-",)),
    Vendor("mistral", "https://api.mistral.ai/v1"),
    Vendor("sim", "sim://"),
)
ROUTER = Router(VENDORS, {name: InstanceCredential(f"sk-{name}", None) for name in ("openai", "groq")})


def project(
    *rules: RouteRecord, keys: tuple[ProviderKeyRecord, ...] = (), **settings: str | bool | tuple[str, ...]
) -> ProjectRecord:
    return ProjectRecord("prj_1", "org_1", "one", ProjectSettings(**settings), keys, rules)  # type: ignore[arg-type]


def own(key_id: str, provider: str = "openai", *, priority: int = 0, base_url: str | None = None) -> ProviderKeyRecord:
    return ProviderKeyRecord(key_id, provider, b"", base_url, priority)


def names(targets: tuple[Target, ...]) -> list[str]:
    return [f"{target.provider}/{target.model}@{target.key_label}" for target in targets]


# --- Credentials ---------------------------------------------------------------------------------------------------


def test_a_model_without_a_rule_is_tried_with_every_key_of_its_provider_in_order_of_priority() -> None:
    keys = (own("pvk_late", priority=9), own("pvk_first"), own("pvk_other", "groq"))
    route = ROUTER.route("gpt-4o", project(keys=keys), test_key=False)
    assert names(route.candidates(b"x")) == [f"openai/gpt-4o@{key}" for key in ("pvk_first", "pvk_late", "instance")]
    assert (route.name, route.retries, route.timeout, route.hedge_after) == ("gpt-4o", 0, None, None)
    assert route.first.key_id == "pvk_first"
    assert [target.trusted for target in route.candidates(b"x")] == [True] * 3


def test_the_instances_key_is_left_out_where_the_project_may_not_use_it() -> None:
    keys = (own("pvk_1"),)
    route = ROUTER.route("gpt-4o", project(keys=keys, instance_keys=False), test_key=False)
    assert names(route.candidates(b"")) == ["openai/gpt-4o@pvk_1"]
    with pytest.raises(GatewayError) as refused:
        ROUTER.route("gpt-4o", project(instance_keys=False), test_key=False)
    assert refused.value.code == "provider_key_missing"
    with pytest.raises(GatewayError, match="no provider key for openai"):
        ROUTER.default(project(instance_keys=False), test_key=False)


def test_who_moved_a_provider_elsewhere_is_not_sent_back_to_its_own_address() -> None:
    keys = (own("pvk_eu", base_url="https://eu.example.com/v1"), own("pvk_2", priority=1))
    targets = ROUTER.route("gpt-4o", project(keys=keys), test_key=False).candidates(b"")
    assert names(targets) == ["openai/gpt-4o@pvk_eu", "openai/gpt-4o@pvk_2"]
    assert [target.trusted for target in targets] == [False, True]


def test_a_provider_of_the_projects_own_is_never_trusted() -> None:
    keys = (own("pvk_1", "mine", base_url="http://10.0.0.1/v1"), own("pvk_2", "mine", priority=1))
    targets = ROUTER.route("mine/model", project(keys=keys), test_key=False).candidates(b"")
    assert [(target.base_url, target.trusted) for target in targets] == [("http://10.0.0.1/v1", False)] * 2


def test_a_test_key_reaches_the_simulated_provider_only_whatever_the_rules_say() -> None:
    rule = RouteRecord("fast", (("openai/gpt-4o", 1), ("llama-3", 1)), ("mistral/large",))
    one = project(rule, keys=(own("pvk_1"),))
    for model in ("fast", "gpt-4o", "groq/llama-3"):
        targets = ROUTER.route(model, one, test_key=True).candidates(b"")
        assert {target.provider for target in targets} == {"sim"}
        assert all(target.own_key is None and not target.instance_key for target in targets)
    assert {target.model for target in ROUTER.route("fast", one, test_key=True).candidates(b"")} == {
        "gpt-4o",
        "llama-3",
        "large",
    }


# --- Rules ---------------------------------------------------------------------------------------------------------


def test_an_alias_leads_to_its_model_for_resolve_too() -> None:
    one = project(RouteRecord("fast", (("groq/llama-3", 1),), retries=2, try_timeout=3.0, timeout=9.0, hedge_after=1.0))
    route = ROUTER.route("fast", one, test_key=False)
    assert names(route.candidates(b"")) == ["groq/llama-3@instance"]
    assert (route.name, route.retries, route.hedge_after) == ("fast", 2, 1.0)
    assert (route.try_timeout, route.timeout) == (3.0, 9.0)
    assert names((ROUTER.resolve("fast", one, test_key=False),)) == ["groq/llama-3@instance"]


def test_rules_go_before_what_a_name_means_otherwise_and_lead_to_no_other_rule() -> None:
    rules = (
        RouteRecord("gpt-4o", (("gpt-4o", 1),), ("llama-3",)),
        RouteRecord("openai/x", (("groq/x", 1),)),
        RouteRecord("llama-3", (("openai/never", 1),)),
    )
    candidates = ROUTER.route("gpt-4o", project(*rules), test_key=False).candidates(b"")
    assert names(candidates) == ["openai/gpt-4o@instance", "groq/llama-3@instance"]
    assert ROUTER.resolve("openai/x", project(*rules), test_key=False).provider == "groq"


@pytest.mark.parametrize(
    ("model", "expected"),
    [("gpt-4o", "gpt-4o"), ("gpt-4o-mini", "gpt-4o*"), ("gpt-3.5", "gpt-*"), ("llama", "*"), ("gpt-", "gpt-*")],
)
def test_the_exact_rule_goes_before_the_longest_that_matches(model: str, expected: str) -> None:
    rules = tuple(RouteRecord(name, (("sim/echo", 1),)) for name in ("*", "gpt-*", "gpt-4o*", "gpt-4o"))
    for order in (rules, rules[::-1]):
        found = rule_for(model, order)
        assert found is not None
        assert found.name == expected
    assert rule_for("llama", rules[1:]) is None
    assert rule_for("gpt-4oo", (RouteRecord("gpt-4o", ()),)) is None


def test_what_the_project_may_not_use_or_has_no_key_for_is_left_out_of_a_route() -> None:
    rule = RouteRecord("fast", (("openai/gpt-4o", 1), ("mistral/large", 5)), ("groq/llama-3", "sim/echo"))
    one = project(rule, allowed_models=("gpt-*", "fast", "mistral/*"))
    assert names(ROUTER.route("fast", one, test_key=False).candidates(b"")) == ["openai/gpt-4o@instance"]
    one = project(rule, allowed_providers=("groq", "sim"))
    allowed = ROUTER.route("fast", one, test_key=False).candidates(b"")
    assert names(allowed) == ["groq/llama-3@instance", "sim/echo@instance"]
    assert ROUTER.resolve("fast", one, test_key=False).provider == "groq"


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"allowed_models": ("fast",)}, "model_not_allowed"), ({"instance_keys": False}, "provider_key_missing")],
)
def test_a_route_that_leads_nowhere_is_refused_as_its_first_model_is(
    settings: dict[str, bool | tuple[str, ...]], code: str
) -> None:
    rule = RouteRecord("fast", (("openai/gpt-4o", 1),), ("groq/llama-3",))
    with pytest.raises(GatewayError) as refused:
        ROUTER.route("fast", project(rule, **settings), test_key=False)
    assert (refused.value.code, refused.value.provider, refused.value.model) == (code, "openai", "fast")


# --- Weights -------------------------------------------------------------------------------------------------------


def target(name: str, key: str = "instance") -> Target:
    return Target(name, VENDORS[0], f"https://{name}/v1", "m", own(key) if key != "instance" else None, "sk", True)


def weighted(**weights: int) -> Route:
    return Route("r", tuple(Choice(weight, (target(name),), name) for name, weight in weights.items()))


QUESTIONS = [number.to_bytes(4) for number in random.Random(5).sample(range(1 << 32), 6000)]


def first(route: Route) -> list[str]:
    return [route.candidates(question)[0].provider for question in QUESTIONS]


def test_questions_are_shared_by_weight_and_each_always_goes_the_same_way() -> None:
    route = weighted(a=1, b=2, c=5)
    drawn = Counter(first(route))
    # Three standard deviations of 6,000 draws are less than 0.02.
    for name, weight in (("a", 1), ("b", 2), ("c", 5)):
        assert abs(drawn[name] / len(QUESTIONS) - weight / 8) < 0.02
    assert first(route) == first(weighted(c=5, a=1, b=2)), "whatever the order of the choices"


def test_a_change_of_the_choices_moves_only_the_questions_that_it_must() -> None:
    before = first(weighted(a=1, b=2, c=5))
    without_b = first(weighted(a=1, c=5))
    heavier_a = first(weighted(a=4, b=2, c=5))
    for was, left, heavier in zip(before, without_b, heavier_a, strict=True):
        assert left == was or was == "b"
        assert heavier in (was, "a")


def test_the_other_choices_follow_by_weight_then_the_fallbacks_each_target_once() -> None:
    keys = (target("a", "pvk_1"), target("a"))
    choices = (Choice(1, keys, "a"), Choice(2, (target("b"),), "b"), Choice(5, (target("c"),), "c"))
    route = Route("r", choices, ((target("b"),), (target("d"), target("a")), (target("d", "pvk_2"),)))
    orders = {tuple(names(route.candidates(question))) for question in QUESTIONS}
    a = ["a/m@pvk_1", "a/m@instance"]
    rest = ["d/m@instance", "d/m@pvk_2"]
    assert orders == {
        (*a, "c/m@instance", "b/m@instance", *rest),
        ("b/m@instance", "c/m@instance", *a, *rest),
        ("c/m@instance", "b/m@instance", *a, *rest),
    }


@given(
    choices=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 1000), max_size=6),
    fallbacks=st.lists(st.sampled_from("abcxyz"), max_size=5),
    affinity=st.binary(max_size=64),
)
def test_candidates_are_all_targets_once_the_choices_before_the_fallbacks(
    choices: dict[str, int], fallbacks: list[str], affinity: bytes
) -> None:
    if not choices and not fallbacks:
        return
    route = Route(
        "r",
        tuple(Choice(weight, (target(name),), name) for name, weight in choices.items()),
        tuple((target(name),) for name in fallbacks),
    )
    providers = [candidate.provider for candidate in route.candidates(affinity)]
    assert len(providers) == len(set(providers))
    assert set(providers[: len(choices)]) == set(choices)
    assert providers[len(choices) :] == [name for name in dict.fromkeys(fallbacks) if name not in choices]
    weights = [choices[name] for name in providers[1 : len(choices)]]
    assert weights == sorted(weights, reverse=True)
    assert route.first.provider in {*choices, *fallbacks}
