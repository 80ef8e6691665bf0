"""deploy/Dockerfile: what goes into the image, and as whom it runs."""

import re
from fnmatch import fnmatch

import pytest

from tests.support.deployed import DEPLOY, check_command, is_public, unknown_variables

ROOT = DEPLOY.parent
TEXT = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
LINES = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
FINAL = LINES[max(number for number, line in enumerate(LINES) if line.startswith("FROM ")) :]


COPIED = sorted(name for line in LINES if re.match("COPY (?!--from)", line) for name in line.split()[1:-1])


def instructions(name: str, lines: list[str] = FINAL) -> list[str]:
    return [line.partition(" ")[2].strip() for line in lines if line.startswith(f"{name} ")]


def test_both_stages_are_the_public_slim_image() -> None:
    images = [line.split()[0] for line in instructions("FROM", LINES)]
    assert images == ["python:${PYTHON}-slim"] * 2
    assert all(is_public(image) for image in images)


def test_nothing_that_builds_is_in_the_final_stage() -> None:
    copied = instructions("COPY")
    assert copied == ["--from=build /opt/watchllm /opt/watchllm", "deploy/healthy.py /opt/watchllm/healthy.py"]
    assert "install" not in " ".join(instructions("RUN")).replace("install -d", "").replace("uninstall", "")
    assert "apt-get" not in TEXT
    assert "--without-pip" in TEXT


def test_what_is_installed_is_locked() -> None:
    installs = re.findall(r"pip\S*(?: --python \S+)? install([^&]*)", TEXT)
    assert len(installs) == 3
    for options in installs:
        assert "--require-hashes" in options or "--no-index" in options


def test_it_runs_as_nobody_who_could_do_anything() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert instructions("VOLUME") == ["/var/lib/watchllm"]


def test_its_settings_and_its_command_exist() -> None:
    (settings,) = instructions("ENV")
    names = re.findall(r"(\w+)=", settings)
    assert unknown_variables(name for name in names if name.startswith("WATCHLLM_")) == set()
    assert instructions("ENTRYPOINT") == ['["watchllm"]']
    assert instructions("CMD") == ['["proxy"]']
    check_command(["proxy"])


def test_it_looks_after_itself() -> None:
    (check,) = instructions("HEALTHCHECK")
    assert check.endswith('CMD ["/opt/watchllm/bin/python", "/opt/watchllm/healthy.py", "proxy"]')


@pytest.mark.parametrize("source", COPIED)
def test_what_is_copied_is_there_and_not_kept_out(source: str) -> None:
    assert (ROOT / source).exists()
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in lines
    assert any(fnmatch(source, line.removeprefix("!")) for line in lines if line.startswith("!"))
