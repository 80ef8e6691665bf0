"""SIGKILL of proxies and the recorder at random moments under load: every request is one row, and none is two.

`make test` runs a few rounds; `make fault` (WATCHLLM_TEST_KILLS=200) the long run.
"""

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import h11
import pytest

from tests.support.journal import usage_in
from tests.support.load import CLIENTS, Load
from tests.support.processes import BackgroundProcess
from tests.support.product import Gateway, Installation, upstream_environment
from tests.support.raw_http import ConnectionClosed
from tests.support.waiting import wait_for

ROUNDS = int(os.environ.get("WATCHLLM_TEST_KILLS", "4"))


def start_recorder(installation: Installation) -> BackgroundProcess:
    return installation.start_recorder()


@pytest.mark.timeout(60 + ROUNDS * 20)
def test_nothing_is_lost_and_nothing_is_twice(installation: Installation, tmp_path: Path) -> None:
    seed = random.randrange(1 << 20)
    choose = random.Random(seed)
    sim = Installation(tmp_path / "sim").start_sim("--record", "0")
    installation.environment.update(upstream_environment(sim.base_url))
    project = installation.project()
    recorder = start_recorder(installation)
    answered: set[str] = set()
    for number in range(ROUNDS):
        gateway = installation.start_proxy()
        load = Load(gateway, project.key, seed + number)
        time.sleep(choose.uniform(0.1, 0.8))  # The moment of the kill is what is random here.
        victim = choose.choice(["proxy", "recorder", "both"])
        if victim != "proxy":
            recorder.kill()
        if victim == "recorder":
            wait_for(partial(load.has_answers, 20), "more answers while nobody records")
        gateway.process.signal(signal.SIGKILL)
        gateway.process.wait()
        answered |= load.end()
        gateway.process.stop()
        if victim != "proxy":
            recorder = start_recorder(installation)
    with usage_in(installation.home) as usage:
        journal = installation.home / "journal"
        recorder.wait_until(
            lambda: not [*journal.glob("*.seg"), *journal.glob("*.lock")], "the end of all journals", within=30
        )
        ids = usage.ids()
        context = f"seed {seed}"
        assert len(ids) == len(set(ids)), context
        assert answered <= set(ids), f"{context}: {len(answered - set(ids))} answered requests have no row"
        assert usage.rollups() == usage.rollups_from_rows(), context
        assert usage.key_uses() == usage.key_uses_from_rows(), context
        assert usage.query("SELECT COUNT(*) FROM journal_opened") == [(0,)], context
        aborted = usage.query("SELECT cost_nanos, estimated, error FROM usage_logs WHERE ended = 'aborted'")
        assert all(estimated and error == "aborted" and cost is not None for cost, estimated, error in aborted)
        # What has no answer that arrived was under way when a proxy was killed: at most one request a client.
        assert len(set(ids) - answered) <= ROUNDS * CLIENTS, context
        assert usage.query("SELECT COALESCE(SUM(torn), 0) FROM journal_positions") == [(0,)], context
    assert recorder.stop() == 0


def test_calls_of_a_killed_proxy_are_closed_as_aborted_with_an_estimated_cost(
    installation: Installation, tmp_path: Path
) -> None:
    sim = Installation(tmp_path / "sim").start_sim("--latency", "30s")
    installation.environment.update(upstream_environment(sim.base_url))
    project = installation.project()
    gateway = installation.start_proxy()
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(ask_and_fail, gateway, project.key, f"never answered {number}") for number in range(5)]
        wait_for(lambda: sim.calls() == 5, "five calls upstream")
        gateway.process.kill()
        assert [one.result() for one in asked] == [True] * 5
    recorder = start_recorder(installation)
    with usage_in(installation.home) as usage:
        wait_for(lambda: len(usage.ids()) == 5, "the rows of the calls")
        rows = usage.query("SELECT ended, status, cache, provider, input_tokens > 0, cost_nanos > 0 FROM usage_logs")
        assert rows == [("aborted", 0, "MISS", "openai", 1, 1)] * 5
    assert recorder.stop() == 0


def ask_and_fail(gateway: Gateway, key: str, text: str) -> bool:
    try:
        gateway.chat(key, text)
    except (OSError, ConnectionClosed, h11.RemoteProtocolError):
        return True
    return False
