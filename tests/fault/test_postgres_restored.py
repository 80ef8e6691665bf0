"""PostgreSQL is put back from a backup while everything runs: what the journals still have comes back into it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.journal import usage_in
from tests.support.postgres import SECRET_KEY, Connected
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for
from watchllm.stores import home


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


def ask(gateway: Gateway, project: Project, count: int) -> list[str | None]:
    answers = [gateway.chat(project.key, f"Question {number}") for number in range(count)]
    assert {answer.status for answer in answers} == {200}
    return [answer.header("x-request-id") for answer in answers]


@pytest.mark.parametrize("traffic_goes_on", [True, False])
def test_usage_after_the_backup_is_recorded_again(
    installation: Installation,
    sim: Sim,
    postgres_database: Connected,
    redis: RedisServer,
    traffic_goes_on: bool,
) -> None:
    installation.environment |= {
        **upstream_environment(sim.base_url),
        **redis.environment,
        "WATCHLLM_DATABASE_URL": postgres_database.url,
        "WATCHLLM_SECRET_KEY": SECRET_KEY,
    }
    project = installation.project()
    gateway = installation.start_up("--no-console")
    server, name = postgres_database.server, postgres_database.name
    with usage_in(installation.home, postgres_database.url, home.identity(installation.home)) as usage:
        ids = ask(gateway, project, 3)
        wait_for(lambda: len(usage.ids()) == 3, "the rows before the backup")
        backup = server.dump(name)
        ids += ask(gateway, project, 8)
        wait_for(lambda: len(usage.ids()) == 11, "the rows after it")
        usage.engine.dispose()
        server.restore(name, backup)
        if traffic_goes_on:
            ids += ask(gateway, project, 1)
        wait_for(lambda: len(usage.ids()) == len(ids), "the rows that the backup lacks", within=30)
        assert sorted(usage.ids()) == sorted(str(one) for one in ids)
        assert usage.rollups() == usage.rollups_from_rows()
    assert gateway.stop() == 0
