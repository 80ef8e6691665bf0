"""What may not be in the tree: files too long to read, addresses of package registries, paths of somebody's machine.

Run by `make check` over every file that git knows or would add. Registry hosts are not written here either: they are
asked from pip and from this machine's configuration, which is where a leak would come from.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

MAX_LINES = 600
_CODE = {".py", ".html", ".js", ".css", ".sh", ".lua", ".sql", ".toml", ".yaml", ".yml"}
_THIRD_PARTY = ("vendor/", "vendored/")
_LOCAL_HOSTS = {"", "localhost", "127.0.0.1", "::1"}

_INDEX_OPTION = re.compile(r"--(?:extra-)?index-url[ =]\S*:|--find-links[ =]\S|^\s*registry\s*=\s*\S*:", re.MULTILINE)
_MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:root|work|home/(?!watchllm\b)[a-z][\w-]*|Users/[A-Za-z][\w-]*)/[\w.]")
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


def problems(root: Path, names: Iterable[str], hosts: frozenset[str]) -> Iterator[str]:
    """Every problem of the files `names` under `root`, as `file:line: text`. `hosts` are the registries' addresses."""
    host_pattern = re.compile("|".join(map(re.escape, sorted(hosts))), re.IGNORECASE) if hosts else None
    for name in names:
        path = root / name
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = text.count("\n") + 1
        if path.suffix in _CODE and lines > MAX_LINES and not any(part in name for part in _THIRD_PARTY):
            yield f"{name}:1: {lines} lines; split it (at most {MAX_LINES}, and 400 is already a smell)"
        if name.startswith("requirements/"):
            yield from _matches(name, text, _ADDRESS, "an address in a locked requirements file")
        if name != "CHANGELOG.md" and not name.startswith(".ci/check_tree"):
            yield from _matches(name, text, _INDEX_OPTION, "names a package index")
            yield from _matches(name, text, _MACHINE_PATH, "a path of one machine")
        if host_pattern is not None:
            yield from _matches(name, text, host_pattern, "the host of a package registry")


def registry_hosts(environment: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The hosts that pip would ask, by default and as configured in `environment` and its configuration files."""
    from pip._internal.models.index import PyPI

    hosts = {PyPI.netloc, PyPI.file_storage_domain}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values = [value for name, value in environment if name.upper().startswith(("PIP_", "UV_", "NPM_CONFIG_"))]
    for address in re.findall(r"https?://[^\s'\"]+", "\n".join([listed, *values])):
        hosts.add(urlsplit(address).hostname or "")
    return frozenset(hosts - _LOCAL_HOSTS)


def _matches(name: str, text: str, pattern: re.Pattern[str], what: str) -> Iterator[str]:
    for match in pattern.finditer(text):
        yield f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {what}"


def _tree(root: Path) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    ).stdout
    return [os.fsdecode(name) for name in listed.split(b"\0") if name]


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    found = list(problems(root, _tree(root), registry_hosts(os.environ.items())))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
