"""The load balancer of deploy/compose.yaml before two proxies, as they are replaced one after the other."""

import base64
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.admin import admin_get
from tests.support.deployed import DEPLOY
from tests.support.hammer import Hammer
from tests.support.nginx import Nginx, start_nginx
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import RawConnection, exchange, request_bytes
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for
from watchllm.domain.settings import parse_settings


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def homes(tmp_path: Path, redis: RedisServer, sim: Sim) -> list[Installation]:
    environment = {
        **upstream_environment(sim.base_url),
        **redis.environment,
        "WATCHLLM_SECRET_KEY": base64.b64encode(bytes(32)).decode(),
        "WATCHLLM_TRUSTED_PROXIES": "127.0.0.1",
    }
    return [Installation(tmp_path / name, environment) for name in ("one", "two")]


@pytest.fixture
def project(homes: list[Installation]) -> Project:
    return homes[0].project("balanced", settings={"semantic": "off"})


@pytest.fixture
def proxies(homes: list[Installation], project: Project) -> Iterator[list[Gateway]]:
    found = [home.start_proxy() for home in homes]
    yield found
    for gateway in found:
        gateway.stop()


@pytest.fixture
def balancer(proxies: list[Gateway], tmp_path: Path) -> Iterator[Nginx]:
    text = (DEPLOY / "nginx.conf").read_text().replace("listen 8787;", "listen 127.0.0.1:PORT;")
    for number, gateway in enumerate(proxies, 1):
        assert f"server proxy-{number}:8787 " in text
        text = text.replace(f"proxy-{number}:8787", f"127.0.0.1:{gateway.port}")
    nginx = start_nginx(tmp_path / "nginx", text)
    yield nginx
    nginx.stop()


def again(gateway: Gateway) -> None:
    """Start the proxy anew on its port, as a container that was replaced."""
    gateway.process = gateway.installation._start("proxy", WATCHLLM_PROXY_PORT=str(gateway.port))
    gateway.process.wait_until(lambda: _is_ready(gateway), "being ready")


def answers_of(gateway: Gateway) -> int:
    text = admin_get(gateway, "/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith("watchllm_requests_total{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def _is_ready(gateway: Gateway) -> bool:
    try:
        return gateway.get("/health/ready").status == 200
    except OSError:
        return False


def test_replacing_both_proxies_fails_no_request(proxies: list[Gateway], project: Project, balancer: Nginx) -> None:
    with Hammer(balancer.port, project.key) as hammer:
        for turn in range(6):
            gateway = proxies[turn % 2]
            enough = hammer.answered + 50
            wait_for(lambda enough=enough: hammer.answered > enough, "some load", within=60)  # type: ignore[misc]
            gateway.process.signal(signal.SIGUSR2)
            assert gateway.process.wait(20) == 0
            again(gateway)
            before = answers_of(gateway)
            wait_for(lambda: answers_of(gateway) > before, "the balancer to come back to it")  # noqa: B023
    assert hammer.failed == []


def test_a_stream_reaches_the_client_as_it_comes_and_is_finished_by_a_proxy_that_retires(
    proxies: list[Gateway], project: Project, balancer: Nginx, sim: Sim
) -> None:
    body = {"model": "gpt-4o-mini+chunk-100ms+tokens-20", "messages": [{"role": "user", "content": "Last words?"}]}
    with RawConnection(balancer.port) as client:
        client.send(request_bytes("/v1/chat/completions", key=project.key, body=body | {"stream": True}))
        first = client.receive()
        assert b"text/event-stream" in first
        assert b"[DONE]" not in first
        assert sim.stats()["open"] == 1, "it is still being answered"
        for gateway in proxies:
            gateway.process.signal(signal.SIGUSR2)
        rest = b""
        while b"data: [DONE]" not in rest:
            piece = client.receive()
            assert piece, "it was cut"
            rest += piece
    for gateway in proxies:
        assert gateway.process.wait(20) == 0


def test_the_clients_address_is_what_the_balancer_says(
    project: Project, balancer: Nginx, homes: list[Installation]
) -> None:
    with homes[0].control_plane() as plane:
        plane.set_project(project.id, parse_settings({"allowed_ips": "192.0.2.0/24"}))

    def status(claimed: str | None) -> int:
        headers = {} if claimed is None else {"X-Forwarded-For": claimed}
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
        data = request_bytes("/v1/chat/completions", key=project.key, body=body, headers=headers)
        return exchange(balancer.port, data, method=b"POST").status

    wait_for(lambda: status(None) == 403, "the limit to be in force")
    assert status("192.0.2.1") == 403, "a client cannot claim it"


@pytest.mark.parametrize("role", ["proxy", "console", "recorder", "recorder-alive"])
def test_the_health_check_of_the_image_tells_who_is_well(installation: Installation, role: str) -> None:
    def check() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, str(DEPLOY / "healthy.py"), role],
            env=installation._environment() | {name: str(port) for name, port in ports.items()},
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    ports = {"WATCHLLM_PROXY_PORT": 1, "WATCHLLM_CONSOLE_PORT": 1}
    code, said = check()
    assert code == 1
    assert said
    gateway = installation.start_up()
    wait_for(lambda: "console  http" in gateway.process.log(), "all processes")
    ports["WATCHLLM_PROXY_PORT"] = gateway.port
    ports["WATCHLLM_CONSOLE_PORT"] = int(gateway.process.log().partition("console  http://127.0.0.1:")[2].split()[0])
    wait_for(lambda: check() == (0, ""), f"the {role} to be well")
