"""The console as a process: where it listens, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.support.product import Installation
from tests.support.waiting import wait_for
from watchllm.compose.console import _ORPHAN_SECONDS

_UNDER_A_SUPERVISOR = """
import asyncio, os, sys, time
from watchllm.compose import console
from watchllm.configuration import load
if "patient" in sys.argv:
    console._ORPHAN_SECONDS, console._DRAIN_SECONDS = 60, 120
def ready(port):
    if "stuck" in sys.argv:
        asyncio.get_running_loop().call_soon(time.sleep, 60)
    print(port, flush=True)
configuration = load({"home": sys.argv[1], "console_port": 0}, {})
sys.exit(console.run_console(configuration, parent=int(sys.argv[2]), on_ready=ready))
"""


def test_sigterm_ends_it_in_good_order(installation: Installation) -> None:
    process, _ = installation.start_console()
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert "Traceback" not in process.log()


def test_it_ends_with_its_supervisor_even_while_a_client_hangs(installation: Installation) -> None:
    # Whoever waits for the client, or is ended the hard way, is late here on any machine.
    with supervised(installation, "patient") as (process, port, end_of_supervisor):
        assert httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
        with socket.create_connection(("127.0.0.1", port)) as client:
            form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nhalf"
            client.sendall(b"POST /sign-in HTTP/1.1\r\nHost: x\r\n" + form)
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                client.recv(1)  # It waits for the rest of the form.
            end_of_supervisor()
            assert wait_for_end(process) == 0


def test_it_ends_with_its_supervisor_even_when_it_is_stuck(installation: Installation) -> None:
    with supervised(installation, "stuck") as (process, port, end_of_supervisor):
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=0.3)
        end_of_supervisor()
        assert wait_for_end(process) == 1
    assert _ORPHAN_SECONDS < 1, "promised is a second"


@contextmanager
def supervised(
    installation: Installation, *options: str
) -> Iterator[tuple["subprocess.Popen[str]", int, Callable[[], None]]]:
    """A console at the other end of a pipe: its process, its port, and what closes the pipe."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)  # As the proxy beside it, whose event loop watches the same pipe, leaves it.
    arguments = [sys.executable, "-c", _UNDER_A_SUPERVISOR, str(installation.home), str(reading), *options]
    with subprocess.Popen(arguments, pass_fds=[reading], stdout=subprocess.PIPE, text=True) as process:
        os.close(reading)
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline()), lambda: os.close(writing)
        finally:
            process.kill()


def wait_for_end(process: "subprocess.Popen[str]") -> int | None:
    wait_for(lambda: process.poll() is not None, "the end of the console")
    return process.returncode


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
