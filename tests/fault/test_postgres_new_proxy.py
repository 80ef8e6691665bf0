"""PostgreSQL is away, and a proxy is to begin: none is replaced then, and one that has to be says what it waits for."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import PASSWORD, SECRET_KEY, Postgres
from tests.support.product import WATCHLLM, Gateway, Installation, Project, Sim, upstream_environment
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for
from tests.support.workers import called

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are found in /proc")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def shared(installation: Installation, sim: Sim, own_postgres: Postgres, redis: RedisServer) -> Installation:
    installation.environment |= {
        **upstream_environment(sim.base_url),
        **redis.environment,
        "WATCHLLM_DATABASE_URL": own_postgres.database(),
        "WATCHLLM_SECRET_KEY": SECRET_KEY,
    }
    return installation


@pytest.fixture
def project(shared: Installation) -> Project:
    return shared.project("with a quota", settings={"semantic": "off", "monthly_requests": "10000"})


def serve(gateway: Gateway, project: Project) -> None:
    """Ask often enough that every worker is, most likely."""
    for _ in range(20):
        assert gateway.chat(project.key, "Hello").status == 200


def are_known(gateway: Gateway, project: Project) -> bool:
    """Whether the recorder, which starts last, has told of every worker that happens to answer."""
    return all(gateway.chat(project.key, "Hello").status == 200 for _ in range(20))


def limits_in_health(gateway: Gateway) -> set[str | None]:
    """Of the workers that happen to answer."""
    bodies = [json.loads(gateway.get("/health/ready").body) for _ in range(10)]
    return {body["dependencies"].get("limits") for body in bodies}


def test_nothing_is_replaced_while_the_database_is_away(
    shared: Installation, project: Project, own_postgres: Postgres
) -> None:
    gateway = shared.start_up("--workers", "2")
    wait_for(lambda: are_known(gateway, project), "the workers to be known", within=30)
    before = [called(gateway.process, name) for name in ("proxy", "console", "recorder")]
    own_postgres.stop(at_once=True)
    gateway.process.signal(signal.SIGHUP)
    gateway.process.wait_until(lambda: "nothing is replaced: " in gateway.process.log(), "a refusal", within=20)
    assert "ask again when the database answers" in gateway.process.log()
    assert PASSWORD not in gateway.process.log()
    assert [called(gateway.process, name) for name in ("proxy", "console", "recorder")] == before
    serve(gateway, project)
    own_postgres.start()
    gateway.process.signal(signal.SIGHUP)
    gateway.process.wait_until(lambda: "all processes are replaced" in gateway.process.log(), "two others", within=60)
    wait_for(lambda: are_known(gateway, project), "the new workers to be known", within=30)


def test_proxies_alone_ask_the_recorder_of_their_home(
    shared: Installation, project: Project, own_postgres: Postgres
) -> None:
    recorder = shared.start_recorder()
    gateway = shared.start_proxy(program=(WATCHLLM, "proxy", "--workers", "2"))
    wait_for(lambda: are_known(gateway, project), "the workers to be known", within=30)
    before = called(gateway.process, "proxy")
    own_postgres.stop(at_once=True)
    recorder.wait_until(lambda: "trying again" in recorder.log(), "the recorder to notice", within=20)
    gateway.process.signal(signal.SIGHUP)
    gateway.process.wait_until(lambda: "nothing is replaced: " in gateway.process.log(), "a refusal", within=20)
    assert called(gateway.process, "proxy") == before
    serve(gateway, project)


def test_a_worker_that_begins_meanwhile_says_what_it_waits_for(
    shared: Installation, project: Project, own_postgres: Postgres
) -> None:
    gateway = shared.start_up("--workers", "2", "--no-console")
    wait_for(lambda: are_known(gateway, project), "the workers to be known", within=30)
    wait_for(lambda: limits_in_health(gateway) == {None}, "nobody to wait")
    own_postgres.stop(at_once=True)
    before = called(gateway.process, "proxy")
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(set(called(gateway.process, "proxy")) - set(before)) == 1, "another worker")
    answers = []

    def is_refused() -> bool:
        answers.append(gateway.chat(project.key, "Hello"))
        return answers[-1].status == 503

    wait_for(is_refused, "the new worker to be asked", within=30)
    assert "this proxy is new, and the database" in answers[-1].json()["error"]["message"]
    assert answers[-1].header("retry-after") == "1"
    wait_for(lambda: "degraded" in limits_in_health(gateway), "the new worker to tell")
    own_postgres.start()
    wait_for(lambda: limits_in_health(gateway) == {None}, "the new worker to be known", within=30)
    wait_for(lambda: are_known(gateway, project), "everybody to serve", within=30)
