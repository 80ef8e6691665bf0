"""The test support keeps its own promises: processes end, missing servers are not silent, raw HTTP is strict."""

import os
import socket
import sys
import threading
from pathlib import Path

import h11
import pytest

from tests.support.processes import BackgroundProcess, ProcessEnded
from tests.support.raw_http import ConnectionClosed, exchange, request_bytes
from tests.support.servers import require_server
from tests.support.waiting import wait_for, wait_for_a_day


def test_a_missing_server_skips_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-server is not installed"):
        require_server("no-such-server")


def test_a_missing_server_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-server is not installed"):
        require_server("no-such-server")


def test_stopping_a_process_ends_its_children_too(tmp_path: Path) -> None:
    program = "import subprocess, sys; c = subprocess.Popen(['sleep', '600']); print(c.pid, flush=True); c.wait()"
    process = BackgroundProcess([sys.executable, "-c", program], log=tmp_path / "log")
    child = int(wait_for(lambda: process.log().strip(), "the child's pid"))
    process.stop()

    def gone() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        # It may wait for whoever adopted it: a zombie has ended as well.
        stat = Path(f"/proc/{child}/stat")
        return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"

    wait_for(gone, "the child's end")


def test_a_process_that_ends_early_is_reported_with_its_log(tmp_path: Path) -> None:
    process = BackgroundProcess([sys.executable, "-c", "raise SystemExit('no luck')"], log=tmp_path / "log")
    with pytest.raises(ProcessEnded, match="no luck"):
        process.wait_until(lambda: False, "being ready")
    process.stop()


def test_waiting_is_bounded_and_names_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match="a miracle"):
        wait_for(lambda: None, "a miracle", within=0.05)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", h11.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nBad Header: 1\r\n\r\n", h11.RemoteProtocolError),
        (b"", ConnectionClosed),
    ],
)
def test_raw_http_refuses_what_is_not_a_proper_answer(answer: bytes, error: type[Exception]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(error):
            exchange(listener.getsockname()[1], request_bytes("/"))
        thread.join()


@pytest.mark.parametrize(
    "times", [(86_359.5, 86_359.5), (86_361.0, 86_361.0, 86_380.0, 86_400.0), (86_400.0, 86_400.0)]
)
def test_what_must_be_of_one_day_waits_for_the_next_where_that_is_near(times: tuple[float, ...]) -> None:
    left = list(times)
    wait_for_a_day(40, lambda: left.pop(0))
    assert left == []
