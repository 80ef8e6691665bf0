"""What a LiteLLM configuration amounts to: keys, routes, and by its place in the file all that does not come over.

The files follow docs.litellm.ai: proxy/configs, proxy/load_balancing and proxy/reliability.
"""

from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from watchllm.control.errors import Invalid
from watchllm.control.litellm.plan import Plan
from watchllm.control.litellm.reading import read
from watchllm.control.vendors import by_name
from watchllm.domain.snapshot import RouteRecord

VARIABLES = {
    "OPENAI_API_KEY": "sk-openai-0123456789",
    "AZURE_EU": "azure-eu-0123456789",
    "BASE": "https://x.example/v1",
}


def plan(text: str, variables: dict[str, str] = VARIABLES, **existing: set[str | None]) -> Plan:
    return read(text, variables, by_name(), existing)


def rules(read_plan: Plan) -> dict[str, RouteRecord]:
    return {planned.rule.name: planned.rule for planned in read_plan.routes}


def places(read_plan: Plan) -> list[tuple[str, str | None, str | None]]:
    return [(key.provider, key.base_url, key.secret) for key in read_plan.keys]


def reasons(read_plan: Plan) -> dict[str, str]:
    return {skipped.path: skipped.reason for skipped in read_plan.skipped}


def group(*deployments: str, name: str = "main", more: str = "") -> str:
    entries = "".join(f"  - {{model_name: {name}, litellm_params: {{{deployment}}}}}\n" for deployment in deployments)
    return f"model_list:\n{entries}{more}"


# --- deployments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "model", "place"),
    [
        ("model: openai/gpt-4o", "openai/gpt-4o", ("openai", None)),
        ("model: gpt-4o", "openai/gpt-4o", ("openai", None)),
        ("model: claude-sonnet-4-5, api_key: k", "anthropic/claude-sonnet-4-5", ("anthropic", None)),
        (
            "model: claude-x, api_key: k, api_base: 'https://api.anthropic.com'",
            "anthropic/claude-x",
            ("anthropic", None),
        ),
        ("model: together_ai/meta/llama, api_key: k", "together/meta/llama", ("together", None)),
        ("model: gemini/gemini-2.5-pro, api_key: k", "gemini/gemini-2.5-pro", ("gemini", None)),
        ("model: openrouter/openai/gpt-4o, api_key: k", "openrouter/openai/gpt-4o", ("openrouter", None)),
        ("model: gpt-x, custom_llm_provider: groq, api_key: k", "groq/gpt-x", ("groq", None)),
        (
            "model: azure/eu, api_key: k, api_base: 'https://r.openai.azure.com/', api_version: '2024-10-21'",
            "azure/eu",
            ("azure", "https://r.openai.azure.com/openai/v1"),
        ),
        (
            "model: azure/eu, api_key: k, api_base: 'https://r.openai.azure.com/openai/deployments/eu'",
            "azure/eu",
            ("azure", "https://r.openai.azure.com/openai/v1"),
        ),
        ("model: ollama/llama3, api_base: 'http://h:11434'", "ollama/llama3", ("ollama", "http://h:11434/v1")),
        ("model: hosted_vllm/m, api_base: 'http://h:8000/v1'", "vllm/m", ("vllm", "http://h:8000/v1")),
        (
            "model: openai/m, api_base: 'https://llm.example.com:8443/v1/', api_key: k",
            "llm-example-com-8443/m",
            ("llm-example-com-8443", "https://llm.example.com:8443/v1"),
        ),
        (
            "model: openai/m, api_base: os.environ/BASE, api_key: k",
            "x-example/m",
            ("x-example", "https://x.example/v1"),
        ),
    ],
)
def test_a_deployment_is_a_model_of_a_provider(parameters: str, model: str, place: tuple[str, str | None]) -> None:
    found = plan(group(parameters))
    assert rules(found)["main"].choices == ((model, 1),)
    assert [(key.provider, key.base_url) for key in found.keys] == [place]


def test_an_own_place_of_anthropics_dialect_speaks_it() -> None:
    (key,) = plan(group("model: anthropic/m, api_base: 'https://claude.example', api_key: k")).keys
    assert (key.provider, key.base_url, key.dialect) == ("claude-example", "https://claude.example/v1", "messages")


def test_places_that_differ_are_providers_that_differ() -> None:
    """The keys of a provider stand in for each other, and a deployment of one resource is not at another."""
    found = plan(
        group(
            "model: azure/a, api_key: one, api_base: 'https://eu.openai.azure.com'",
            "model: azure/b, api_key: two, api_base: 'https://us.openai.azure.com'",
            "model: azure/c, api_key: three, api_base: 'https://us.openai.azure.com'",
        )
    )
    us = "https://us.openai.azure.com/openai/v1"
    assert places(found) == [
        ("azure", "https://eu.openai.azure.com/openai/v1", "one"),
        ("us-openai-azure-com", us, "two"),
        ("us-openai-azure-com", us, "three"),
    ]
    assert [model for model, _ in rules(found)["main"].choices] == [
        "azure/a", "us-openai-azure-com/b", "us-openai-azure-com/c",
    ]  # fmt: skip


def test_a_provider_that_the_project_has_elsewhere_is_not_mixed_with_the_files() -> None:
    text = group("model: ollama/m, api_base: 'http://new:11434'")
    assert places(plan(text)) == [("ollama", "http://new:11434/v1", "-")]
    assert places(plan(text, ollama={"http://new:11434/v1"})) == [("ollama", "http://new:11434/v1", "-")]
    assert places(plan(text, ollama={"http://old:11434/v1"})) == [("new-11434", "http://new:11434/v1", "-")]


def test_keys_are_read_by_reference_and_each_once() -> None:
    found = plan(
        group(
            "model: openai/a, api_key: os.environ/OPENAI_API_KEY",
            "model: openai/b, api_key: os.environ/OPENAI_API_KEY",
            "model: openai/c",
            "model: groq/d, api_key: os.environ/NOT_SET",
            "model: mistral/e",
            "model: xai/f, api_key: in-the-file-0123456789",
        )
    )
    assert [(key.provider, key.secret, key.variable) for key in found.keys] == [
        ("openai", "sk-openai-0123456789", "OPENAI_API_KEY"),
        ("groq", None, "NOT_SET"),
        ("mistral", None, "MISTRAL_API_KEY"),
        ("xai", "in-the-file-0123456789", None),
    ]
    assert "0123456789" not in repr(found)


def test_the_files_own_variables_and_credentials_are_used() -> None:
    found = plan(
        group(
            "model: groq/a, api_key: os.environ/MINE",
            "model: azure/b, litellm_credential_name: eu",
            more="environment_variables: {MINE: gsk-from-the-file, OPENAI_API_KEY: not-used}\n"
            "credential_list: [{credential_name: eu, credential_values: "
            "{api_key: os.environ/AZURE_EU, api_base: 'https://eu.openai.azure.com'}}]\n",
        )
    )
    assert places(found) == [
        ("groq", None, "gsk-from-the-file"),
        ("azure", "https://eu.openai.azure.com/openai/v1", "azure-eu-0123456789"),
    ]


def test_a_key_goes_only_where_it_belongs() -> None:
    """LiteLLM would send OPENAI_API_KEY to whatever answers at `api_base`."""
    found = plan(group("model: openai/m, api_base: 'https://llm.example.com/v1'"))
    assert places(found) == [("llm-example-com", "https://llm.example.com/v1", "-")]


@pytest.mark.parametrize(
    ("parameters", "path", "reason"),
    [
        ("model: bedrock/claude", "model", "the provider 'bedrock' is none"),
        ("model: mystery", "model", "whose model mystery is"),
        ("model: openai/", "model", "is none that this version knows"),
        ("model: azure/x, api_key: k", "api_base", "azure needs one"),
        ("model: openai/x, api_base: os.environ/NOT_SET, api_key: k", "api_base", "NOT_SET is not set here"),
        (
            "model: openai/x, api_base: 'https://x.example', api_key: os.environ/NOT_SET",
            "api_key",
            "NOT_SET is not set",
        ),
        ("api_key: k", "model", "is left out"),
    ],
)
def test_a_deployment_that_leads_nowhere_is_left_out_and_named(parameters: str, path: str, reason: str) -> None:
    found = plan(group(parameters))
    assert not found.routes
    assert reason in reasons(found)[f"model_list[0].litellm_params.{path}"]


def test_names_with_stars_need_no_route() -> None:
    found = plan(group("model: openai/*, api_key: k", name='"*"'))
    assert not found.routes
    assert places(found) == [("openai", None, "k")]
    assert "default_provider" in reasons(found)["model_list[0].model_name"]


# --- routes -----------------------------------------------------------------------------------------------------------


def test_a_name_that_leads_there_anyway_needs_no_route() -> None:
    found = plan(group("model: openai/gpt-4o", name="gpt-4o"))
    assert (found.routes, found.unchanged) == ((), ("gpt-4o",))
    found = plan(group("model: groq/gpt-4o, api_key: k", name="gpt-4o"))
    assert rules(found)["gpt-4o"].choices == (("groq/gpt-4o", 1),)


@pytest.mark.parametrize(
    ("shares", "weights"),
    [
        (("", "", ""), (1, 1, 1)),
        (("weight: 2", "weight: 1", "weight: 1"), (2, 1, 1)),
        (("weight: 0.7", "weight: 0.2", "weight: 0.1"), (1000, 286, 143)),
        (("rpm: 600", "rpm: 300", "rpm: 100"), (6, 3, 1)),
        (("tpm: 100000", "tpm: 1", "tpm: 1"), (1000, 1, 1)),
        (("weight: 1, rpm: 9", "weight: 1", "weight: 3"), (1, 1, 3)),
    ],
)
def test_several_deployments_share_by_weight(shares: tuple[str, ...], weights: tuple[int, ...]) -> None:
    names = ("openai/a", "openai/b", "openai/c")
    found = plan(group(*(f"model: {name}, {share}" for name, share in zip(names, shares, strict=True))))
    assert rules(found)["main"].choices == tuple(zip(names, weights, strict=True))


def test_what_has_no_weight_or_a_later_order_is_a_fallback() -> None:
    found = plan(
        group(
            "model: openai/last, order: 3",
            "model: openai/first, order: 1, weight: 1",
            "model: openai/idle, order: 1",
            "model: openai/second, order: 2",
        )
    )
    rule = rules(found)["main"]
    assert rule.choices == (("openai/first", 1),)
    assert rule.fallbacks == ("openai/idle", "openai/second", "openai/last")


FALLBACKS = """
model_list:
  - {model_name: big, litellm_params: {model: openai/big}}
  - {model_name: small, litellm_params: {model: openai/small, weight: 1}}
  - {model_name: small, litellm_params: {model: groq/small, api_key: k, weight: 3}}
  - {model_name: other, litellm_params: {model: xai/grok-4, api_key: k}}
"""


def test_fallbacks_are_models_not_groups() -> None:
    found = plan(FALLBACKS + "router_settings: {fallbacks: [{big: [small, gemini/gemini-2.5-pro, big, nowhere]}]}\n")
    assert rules(found)["big"].fallbacks == ("groq/small", "openai/small", "gemini/gemini-2.5-pro")
    assert reasons(found) == {
        "router_settings.fallbacks[0].big": "nowhere is no group that is brought over, and no model that is known"
    }


def test_the_routers_settings_hold_before_the_others() -> None:
    found = plan(
        FALLBACKS + "router_settings: {num_retries: 2, timeout: 30, fallbacks: [{big: [other]}]}\n"
        "litellm_settings: {num_retries: 4, request_timeout: 600, fallbacks: [{big: [small]}],\n"
        "  default_fallbacks: [big]}\n"
    )
    assert rules(found)["big"] == RouteRecord("big", (("openai/big", 1),), ("xai/grok-4",), 2, 30.0)
    assert rules(found)["other"].fallbacks == ("openai/big",)
    found = plan(FALLBACKS + "litellm_settings: {num_retries: 4, request_timeout: '600'}\n")
    assert rules(found)["big"] == RouteRecord("big", (("openai/big", 1),), (), 4, 600.0)


def test_bounds_of_a_deployment_hold_for_its_group() -> None:
    found = plan(group("model: openai/a, timeout: 20, num_retries: 3", "model: openai/b, timeout: 40"))
    assert (rules(found)["main"].retries, rules(found)["main"].try_timeout) == (3, 40.0)


def test_other_names_of_a_group_are_routes_of_their_own() -> None:
    found = plan(
        FALLBACKS + "router_settings:\n  fallbacks: [{big: [nick]}]\n"
        "  model_group_alias: {gpt-4: big, nick: {model: small, hidden: true}, other: big, lost: nowhere}\n"
    )
    assert rules(found)["gpt-4"].choices == (("openai/big", 1),)
    assert rules(found)["gpt-4"].fallbacks == ("groq/small", "openai/small")
    assert rules(found)["nick"].choices == (("openai/small", 1), ("groq/small", 3))
    assert rules(found)["other"].choices == (("xai/grok-4", 1),)
    assert set(reasons(found)) == {
        "router_settings.model_group_alias.other",
        "router_settings.model_group_alias.lost",
    }


def test_more_than_a_route_holds_is_named() -> None:
    found = plan(
        group(*(f"model: openai/m{number}" for number in range(12)))
        + "  - {model_name: b, litellm_params: {model: openai/b}}\n"
        + "router_settings: {num_retries: 50, timeout: 9999, fallbacks: [{b: [main]}]}\n"
    )
    assert (len(rules(found)["main"].choices), len(rules(found)["b"].fallbacks)) == (8, 8)
    assert (rules(found)["b"].retries, rules(found)["b"].try_timeout) == (5, 3600.0)
    assert {"model_list[0]", "model_list[12]", "router_settings.num_retries", "router_settings.timeout"} <= set(
        reasons(found)
    )


# --- what does not come over ------------------------------------------------------------------------------------------


def test_everything_else_is_named_by_its_place() -> None:
    found = plan(
        group("model: openai/gpt-4o, rpm: 6, tpm: 7, temperature: 0.1, api_version: v, stream_timeout: 3")
        + "router_settings: {routing_strategy: latency-based-routing, redis_password: hidden-1, allowed_fails: 3,\n"
        + "  context_window_fallbacks: [{main: [main]}], unheard_of: 1}\n"
        + "litellm_settings: {cache: true, cache_params: {type: redis}, drop_params: true, unheard_of: 1}\n"
        + "general_settings: {master_key: sk-hidden-2, database_url: 'db://u:hidden-3@h/db', alerting: [slack]}\n"
        + "include: [more.yaml]\nunheard_of: 1\n"
    )
    assert set(reasons(found)) == {
        *(f"model_list[0].litellm_params.{name}" for name in ("rpm", "tpm", "temperature", "api_version")),
        "model_list[0].litellm_params.stream_timeout",
        *(f"router_settings.{name}" for name in ("routing_strategy", "redis_password", "allowed_fails", "unheard_of")),
        "router_settings.context_window_fallbacks",
        *(f"litellm_settings.{name}" for name in ("cache", "cache_params", "drop_params", "unheard_of")),
        *(f"general_settings.{name}" for name in ("master_key", "database_url", "alerting")),
        "include",
        "unheard_of",
    }
    assert "hidden" not in "".join(reasons(found).values())
    assert "hidden" not in repr(found)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("model_list: 1", "model_list: a list belongs here, not a number"),
        ("model_list: [1]", r"model_list\[0\]: a mapping belongs here, not a number"),
        ("model_list: [{model_name: [a]}]", r"model_list\[0\].model_name: a text belongs here, not a list"),
        (group("model: {a: 1}"), r"model_list\[0\].litellm_params.model: a text belongs here, not a mapping"),
        (group("model: openai/a, weight: heavy"), r"litellm_params.weight: a number belongs here"),
        (group("model: openai/a, weight: -1"), r"litellm_params.weight: a number from 0 on"),
        (group("model: openai/a, weight: .nan"), r"litellm_params.weight: a number from 0 on"),
        (group("model: openai/a, weight: true"), r"litellm_params.weight: a number from 0 on"),
        (group("model: openai/a, api_key: 7"), r"litellm_params.api_key: a text belongs here"),
        ("router_settings: [1]", "router_settings: a mapping belongs here, not a list"),
        ("router_settings: {fallbacks: {a: b}}", "router_settings.fallbacks: a list belongs here"),
        ("router_settings: {fallbacks: [a]}", r"router_settings.fallbacks\[0\]: a mapping belongs here"),
        ("router_settings: {fallbacks: [{a: b}]}", r"router_settings.fallbacks\[0\].a: a list belongs here"),
        ("litellm_settings: {num_retries: many}", "litellm_settings.num_retries: a number belongs here"),
        ("environment_variables: {A: [1]}", "environment_variables.A: a text belongs here"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_by_its_place(text: str, place: str) -> None:
    with pytest.raises(Invalid, match=place):
        plan(text)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "openai/a", "os.environ/A", "*"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["model_name", "litellm_params", "model", "api_key", "api_base", "weight", "order", "timeout", "a", "*",
             "fallbacks", "default_fallbacks", "model_group_alias", "num_retries", "credential_name",
             "credential_values", "litellm_credential_name", "custom_llm_provider"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(
            ["model_list", "router_settings", "litellm_settings", "general_settings", "environment_variables",
             "credential_list", "include"]
        ),
        json | st.lists(json, max_size=3),
        min_size=1,
    )
)  # fmt: skip
def test_whatever_the_file_holds_it_is_a_plan_or_an_error(document: dict[str, Any]) -> None:
    with suppress(Invalid):
        assert isinstance(plan(yaml.safe_dump(document)), Plan)
