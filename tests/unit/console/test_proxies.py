"""What the console makes of the admin sockets it finds: running proxies, starting ones, silent ones, leftovers."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from watchllm.console import proxies
from watchllm.console.proxies import DEGRADED, NOT_READY, OK, SILENT, STARTING, ProxyState, ProxyStates, read_metrics

METRICS = """# TYPE watchllm_requests_total counter
watchllm_requests_total{endpoint="chat",cache="HIT",status="200"} 5
watchllm_requests_total{endpoint="embeddings",cache="HIT",status="200"} 2
watchllm_requests_total{endpoint="chat",cache="",status="429"} 1
watchllm_requests_total{endpoint="chat",cache="HIT-COALESCED",status="502"} 4
watchllm_requests_total{endpoint="chat",cache="HIT-COALESCED",status="200"} 1
# TYPE watchllm_saved_usd_total counter
watchllm_saved_usd_total 0.25
watchllm_cost_usd_total 1.5
watchllm_unauthenticated_total 3
"""
STATUS = b'{"pid": 7, "snapshot_version": 4, "dependencies": {"cache": "ok"}, "connections": 2, "new": 1}'


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("p")


@contextmanager
def answering(listener: socket.socket, status: bytes, metrics: str = METRICS, token: str = "") -> Iterator[None]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            granted = not token or self.headers["Authorization"] == f"Bearer {token}"
            body = (status if self.path == "/status" else metrics.encode()) if granted else b"{}"
            self.send_response(200 if granted else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

        def address_string(self) -> str:
            return "unix"

    server = HTTPServer(("127.0.0.1", 0), Answer, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def listen(folder: Path, pid: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / f"proxy-{pid}.sock"))
    listener.listen()
    return listener


def read(folder: Path) -> list[ProxyState]:
    return asyncio.run(ProxyStates(lambda: folder).read())


def test_a_running_proxy_says_what_it_has_done(folder: Path) -> None:
    with answering(listen(folder, 7), STATUS):
        [state] = read(folder)
    assert (state.name, state.state, state.snapshot_version, state.connections) == ("pid 7", OK, 4, 2)
    assert state.requests == {"HIT": 7, "": 1, "HIT-COALESCED": 5}
    assert state.answered == {"HIT": 7, "HIT-COALESCED": 1}
    assert (state.saved_usd, state.cost_usd, state.unauthenticated) == (0.25, 1.5, 3)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"the disk is full", NOT_READY),
        (b"degraded: the disk is full", DEGRADED),
    ],
)
def test_one_that_lacks_something_says_what(folder: Path, said: bytes, shown: str) -> None:
    with answering(listen(folder, 7), STATUS.replace(b'"ok"', b'"' + said + b'"')):
        [state] = read(folder)
    assert (state.state, state.detail, state.answers) == (shown, "cache: the disk is full", True)


def test_one_that_is_still_loading_is_well(folder: Path) -> None:
    with answering(listen(folder, 7), STATUS.replace(b'"ok"', b'"ok", "semantic": "warming"')):
        [state] = read(folder)
    assert (state.state, state.detail) == (OK, "")


def test_what_only_degrades_does_not_hide_what_has_failed(folder: Path) -> None:
    both = STATUS.replace(b'"ok"', b'"broken", "recorder": "degraded: late"')
    with answering(listen(folder, 7), both):
        [state] = read(folder)
    assert (state.state, state.detail) == (NOT_READY, "cache: broken; recorder: late")


def test_one_that_says_nothing_is_reported_and_holds_up_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "_TIMEOUT_SECONDS", 1.0)  # In which the other one has to answer.
    with listen(folder, 5), answering(listen(folder, 7), STATUS):
        silent, well = read(folder)
    assert (silent.name, silent.state, silent.snapshot_version) == ("pid 5", SILENT, None)
    assert well.state == OK


@pytest.mark.parametrize(("status", "metrics"), [(b"<html>", METRICS), (b'{"pid": 1}', METRICS), (STATUS, "x y\n")])
def test_nonsense_is_an_answer_that_is_not_understood(folder: Path, status: bytes, metrics: str) -> None:
    with answering(listen(folder, 7), status, metrics):
        [state] = read(folder)
    assert state.state == SILENT
    assert state.detail


def test_a_socket_that_a_killed_proxy_left_is_no_proxy_and_one_without_a_listener_yet_is_starting(folder: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (ended.pid, os.getpid()):
        listen(folder, pid).close()
    (folder / "proxy-x.sock").touch()
    [state] = read(folder)
    assert (state.name, state.state, state.answers) == (f"pid {os.getpid()}", STARTING, False)


def test_an_address_is_asked_with_its_token(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with answering(listener, STATUS, token="right"):
            [good] = asyncio.run(ProxyStates(lambda: folder, address, "right").read())
            [bad] = asyncio.run(ProxyStates(lambda: folder, address, "wrong").read())
    assert good.state == OK
    assert (bad.state, bad.name) == (SILENT, address)
    assert "401" in bad.detail


def test_metrics_of_nothing_are_nothing() -> None:
    counted = read_metrics("")
    assert (counted.plain, counted.requests) == ({}, {})
