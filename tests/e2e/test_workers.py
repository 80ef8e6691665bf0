"""Several proxies on one home: one address, one recorder, and each of them as good as the others."""

import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.admin import admin_get
from tests.support.journal import usage_in
from tests.support.processes import ProcessEnded
from tests.support.product import WATCHLLM, Gateway, Installation, Sim, upstream_environment
from tests.support.raw_http import ConnectionClosed, RawConnection, RawResponse, request_bytes
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for
from tests.support.workers import called, in_group_of
from watchllm.compose.running import RunningProxy, running_proxies

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are found in /proc")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def shared(installation: Installation, redis: RedisServer, sim: Sim) -> Installation:
    installation.environment |= {
        **upstream_environment(sim.base_url),
        **redis.environment,
        "WATCHLLM_SECRET_KEY": base64.b64encode(bytes(32)).decode(),
    }
    return installation


def proxies_of(gateway: Gateway, count: int) -> list[RunningProxy]:
    """Those that answer operators, as soon as there are so many."""
    return wait_for(lambda: _exactly(gateway, count), f"{count} admin listeners")


def _exactly(gateway: Gateway, count: int) -> list[RunningProxy]:
    found = running_proxies(gateway.installation.configuration())
    return found if len(found) == count else []


def asked_of_both(gateway: Gateway, key: str, count: int = 40) -> list[RawResponse]:
    """Answers to as many requests, each on a connection of its own: the kernel spreads them."""
    return [gateway.chat(key, f"question {number % 4}", model="gpt-4o-mini") for number in range(count)]


def requests_of(gateway: Gateway, pid: int) -> int:
    text = admin_get(gateway, "/metrics", pid=pid).body.decode()
    lines = [line for line in text.splitlines() if line.startswith("watchllm_requests_total{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in lines)


def test_up_runs_so_many_proxies_behind_one_address_and_one_recorder(shared: Installation) -> None:
    project = shared.project("shared", settings={"semantic": "off"})
    gateway = shared.start_up("--workers", "2", "--no-console")
    proxies = proxies_of(gateway, 2)
    assert sorted(proxy.pid for proxy in proxies) == called(gateway.process, "proxy")
    assert {proxy.port for proxy in proxies} == {gateway.port}
    assert len(called(gateway.process, "recorder")) == 1
    assert len(in_group_of(gateway.process.pid)) == 4
    answers = asked_of_both(gateway, project.key)
    assert {answer.status for answer in answers} == {200}
    assert sum(answer.header("x-watchllm-cache") == "MISS" for answer in answers) == 4, "what one knows, both know"
    assert all(requests_of(gateway, proxy.pid) for proxy in proxies), "both had some of them"
    with usage_in(shared.home) as usage:
        wait_for(lambda: len(usage.ids()) == 40, "a row of each request, whoever answered it")


def test_operators_ask_all_of_them(shared: Installation) -> None:
    project = shared.project("shared", settings={"semantic": "off"})
    gateway = shared.start_up("--workers", "2", "--no-console")
    proxies_of(gateway, 2)
    for answer in asked_of_both(gateway, project.key, 12):
        request_id = answer.header("x-request-id")
        assert request_id is not None
        assert shared.run("explain", request_id).returncode == 0
    checks = shared.run("doctor", check=False).stdout
    assert sum("serves this home on port" in line for line in checks.splitlines()) == 2, checks
    rows = shared.run_json("cache", "stats", "--project", project.id)["projects"]
    assert sum(row["entries"] for row in rows) == 4


def test_one_that_dies_is_started_again_while_the_other_serves(shared: Installation) -> None:
    project = shared.project("shared", settings={"semantic": "off"})
    gateway = shared.start_up("--workers", "2", "--no-console")
    first, second = (proxy.pid for proxy in proxies_of(gateway, 2))
    with RawConnection(gateway.port) as kept:
        kept.send(request_bytes("/health"))
        assert kept.response().status == 200
        os.kill(first, signal.SIGKILL)
        answers = asked_of_both(gateway, project.key)
    assert {answer.status for answer in answers} == {200}, (
        "those that came to the dead one's socket waited for the next"
    )
    wait_for(lambda: "ended with -9; starting it again in 0 s" in gateway.process.log(), "word of it")
    now = wait_for(lambda: _without(called(gateway.process, "proxy"), first), "another one")
    assert second in now


def _without(pids: list[int], gone: int) -> list[int]:
    return pids if len(pids) == 2 and gone not in pids else []


def test_none_outlives_its_supervisor(shared: Installation, sim: Sim) -> None:
    project = shared.project("shared", settings={"semantic": "off"})
    gateway = shared.start_proxy(program=(WATCHLLM, "proxy", "--workers", "3"))
    up = gateway.process.pid
    wait_for(lambda: len(in_group_of(up)) == 4, "the supervisor and three proxies")
    body = {"model": "gpt-4o-mini+stall-20", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with RawConnection(gateway.port) as waiting:
        waiting.send(request_bytes("/v1/chat/completions", key=project.key, body=body))
        wait_for(lambda: sim.stats()["open"] == 1, "a call under way")
        os.kill(up, signal.SIGKILL)
        wait_for(lambda: not in_group_of(up), "the end of all of them", within=1.5)


def test_one_that_drains_does_not_outlive_its_supervisor_either(shared: Installation, sim: Sim) -> None:
    project = shared.project("shared", settings={"semantic": "off"})
    gateway = shared.start_proxy(program=(WATCHLLM, "proxy", "--workers", "2"))
    up = gateway.process.pid
    body = {"model": "gpt-4o-mini+stall-20", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    with RawConnection(gateway.port) as waiting:
        waiting.send(request_bytes("/v1/chat/completions", key=project.key, body=body))
        wait_for(lambda: sim.stats()["open"] == 1, "a call under way")
        gateway.process.signal(signal.SIGTERM)
        wait_for(lambda: len(in_group_of(up)) == 2, "the end of the idle one")
        os.kill(up, signal.SIGKILL)
        wait_for(lambda: not in_group_of(up), "the end of all of them", within=1.5)


def test_all_of_them_retire_on_one_signal(shared: Installation, sim: Sim) -> None:
    project = shared.project("shared", settings={"semantic": "off"})
    gateway = shared.start_proxy(program=(WATCHLLM, "proxy", "--workers", "2"))
    kept = [RawConnection(gateway.port) for _ in range(8)]
    streamed = RawConnection(gateway.port)
    try:
        for connection in kept:
            connection.send(request_bytes("/health"))
            assert connection.response().status == 200
        body = {"model": "gpt-4o-mini+chunk-40ms+tokens-20", "messages": [{"role": "user", "content": "Hello"}]}
        streamed.send(request_bytes("/v1/chat/completions", key=project.key, body=body | {"stream": True}))
        wait_for(lambda: sim.stats()["open"] == 1, "a call under way")
        gateway.process.signal(signal.SIGUSR2)
        wait_for(lambda: _refuses(gateway.port), "the end of listening")
        for connection in kept:
            connection.send(request_bytes("/v1/chat/completions", key=project.key, body=_hello()))
            answer = connection.response(b"POST")
            assert (answer.status, answer.header("connection")) == (200, "close")
        assert streamed.response(b"POST").body.endswith(b"data: [DONE]\n\n")
    finally:
        for connection in (*kept, streamed):
            connection.close()
    assert gateway.process.wait() == 0


def _hello() -> dict[str, object]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


def _refuses(port: int) -> bool:
    try:
        RawConnection(port).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_port_is_not_shared_with_another_installation(shared: Installation, tmp_path: Path) -> None:
    shared.project()
    first = shared.start_up("--workers", "2", "--no-console")
    other = Installation(tmp_path / "other", dict(shared.environment))
    started = other.run("proxy", "--workers", "2", "--proxy-port", str(first.port), check=False)
    assert started.returncode == 1
    assert "choose another port" in started.stderr


def test_one_without_redis_is_alone_on_its_home(shared: Installation) -> None:
    shared.project()
    shared.start_up("--workers", "2", "--no-console")
    alone = Installation(shared.home, {"WATCHLLM_SECRET_KEY": shared.environment["WATCHLLM_SECRET_KEY"]})
    refused = alone.run("proxy", "--proxy-port", "0", check=False)
    assert refused.returncode == 1
    assert "without WATCHLLM_REDIS_URL there is one for each home" in refused.stderr


@pytest.mark.parametrize("command", ["up", "proxy"])
def test_several_are_refused_where_they_could_not_work_together(installation: Installation, command: str) -> None:
    def refusal(**variables: str) -> str:
        installation.environment.update(variables)
        done = installation.run(command, "--workers", "2", check=False)
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr

    assert "without WATCHLLM_REDIS_URL there is one proxy process for each home" in refusal()
    both = {"WATCHLLM_REDIS_URL": "redis://127.0.0.1:1", "WATCHLLM_ADMIN_ADDR": "127.0.0.1:1"}
    assert "cannot share one WATCHLLM_ADMIN_ADDR" in refusal(**both)


def test_one_that_cannot_start_ends_all(shared: Installation) -> None:
    shared.project()
    shared.environment["WATCHLLM_TLS_CERT"] = shared.environment["WATCHLLM_TLS_KEY"] = str(shared.home / "missing.pem")
    with pytest.raises((ProcessEnded, ConnectionClosed)) as ended:
        shared.start_up("--workers", "2", "--no-console")
    assert "proxy 1 did not start" in str(ended.value)
