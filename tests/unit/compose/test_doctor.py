"""`doctor` finds what is wrong, says what to do, and changes nothing."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace
from sqlalchemy import delete

from tests.support.postgres import Postgres
from tests.support.product import Installation, Sim, upstream_environment
from tests.support.redis_server import RedisServer
from tests.support.scripted_upstream import Call, scripted_upstream
from tests.support.waiting import wait_for
from watchllm.analytics.tables import spending
from watchllm.compose.checks import Check
from watchllm.compose.control import bootstrap, open_control_plane
from watchllm.compose.doctor import examine
from watchllm.configuration import Configuration, load
from watchllm.control import keys, tables
from watchllm.domain.limits import parse_limits
from watchllm.journal.status import RecorderStatus, lock_recorder, write_status
from watchllm.stores.sqlite.engine import open_engine


@pytest.fixture
def ready(tmp_path: Path) -> Configuration:
    configuration = load({"home": str(tmp_path / "home"), "proxy_port": 0, "console_port": 0}, {})
    bootstrap(configuration)
    return configuration


def check(configuration: Configuration, name: str) -> Check:
    return next(found for found in examine(configuration) if found.name == name)


def test_all_is_well_after_the_first_run(ready: Configuration) -> None:
    assert {found.status for found in examine(ready)} == {"ok"}


def test_a_home_that_does_not_exist_yet_is_not_made(tmp_path: Path) -> None:
    checks = list(examine(load({"home": str(tmp_path / "home")}, {})))
    assert [(found.name, found.status) for found in checks] == [("home", "warning")]
    assert "watchllm up" in checks[0].advice
    assert not (tmp_path / "home").exists()


def test_an_empty_home_stays_empty(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    statuses = {found.name: found.status for found in examine(load({"home": str(tmp_path), "proxy_port": 0}, {}))}
    assert (statuses["secret"], statuses["database"]) == ("warning", "warning")
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_others_can_read_is_a_warning(ready: Configuration) -> None:
    ready.home.chmod(0o755)
    assert check(ready, "home").status == "warning"
    assert "chmod 700" in check(ready, "home").advice


def test_a_secret_that_others_can_read_has_failed(ready: Configuration) -> None:
    (ready.home / "secret.key").chmod(0o644)
    assert check(ready, "secret").status == "failed"


def test_a_wrong_secret_is_found(ready: Configuration) -> None:
    other = load({"home": str(ready.home), "secret_key": "x" * 32, "proxy_port": 0, "console_port": 0}, {})
    found = check(other, "sealed secrets")
    assert found.status == "failed"
    assert "WATCHLLM_SECRET_KEY" in found.advice


def test_a_damaged_provider_key_is_found(ready: Configuration) -> None:
    with open_control_plane(ready) as plane:
        project = plane.projects()[0]
        key = plane.add_provider_key(project.id, "openai", "sk-secret")
        with plane.database.unit_of_work("tester") as work:
            work.connection.execute(tables.provider_keys.update().values(sealed=b"damaged"))
    found = check(ready, "sealed secrets")
    assert found.status == "failed"
    assert key.id in found.detail


def test_an_old_schema_is_found(ready: Configuration) -> None:
    engine = open_engine(ready.database_url)
    with engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    engine.dispose()
    found = check(ready, "database")
    assert found.status == "failed"
    assert "watchllm db upgrade" in found.advice


def spend(configuration: Configuration, *subjects: str, nanos: int) -> None:
    month = f"{datetime.now(UTC):%Y-%m}"
    rows = [{"subject": one, "period": month, "requests": 1, "nanos": nanos} for one in subjects]
    with open_control_plane(configuration) as plane, plane.database.unit_of_work("tests") as work:
        work.connection.execute(spending.insert(), rows)


def test_budgets_that_were_passed_and_only_alert_are_told_a_few_of_them(ready: Configuration) -> None:
    budget = parse_limits({"budget_usd_month": "2", "budget_mode": "alert"})
    with open_control_plane(ready) as plane:
        project = plane.projects()[0]
        made = [plane.create_key(project.id, name=f"k{number}", limits=budget).record.id for number in range(12)]
        hard, within, revoked = (plane.create_key(project.id, limits=budget).record.id for _ in range(3))
        plane.set_key(hard, {"budget_mode": "hard"})
        plane.revoke_key(revoked)
        plane.set_project(project.id, budget)
        plane.set_organization(project.organization_id, budget)
    spend(ready, within, nanos=1_999_999_999)
    spend(ready, hard, revoked, nanos=5_000_000_000)
    assert [found for found in examine(ready) if found.name == "budget"] == []
    spend(ready, project.organization_id, project.id, made[0], nanos=2_000_000_000)
    told = [found for found in examine(ready) if found.name == "budget"]
    assert [found.status for found in told] == ["warning"] * 3
    kinds = ("organization", "project", "key")
    for found, kind, one in zip(told, kinds, (project.organization_id, project.id, made[0]), strict=True):
        assert found.detail.startswith(f"the {kind} ")
        assert f"({one}): budget_usd_month=2 is over, alert only: 2.000000 US dollars are spent" in found.detail
    spend(ready, *made[1:], nanos=2_000_000_000)
    assert len([found for found in examine(ready) if found.name == "budget"]) == 11


def test_prices_of_providers_that_nobody_knows_are_told(ready: Configuration) -> None:
    (ready.home / "prices.toml").write_text('[opnai."zz"]\ninput = 1\n[openai."a"]\ninput = 1\n')
    found = check(ready, "prices")
    assert (found.status, found.detail.endswith("nobody knows: 'opnai' (did you mean openai?)")) == ("warning", True)
    with open_control_plane(ready) as plane:
        plane.add_provider_key(plane.projects()[0].id, "opnai", "-", base_url="https://192.0.2.1/v1")
    assert [found for found in examine(ready) if found.name == "prices"] == []


def test_a_damaged_database_is_found(ready: Configuration) -> None:
    for file in ready.home.glob("watchllm.db*"):
        file.unlink()
    (ready.home / "watchllm.db").write_bytes(b"not a database" * 1000)
    assert check(ready, "database").status == "failed"


def test_a_snapshot_behind_the_database_is_found(ready: Configuration) -> None:
    with open_control_plane(ready) as plane, plane.database.unit_of_work("died") as work:
        keys.revoke(work, plane.keys()[0].id)
        work.connection.execute(delete(tables.outbox))
    found = check(ready, "snapshot")
    assert found.status == "failed"
    assert "watchllm up" in found.advice


def test_a_port_that_another_program_holds_is_found(ready: Configuration) -> None:
    with socket.socket() as holder:
        # Bound and not listening: it answers nobody.
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        found = check(load({"home": str(ready.home), "proxy_port": port, "console_port": 0}, {}), "proxy port")
    assert found.status == "failed"
    assert "WATCHLLM_PROXY_PORT" in found.advice


def test_where_a_proxy_runs_is_said_and_what_it_works_with(installation: Installation, sim: Sim) -> None:
    installation.environment |= upstream_environment(sim.base_url)
    project = installation.project()
    proxy = installation.start_proxy()
    proxy.chat(project.key, "Stored?")
    proxy.chat(project.key, "Stored too?")
    configuration = replace(installation.configuration(), proxy_port=proxy.port + 1)
    found = wait_for(lambda: _answered(check(configuration, "proxy")), "the proxy's admin listener")
    assert found.detail == f"process {proxy.process.pid} serves this home on port {proxy.port}"
    assert "clients use that port" in found.advice
    stored = wait_for(lambda: _starting(check(configuration, "cache"), "2 answers"), "both answers in the file")
    assert stored.status == "ok"
    recorder = check(configuration, "recorder")
    assert (recorder.status, "usage waits" in recorder.detail) == ("warning", True)
    assert "watchllm recorder" in recorder.advice
    proxy.stop()
    assert check(configuration, "proxy").detail == "none runs on this home"
    assert check(configuration, "recorder").status == "ok"


@pytest.mark.parametrize(
    ("lag", "problem", "status", "said"),
    [(0.2, None, "ok", "0.2 s behind"), (60.0, None, "warning", "60.0 s behind"), (0.0, "locked", "warning", "locked")],
)
def test_how_late_the_recorder_is_is_said(
    ready: Configuration, lag: float, problem: str | None, status: str, said: str
) -> None:
    folder = ready.home / "journal"
    lock = lock_recorder(folder)
    assert lock is not None
    try:
        now_ms = time.time_ns() // 1_000_000
        write_status(folder, RecorderStatus(at_ms=now_ms, lag_seconds=lag, problem=problem))
        found = check(ready, "recorder")
    finally:
        os.close(lock)
    assert (found.status, said in found.detail) == (status, True)


def _answered(found: Check) -> Check | None:
    return _starting(found, "process")


def _starting(found: Check, with_: str) -> Check | None:
    return found if found.detail.startswith(with_) else None


def test_a_damaged_cache_is_found_and_left_as_it_is(ready: Configuration) -> None:
    folder = ready.home / "cache"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"nothing of LMDB" * 4096)
    before = (folder / "data.mdb").read_bytes()
    found = check(ready, "cache")
    assert (found.status, str(folder) in found.detail) == ("failed", True)
    assert (folder / "data.mdb").read_bytes() == before


def test_a_journal_that_cannot_be_written_is_found_and_the_policy_said(ready: Configuration) -> None:
    (ready.home / "journal").write_bytes(b"a file")
    found = check(ready, "journal")
    assert (found.status, "when full: refuse" in found.detail) == ("failed", True)
    assert "refuse requests" in found.advice
    metered = replace(ready, journal_full="serve-unmetered")
    assert "lost to usage" in check(metered, "journal").advice


@pytest.mark.parametrize(("free", "status"), [(1 << 20, "failed"), (100 << 20, "warning"), (10 << 30, "ok")])
def test_a_disk_without_room_for_the_journal_is_found(
    ready: Configuration, monkeypatch: pytest.MonkeyPatch, free: int, status: str
) -> None:
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr("watchllm.compose.doctor_running.shutil.disk_usage", lambda _: usage)
    assert check(ready, "journal").status == status


def test_a_journal_at_its_bound_is_found(ready: Configuration) -> None:
    folder = ready.home / "journal"
    folder.mkdir()
    (folder / "jnl_x-00000001.seg").write_bytes(bytes(4096))
    assert check(ready, "journal").status == "ok"
    found = check(replace(ready, journal_max_bytes=4096), "journal")
    assert (found.status, "watchllm recorder" in found.advice) == ("failed", True)


def test_anthropic_is_asked_as_it_wants_to_be(ready: Configuration) -> None:
    """A bare host is what its own clients take for a base URL; the path and the headers are of its reference."""
    headers: dict[str, str | None] = {}

    def answer(call: Call) -> None:
        headers.update({name: call.headers.get(name) for name in ("x-api-key", "anthropic-version", "authorization")})
        call.reply(200, b'{"data": []}')

    with scripted_upstream(answer) as upstream:
        bare = upstream.base_url.removesuffix("/v1")
        variables = {"ANTHROPIC_API_KEY": "sk-ant", "ANTHROPIC_BASE_URL": bare}
        found = check(load({"home": str(ready.home), "proxy_port": 0}, variables), "provider anthropic")
    assert (found.status, "takes the key" in found.detail) == ("ok", True)
    assert upstream.calls == ["GET /v1/models"]
    assert headers == {"x-api-key": "sk-ant", "anthropic-version": "2023-06-01", "authorization": None}


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ((), "warning", "no bound"),
        (("--maxmemory", "64mb"), "failed", "refuses everything"),
        (("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"), "failed", "evict the snapshot"),
        (("--maxmemory", "64mb", "--maxmemory-policy", "volatile-lru"), "ok", "volatile-lru"),
        (("--maxmemory", "64mb", "--maxmemory-policy", "volatile-ttl"), "warning", "limits"),
        (("--maxmemory", "64mb", "--maxmemory-policy", "volatile-random"), "warning", "limits"),
    ],
)
def test_redis_is_asked_whether_it_may_evict_what_must_not_be_lost(
    ready: Configuration, tmp_path: Path, options: tuple[str, ...], status: str, says: str
) -> None:
    server = RedisServer(tmp_path / "redis", *options)
    try:
        configuration = load({"home": str(ready.home)}, {"WATCHLLM_REDIS_URL": server.url})
        assert check(configuration, "redis").status in ("ok", "warning")  # A busy machine answers slowly.
        memory = check(configuration, "redis memory")
        assert (memory.status, says in memory.detail) == (status, True), memory
    finally:
        server.stop()


def test_a_redis_that_does_not_answer_has_failed(ready: Configuration) -> None:
    redis = load({"home": str(ready.home)}, {"WATCHLLM_REDIS_URL": "redis://u:secret@127.0.0.1:1"})
    assert check(redis, "redis").status == "failed"
    assert "secret" not in check(redis, "redis").detail
    snapshot = check(redis, "snapshot")
    assert (snapshot.status, "remove" in snapshot.advice) == ("failed", False)


@pytest.mark.parametrize(
    ("credentials", "says"),
    [("", "it asks for a password; put it into the URL"), (":wrong-9876@", "it refuses the user or the password;")],
)
def test_a_redis_that_refuses_who_asks_is_told_in_words(
    ready: Configuration, tmp_path: Path, credentials: str, says: str
) -> None:
    server = RedisServer(tmp_path / "redis", password=True)
    try:
        url = f"redis://{credentials}127.0.0.1:{server.port}"
        redis = load({"home": str(ready.home)}, {"WATCHLLM_REDIS_URL": url})
        for name in ("redis", "snapshot"):
            found = check(redis, name)
            assert found.status == "failed"
            assert says in found.detail
            assert "HELLO" not in found.detail
            assert "9876" not in found.detail
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        *((f"redis://:sec{mark}ret@127.0.0.1:1", "percent-encoded there: / is %2F, # %23, ? %3F") for mark in "/#?"),
        ("rediss://127.0.0.1:1?ssl_ca_certs=/nowhere/ca.pem", "not /nowhere/ca.pem (No such file or directory)"),
    ],
)
def test_a_redis_url_of_the_wrong_form_is_told_what_is_wrong(ready: Configuration, url: str, says: str) -> None:
    redis = check(load({"home": str(ready.home)}, {"WATCHLLM_REDIS_URL": url}), "redis")
    assert redis.status == "failed"
    assert says in redis.detail
    assert "ret" not in redis.detail.replace("directory", "")


def test_a_postgresql_that_cannot_be_reached_has_failed(ready: Configuration) -> None:
    variables = {"WATCHLLM_DATABASE_URL": "postgresql://127.0.0.1:1/x", "WATCHLLM_SECRET_KEY": "x" * 32}
    found = check(load({"home": str(ready.home)}, variables), "database")
    assert found.status == "failed"
    assert "refused" in found.detail
    assert "can it be reached" in found.advice
    assert "doctor" not in found.detail


def test_a_role_without_rights_in_postgresql_is_told_so(ready: Configuration, own_postgres: Postgres) -> None:
    name = own_postgres.database().rpartition("/")[2]
    own_postgres.execute("postgres", "CREATE ROLE stranger LOGIN")
    url = own_postgres.url(name, user="stranger")
    variables = {"WATCHLLM_DATABASE_URL": url, "WATCHLLM_SECRET_KEY": "x" * 32}
    found = check(load({"home": str(ready.home)}, variables), "database")
    assert found.status == "failed"
    assert "connect as the owner of the schema watchllm" in found.advice
    assert "LINE" not in found.detail


def provider(ready: Configuration, base_url: str, key: str = "right") -> Check:
    variables = {"OPENAI_BASE_URL": base_url} | ({"OPENAI_API_KEY": key} if key else {})
    return check(load({"home": str(ready.home)}, variables), "provider openai")


@pytest.fixture
def start_sim(tmp_path: Path) -> Iterator[Callable[..., Sim]]:
    """Starts a simulated provider with the given options; stopped when the test ends, however it ends."""
    with ExitStack() as started:

        def start(*options: str) -> Sim:
            sim = Installation(tmp_path / "sim").start_sim(*options)
            started.callback(sim.process.stop)
            return sim

        yield start


def test_a_provider_is_asked_with_its_key(ready: Configuration, start_sim: Callable[..., Sim]) -> None:
    sim = start_sim("--require-key", "right")
    assert provider(ready, sim.base_url).status == "ok"
    refused = provider(ready, sim.base_url, "wrong-key-0123456789")
    assert (refused.status, "refuses the key" in refused.detail) == ("failed", True)
    assert "OPENAI_API_KEY" in refused.advice
    assert "wrong-key" not in refused.detail + refused.advice
    assert provider(ready, sim.base_url, "").status == "ok"
    wrong = provider(ready, sim.base_url + "/elsewhere")
    assert wrong.status == "failed"
    assert "OPENAI_BASE_URL" in wrong.advice


def test_a_provider_that_cannot_be_reached_has_failed_and_one_in_trouble_is_a_warning(
    ready: Configuration, start_sim: Callable[..., Sim]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found = provider(ready, f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
    assert (found.status, "cannot be reached" in found.detail) == ("failed", True)
    troubled = start_sim("--status", "503")
    assert provider(ready, troubled.base_url).status == "warning"


def test_an_organization_without_its_plan_has_failed(ready: Configuration) -> None:
    file = ready.home / "plans.toml"
    file.write_text("[team]\n")
    with open_control_plane(ready) as plane:
        organization = plane.all_organizations()[0].id
        plane.set_organization(organization, {"plan": "team"})
    file.unlink()
    found = check(ready, "snapshot")
    assert found.status == "failed"
    assert f"no plan 'team', which {organization} has" in found.detail
