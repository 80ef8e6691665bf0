"""The very first run makes an owner, a project and a key; no later one does."""

import subprocess
import sys
from pathlib import Path

import pytest

from watchllm.compose.control import bootstrap, open_control_plane
from watchllm.configuration import Configuration, load
from watchllm.control import secrets
from watchllm.domain.keys import digest
from watchllm.domain.sealing import WrongSecret
from watchllm.stores.lmdb.snapshot import LmdbSnapshotReader


def test_what_it_shows_works(configuration: Configuration) -> None:
    shown = bootstrap(configuration)
    assert shown is not None
    with open_control_plane(configuration) as plane:
        user = plane.authenticate(shown.email.upper(), shown.password)
        assert user is not None
        assert (user.role, user.email) == ("owner", "owner@localhost")
        assert plane.authenticate(shown.email, shown.password + "x") is None
        assert plane.authenticate("nobody@localhost", shown.password) is None
    reader = LmdbSnapshotReader(configuration.home / "snapshot")
    key = reader.key(digest(shown.key))
    project = reader.project(shown.project_id)
    reader.close()
    assert key is not None
    assert key.project_id == shown.project_id
    assert project is not None
    assert (project.name, project.settings.default_provider) == ("default", "sim")
    assert shown.key not in repr(shown)
    assert shown.password not in repr(shown)


def test_the_second_run_shows_nothing_and_makes_nothing(configuration: Configuration) -> None:
    assert bootstrap(configuration) is not None
    assert bootstrap(configuration) is None
    with open_control_plane(configuration) as plane:
        assert len(plane.projects()) == 1
        assert len(plane.keys()) == 1


def test_a_configured_provider_answers_instead_of_the_simulated_one(tmp_path: Path) -> None:
    env = {"WATCHLLM_HOME": str(tmp_path), "GROQ_API_KEY": "gsk", "ANTHROPIC_API_KEY": "sk-ant"}
    shown = bootstrap(load({}, env))
    assert shown is not None
    assert shown.provider == "anthropic"


def test_of_processes_that_start_at_once_one_is_the_first(tmp_path: Path) -> None:
    code = (
        "import sys; from watchllm.compose.control import bootstrap; from watchllm.configuration import load\n"
        "print('ready', flush=True); sys.stdin.read(1)\n"
        "print(bootstrap(load({'home': sys.argv[1]}, {})) is not None)"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "home")], stdin=-1, stdout=-1, stderr=-1, text=True
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate() for child in children]
    assert sorted(output.strip() for output, _ in outputs) == ["False", "False", "True"], outputs


def test_a_look_that_came_too_early_makes_nothing_twice(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process was first between the look without a lock and the write."""
    bootstrap(configuration)
    monkeypatch.setattr("watchllm.control.database.Database.value", lambda _self, _name: None)
    assert bootstrap(configuration) is None
    other = load({"home": str(configuration.home), "secret_key": "another-secret-0123456789abcdefgh"}, {})
    with pytest.raises(WrongSecret):
        bootstrap(other)


def test_another_secret_is_refused_at_start(configuration: Configuration) -> None:
    bootstrap(configuration)
    other = load({"home": str(configuration.home), "secret_key": "another-secret-0123456789abcdefgh"}, {})
    with pytest.raises(WrongSecret, match="the database"):
        bootstrap(other)
    reader = LmdbSnapshotReader(configuration.home / "snapshot")
    canary = reader.secret(secrets.CANARY)
    reader.close()
    with open_control_plane(configuration) as plane:
        plane._keyring.in_force(canary, "the snapshot")
    assert canary is not None
