"""SIGHUP to the supervisor replaces every process, and nobody who asks anything notices."""

import base64
import os
import pty
import signal
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hammer import Hammer
from tests.support.journal import usage_in
from tests.support.processes import BackgroundProcess
from tests.support.product import WATCHLLM, Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import RawConnection, request_bytes
from tests.support.redis_server import RedisServer
from tests.support.routing import stream_of
from tests.support.scripted_upstream import Call, scripted_upstream
from tests.support.waiting import wait_for
from tests.support.workers import called, in_group_of

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are found in /proc")

RESTARTS = 10
DONE = "all processes are replaced"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def home(installation: Installation, sim: Sim) -> Installation:
    installation.environment |= upstream_environment(sim.base_url)
    return installation


@pytest.fixture
def shared(home: Installation, redis: RedisServer) -> Installation:
    home.environment |= {
        **redis.environment,
        "WATCHLLM_SECRET_KEY": base64.b64encode(bytes(32)).decode(),
    }
    return home


def replaced(process: BackgroundProcess) -> int:
    """How often all of them were."""
    return process.log_path.read_text().count(DONE)


def restart(gateway: Gateway) -> None:
    before = replaced(gateway.process)
    gateway.process.signal(signal.SIGHUP)
    wait_for(lambda: replaced(gateway.process) > before, "all processes to be replaced", within=60)


def chat(project: Project, model: str) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "Last words?"}], "stream": True}
    return request_bytes("/v1/chat/completions", key=project.key, body=body)


def test_no_request_fails_in_ten_restarts(shared: Installation) -> None:
    project = shared.project("busy", settings={"semantic": "off"})
    gateway = shared.start_up("--workers", "2", "--no-console")
    before = wait_for(lambda: _exactly_two(gateway), "both workers")
    with Hammer(gateway.port, project.key) as hammer:
        for number in range(1, RESTARTS + 1):
            wait_for(lambda number=number: hammer.answered > number * 50, "some load", within=60)  # type: ignore[misc]
            restart(gateway)
            wait_for(lambda before=before: not set(before) & set(_exactly_two(gateway) or before), "two others")  # type: ignore[misc]
            before = _exactly_two(gateway)
    assert hammer.failed == []
    assert hammer.answered > RESTARTS * 50
    with usage_in(shared.home) as usage:
        wait_for(lambda: len(usage.ids()) == hammer.answered, "a row of each request", within=30)


def test_streams_under_way_are_finished_by_the_one_that_began_them(shared: Installation) -> None:
    begun, restarted = threading.Event(), threading.Event()
    events = stream_of("gpt-4o-mini", "Last words.") + b"data: [DONE]\n\n"

    def outlasts_the_restart(call: Call) -> None:
        call.send_response_only(200)
        call.send_header("content-type", "text/event-stream")
        call.send_header("content-length", str(len(events)))
        call.end_headers()
        call.wfile.write(events[:20])
        begun.set()
        restarted.wait(60)
        call.wfile.write(events[20:])

    with scripted_upstream(outlasts_the_restart) as upstream:
        shared.environment |= upstream_environment(upstream.base_url)
        project = shared.project("streams", settings={"semantic": "off"})
        gateway = shared.start_up("--workers", "2", "--no-console")
        first = wait_for(lambda: _exactly_two(gateway), "both workers")
        with RawConnection(gateway.port) as streamed:
            streamed.send(chat(project, "gpt-4o-mini"))
            assert begun.wait(20)
            restart(gateway)
            restarted.set()
            assert streamed.response(b"POST").body.endswith(b"data: [DONE]\n\n")
    wait_for(lambda: not set(first) & set(called(gateway.process, "proxy")), "the end of the first ones")
    assert len(called(gateway.process, "proxy")) == 2


def _exactly_two(gateway: Gateway) -> list[int]:
    found = called(gateway.process, "proxy")
    return found if len(found) == 2 else []


def test_an_idle_connection_does_not_keep_the_old_one_for_long(shared: Installation) -> None:
    shared.project()
    gateway = shared.start_up("--no-console")
    first = called(gateway.process, "proxy")
    with RawConnection(gateway.port) as idle:
        idle.send(request_bytes("/health"))
        assert idle.response().status == 200
        restart(gateway)
        assert idle.is_closed_by_peer()
    wait_for(lambda: not set(first) & set(called(gateway.process, "proxy")), "the end of the first one")


def test_without_redis_those_who_come_wait_for_the_one_process_that_there_can_be(home: Installation) -> None:
    project = home.project("alone", settings={"semantic": "off"})
    gateway = home.start_up()
    with Hammer(gateway.port, project.key, clients=1) as hammer:
        for number in range(1, 4):
            wait_for(lambda number=number: hammer.answered > number * 20, "some load", within=60)  # type: ignore[misc]
            restart(gateway)
    assert hammer.failed == []
    assert len(called(gateway.process, "proxy")) == 1


def test_what_is_configured_now_is_in_force_afterwards(home: Installation) -> None:
    project = home.project("small")
    file = home.home / "watchllm.toml"
    file.write_text("max_body_bytes = 1000000\n")
    gateway = home.start_up("--no-console")
    long = "word " * 1000
    assert gateway.chat(project.key, long).status == 200
    file.write_text("max_body_bytes = 1000\n")
    restart(gateway)
    assert gateway.chat(project.key, long).status == 413
    assert tomllib.loads(file.read_text()) == {"max_body_bytes": 1000}


def test_a_configuration_that_is_not_valid_replaces_nothing(home: Installation) -> None:
    project = home.project("steady")
    gateway = home.start_up("--no-console")
    before = in_group_of(gateway.process.pid)
    (home.home / "watchllm.toml").write_text("max_body_bytes = 'many'\n")
    gateway.process.signal(signal.SIGHUP)
    wait_for(lambda: "nothing is replaced: max_body_bytes in" in gateway.process.log(), "word of it")
    assert in_group_of(gateway.process.pid) == before
    assert gateway.chat(project.key, "Still there?").status == 200


def test_a_new_one_that_cannot_start_leaves_the_old_one_serving(shared: Installation) -> None:
    project = shared.project("steady")
    gateway = shared.start_up("--workers", "2", "--no-console")
    before = wait_for(lambda: _exactly_two(gateway), "both workers")
    missing = shared.home / "missing.pem"
    (shared.home / "watchllm.toml").write_text(f"tls_cert = '{missing}'\ntls_key = '{missing}'\n")
    gateway.process.signal(signal.SIGHUP)
    wait_for(lambda: "what was not replaced yet stays as it is" in gateway.process.log(), "word of it")
    assert called(gateway.process, "proxy") == before
    assert [gateway.chat(project.key, "Still there?").status for _ in range(8)] == [200] * 8


def test_it_can_be_told_to_stop_in_the_middle(shared: Installation, sim: Sim) -> None:
    project = shared.project("stopped", settings={"semantic": "off"})
    gateway = shared.start_up("--workers", "2", "--no-console")
    with RawConnection(gateway.port) as streamed:
        streamed.send(chat(project, "gpt-4o-mini+chunk-50ms+tokens-20"))
        wait_for(lambda: sim.stats()["open"] == 1, "the call upstream")
        gateway.process.signal(signal.SIGHUP)
        wait_for(lambda: "replacing all processes" in gateway.process.log(), "the beginning")
        gateway.process.signal(signal.SIGTERM)
        assert streamed.response(b"POST").body.endswith(b"data: [DONE]\n\n")
    assert gateway.process.wait() == 0
    assert in_group_of(gateway.process.pid) == []


def test_closing_its_terminal_ends_it(home: Installation) -> None:
    home.project()
    ours, theirs = pty.openpty()
    command = [WATCHLLM, "up", "--no-console", "--proxy-port", "0"]
    started = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=home._environment(),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        assert started.stdout is not None
        for line in started.stdout:
            if line.startswith(b"proxy "):
                break
        os.close(ours)
        started.send_signal(signal.SIGHUP)
        assert started.wait(20) == 0
    finally:
        started.kill()
        started.communicate()
