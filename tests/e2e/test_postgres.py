"""The same product on PostgreSQL: `watchllm up`, its commands and its console, directly and through a pooler."""

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.support.journal import event, journal_in, usage_in
from tests.support.postgres import PASSWORD, SECRET_KEY, Connected
from tests.support.product import Installation
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for
from watchllm.compose.control import bootstrap
from watchllm.control import private_schema, schema
from watchllm.control.database import Database
from watchllm.stores import home
from watchllm.stores.postgres.engine import open_engine


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture(params=["direct", "behind a pooler"])
def on_postgres(request: pytest.FixtureRequest, installation: Installation, empty_database: Connected) -> Installation:
    url = empty_database.url
    if request.param != "direct":
        url = empty_database.server.pooled(url)
        installation.environment["WATCHLLM_DATABASE_DIRECT_URL"] = empty_database.url
    installation.environment.update(WATCHLLM_DATABASE_URL=url, WATCHLLM_SECRET_KEY=SECRET_KEY)
    return installation


def test_up_answers_records_and_shows_what_is_in_postgres(on_postgres: Installation, empty_database: Connected) -> None:
    first = bootstrap(on_postgres.configuration())
    assert first is not None
    gateway = on_postgres.start_up()
    created = on_postgres.run_json("project", "create", "of the command line")
    key = on_postgres.run_json("key", "create", "--project", created["id"])["key"]
    asked = [gateway.chat(key, "Hello", model="sim/echo") for _ in range(3)]
    assert [(answer.status, answer.header("x-watchllm-cache")) for answer in asked] == [
        (200, "MISS"),
        (200, "HIT"),
        (200, "HIT"),
    ]
    with usage_in(on_postgres.home, empty_database.url, home.identity(on_postgres.home)) as usage:
        wait_for(lambda: len(usage.ids()) == 3, "the rows")
        assert usage.ids() == [answer.header("x-request-id") for answer in asked]
        assert usage.rollups() == usage.rollups_from_rows()
    exported = on_postgres.run("usage", "export", "--format", "jsonl", "--project", created["id"])
    assert [json.loads(line)["request_id"] for line in exported.stdout.splitlines()] == [
        answer.header("x-request-id") for answer in asked
    ]
    on_postgres.run("key", "revoke", on_postgres.run_json("key", "list", "--project", created["id"])[0]["id"])
    assert gateway.chat(key, "Hello", model="sim/echo").status == 401
    console = re.findall(r"console +(http://\S+)", gateway.process.log())[0]
    with httpx.Client(base_url=console, trust_env=False, timeout=20) as client:
        token = client.get("/sign-in").text.partition('name="form_token" value="')[2].partition('"')[0]
        form = {"email": first.email, "password": first.password, "form_token": token}
        assert client.post("/sign-in", data=form).status_code == 303
        assert "of the command line" in client.get("/").text
        key = on_postgres.key(created["id"])
        assert gateway.chat(key, "Hello", model="sim/echo").status == 200
        bearer = {"Authorization": f"Bearer {on_postgres.run_json('token', 'create')['token']}"}
        path = f"/api/projects/{created['id']}"
        assert client.patch(path, headers=bearer, json={"requests_per_minute": 0}).status_code == 200
        assert gateway.chat(key, "Hello", model="sim/echo").status == 429
        assert client.get(f"{path}/spent", headers=bearer).json()["requests_month"] == 0  # `sim` is not billed
        assert created["id"] in client.get("/limits").text
    assert gateway.stop() == 0
    assert PASSWORD not in gateway.process.log()
    assert not (on_postgres.home / "watchllm.db").exists()
    assert not (on_postgres.home / "secret.key").exists()


def test_the_schema_is_upgraded_by_its_command_and_over_the_direct_connection(
    on_postgres: Installation, empty_database: Connected
) -> None:
    assert on_postgres.run_json("db", "upgrade") == {"schema": schema.HEAD, "upgraded": True}
    empty_database.execute("GRANT USAGE ON SCHEMA watchllm TO PUBLIC", "GRANT SELECT ON watchllm.keys TO PUBLIC")
    assert on_postgres.run_json("db", "upgrade") == {"schema": schema.HEAD, "upgraded": False}
    with closing(Database(open_engine(empty_database.url), lambda: 0)) as database, database.reading() as connection:
        assert private_schema.openings(connection) == [], "what was granted since is taken back"


def test_a_direct_url_that_leads_nowhere_is_told_without_its_password(
    installation: Installation, empty_database: Connected
) -> None:
    nowhere = f"postgresql://watchllm:{PASSWORD}@127.0.0.1:1/nothing"
    installation.environment.update(
        WATCHLLM_DATABASE_URL=empty_database.url, WATCHLLM_DATABASE_DIRECT_URL=nowhere, WATCHLLM_SECRET_KEY=SECRET_KEY
    )
    failed = installation.run("db", "upgrade", check=False)
    assert failed.returncode == 1
    assert "127.0.0.1:1/nothing" in failed.stderr
    assert PASSWORD not in failed.stdout + failed.stderr


def test_doctor_and_config_show_know_it_and_tell_no_password(
    on_postgres: Installation, empty_database: Connected
) -> None:
    on_postgres.environment["WATCHLLM_DATABASE_REPLICA_URL"] = f"postgresql://watchllm:{PASSWORD}@127.0.0.1:1/copy"
    on_postgres.run("db", "upgrade")
    empty_database.execute("GRANT SELECT ON watchllm.keys TO PUBLIC")
    found = json.loads(on_postgres.run("doctor", "--json", check=False).stdout)
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["database"]["status"] == "ok"
    assert checks["database rights"]["status"] == "failed"
    assert "PUBLIC has rights on keys" in checks["database rights"]["detail"]
    assert checks["database replica"]["status"] == "warning"
    shown = on_postgres.run("config", "show").stdout
    assert "WATCHLLM_DATABASE_REPLICA_URL" in shown
    assert PASSWORD not in shown + json.dumps(checks)


def test_doctor_warns_of_hosts_that_share_the_database_and_no_redis(
    on_postgres: Installation, empty_database: Connected, tmp_path: Path, redis: RedisServer
) -> None:
    def other_hosts(asked: Installation) -> list[dict[str, str]]:
        found = json.loads(asked.run("doctor", "--json", check=False).stdout)
        return [check for check in found["checks"] if check["name"] == "other hosts"]

    project = on_postgres.project()
    recorder, gateway = on_postgres.start_recorder(), on_postgres.start_proxy()
    gateway.chat(project.key, "Hello", model="sim/echo")
    wait_for(lambda: empty_database.execute("SELECT count(*) FROM watchllm.usage_logs") == [(1,)], "a row")
    assert other_hosts(on_postgres) == [], "alone"
    other = Installation(tmp_path / "other", on_postgres.environment)
    other.home.mkdir()
    (warning,) = other_hosts(other)
    assert warning["status"] == "warning"
    assert "1 other home recorded into this database" in warning["detail"]
    assert "WATCHLLM_REDIS_URL" in warning["advice"]
    assert not (other.home / home.IDENTITY_FILE).exists(), "it changes nothing"
    other.environment = {**on_postgres.environment, **redis.environment}
    assert other_hosts(other) == []
    assert gateway.stop() == 0
    assert recorder.stop() == 0


def test_the_secret_is_asked_for(installation: Installation) -> None:
    installation.environment["WATCHLLM_DATABASE_URL"] = f"postgres://watchllm:{PASSWORD}@127.0.0.1:1/nothing"
    failed = installation.run("project", "list", check=False)
    assert failed.returncode == 2
    assert "WATCHLLM_SECRET_KEY is required with PostgreSQL" in failed.stderr
    assert PASSWORD not in failed.stderr


@pytest.mark.usefixtures("one_day")
def test_usage_older_than_the_days_that_are_kept_is_forgotten(
    on_postgres: Installation, empty_database: Connected
) -> None:
    on_postgres.environment["WATCHLLM_USAGE_DAYS"] = "30"
    on_postgres.run("db", "upgrade")
    days = "SELECT relname FROM pg_class WHERE relname ~ '^usage_logs_2' AND relkind = 'r' ORDER BY 1"
    empty_database.execute(
        "CREATE TABLE watchllm.usage_logs_20200101 PARTITION OF watchllm.usage_logs "
        "FOR VALUES FROM (1577836800000) TO (1577923200000)"
    )
    project = on_postgres.project()
    gateway, recorder = on_postgres.start_proxy(), on_postgres.start_recorder()
    gateway.chat(project.key, "Hello", model="sim/echo")
    wait_for(lambda: [name for (name,) in empty_database.execute(days)][:1] not in ([], ["usage_logs_20200101"]), "it")
    assert len(empty_database.execute(days)) == 3, "today, and two days ahead"
    assert recorder.stop() == 0


def test_a_plan_that_keeps_less_is_kept_to(on_postgres: Installation, empty_database: Connected) -> None:
    free, own = on_postgres.project("free"), on_postgres.project("own")
    journal = journal_in(on_postgres.home)
    ten_days_ago = time.time_ns() - 10 * 86_400 * 10**9
    for project in (free, own):
        journal.settled(event(f"req_old_{project.id}", at_ns=ten_days_ago, project_id=project.id))
        journal.settled(event(f"req_new_{project.id}", project_id=project.id))
    journal.close()
    empty_database.execute(
        "INSERT INTO watchllm.organizations (id, name, created_ms, plan) VALUES ('org_free', 'other', 1, 'free')",
        f"UPDATE watchllm.projects SET organization_id = 'org_free' WHERE id = '{free.id}'",
    )
    recorder = on_postgres.start_recorder()
    rows = "SELECT request_id FROM watchllm.usage_logs ORDER BY 1"
    kept = sorted([f"req_new_{free.id}", f"req_new_{own.id}", f"req_old_{own.id}"])
    wait_for(lambda: [name for (name,) in empty_database.execute(rows)] == kept, "only what is kept")
    assert empty_database.execute("SELECT SUM(requests) FROM watchllm.usage_hourly") == [(4,)]
    assert recorder.stop() == 0


def test_plans_that_cannot_be_read_hold_up_no_recording_and_nothing_is_forgotten(
    on_postgres: Installation, empty_database: Connected
) -> None:
    on_postgres.environment["WATCHLLM_USAGE_DAYS"] = "1"
    project = on_postgres.project()
    (on_postgres.home / "plans.toml").write_text("free = 1\n")
    journal = journal_in(on_postgres.home)
    for number, days in enumerate((10, 0)):
        at = time.time_ns() - days * 86_400 * 10**9
        journal.settled(event(f"req_{number}", at_ns=at, project_id=project.id))
    recorder = on_postgres.start_recorder()
    rows = "SELECT request_id FROM watchllm.usage_logs ORDER BY 1"
    wait_for(lambda: "nothing is forgotten" in recorder.log(), "what it says")
    journal.settled(event("req_2", project_id=project.id))
    journal.close()
    wait_for(lambda: empty_database.execute(rows) == [("req_0",), ("req_1",), ("req_2",)], "all three rows")
    assert recorder.stop() == 0


def test_sqlite_stays_what_is_used_when_nothing_is_said(installation: Installation) -> None:
    installation.run("db", "upgrade")
    with sqlite3.connect(installation.home / "watchllm.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(schema.HEAD,)]
    connection.close()
