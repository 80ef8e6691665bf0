"""PostgreSQL stops, stands still or drops its connections under load: no answer is touched by it, and usage is complete
afterwards."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.journal import usage_in
from tests.support.load import Load
from tests.support.postgres import PASSWORD, SECRET_KEY, Postgres
from tests.support.product import Installation, upstream_environment
from tests.support.waiting import wait_for
from watchllm.stores import home


def crash(server: Postgres) -> Callable[[], None]:
    server.stop(at_once=True)
    return server.start


def restart(server: Postgres) -> Callable[[], None]:
    server.stop()
    return server.start


def stand_still(server: Postgres) -> Callable[[], None]:
    server.pause()
    return server.resume


def cut_sessions(server: Postgres) -> Callable[[], None]:
    server.execute("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'watchllm'")
    return lambda: None


@pytest.mark.parametrize("outage", [crash, restart, stand_still, cut_sessions])
@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "behind a pooler"])
def test_answers_go_on_and_usage_is_complete_afterwards(
    own_postgres: Postgres,
    installation: Installation,
    tmp_path: Path,
    outage: Callable[[Postgres], Callable[[], None]],
    pooled: bool,
) -> None:
    sim = Installation(tmp_path / "sim").start_sim("--record", "0")
    url = own_postgres.database()
    used = own_postgres.pooled(url) if pooled else url
    installation.environment.update(
        upstream_environment(sim.base_url), WATCHLLM_DATABASE_URL=used, WATCHLLM_SECRET_KEY=SECRET_KEY
    )
    project = installation.project()
    recorder = installation.start_recorder()
    gateway = installation.start_proxy()
    load = Load(gateway, project.key, seed=1)
    with usage_in(installation.home, url, home.identity(installation.home)) as usage:
        # A row is there: the recorder was at work when it happened.
        wait_for(lambda: len(usage.ids()) > 50, "rows before the outage")
        usage.engine.dispose()
        before = len(load.answered)
        end_of_outage = outage(own_postgres)
        wait_for(partial(load.has_answers, before + 300), "answers during the outage", within=30)
        ready = gateway.get("/health/ready")
        assert ready.status == 200, ready
        assert json.loads(ready.body)["status"] in ("ready", "degraded")
        end_of_outage()
        wait_for(partial(load.has_answers, len(load.answered) + 100), "answers after it", within=30)
        answered = load.end()
        assert load.failed == []
        assert gateway.stop() == 0
        journal = installation.home / "journal"
        recorder.wait_until(
            lambda: not [*journal.glob("*.seg"), *journal.glob("*.lock")], "the end of all journals", within=60
        )
        ids = usage.ids()
        assert len(ids) == len(set(ids))
        assert set(ids) == answered
        assert usage.rollups() == usage.rollups_from_rows()
        assert usage.key_uses() == usage.key_uses_from_rows()
    if outage is crash and not pooled:
        # A pooler lets whoever asks wait until the server is there again.
        assert "trying again" in recorder.log(), "the recorder did not notice: nothing was tested"
    assert PASSWORD not in recorder.log()
    assert recorder.stop() == 0
