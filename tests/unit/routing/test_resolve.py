"""Where models' names lead, and what a refusal tells the usage log."""

import pytest

from watchllm.control.vendors import vendors
from watchllm.domain.errors import BadRequest, GatewayError, NotFound
from watchllm.domain.settings import ProjectSettings
from watchllm.domain.snapshot import ProjectRecord, ProviderKeyRecord
from watchllm.routing.resolve import InstanceCredential, Router

ROUTER = Router(vendors(), {name: InstanceCredential("sk-x", None) for name in ("openai", "openrouter")})


def project(*keys: ProviderKeyRecord, **settings: str | tuple[str, ...]) -> ProjectRecord:
    return ProjectRecord("prj_1", "org_1", "one", ProjectSettings(**settings), keys)  # type: ignore[arg-type]


ANTHROPIC = Router(vendors(), {"anthropic": InstanceCredential("sk-ant-x", None)})


@pytest.mark.parametrize("model", ["claude-sonnet-4", "anthropic/claude-sonnet-4"])
@pytest.mark.parametrize("default", [None, "openai", "sim"])
def test_models_of_anthropic_go_to_anthropic(model: str, default: str | None) -> None:
    settings = {} if default is None else {"default_provider": default}
    target = ANTHROPIC.resolve(model, project(**settings), test_key=False)
    assert (target.provider, target.model) == ("anthropic", "claude-sonnet-4")
    assert (target.base_url, target.vendor.dialects) == ("https://api.anthropic.com/v1", ("messages",))
    assert (target.vendor.auth_header, target.vendor.auth_scheme) == ("x-api-key", "")


def test_models_of_anthropic_without_its_key_go_to_the_default_provider_or_say_which_key_is_missing() -> None:
    target = ROUTER.resolve("claude-sonnet-4", project(default_provider="openrouter"), test_key=False)
    assert (target.provider, target.model) == ("openrouter", "claude-sonnet-4")
    for model in ("claude-sonnet-4", "anthropic/claude-sonnet-4"):
        with pytest.raises(GatewayError) as refused:
            ROUTER.resolve(model, project(), test_key=False)
        assert (refused.value.provider, refused.value.code) == ("anthropic", "provider_key_missing")


def test_a_provider_of_ones_own_is_called_in_its_dialect() -> None:
    own = ProviderKeyRecord("pk_1", "mine", b"", "https://x.example/v1", dialect="messages")
    vendor = ROUTER.resolve("mine/some-model", project(own), test_key=False).vendor
    assert (vendor.dialects, vendor.auth_header, vendor.auth_scheme) == (("messages",), "x-api-key", "")
    plain = ProviderKeyRecord("pk_1", "mine", b"", "https://x.example/v1")
    vendor = ROUTER.resolve("mine/some-model", project(plain), test_key=False).vendor
    assert (vendor.dialects, vendor.auth_header, vendor.auth_scheme) == (("chat",), "authorization", "Bearer")


@pytest.mark.parametrize("provider", ["azure", "ollama", "vllm", "lmstudio"])
def test_a_provider_without_an_address_of_its_own_is_reached_at_the_keys(provider: str) -> None:
    own = ProviderKeyRecord("pk_1", provider, b"", "https://models.example.com/v1")
    target = ROUTER.resolve(f"{provider}/some-model", project(own), test_key=False)
    assert (target.base_url, target.model, target.trusted) == ("https://models.example.com/v1", "some-model", False)
    with pytest.raises(GatewayError) as refused:
        ROUTER.resolve(f"{provider}/some-model", project(ProviderKeyRecord("pk_1", provider, b"")), test_key=False)
    assert refused.value.code == "provider_key_missing"


def test_models_of_anthropic_go_where_they_are_sent_explicitly() -> None:
    target = ROUTER.resolve("openrouter/anthropic/claude-sonnet-4", project(), test_key=False)
    assert (target.provider, target.model) == ("openrouter", "anthropic/claude-sonnet-4")
    own = ProviderKeyRecord("pk_1", "anthropic", b"", "https://api.example.com/v1")
    target = ROUTER.resolve("anthropic/claude-sonnet-4", project(own), test_key=False)
    assert (target.provider, target.model) == ("anthropic", "claude-sonnet-4")
    assert ROUTER.resolve("claude-sonnet-4", project(), test_key=True).provider == "sim"


@pytest.mark.parametrize(
    ("model", "settings", "provider", "code"),
    [
        ("groq/llama-x", {}, "groq", "provider_key_missing"),
        ("llama-x", {}, "groq", "provider_key_missing"),
        ("mystery", {"default_provider": "groq"}, "groq", "provider_key_missing"),
        ("mystery", {}, "", "model_not_found"),
        ("gpt-4o", {"allowed_models": ("sim/*",)}, "openai", "model_not_allowed"),
        ("gpt-4o", {"allowed_providers": ("sim",)}, "openai", "model_not_allowed"),
        ("", {}, "", "invalid_request"),
    ],
)
def test_a_refusal_names_model_and_provider(
    model: str, settings: dict[str, str | tuple[str, ...]], provider: str, code: str
) -> None:
    with pytest.raises(GatewayError) as refused:
        ROUTER.resolve(model, project(**settings), test_key=False)
    assert (refused.value.model, refused.value.provider, refused.value.code) == (model, provider, code)


def test_the_name_in_a_refusal_is_short_and_printable() -> None:
    with pytest.raises(GatewayError) as refused:
        ROUTER.resolve("a\r\nb\x00é" + "x" * 1000, project(), test_key=False)
    assert refused.value.model == "abé" + "x" * 250


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("", "Name a model"),
        ("m" * 257, "257 characters; at most 256"),
        ("gpt-4o\n", "printable ASCII"),
        ("gpt-4ö", "printable ASCII"),
    ],
)
def test_what_is_wrong_with_a_models_name_is_said(model: str, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        ROUTER.resolve(model, project(), test_key=False)
    assert said in refused.value.message
    assert refused.value.param == "model"


def test_an_unknown_provider_in_front_is_said_and_the_known_ones_are_listed() -> None:
    own = ProviderKeyRecord("pk_1", "frontier", b"", "https://api.example.com/v1")
    with pytest.raises(NotFound) as refused:
        ROUTER.resolve("nowhere/model-x", project(own), test_key=False)
    message = refused.value.message
    assert "No provider 'nowhere' is known" in message
    assert "frontier, groq, openai, openrouter, sim" in message
    assert "openai/nowhere" not in message
    with pytest.raises(NotFound) as refused:
        ROUTER.resolve("model-x", project(), test_key=False)
    assert "such as openai/model-x" in refused.value.message
