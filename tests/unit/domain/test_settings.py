"""What `project set` takes for a setting whose words are its own."""

import pytest

from watchllm.domain.setting_values import text_of
from watchllm.domain.settings import InvalidSetting, ProjectSettings, parse_settings, with_changes


def test_models_without_a_price_may_be_refused_or_allowed_whatever_the_budget() -> None:
    assert ProjectSettings().unpriced is None
    refusing = with_changes(ProjectSettings(), parse_settings({"unpriced": "refuse"}))
    assert refusing.unpriced == "refuse"
    assert with_changes(refusing, parse_settings({"unpriced": ""})).unpriced is None
    with pytest.raises(InvalidSetting, match="unpriced=no: expected allow or refuse"):
        parse_settings({"unpriced": "no"})


def test_a_new_project_decides_by_meaning_and_never_serves() -> None:
    assert ProjectSettings().semantic == "shadow"
    for mode in ("off", "shadow", "on"):
        assert parse_settings({"semantic": mode}) == {"semantic": mode}
    with pytest.raises(InvalidSetting, match="expected off, shadow or on"):
        parse_settings({"semantic": "yes"})


@pytest.mark.parametrize(("name", "least"), [("min_confidence", "0.5"), ("similarity_threshold", "0")])
def test_confidence_and_similarity_are_shares(name: str, least: str) -> None:
    assert parse_settings({name: "0.85"}) == {name: 0.85}
    assert parse_settings({name: least}) == {name: float(least)}
    assert parse_settings({name: ""}) == {name: None}
    for text in ("1.01", "-0.1", "nan", "inf", "much"):
        with pytest.raises(InvalidSetting, match=f"expected a number from {least} to 1"):
            parse_settings({name: text})


def test_no_project_is_served_what_is_likelier_wrong_than_right() -> None:
    for text in ("0", "0.49"):
        with pytest.raises(InvalidSetting, match=r"min_confidence=.*: expected a number from 0\.5 to 1: how sure"):
            parse_settings({"min_confidence": text})


@pytest.mark.parametrize(
    "text",
    ['["a"]', "gpt-4o,'claude'", "gpt 4o", "[gpt-4o]", "[gpt-4o,claude]", "gpt-4]", "[]b", "{gpt-4o}", "`a`", "a\tb"],
)
def test_what_is_no_name_of_a_model_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"is no name of a model: write gpt-4o\*,claude-\*"):
        parse_settings({"allowed_models": text})


def test_names_of_models_that_there_are_are_taken() -> None:
    names = "gpt-4o*,claude-*,meta-llama/Llama-3.1:free,@cf/m,gpt-[45]*,gpt-4o[,[a-c]x,ft:gpt-4o:acme::id,модель"
    assert parse_settings({"allowed_models": names}) == {"allowed_models": tuple(names.split(","))}


def test_what_is_no_provider_s_name_is_refused() -> None:
    assert parse_settings({"allowed_providers": "openai, my-own_1"}) == {"allowed_providers": ("openai", "my-own_1")}
    for text in ('["openai"]', "open ai", "open*"):
        with pytest.raises(InvalidSetting, match="expected a provider's name"):
            parse_settings({"allowed_providers": text})


def test_what_is_written_of_a_setting_is_read_as_it_was() -> None:
    texts = {
        "requests_per_minute": "30",
        "budget_usd_day": "0.000001",
        "budget_mode": "alert",
        "allowed_models": "gpt-4o*, claude-*",
        "allowed_ips": "10.0.0.0/8,2001:db8::/32",
        "cache": "off",
        "cache_ttl": "-1",
        "min_confidence": "0.95",
        "judge_model": "sim/judge",
        "budget_usd_month": "999999.99",
    }
    settings = parse_settings(texts)
    assert parse_settings({name: text_of(value) for name, value in settings.items()}) == settings
    assert text_of(50.0) == "50"
    assert text_of(None) == ""


def test_a_refused_setting_is_named() -> None:
    for pairs in ({"budget_usd_day": "much"}, {"budget_usd_day": "0.0000000001"}, {"nonsense": "1"}):
        with pytest.raises(InvalidSetting) as refused:
            parse_settings(pairs)
        assert [refused.value.name] == list(pairs)


def test_lists_of_names_are_bounded() -> None:
    assert len(parse_settings({"allowed_models": ",".join(["m"] * 1000)})["allowed_models"]) == 1000
    with pytest.raises(InvalidSetting, match="at most 1000 names"):
        parse_settings({"allowed_models": ",".join(["m"] * 1001)})
