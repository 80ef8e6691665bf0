"""What is declared is what is used: dependencies, the version, and locks that fit."""

import ast
import fnmatch
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import watchllm

ROOT = Path(__file__).resolve().parents[2]
_NEWER_STANDARD_LIBRARY = {"compression"}
_BACKPORTS = {"backports": "backports.zstd"}  # Not installed where the standard library has it.
_USERS_EXTRAS = ("parquet", "fastembed", "cross-encoder")
_TEST_EXTRAS = ("test", "test-fastembed")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def test_every_imported_package_is_a_declared_dependency() -> None:
    optional = {name for extra in _USERS_EXTRAS for name in _names(PROJECT["optional-dependencies"][extra])}
    assert _imported("src") - _declared() - optional == set(), "imported by src, and not declared in pyproject.toml"


def test_what_an_extra_brings_is_never_imported_at_a_modules_top() -> None:
    optional = {name for extra in _USERS_EXTRAS for name in _names(PROJECT["optional-dependencies"][extra])}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.Import):
                assert optional.isdisjoint(alias.name.partition(".")[0] for alias in node.names), path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in optional, path


def test_every_package_imported_by_tests_and_benchmarks_is_declared() -> None:
    extras = (_names(PROJECT["optional-dependencies"][extra]) for extra in _TEST_EXTRAS)
    declared = _declared().union(*extras)
    imported = _imported("tests") | _imported("benchmarks")
    assert imported - declared == set(), "imported, and not in a test extra of pyproject.toml"


@pytest.mark.parametrize("lock", ["runtime.txt", "test.txt"])
def test_every_declared_dependency_is_locked_with_hashes(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    locked = set(re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE))
    wanted = _declared() | (_names(PROJECT["optional-dependencies"]["test"]) if lock == "test.txt" else set())
    assert wanted - locked == set(), "run `make lock`"
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in entry, entry


def test_both_locks_agree() -> None:
    runtime, test = (
        dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("runtime.txt", "test.txt")
    )
    assert runtime.items() <= test.items()


def test_the_changelog_knows_this_version() -> None:
    assert re.search(
        rf"^## \[(Unreleased|{re.escape(watchllm.__version__)})\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_the_word_lists_and_weights_of_the_semantic_cache_are_package_data() -> None:
    built = ROOT / "src" / "watchllm" / "cache" / "semantic"
    assert PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": ["src/watchllm"]}, "nothing left out"
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for name in (
        "confidence.toml",
        "words/en.toml",
        "words/en_groups.toml",
        "words/en_said.toml",
        "words/de.toml",
        "words/es.toml",
        "words/fr.toml",
        "words/known_en.txt",
        "words/rare_en.txt",
    ):
        assert (built / name).is_file()
        # What git ignores, the build leaves out.
        assert not any(fnmatch.fnmatch(part, pattern) for part in name.split("/") for pattern in ignored if pattern)


def _declared() -> set[str]:
    return _names(PROJECT["dependencies"])


def _names(requirements: list[str]) -> set[str]:
    return {_normal(re.split(r"[<>=\[~! ;]", requirement)[0]) for requirement in requirements}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported(folder: str) -> set[str]:
    """The distributions that modules in a folder import, first-party and standard library left out."""
    modules: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                modules.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    distributions = packages_distributions()
    third_party = modules - set(sys.stdlib_module_names) - _NEWER_STANDARD_LIBRARY - {"watchllm", "tests", "benchmarks"}
    return {_normal(distributions.get(module, [_BACKPORTS.get(module, module)])[0]) for module in third_party}
