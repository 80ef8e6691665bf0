"""A host that has the Redis of an installation, and not its database: whatever is run there, the installation's keys
are served."""

import base64
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.product import Installation, Sim, upstream_environment
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for
from watchllm.journal.status import recorder_status


@pytest.mark.parametrize("database", ["none yet", "one of its own"])
def test_what_is_run_where_the_database_was_forgotten_takes_no_key_from_the_fleet(
    tmp_path: Path, sim: Sim, database: str
) -> None:
    redis = RedisServer(tmp_path / "redis")
    secret = {"WATCHLLM_SECRET_KEY": base64.b64encode(bytes(32)).decode()}
    environment = {**upstream_environment(sim.base_url), **redis.environment, **secret}
    fleet = Installation(tmp_path / "fleet", environment)
    project = fleet.project("ours", settings={"semantic": "off"})
    gateway = fleet.start_proxy()
    stray = Installation(tmp_path / "stray", environment)
    if database == "one of its own":
        Installation(stray.home, secret).run("db", "upgrade")
    commands = [("db", "upgrade"), ("up", "--proxy-port", "0", "--console-port", "0"), ("project", "create", "mine")]
    for command in commands:
        done = stray.run(*command, check=False)
        assert done.returncode == 1, command
        assert "WATCHLLM_DATABASE_URL" in done.stderr, command
        assert "--take-redis" in done.stderr, command
        assert gateway.chat(project.key, f"after {command[0]}").status == 200, command
    assert (stray.home / "watchllm.db").exists() == (database == "one of its own")
    # With the first proxy of the home: it has no copy of the settings yet, by which one could tell whose it is.
    recorder = stray.start_recorder()
    beside = stray.start_proxy()
    wait_for(
        lambda: beside.chat(project.key, "on the other host").status == 200, "it to serve what the fleet publishes"
    )

    def problem() -> str | None:
        status = recorder_status(stray.home / "journal")
        return None if status is None else status.problem

    assert "--take-redis" in str(wait_for(problem, "the recorder to say what is wrong"))
    recorder.stop()
    if database == "one of its own":
        # It stays in the journals: there is somebody whom it belongs to.
        with closing(sqlite3.connect(stray.home / "watchllm.db")) as connection:
            assert connection.execute("SELECT count(*) FROM usage_logs").fetchall() == [(0,)]
    beside.stop()
    assert gateway.chat(project.key, "in the end").status == 200
    stray.run("db", "upgrade", "--take-redis")
    wait_for(lambda: gateway.chat(project.key, "taken").status == 401, "the keys of the other one to be in force")
    done = fleet.run("db", "upgrade", check=False)
    assert (done.returncode, "--take-redis" in done.stderr) == (1, True)
    gateway.stop()
    redis.stop()
