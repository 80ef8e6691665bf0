"""WATCHLLM_HOME and the master secret in it: made once, private, whole."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from watchllm.stores.home import (
    HomeInUse,
    HomeUnusable,
    claim_for_proxy,
    is_claimed,
    is_private,
    master_secret,
    prepare,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    home = tmp_path / "a" / "home"
    first = master_secret(home, None)
    assert len(first) >= 32
    assert master_secret(home, None) == first
    assert (mode(home), mode(home / "secret.key")) == (0o700, 0o600)
    assert [path.name for path in home.iterdir()] == ["secret.key"]


def test_processes_that_start_at_once_get_one_secret(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from watchllm.stores.home import master_secret;"
    code += "sys.stdin.read(1); print(master_secret(Path(sys.argv[1]), None))"
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "home")], stdin=-1, stdout=-1, text=True)
        for _ in range(4)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    secrets = {child.communicate()[0].strip() for child in children}
    assert len(secrets) == 1
    assert len(secrets.pop()) == 64


def test_a_secret_that_appears_meanwhile_is_taken_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "f" * 64

    def meanwhile(_size: int) -> str:
        (tmp_path / "secret.key").write_text(other)
        return "a" * 64

    monkeypatch.setattr("secrets.token_hex", meanwhile)
    assert master_secret(tmp_path, None) == other
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


def test_a_configured_secret_needs_no_file(tmp_path: Path) -> None:
    assert master_secret(tmp_path / "home", "x" * 32) == "x" * 32
    assert not (tmp_path / "home").exists()


def test_a_damaged_secret_is_an_error_not_a_new_secret(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text("")
    with pytest.raises(HomeUnusable, match=r"secret\.key.*backup"):
        master_secret(tmp_path, None)


def test_a_home_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnusable, match="WATCHLLM_HOME"):
        prepare(tmp_path / "file" / "home")


def test_an_existing_folder_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    prepare(tmp_path)
    assert mode(tmp_path) == 0o755
    assert not is_private(tmp_path)


def claimed_by(home: Path, *, shared: bool) -> int:
    """Locks belong to the open file: within one process, two claims are as those of two processes."""
    return claim_for_proxy(home, wait_seconds=0.0, shared=shared)


def test_proxies_that_share_a_home_may_be_many_and_one_that_does_not_is_alone(tmp_path: Path) -> None:
    assert not is_claimed(tmp_path)
    first, second = claimed_by(tmp_path, shared=True), claimed_by(tmp_path, shared=True)
    assert is_claimed(tmp_path)
    with pytest.raises(HomeInUse, match="without WATCHLLM_REDIS_URL there is one for each home"):
        claimed_by(tmp_path, shared=False)
    os.close(first)
    assert is_claimed(tmp_path), "one is left"
    os.close(second)
    assert not is_claimed(tmp_path)
    alone = claimed_by(tmp_path, shared=False)
    assert is_claimed(tmp_path)
    with pytest.raises(HomeInUse, match=f"process {os.getpid()} is the proxy .* it has no WATCHLLM_REDIS_URL"):
        claimed_by(tmp_path, shared=True)
    os.close(alone)
