"""`watchllm up` keeps its processes alive."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support.product import Gateway, Installation
from tests.support.waiting import wait_for
from tests.support.workers import in_group_of
from watchllm.stores.sockets import socket_folder


def test_a_proxy_that_dies_is_replaced_at_once_and_one_that_dies_again_after_a_pause(
    installation: Installation,
) -> None:
    gateway = installation.start_up("--no-console")
    wait_for(lambda: f":{gateway.port}/v1" in gateway.process.log(), "all processes")
    first = wait_for(lambda: proxy_of(gateway), "the first proxy")
    kill(first)
    wait_for(lambda: proxy_of(gateway) not in (0, first) and answers(gateway), "the second proxy")
    wait_for(lambda: "proxy ended with -9; starting it again in 0 s" in gateway.process.log(), "word of the first")
    second = wait_for(lambda: proxy_of(gateway), "the second proxy's socket")
    kill(second)
    wait_for(lambda: proxy_of(gateway) not in (0, second) and answers(gateway), "the third proxy")
    wait_for(lambda: "proxy ended with -9; starting it again in 0.5 s" in gateway.process.log(), "word of the second")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are found in /proc")
def test_what_up_started_stays_in_its_group_and_does_not_outlive_it(installation: Installation) -> None:
    gateway = installation.start_up()
    up = gateway.process.pid
    wait_for(lambda: len(in_group_of(up)) == 4, "supervisor, proxy, console and recorder")
    kill(up)
    wait_for(lambda: not in_group_of(up), "the end of all of them", within=5)


def test_what_is_shown_once_is_shown_though_the_start_fails(installation: Installation) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        failed = installation.run("up", "--no-console", "--proxy-port", port, check=False)
    assert failed.returncode == 1
    assert "proxy did not start" in failed.stderr
    assert "owner@localhost" in failed.stdout
    assert "lgw_proj_" in failed.stdout


def kill(pid: int) -> None:
    assert pid > 0  # 0 would be this test run and all that belongs to it
    os.kill(pid, signal.SIGKILL)


def proxy_of(gateway: Gateway) -> int:
    """The process id of the proxy under `watchllm up`; 0 while there is none."""
    sockets = [path for path in socket_folder(gateway.installation.home).glob("proxy-*.sock") if is_running(path)]
    return int(sockets[0].stem.removeprefix("proxy-")) if sockets else 0


def is_running(path: Path) -> bool:
    try:
        command = Path(f"/proc/{path.stem.removeprefix('proxy-')}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
    return b"watchllm proxy" in command


def answers(gateway: Gateway) -> bool:
    try:
        return gateway.get("/health").status == 200
    except OSError:
        return False
