"""Forward-only migrations: from every earlier schema, once even when several processes start, never backwards."""

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, column, create_engine, insert, inspect, make_url, select, table, text, update

from tests.support.journal import any_event, journal_in, usage_in
from tests.support.postgres import Connected
from watchllm.analytics import tables as usage
from watchllm.compose.database import open_engine
from watchllm.control import private_schema, schema, tables
from watchllm.control.errors import DatabaseUnusable


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", "watchllm.control:migrations")
    return ScriptDirectory.from_config(config)


METADATA = [tables.metadata, usage.metadata]
EARLIER = [revision.revision for revision in scripts().walk_revisions()][::-1]


@pytest.fixture(params=["sqlite", "postgres", "postgres behind a pooler"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database that has nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/watchllm.db"
    database = request.getfixturevalue("empty_database")
    return str(database.url if request.param == "postgres" else database.server.pooled(database.url))


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def direct(request: pytest.FixtureRequest, url: str) -> str:
    """The same database without a pooler in between."""
    return url if url.startswith("sqlite") else str(request.getfixturevalue("empty_database").url)


def differences(url: str) -> list[Any]:
    """What the code's tables and those in the database do not have in common, the usage log's keys apart: in
    PostgreSQL they are others on purpose (test_keys_of_a_partitioned_log)."""

    def compared(_thing: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
        return kind == "table" or name not in ("uq_usage_logs_request_id", "ix_usage_logs_at_ms")

    is_postgres = url.startswith("postgresql")
    parsed = make_url(url)
    if is_postgres:
        # Reflection asks for the first schema of the search path.
        parsed = parsed.set(drivername="postgresql+psycopg").update_query_dict({"options": "-csearch_path=watchllm"})
    seen = create_engine(parsed)
    try:
        with seen.connect() as connection:
            context = MigrationContext.configure(connection, opts={"include_object": compared} if is_postgres else {})
            return list(compare_metadata(context, METADATA))
    finally:
        seen.dispose()


def test_head_is_the_newest_migration() -> None:
    assert scripts().get_current_head() == schema.HEAD


def test_a_new_database_gets_exactly_the_tables_that_the_code_uses(engine: Engine, direct: str) -> None:
    assert schema.upgrade(engine)
    assert not schema.upgrade(engine)
    assert differences(direct) == []
    with engine.connect() as connection:
        assert schema.version(connection) == schema.HEAD


@pytest.mark.parametrize("earlier", EARLIER)
def test_every_earlier_schema_is_brought_up_to_date(engine: Engine, direct: str, earlier: str) -> None:
    migrate_to(engine, earlier)
    before = columns(engine)
    with engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
        connection.execute(insert(tables.organizations).values(id="org_1", name="kept", created_ms=1))
    schema.upgrade(engine)
    with engine.connect() as connection:
        assert schema.version(connection) == schema.HEAD
        assert connection.scalar(select(tables.organizations.c.name)) == "kept"
    assert differences(direct) == []
    assert re.fullmatch(b"[0-9a-f]{32}", identity(engine))
    # A program of that version that still runs goes on: what it names is there, and what it does not name has a value.
    after = columns(engine)
    assert {key: after.get(key) for key in before} == before
    added = {key: after[key] for key in after.keys() - before.keys() if key[0] in {table for table, _ in before}}
    assert [key for key, (_, optional) in added.items() if not optional] == []


def identity(engine: Engine) -> bytes:
    with engine.connect() as connection:
        return bytes(connection.scalar(select(tables.instance.c.value).where(tables.instance.c.name == "installation")))


def test_each_database_is_of_an_installation_of_its_own_and_stays_it(engine: Engine, tmp_path: Path) -> None:
    schema.upgrade(engine)
    before = identity(engine)
    schema.upgrade(engine)
    migrate_again(engine, "0010", "0011")
    assert identity(engine) == before
    other = open_engine(f"sqlite:///{tmp_path}/other.db")
    schema.upgrade(other)
    assert identity(other) != before
    other.dispose()


def migrate_to(engine: Engine, earlier: str) -> None:
    config = Config()
    config.set_main_option("script_location", "watchllm.control:migrations")
    with engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            private_schema.enter(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, earlier)


def columns(engine: Engine) -> dict[tuple[str, str], tuple[str, bool]]:
    """By table and column: its type, and whether a row may be added without naming it."""
    schema_name = "watchllm" if engine.dialect.name == "postgresql" else None
    seen = inspect(engine)
    return {
        (table, column["name"]): (str(column["type"]), column["nullable"] or column["default"] is not None)
        for table in seen.get_table_names(schema=schema_name)
        for column in seen.get_columns(table, schema=schema_name)
    }


def test_keys_of_a_partitioned_log(empty_database: Connected) -> None:
    engine = open_engine(empty_database.url)
    schema.upgrade(engine)
    engine.dispose()
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'watchllm' AND tablename = 'usage_logs' ORDER BY 1"
    assert [row[0].partition(" USING btree ")[2] for row in empty_database.execute(indexes)] == [
        "(project_id, at_ms)",
        "(at_ms, id)",
        "(request_id, at_ms)",
    ]
    how = "SELECT pg_get_partkeydef('watchllm.usage_logs'::regclass)"
    assert empty_database.execute(how) == [("RANGE (at_ms)",)]


def migrate_again(engine: Engine, earlier: str, later: str) -> None:
    """Do once more what the migrations between two versions do with the data; the tables are those of today."""
    config = Config()
    config.set_main_option("script_location", "watchllm.control:migrations")
    with engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
        connection.execute(text("UPDATE alembic_version SET version_num = :earlier"), {"earlier": earlier})
        config.attributes["connection"] = connection
        command.upgrade(config, later)


def test_hits_that_failed_are_taken_off_the_rollups_of_an_earlier_version(tmp_path: Path) -> None:
    journal, choose = journal_in(tmp_path), random.Random(11)
    for _ in range(2000):
        journal.settled(any_event(choose))
    journal.close()
    with usage_in(tmp_path) as recorded:
        recorded.record()
        right = recorded.rollups()
        hits = ("HIT", "HIT-SEMANTIC", "HIT-COALESCED", "HIT-PARTIAL", "HIT-STALE")
        columns = ("hits", "hits_semantic", "hits_coalesced", "hits_partial", "hits_stale")
        same = "at_ms - at_ms % 3600000 = hour_ms AND " + " AND ".join(
            f"usage_logs.{key} = usage_hourly.{key}" for key in ("project_id", "provider", "model")
        )
        with recorded.engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
            for column, cache in zip(columns, hits, strict=True):
                counted = f"SELECT COUNT(*) FROM usage_logs WHERE {same} AND cache = '{cache}'"
                connection.execute(text(f"UPDATE usage_hourly SET {column} = ({counted})"))
            # An hour whose rows are gone.
            connection.execute(text("UPDATE usage_hourly SET hits = 70 WHERE hour_ms = 0 AND model = 'gpt'"))
            connection.execute(text("DELETE FROM usage_logs WHERE at_ms < 3600000 AND model = 'gpt'"))
        assert recorded.rollups() != right
        migrate_again(recorded.engine, "0002", "0003")
        kept = [row for row in recorded.rollups() if not (row[0] == 0 and row[3] == "gpt")]
        assert kept == [row for row in right if not (row[0] == 0 and row[3] == "gpt")] == recorded.rollups_from_rows()
        assert recorded.query("SELECT DISTINCT hits FROM usage_hourly WHERE hour_ms = 0 AND model = 'gpt'") == [(70,)]


def test_processes_that_start_at_once_upgrade_once(url: str) -> None:
    code = (
        "import sys; from watchllm.compose.database import open_engine; from watchllm.control import schema\n"
        "engine = open_engine(sys.argv[1]); print('ready', flush=True); sys.stdin.read(1)\n"
        "print(schema.upgrade(engine))"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, url], stdin=-1, stdout=-1, stderr=-1, text=True) for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], outputs
    assert sorted(output.strip() for output, _ in outputs) == ["False", "False", "True"]


def test_a_newer_schema_is_refused(engine: Engine) -> None:
    schema.upgrade(engine)
    with engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
        connection.execute(update(table("alembic_version", column("version_num"))).values(version_num="9999"))
    with pytest.raises(DatabaseUnusable, match="9999 is newer"):
        schema.upgrade(engine)


def test_a_failing_migration_leaves_nothing_behind(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run = schema._run

    def fails(connection: object) -> None:
        run(connection)  # type: ignore[arg-type]
        raise RuntimeError("half way")

    monkeypatch.setattr(schema, "_run", fails)
    with pytest.raises(RuntimeError):
        schema.upgrade(engine)
    assert columns(engine) == {}


def test_what_is_no_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "watchllm.db").write_text("this is not a database, " * 100)
    engine = open_engine(f"sqlite:///{tmp_path}/watchllm.db")
    with pytest.raises(DatabaseUnusable, match=r"watchllm\.db"):
        schema.upgrade(engine)
    engine.dispose()
