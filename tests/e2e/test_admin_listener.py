"""The operators' listener: requests are served without it, but not without a word."""

import socket

from tests.support.admin import admin_get
from tests.support.product import Gateway, Installation, Project, Sim
from tests.support.waiting import wait_for


def test_an_address_that_is_taken_is_told_by_the_health(installation: Installation) -> None:
    project = installation.project()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        gateway = installation.start_proxy(environment={"WATCHLLM_ADMIN_ADDR": address})
        wait_for(lambda: "admin" in gateway.get("/health/ready").json()["dependencies"], "the failure to be told")
        state = gateway.get("/health/ready")
        assert state.status == 200
        assert state.json()["dependencies"]["admin"].startswith("degraded: ")
        assert gateway.get("/v1/models", project.key).status == 200


def test_a_hit_is_counted_at_once(gateway: Gateway, sim: Sim, project: Project) -> None:
    for _ in range(3):
        gateway.chat(project.key, "Hello")
    metrics = admin_get(gateway, "/metrics").body
    assert b'watchllm_requests_total{endpoint="chat.completions",cache="MISS",status="200"} 1' in metrics
    assert b'watchllm_requests_total{endpoint="chat.completions",cache="HIT",status="200"} 2' in metrics
    assert b"watchllm_latency_seconds_count 3" in metrics
    assert admin_get(gateway, "/status").json()["requests"] == 3
