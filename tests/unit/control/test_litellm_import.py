"""A LiteLLM configuration in a project: in force at once, named where it may not be, or nothing changed at all."""

from typing import TYPE_CHECKING

import pytest

from watchllm.control import audit
from watchllm.control.errors import Invalid, NotFound
from watchllm.domain.sealing import Sealer
from watchllm.domain.snapshot import RouteRecord

if TYPE_CHECKING:
    from tests.unit.control.conftest import World

VARIABLES = {"OPENAI_API_KEY": "sk-openai-0123456789"}

FILE = """
model_list:
  - {model_name: main, litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY}}
  - {model_name: main, litellm_params: {model: openai/mine, api_key: sk-own-0123456789, api_base: 'https://m.example/v1'}}
  - {model_name: local, litellm_params: {model: ollama/llama3, api_base: 'http://gpu.example:11434'}}
  - {model_name: claude, litellm_params: {model: anthropic/claude-sonnet-4-5}}
router_settings: {fallbacks: [{main: [local]}], num_retries: 1}
"""


def test_an_import_is_in_force_when_it_returns(world: "World") -> None:
    project = world.plane.create_project("Mine")
    imported = world.plane.import_litellm(FILE, VARIABLES)
    assert (imported.project_id, imported.dry_run) == (project.id, False)
    assert [(key.provider, key.masked, key.existed) for key in imported.provider_keys] == [
        ("openai", "***6789", False), ("m-example", "***6789", False), ("ollama", "", False),
    ]  # fmt: skip
    (missing,) = imported.keys_to_add
    assert missing.command == (
        f"watchllm provider-key add anthropic --project {project.id} --from-env ANTHROPIC_API_KEY"
    )
    record = world.reader.project(project.id)
    assert record is not None
    sealer = Sealer((world.configuration.home / "secret.key").read_text())
    assert {key.provider: sealer.open(key.sealed, key.id) for key in record.provider_keys} == {
        "openai": b"sk-openai-0123456789", "m-example": b"sk-own-0123456789", "ollama": b"",
    }  # fmt: skip
    assert (
        set(record.routes)
        == set(imported.routes)
        == {
            RouteRecord("main", (("openai/gpt-4o", 1), ("m-example/mine", 1)), ("ollama/llama3",), 1),
            RouteRecord("local", (("ollama/llama3", 1),), (), 1),
            RouteRecord("claude", (("anthropic/claude-sonnet-4-5", 1),), (), 1),
        }
    )
    with world.plane.database.reading() as connection:
        lines = audit.listed(connection)
    assert {line.action for line in lines} >= {"provider_key.add", "route.set"}
    assert "0123456789" not in repr(lines)


def test_an_import_that_is_only_tried_changes_nothing(world: "World") -> None:
    project = world.plane.create_project("Mine")
    before = world.reader.version()
    tried = world.plane.import_litellm(FILE, VARIABLES, project_id=project.id, dry_run=True)
    assert tried.dry_run
    assert (len(tried.provider_keys), len(tried.routes)) == (3, 3)
    assert (world.plane.provider_keys(project.id), world.plane.routes(project.id)) == ([], [])
    assert (world.reader.version(), world.plane.has_unpublished()) == (before, False)
    with world.plane.database.reading() as connection:
        assert audit.listed(connection)[0].action == "project.create"


def test_a_second_import_adds_no_key_twice(world: "World") -> None:
    project = world.plane.create_project("Mine")
    first = world.plane.import_litellm(FILE, VARIABLES)
    second = world.plane.import_litellm(FILE, VARIABLES)
    assert all(key.existed for key in second.provider_keys)
    assert [key.id for key in second.provider_keys] == [key.id for key in first.provider_keys]
    assert len(world.plane.provider_keys(project.id)) == 3
    assert len(world.plane.routes(project.id)) == 3


def test_what_may_not_be_is_named_and_the_rest_is_kept(world: "World") -> None:
    project = world.plane.create_project("Mine")
    text = (
        "model_list:\n  - {model_name: two words, litellm_params: {model: openai/a}}\n"
        "  - {model_name: good, litellm_params: {model: openai/b}}\n"
        "  - {model_name: bad, litellm_params: {model: groq/c, api_key: 'two words'}}\n"
    )
    imported = world.plane.import_litellm(text, VARIABLES)
    assert [rule.name for rule in imported.routes] == ["good", "bad"]
    assert [key.provider for key in world.plane.provider_keys(project.id)] == ["openai"]
    assert {skipped.path for skipped in imported.not_imported} == {
        "model_list[0]", "model_list[2].litellm_params.api_key",
    }  # fmt: skip


def test_a_file_that_is_wrong_changes_nothing(world: "World") -> None:
    project = world.plane.create_project("Mine")
    with pytest.raises(Invalid, match="router_settings"):
        world.plane.import_litellm(FILE.replace("num_retries: 1", "num_retries: [1]"), VARIABLES)
    assert (world.plane.provider_keys(project.id), world.plane.routes(project.id)) == ([], [])


def test_the_project_has_to_be_said_unless_there_is_one_only(world: "World") -> None:
    with pytest.raises(Invalid, match="there are 0 projects"):
        world.plane.import_litellm(FILE, VARIABLES)
    project, _ = world.plane.create_project("One"), world.plane.create_project("Two")
    with pytest.raises(Invalid, match="--project"):
        world.plane.import_litellm(FILE, VARIABLES)
    with pytest.raises(NotFound):
        world.plane.import_litellm(FILE, VARIABLES, project_id="prj_" + "0" * 32)
    assert world.plane.import_litellm(FILE, VARIABLES, project_id=project.id).project_id == project.id
