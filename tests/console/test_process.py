"""The console as a process: where it listens, and how it ends."""

import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from tests.support.product import Installation
from tests.support.waiting import wait_for

_UNDER_A_SUPERVISOR = """
import os, sys
from watchllm.compose.console import run_console
from watchllm.configuration import load
def ready(port):
    print(port, flush=True)
sys.exit(run_console(load({"home": sys.argv[1], "console_port": 0}, {}), parent=int(sys.argv[2]), on_ready=ready))
"""


def test_sigterm_ends_it_in_good_order(installation: Installation) -> None:
    process, _ = installation.start_console()
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert "Traceback" not in process.log()


def test_it_ends_with_its_supervisor_even_while_a_client_hangs(installation: Installation) -> None:
    reading, writing = os.pipe()
    arguments = [sys.executable, "-c", _UNDER_A_SUPERVISOR, str(installation.home), str(reading)]
    with subprocess.Popen(arguments, pass_fds=[reading], stdout=subprocess.PIPE, text=True) as process:
        os.close(reading)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
            assert process.poll() is None
            os.close(writing)
            wait_for(lambda: process.poll() is not None, "its end", within=1.5)


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_a_taken_port_is_said(installation: Installation, how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        if how == "flag":
            done = installation.run("console", "--console-port", port, check=False)
        else:
            installation.environment["WATCHLLM_CONSOLE_PORT"] = port
            done = installation.run("console", check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Choose another port" in done.stderr
    assert "Traceback" not in done.stderr
