"""What a proxy writes while it drains is in the database when all that was told to stop has stopped."""

import signal
import sqlite3
from contextlib import closing

import pytest

from tests.support.journal import usage_in
from tests.support.processes import BackgroundProcess
from tests.support.product import Installation, Project, Sim, upstream_environment
from tests.support.raw_http import RawConnection, request_bytes
from tests.support.waiting import wait_for
from watchllm.journal.status import recorder_status


@pytest.fixture
def home(installation: Installation, sim: Sim) -> Installation:
    installation.environment |= upstream_environment(sim.base_url)
    return installation


def streamed(project: Project) -> bytes:
    """A request that takes two seconds to answer."""
    body = {"model": "gpt-4o-mini+chunk-100ms+tokens-20", "messages": [{"role": "user", "content": "Last words?"}]}
    return request_bytes("/v1/chat/completions", key=project.key, body=body | {"stream": True})


def rows(home: Installation) -> list[tuple[object, ...]]:
    with usage_in(home.home) as usage:
        return usage.query("SELECT ended, output_tokens > 0 FROM usage_logs")


def recorder(home: Installation, *options: str) -> BackgroundProcess:
    process = home._start("recorder", *options)
    process.wait_until(lambda: recorder_status(home.home / "journal") is not None, "its first status")
    return process


def test_a_recorder_beside_a_proxy_that_drains_waits_for_its_end(home: Installation, sim: Sim) -> None:
    project = home.project("draining", settings={"semantic": "off"})
    proxy = home.start_proxy()
    beside = recorder(home, "--outlive-proxies")
    with RawConnection(proxy.port) as connection:
        connection.send(streamed(project))
        wait_for(lambda: sim.stats()["open"] == 1, "the call upstream")
        for process in (beside, proxy.process):
            process.signal(signal.SIGTERM)
        assert connection.response(b"POST").body.endswith(b"data: [DONE]\n\n")
    assert proxy.process.wait() == 0
    assert beside.wait() == 0
    assert rows(home) == [("complete", 1)]
    assert list((home.home / "journal").glob("jnl_*")) == []


def test_up_waits_for_its_last_usage(home: Installation, sim: Sim) -> None:
    project = home.project("draining", settings={"semantic": "off"})
    gateway = home.start_up("--no-console")
    wait_for(lambda: f":{gateway.port}/v1" in gateway.process.log(), "all processes")
    with RawConnection(gateway.port) as connection:
        connection.send(streamed(project))
        wait_for(lambda: sim.stats()["open"] == 1, "the call upstream")
        gateway.process.signal(signal.SIGTERM)
        assert connection.response(b"POST").body.endswith(b"data: [DONE]\n\n")
    assert gateway.process.wait() == 0
    assert rows(home) == [("complete", 1)]


def test_it_waits_for_a_proxy_that_was_not_told_to_stop_no_longer_than_one_may_drain(home: Installation) -> None:
    home.environment["WATCHLLM_DRAIN_SECONDS"] = "0.2"
    home.project()
    proxy = home.start_proxy()
    beside = recorder(home, "--outlive-proxies")
    beside.signal(signal.SIGTERM)
    assert beside.wait() == 0
    assert proxy.process.exit_code is None


@pytest.mark.parametrize(("options", "number"), [((), signal.SIGTERM), (("--outlive-proxies",), signal.SIGUSR2)])
def test_it_waits_for_nobody_unless_asked_to_and_when_another_one_goes_on(
    home: Installation, options: tuple[str, ...], number: int
) -> None:
    home.environment["WATCHLLM_DRAIN_SECONDS"] = "1000"
    home.project()
    proxy = home.start_proxy()
    beside = recorder(home, *options)
    beside.signal(number)
    assert beside.wait() == 0
    assert proxy.process.exit_code is None


def test_a_database_that_cannot_be_used_does_not_keep_it_for_ever(home: Installation) -> None:
    home.environment["WATCHLLM_DRAIN_SECONDS"] = "1000"
    project = home.project()
    proxy = home.start_proxy()
    beside = recorder(home, "--outlive-proxies")
    with closing(sqlite3.connect(home.home / "watchllm.db", isolation_level=None)) as locker:
        locker.execute("BEGIN IMMEDIATE")
        assert proxy.chat(project.key, "Hello", model="sim/echo").status == 200
        wait_for(lambda: "locked" in beside.log(), "the reason")
        proxy.process.stop()
        beside.signal(signal.SIGTERM)
        assert beside.wait(30) == 0
    assert rows(home) == []
    again = recorder(home)
    wait_for(lambda: len(rows(home)) == 1, "the row, later")
    again.stop()
