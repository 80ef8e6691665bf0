"""Vendors are data: complete, and careful about what counts as a default."""

from watchllm.control.vendors import names, vendors

BY_NAME = {vendor.name: vendor for vendor in vendors()}


def test_the_vendors_of_this_version() -> None:
    assert names() == ("openai", "groq", "openrouter", "sim")
    assert BY_NAME["openai"].base_url == "https://api.openai.com/v1"
    assert BY_NAME["sim"].base_url == "sim://builtin"
    assert {name: vendor.env_prefix for name, vendor in BY_NAME.items()} == {
        "openai": "OPENAI",
        "groq": "GROQ",
        "openrouter": "OPENROUTER",
        "sim": "",
    }


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
