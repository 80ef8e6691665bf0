"""`make check` refuses what may not be in the tree."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOSTS = frozenset({"packages.example.org"})


@pytest.fixture
def check_tree(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("check_tree", ROOT / ".ci" / "check_tree.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "check_tree", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("src/long.py", "x = 1\n" * 601, "split it"),
        ("docs/setup.md", "one\npip install --index-url" + " https://a.example/simple x\n", "names a package index"),
        ("docs/setup.md", "fetched from Packages.Example.org\n", "host of a package registry"),
        ("requirements/runtime.txt", "# from https://a.example/\n", "an address"),
        ("src/paths.py", "HOME = '/home/" + "jane/project'\n", "a path of one machine"),
        ("src/paths.py", "HOME = '/ro" + "ot/project'\n", "a path of one machine"),
    ],
)
def test_what_may_not_be_there_is_named(check_tree: Any, tmp_path: Path, name: str, text: str, problem: str) -> None:
    found = list(check_tree.problems(_write(tmp_path, name, text), [name], HOSTS))
    assert len(found) == 1
    assert found[0].startswith(f"{name}:")
    assert problem in found[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("src/right.py", "x = 1\n" * 598),
        ("docs/long.md", "word\n" * 2_000),
        ("src/page/static/vendor/chart.js", "x\n" * 5_000),
        ("docs/use.md", "curl http://127.0.0.1:8787/v1/models and https://stripe.example/work/flow\n"),
        ("deploy/Dockerfile", "WORKDIR /home/watchllm/data\n"),
    ],
)
def test_what_may_be_there_passes(check_tree: Any, tmp_path: Path, name: str, text: str) -> None:
    assert list(check_tree.problems(_write(tmp_path, name, text), [name], HOSTS)) == []


def test_registry_hosts_come_from_the_machine(check_tree: Any) -> None:
    hosts = check_tree.registry_hosts([("PIP_EXTRA_INDEX_URL", "https://user:pw@mirror.example:8443/simple")])
    assert "mirror.example" in hosts
    assert len(hosts) >= 3
    assert not {"", "localhost", "127.0.0.1"} & hosts


def _write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return root
