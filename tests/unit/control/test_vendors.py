"""Vendors are data: complete, and careful about what counts as a default."""

import pytest

from watchllm.control.vendors import names, price_books, vendors
from watchllm.domain.snapshot import Vendor

BY_NAME = {vendor.name: vendor for vendor in vendors()}


def test_the_vendors_of_this_version() -> None:
    assert {"openai", "anthropic", "groq", "openrouter", "sim"} <= set(names())
    assert len(names()) >= 4 + 12 + 1
    assert BY_NAME["openai"].base_url == "https://api.openai.com/v1"
    assert BY_NAME["sim"].base_url == "sim://builtin"
    assert {name: vendor.env_prefix for name, vendor in BY_NAME.items() if vendor.env_prefix} == {
        "openai": "OPENAI",
        "anthropic": "ANTHROPIC",
        "groq": "GROQ",
        "openrouter": "OPENROUTER",
    }


@pytest.mark.parametrize("vendor", [vendor for vendor in vendors() if vendor.name != "sim"], ids=lambda v: v.name)
def test_a_vendor_is_reached_over_https_or_where_its_key_says(vendor: Vendor) -> None:
    assert bool(vendor.base_url) is not vendor.needs_base_url
    if vendor.base_url:
        assert vendor.base_url.startswith("https://")
        assert not vendor.base_url.endswith("/")
        assert not vendor.key_optional


def test_dialects() -> None:
    assert {name: BY_NAME[name].dialects for name in ("openai", "anthropic", "groq", "sim")} == {
        "openai": ("chat", "responses"),
        "anthropic": ("messages",),
        "groq": ("chat",),
        "sim": ("chat", "messages", "responses"),
    }
    assert all(vendor.dialects for vendor in vendors())


def test_an_alias_is_another_name_of_a_field_that_is_none_itself() -> None:
    for vendor in vendors():
        assert not set(vendor.aliases) & set(vendor.aliases.values())


def test_every_vendor_is_in_the_price_book_or_said_not_to_be() -> None:
    from genai_prices.data import providers

    assert set(price_books().values()) <= {provider.id for provider in providers}
    assert price_books()["xai"] == "x-ai"
    assert "sim" not in price_books()
    for name in set(names()) - set(price_books()) - {"azure"}:
        assert name not in {provider.id for provider in providers}, "it has prices now"


def test_no_family_belongs_to_two_vendors() -> None:
    families = [family for vendor in vendors() for family in vendor.families]
    assert len(families) == len(set(families))
    assert any("gpt-4o-mini".startswith(family) for family in BY_NAME["openai"].families)


def test_a_router_over_many_models_has_no_defaults_and_no_families() -> None:
    assert BY_NAME["openrouter"].defaults == {}
    assert BY_NAME["openrouter"].families == ()


def test_defaults_are_only_for_known_endpoint_families_and_never_for_limits_or_prompts() -> None:
    for vendor in vendors():
        assert set(vendor.defaults) | set(vendor.nullable) <= {"generate", "completions", "embeddings"}
        for fields in vendor.defaults.values():
            assert not set(fields) & {"model", "messages", "prompt", "input", "tools", "tool_choice", "seed"}
        assert "encoding_format" not in vendor.defaults.get("embeddings", {})
