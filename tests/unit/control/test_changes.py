"""Each change is one call: committed, audited without secrets, and in force for proxies when it returns."""

import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from watchllm.control import audit, keys, tables
from watchllm.control.errors import Invalid, NotFound
from watchllm.control.vendors import vendors
from watchllm.domain.keys import digest, is_well_formed
from watchllm.domain.limits import Limits, parse_limits
from watchllm.domain.sealing import Keyring
from watchllm.domain.settings import ProjectSettings, parse_settings

if TYPE_CHECKING:
    from tests.unit.control.conftest import World

UNKNOWN = "prj_" + "0" * 32


def test_a_project_reaches_the_proxies_with_its_settings(world: "World") -> None:
    project = world.plane.create_project("Mine")
    world.plane.set_project(project.id, parse_settings({"cache": "off", "cache_ttl": "5"}))
    record = world.reader.project(project.id)
    assert record is not None
    assert (record.name, record.organization_id) == ("Mine", project.organization_id)
    assert record.settings == ProjectSettings(cache=False, cache_ttl=5)
    assert world.plane.project(project.id).settings == record.settings
    assert [listed.id for listed in world.plane.projects()] == [project.id]


def test_an_empty_value_sets_back_to_the_default(world: "World") -> None:
    project = world.plane.create_project("Mine", ProjectSettings(cache_ttl=5, default_provider="groq"))
    world.plane.set_project(project.id, parse_settings({"cache_ttl": "", "default_provider": ""}))
    assert world.plane.project(project.id).settings == ProjectSettings()


def test_the_first_change_brings_proxies_all_they_need(world: "World") -> None:
    world.plane.create_project("Mine")
    assert world.reader.vendors() == vendors()
    assert world.reader.prices("openai")
    assert len(world.reader.secret("cache_hash") or b"") == 32


def test_a_key_is_known_to_proxies_by_its_digest_only(world: "World") -> None:
    project = world.plane.create_project("Mine")
    expires_at = int(time.time()) + 100
    made = world.plane.create_key(project.id, name="ci", scopes=["cache:write", "inference"], expires_at=expires_at)
    assert is_well_formed(made.secret)
    record = world.reader.key(digest(made.secret))
    assert record is not None
    assert (record.id, record.project_id, record.expires_at) == (made.record.id, project.id, expires_at)
    assert record.scopes == ("inference", "cache:write")
    assert not record.test
    with world.plane.database.reading() as connection:
        stored = repr(connection.execute(select(tables.keys)).all())
    assert made.secret not in stored
    assert made.secret not in repr(made)


def test_a_key_is_never_known_without_the_limits_it_was_made_with(world: "World") -> None:
    project = world.plane.create_project("Mine")
    seen = []
    publish = world.plane.publisher.publish_pending

    def watched(projects: set[str]) -> object:
        with world.plane.database.reading() as connection:
            seen.extend(keys.published(connection).values())
        return publish(projects)

    world.plane.publisher.publish_pending = watched  # type: ignore[method-assign, assignment]
    wanted = parse_limits({"requests_per_minute": "10", "allowed_ips": "192.0.2.7"})
    made = world.plane.create_key(project.id, limits=wanted)
    assert made.record.limits == Limits(requests_per_minute=10, allowed_ips=("192.0.2.7/32",))
    record = world.reader.key(digest(made.secret))
    assert record is not None
    assert record.limits == made.record.limits == world.plane.key(made.record.id).limits
    assert seen == [record]
    with world.plane.database.reading() as connection:
        [line] = audit.listed(connection, made.record.id)
    assert line.details["limits"] == {"requests_per_minute": 10, "allowed_ips": ["192.0.2.7/32"]}


def test_a_key_s_name_scopes_and_end_can_be_changed(world: "World") -> None:
    made = world.plane.create_key(world.plane.create_project("Mine").id, name="old")
    pairs = {"name": "new", "scopes": "cache:write, inference", "expires": "1h", "requests_per_minute": "3"}
    now = time.time()
    world.plane.set_key(made.record.id, keys.parse_changes(pairs, now))
    record = world.reader.key(digest(made.secret))
    assert record is not None
    assert (record.scopes, record.expires_at) == (("inference", "cache:write"), int(now) + 3600)
    assert (world.plane.key(made.record.id).name, record.limits) == ("new", Limits(requests_per_minute=3))
    world.plane.set_key(made.record.id, keys.parse_changes({"name": "", "scopes": "", "expires": ""}, now))
    back = world.plane.key(made.record.id)
    assert (back.name, back.scopes, back.expires_at) == ("", ("inference",), keys.NEVER_EXPIRES)
    assert back.limits == Limits(requests_per_minute=3)


@pytest.mark.parametrize("wrong", [{"scopes": "admin"}, {"name": "x" * 201}, {"expires": "2001-01-01"}])
def test_a_key_is_not_changed_to_what_it_could_not_be_made_as(world: "World", wrong: dict[str, str]) -> None:
    made = world.plane.create_key(world.plane.create_project("Mine").id)
    with pytest.raises(Invalid):
        world.plane.set_key(made.record.id, keys.parse_changes(wrong, time.time()))
    assert world.plane.key(made.record.id) == made.record


def test_a_test_key_says_so(world: "World") -> None:
    made = world.plane.create_key(world.plane.create_project("Mine").id, test=True)
    record = world.reader.key(digest(made.secret))
    assert made.secret.startswith("lgw_test_")
    assert record is not None
    assert record.test


def test_a_revoked_key_is_gone_when_the_call_returns(world: "World") -> None:
    project = world.plane.create_project("Mine")
    made, other = world.plane.create_key(project.id), world.plane.create_key(project.id)
    assert world.reader.key(digest(made.secret)) is not None
    world.plane.revoke_key(made.record.id)
    assert world.reader.key(digest(made.secret)) is None
    assert world.reader.key(digest(other.secret)) is not None
    assert [key.revoked_ms is not None for key in world.plane.keys(project.id)] == [True, False]


def test_revoking_twice_keeps_the_first_time(world: "World") -> None:
    made = world.plane.create_key(world.plane.create_project("Mine").id)
    assert world.plane.revoke_key(made.record.id).revoked_ms == world.plane.revoke_key(made.record.id).revoked_ms


@pytest.mark.parametrize(
    "wrong", [{"scopes": ["admin"]}, {"scopes": []}, {"name": "x" * 201}, {"name": "a\nb"}, {"expires_at": 1}]
)
def test_a_key_of_the_wrong_form_is_refused(world: "World", wrong: dict[str, object]) -> None:
    project = world.plane.create_project("Mine")
    with pytest.raises(Invalid):
        world.plane.create_key(project.id, **wrong)
    assert world.plane.keys() == []


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\x00b"])
def test_a_project_name_of_the_wrong_form_is_refused(world: "World", name: str) -> None:
    with pytest.raises(Invalid):
        world.plane.create_project(name)


def test_what_does_not_exist_is_not_found(world: "World") -> None:
    plane = world.plane
    for call in (
        lambda: plane.project(UNKNOWN),
        lambda: plane.set_project(UNKNOWN, {}),
        lambda: plane.create_key(UNKNOWN),
        lambda: plane.keys(UNKNOWN),
        lambda: plane.revoke_key(UNKNOWN),
        lambda: plane.add_provider_key(UNKNOWN, "openai", "sk"),
        lambda: plane.provider_keys(UNKNOWN),
        lambda: plane.remove_provider_key(UNKNOWN),
    ):
        with pytest.raises(NotFound, match=r"list` shows them"):
            call()


def test_provider_keys_reach_proxies_sealed_and_in_order(world: "World") -> None:
    project = world.plane.create_project("Mine")
    second = world.plane.add_provider_key(project.id, "openai", "sk-second-0123456789", priority=1)
    first = world.plane.add_provider_key(project.id, "mine", "sk-first", base_url="http://127.0.0.1:11434/v1/")
    record = world.reader.project(project.id)
    assert record is not None
    assert [key.id for key in record.provider_keys] == [first.id, second.id]
    assert record.provider_keys[0].base_url == "http://127.0.0.1:11434/v1"
    keyring = Keyring(lambda: [(world.configuration.home / "secret.key").read_text()])
    assert [keyring.open(key.sealed, key.id) for key in record.provider_keys] == [b"sk-first", b"sk-second-0123456789"]
    assert second.masked == "***6789"
    assert "first" not in first.masked
    world.plane.remove_provider_key(first.id)
    record = world.reader.project(project.id)
    assert record is not None
    assert [key.id for key in record.provider_keys] == [second.id]


@pytest.mark.parametrize(
    ("provider", "secret", "base_url"),
    [
        ("unheard-of", "sk", None),
        ("sim", "sk", None),
        ("a b", "sk", "https://x.example"),
        ("openai", "", None),
        ("openai", "-", None),
        ("azure", "", "https://r.openai.azure.com/openai/v1"),
        ("openai", "two\nlines", None),
        ("openai", "ключ", None),
        ("openai", "sk", "ftp://x.example"),
        ("openai", "sk", "https://"),
        ("openai", "sk", "https://user:pw@x.example/v1"),
        ("openai", "sk", "https://x.example/v1?key=1"),
        ("openai", "sk", "https://x.example:99999/v1"),
        ("openai", "sk", "https://[::1/v1"),
    ],
)
def test_a_provider_key_of_the_wrong_form_is_refused(
    world: "World", provider: str, secret: str, base_url: str | None
) -> None:
    project = world.plane.create_project("Mine")
    with pytest.raises(Invalid):
        world.plane.add_provider_key(project.id, provider, secret, base_url=base_url)


@pytest.mark.parametrize("provider", ["ollama", "vllm", "lmstudio", "my-own"])
@pytest.mark.parametrize("secret", ["", "-"])
def test_a_server_that_needs_no_key_takes_none(world: "World", provider: str, secret: str) -> None:
    project = world.plane.create_project("Mine")
    key = world.plane.add_provider_key(project.id, provider, secret, base_url="http://127.0.0.1:11434/v1")
    assert key.masked == ""
    record = world.reader.project(project.id)
    assert record is not None
    keyring = Keyring(lambda: [(world.configuration.home / "secret.key").read_text()])
    assert keyring.open(record.provider_keys[0].sealed, key.id) == b""


@pytest.mark.parametrize("provider", ["azure", "ollama", "vllm", "lmstudio"])
def test_a_provider_without_an_address_of_its_own_needs_one(world: "World", provider: str) -> None:
    project = world.plane.create_project("Mine")
    with pytest.raises(Invalid, match=f"{provider} has no address of its own: say with --base-url"):
        world.plane.add_provider_key(project.id, provider, "sk-0123456789abcdef")


def test_a_provider_of_ones_own_may_speak_another_dialect(world: "World") -> None:
    project = world.plane.create_project("Mine")
    key = world.plane.add_provider_key(project.id, "mine", "sk-x", base_url="https://x.example", dialect="messages")
    # Anthropic's clients take a bare host and add /v1.
    assert (key.dialect, key.base_url) == ("messages", "https://x.example/v1")
    assert world.plane.provider_keys(project.id) == [key]
    record = world.reader.project(project.id)
    assert record is not None
    assert record.provider_keys[0].dialect == "messages"
    plain = world.plane.add_provider_key(project.id, "plain", "sk-x", base_url="https://x.example")
    assert (plain.dialect, plain.base_url) == (None, "https://x.example")
    for provider, dialect in (("openai", "messages"), ("other", "soap")):
        with pytest.raises(Invalid, match=r"dialect|speaks"):
            world.plane.add_provider_key(project.id, provider, "sk-x", base_url="https://x.example", dialect=dialect)


def test_keys_of_one_provider_are_for_one_dialect(world: "World") -> None:
    project, other = world.plane.create_project("dialects"), world.plane.create_project("another")

    def add(project_id: str, dialect: str | None) -> None:
        world.plane.add_provider_key(project_id, "mine", "sk-x", base_url="https://x.example", dialect=dialect)

    add(project.id, None)
    add(project.id, "chat")
    with pytest.raises(Invalid, match="name of its own"):
        add(project.id, "messages")
    add(other.id, "messages")
    with pytest.raises(Invalid, match="dialect messages"):
        add(other.id, None)


def test_every_change_is_audited_without_secrets(world: "World") -> None:
    plane = world.plane
    project = plane.create_project("Mine")
    plane.set_project(project.id, parse_settings({"cache": "off"}))
    key = plane.create_key(project.id, name="ci")
    plane.revoke_key(key.record.id)
    provider_key = plane.add_provider_key(project.id, "openai", "sk-very-secret")
    plane.remove_provider_key(provider_key.id)
    with plane.database.reading() as connection:
        lines = audit.listed(connection)
    assert [line.action for line in reversed(lines)] == [
        "organization.create", "project.create", "project.set", "key.create", "key.revoke",
        "provider_key.add", "provider_key.remove",
    ]  # fmt: skip
    assert {line.actor for line in lines} == {"tester"}
    assert lines[-3].details == {"cache": False}
    assert "sk-very-secret" not in repr(lines)
    assert key.secret not in repr(lines)
    with plane.database.reading() as connection:
        assert [line.object_id for line in audit.listed(connection, key.record.id)] == [key.record.id] * 2


def test_a_judge_has_to_be_one_that_the_project_may_use(world: "World") -> None:
    project = world.plane.create_project("Mine")
    with pytest.raises(Invalid, match="judge_model=nowhere/judge cannot be used"):
        world.plane.set_project(project.id, parse_settings({"judge_model": "nowhere/judge"}))
    with pytest.raises(Invalid, match="may not use the provider groq"):
        world.plane.set_project(
            project.id, parse_settings({"judge_model": "groq/llama-3.1-8b-instant", "allowed_providers": "openai"})
        )
    assert world.plane.project(project.id).settings == ProjectSettings()
    world.plane.set_project(project.id, parse_settings({"judge_model": "groq/llama-3.1-8b-instant"}))
    with pytest.raises(Invalid, match="may not use the provider groq"):
        world.plane.set_project(project.id, parse_settings({"allowed_providers": "openai"}))
    with pytest.raises(Invalid, match="no provider key for groq"):
        world.plane.set_project(project.id, parse_settings({"instance_keys": "off"}))
    world.plane.set_project(project.id, parse_settings({"judge_model": "sim/judge", "allowed_providers": "sim"}))
    assert world.plane.project(project.id).settings.judge_model == "sim/judge"


def test_a_judge_of_no_provider_is_no_model_of_the_default_provider(world: "World") -> None:
    project = world.plane.create_project("p", ProjectSettings(default_provider="sim"))
    with pytest.raises(Invalid, match=r"no provider 'nope' is known\. Where sim names a model so, write sim/nope/abc"):
        world.plane.set_project(project.id, parse_settings({"judge_model": "nope/abc"}))
    world.plane.set_project(project.id, parse_settings({"judge_model": "sim/nope/abc"}))
    world.plane.set_project(project.id, parse_settings({"judge_model": "judge"}))


def test_a_judge_without_a_price_is_refused_where_the_project_refuses_such_models(world: "World") -> None:
    project = world.plane.create_project("Mine", ProjectSettings(unpriced="refuse"))
    unpriced = parse_settings({"judge_model": "openai/nobody-knows-its-price"})
    with pytest.raises(Invalid, match=r"no price is known for it.*prices\.toml, or set unpriced=allow"):
        world.plane.set_project(project.id, unpriced)
    assert world.plane.project(project.id).settings.judge_model is None
    for model in ("openai/gpt-4o-mini", "sim/judge"):
        world.plane.set_project(project.id, parse_settings({"judge_model": model}))
    (world.configuration.home / "prices.toml").write_text('[openai."nobody-knows-*"]\ninput = 1.0\n')
    world.plane.set_project(project.id, unpriced)
    (world.configuration.home / "prices.toml").unlink()
    world.plane.set_project(project.id, parse_settings({"unpriced": "allow"}))
    with pytest.raises(Invalid, match="no price is known for it"):
        world.plane.set_project(project.id, parse_settings({"unpriced": "refuse"}))
    assert world.plane.project(project.id).settings.unpriced == "allow"
