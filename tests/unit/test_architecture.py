"""The dependency rule holds, and the linter that guards it notices when it does not."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The layers alone would allow it to import these, for they are below it.
CONTROL_SIDE = ("control", "analytics", "billing")


@pytest.mark.parametrize("configuration", ["pyproject.toml", ".ci/cycles.toml"])
def test_the_dependency_rule_holds(configuration: str) -> None:
    done = _lint(ROOT, configuration)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("proxy/__init__.py", "import watchllm.control.errors", "data plane"),
        ("proxy/__init__.py", "import sqlalchemy", "data plane"),
        ("cache/__init__.py", "import rich", "data plane"),
        ("stores/lmdb/__init__.py", "import typer", "data plane"),
        ("wire/__init__.py", "import watchllm.cache.entry", "layer"),
        ("cache/__init__.py", "import watchllm.providers", "layer"),
        ("control/__init__.py", "import watchllm.compose", "layer"),
        ("cli/__init__.py", "import watchllm.stores.lmdb", "adapter"),
        ("unplaced/__init__.py", "", "layer"),
        ("providers/anthropic/__init__.py", "import watchllm.providers.openai.usage", "dialects"),
    ],
)
def test_a_planted_violation_is_noticed(tmp_path: Path, module: str, line: str, contract: str) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / "src" / "watchllm" / module
    planted.parent.mkdir(exist_ok=True)
    planted.write_text((planted.read_text() if planted.exists() else "") + f"\n{line}\n")

    done = _lint(tmp_path, "pyproject.toml")

    assert done.returncode == 1, f"planted {line!r} in {module} and nobody noticed\n{done.stdout}"
    broken = done.stdout.partition("Broken contracts")[2] or done.stdout
    assert re.search(contract, broken, re.IGNORECASE), done.stdout


def test_a_planted_cycle_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "src/watchllm/domain/chicken.py").write_text("import watchllm.domain.egg\n")
    (tmp_path / "src/watchllm/domain/egg.py").write_text("import watchllm.domain.chicken\n")

    done = _lint(tmp_path, ".ci/cycles.toml")

    assert done.returncode == 1, done.stdout
    assert ".chicken -> .egg" in done.stdout or ".egg -> .chicken" in done.stdout, done.stdout


def test_the_data_plane_may_load_no_package_of_the_control_side() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    forbidden = next(rule for rule in configuration["contracts"] if rule["id"] == "data-plane")["forbidden_modules"]
    for package in CONTROL_SIDE:
        if (ROOT / "src/watchllm" / package / "__init__.py").exists():
            assert f"watchllm.{package}" in forbidden


def _lint(root: Path, configuration: str) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).with_name("lint-imports")
    environment = {"PYTHONPATH": str(root / "src"), "PATH": "", "COLUMNS": "200"}
    return subprocess.run(
        [program, "--no-cache", "--no-logo", "--config", configuration],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
