"""deploy/compose.yaml: what depends on what, who knows what, and that the program has all that is asked of it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deployed import DEPLOY, check_command, is_public, unknown_variables
from tests.support.redis_server import RedisServer
from watchllm.configuration import load

TEXT = (DEPLOY / "compose.yaml").read_text()
OURS = ("proxy-1", "proxy-2", "recorder-1", "recorder-2", "console", "migrate")
# What the compose specification knows of a service, as far as it is used here: a typing error is in none of it.
KNOWN = {
    "build", "cap_drop", "command", "configs", "depends_on", "environment", "healthcheck", "image", "networks", "ports",
    "read_only", "restart", "security_opt", "shm_size", "stop_grace_period", "stop_signal", "tmpfs", "volumes",
}  # fmt: skip


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(TEXT)
    return loaded


@pytest.fixture(scope="module")
def services(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["services"]
    return found


@pytest.mark.parametrize("command", [["recorder", "--outlive"], ["db"], ["nothing"], ["proxy", "--workers", "many"]])
def test_a_command_that_does_not_exist_would_be_noticed(command: list[str]) -> None:
    with pytest.raises(ValueError, match=command[0]):
        check_command(command)


def test_it_says_nothing_that_compose_does_not_know(document: dict[str, Any]) -> None:
    extensions = {name for name in document if name.startswith("x-")}
    assert set(document) - extensions == {"name", "services", "configs", "networks", "volumes"}
    for service in document["services"].values():
        assert set(service) <= KNOWN


def test_all_that_is_named_exists(document: dict[str, Any]) -> None:
    services = document["services"]
    for service in services.values():
        assert is_public(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["image"]))
        for name, wait in service.get("depends_on", {}).items():
            assert "healthcheck" in services[name] or wait["condition"] != "service_healthy"
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in document["volumes"] or (DEPLOY / source).is_file()
        assert set(service["networks"]) <= set(document["networks"])
        assert {config["source"] for config in service.get("configs", [])} <= set(document.get("configs", {}))


def test_every_process_runs_a_command_that_exists_with_settings_that_exist(services: dict[str, Any]) -> None:
    for name in OURS:
        check_command(services[name]["command"])
        assert unknown_variables(services[name].get("environment", {})) == set(), name


@pytest.mark.parametrize("number", ["1", "2"])
def test_a_recorder_works_beside_each_proxy_and_is_stopped_after_it(services: dict[str, Any], number: str) -> None:
    proxy, recorder = services[f"proxy-{number}"], services[f"recorder-{number}"]
    assert proxy["volumes"] == recorder["volumes"]
    assert recorder["command"] == ["recorder", "--outlive-proxies"]
    assert f"recorder-{number}" in proxy["depends_on"]
    assert proxy["stop_signal"] == "SIGUSR2"
    assert "stop_signal" not in recorder
    drain = load({}, {}).drain_seconds
    for service in (proxy, recorder):
        assert float(service["stop_grace_period"].removesuffix("s")) >= drain + 10


def test_two_proxies_have_two_homes(services: dict[str, Any]) -> None:
    assert services["proxy-1"]["volumes"] != services["proxy-2"]["volumes"]


def test_a_proxy_knows_no_way_into_the_database(services: dict[str, Any]) -> None:
    for name in ("proxy-1", "proxy-2"):
        assert "POSTGRES" not in str(services[name]["environment"])
        assert "WATCHLLM_DATABASE_URL" not in services[name]["environment"]
    for name in ("recorder-1", "recorder-2", "console", "migrate"):
        assert "WATCHLLM_DATABASE_URL" in services[name]["environment"]
        assert "OPENAI_API_KEY" not in services[name]["environment"]


def test_ours_have_few_rights_and_nothing_is_open_to_the_network(services: dict[str, Any]) -> None:
    for name in OURS:
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len(published) == 2


def test_only_the_balancer_is_believed_who_a_client_is(services: dict[str, Any]) -> None:
    address = services["balancer"]["networks"]["inside"]["ipv4_address"]
    for name in ("proxy-1", "proxy-2"):
        assert services[name]["environment"]["WATCHLLM_TRUSTED_PROXIES"] == f"{address}/32"


def test_what_has_to_be_filled_in_is_in_the_example() -> None:
    example = dict(line.split("=", 1) for line in (DEPLOY / "env.example").read_text().splitlines() if _is_set(line))
    assert set(re.findall(r"\$\{(\w+):?[?-]", TEXT)) - {"WATCHLLM_IMAGE"} == set(example)
    assert set(example.values()) == {""}


def _is_set(line: str) -> bool:
    return "=" in line and not line.startswith("#")


def test_secrets_without_which_nothing_is_safe_are_asked_for() -> None:
    for name in ("WATCHLLM_SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD"):
        assert re.findall(rf"\$\{{{name}\b(.?.?)", TEXT) == [":?"] * len(re.findall(rf"\$\{{{name}\b", TEXT))


def test_no_secret_is_an_argument_that_a_list_of_processes_shows(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert "$" not in str(service.get("command", "")), name
        assert "$" not in str(service["healthcheck"]), name


def test_redis_takes_its_settings_from_the_file(document: dict[str, Any], tmp_path: Path) -> None:
    redis = document["services"]["redis"]
    (given,) = redis["configs"]
    assert redis["command"] == ["redis-server", given["target"]]
    lines = document["configs"][given["source"]]["content"].splitlines()
    assert "requirepass ${REDIS_PASSWORD:?fill in deploy/.env}" in lines
    options = [word for line in lines for word in (f"--{line.split()[0]}", line.split(maxsplit=1)[1].strip('"'))]
    server = RedisServer(tmp_path, *options, password=True)
    try:
        assert b"volatile-lru" in server.command("CONFIG", "GET", "maxmemory-policy")
    finally:
        server.stop()


def test_the_lines_that_explain_it_name_a_command_that_exists() -> None:
    (line,) = [line for line in TEXT.splitlines() if "exec console watchllm" in line]
    check_command(line.partition("console watchllm ")[2].split())
