"""The master secret is rotated under proxies that run: they go on, and the cache stays warm."""

from pathlib import Path

import pytest

from tests.support.product import Gateway, Installation, Sim

SECRET = "sk-project-0123456789"
OLD, NEW = "o" * 40, "n" * 40


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "home", {"WATCHLLM_ALLOW_PRIVATE_URLS": "true"})


def cache_state(gateway: Gateway, key: str, text: str) -> str:
    answer = gateway.chat(key, text)
    assert answer.status == 200, answer
    return str(answer.header("X-WatchLLM-Cache"))


def test_a_running_proxy_opens_what_is_sealed_anew_and_keeps_its_cache(installation: Installation, sim: Sim) -> None:
    project = installation.project()
    with installation.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", SECRET, base_url=sim.base_url)
    gateway = installation.start_proxy()
    try:
        assert cache_state(gateway, project.key, "Before?") == "MISS"
        before = (installation.home / "secret.key").read_text()
        assert installation.run_json("secret", "rotate") == {"provider_keys": 1}
        assert (installation.home / "secret.key").read_text() != before
        assert cache_state(gateway, project.key, "Before?") == "HIT"
        assert cache_state(gateway, project.key, "After?") == "MISS"
        assert sim.requests()[-1]["headers"]["authorization"] == f"Bearer {SECRET}"
    finally:
        gateway.stop()
    again = installation.start_proxy()
    try:
        assert cache_state(again, project.key, "Before?") == "HIT"
        assert cache_state(again, project.key, "Afterwards?") == "MISS"
    finally:
        again.stop()


def test_a_configured_secret_is_rotated_while_proxies_know_both(installation: Installation, sim: Sim) -> None:
    installation.environment["WATCHLLM_SECRET_KEY"] = OLD
    project = installation.project()
    with installation.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", SECRET, base_url=sim.base_url)
    installation.environment |= {"WATCHLLM_SECRET_KEY": NEW, "WATCHLLM_SECRET_KEY_PREVIOUS": OLD}
    gateway = installation.start_proxy()
    try:
        assert cache_state(gateway, project.key, "Before?") == "MISS"
        installation.run("secret", "rotate")
        assert cache_state(gateway, project.key, "Before?") == "HIT"
        assert cache_state(gateway, project.key, "After?") == "MISS"
    finally:
        gateway.stop()
    del installation.environment["WATCHLLM_SECRET_KEY_PREVIOUS"]
    again = installation.start_proxy()
    try:
        assert cache_state(again, project.key, "Before?") == "HIT"
        assert cache_state(again, project.key, "Afterwards?") == "MISS"
    finally:
        again.stop()


def test_a_proxy_with_the_secret_of_before_says_so_at_its_start(installation: Installation) -> None:
    installation.environment |= {"WATCHLLM_SECRET_KEY": OLD, "NEXT": NEW}
    installation.project()
    done = installation.run("secret", "rotate", "--from-env", "NEXT")
    assert "set the new secret as WATCHLLM_SECRET_KEY" in done.stderr
    gateway = installation.start_proxy(wait=False)
    assert gateway.process.wait() == 1
    log = gateway.process.log()
    assert "is not the secret that the snapshot was sealed under" in log
    assert "Traceback" not in log
    assert OLD not in log + done.stdout + done.stderr
    assert NEW not in log + done.stdout + done.stderr
