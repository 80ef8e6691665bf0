"""The operators' listener: requests are served without it, but not without a word."""

import socket

from tests.support.admin import admin_get
from tests.support.product import Gateway, Installation, Project, Sim
from tests.support.waiting import wait_for
from watchllm.stores.sockets import socket_folder


def test_an_address_that_is_taken_is_told_by_the_health(installation: Installation) -> None:
    project = installation.project()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        gateway = installation.start_proxy(environment={"WATCHLLM_ADMIN_ADDR": address})
        wait_for(lambda: "admin" in gateway.get("/health/ready").json()["dependencies"], "the failure to be told")
        state = gateway.get("/health/ready")
        assert state.status == 200
        assert state.json()["dependencies"]["admin"] == "degraded"
        assert address not in state.body.decode()
        assert f"the operators' listener cannot be opened: {gateway.process.log()}".count("cannot be opened") == 2
        assert gateway.get("/v1/models", project.key).status == 200


def test_who_finds_it_ready_finds_its_socket(installation: Installation) -> None:
    installation.project()
    gateway = installation.start_proxy()
    with socket.socket(socket.AF_UNIX) as operator:
        operator.connect(str(socket_folder(installation.home) / f"proxy-{gateway.process.pid}.sock"))
    told = installation.run("explain", "req_" + "0" * 32, check=False).stderr
    assert "no proxy runs" not in told
    # One that was refused before, as while a proxy shuts down, has no row.
    assert "has its row, unless it was refused before its key was looked at" in told


def test_a_hit_is_counted_at_once(gateway: Gateway, sim: Sim, project: Project) -> None:
    before = admin_get(gateway, "/metrics").body  # other tests ask the same proxy
    for _ in range(3):
        gateway.chat(project.key, "Hello")
    after = admin_get(gateway, "/metrics").body

    def grown(series: bytes) -> int:
        return _value(after, series) - _value(before, series)

    assert grown(b'watchllm_requests_total{endpoint="chat.completions",cache="MISS",status="200"}') == 1
    assert grown(b'watchllm_requests_total{endpoint="chat.completions",cache="HIT",status="200"}') == 2
    assert grown(b"watchllm_latency_seconds_count") == 3


def _value(metrics: bytes, series: bytes) -> int:
    """What a counter stands at; one that nothing was counted in yet is absent."""
    line = next((line for line in metrics.splitlines() if line.startswith(series + b" ")), b"0")
    return int(line.rpartition(b" ")[2])
