"""Forward-only migrations: from every earlier schema, once even when several processes start, never backwards."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from tests.support.journal import any_event, journal_in, usage_in
from watchllm.analytics import tables as usage
from watchllm.control import schema, tables
from watchllm.control.errors import DatabaseUnusable
from watchllm.stores.sqlite.engine import open_engine


def scripts() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", "watchllm.control:migrations")
    return ScriptDirectory.from_config(config)


METADATA = [tables.metadata, usage.metadata]
EARLIER = [revision.revision for revision in scripts().walk_revisions()][::-1]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path}/watchllm.db")
    yield engine
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    assert scripts().get_current_head() == schema.HEAD


def test_a_new_database_gets_exactly_the_tables_that_the_code_uses(engine: Engine) -> None:
    assert schema.upgrade(engine)
    assert not schema.upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        assert schema.version(connection) == schema.HEAD


@pytest.mark.parametrize("earlier", EARLIER)
def test_every_earlier_schema_is_brought_up_to_date(engine: Engine, earlier: str) -> None:
    config = Config()
    config.set_main_option("script_location", "watchllm.control:migrations")
    with engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, earlier)
        connection.execute(text("INSERT INTO organizations (id, name, created_ms) VALUES ('org_1', 'kept', 1)"))
    schema.upgrade(engine)
    with engine.connect() as connection:
        assert schema.version(connection) == schema.HEAD
        assert connection.scalar(text("SELECT name FROM organizations")) == "kept"
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


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


def test_processes_that_start_at_once_upgrade_once(tmp_path: Path) -> None:
    code = (
        "import sys; from watchllm.stores.sqlite.engine import open_engine; from watchllm.control import schema\n"
        "engine = open_engine(sys.argv[1]); print('ready', flush=True); sys.stdin.read(1)\n"
        "print(schema.upgrade(engine))"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"sqlite:///{tmp_path}/watchllm.db"], stdin=-1, stdout=-1, stderr=-1, text=True
        )
        for _ in range(3)
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
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
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
    assert inspect(engine).get_table_names() == []


def test_what_is_no_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "watchllm.db").write_text("this is not a database, " * 100)
    engine = open_engine(f"sqlite:///{tmp_path}/watchllm.db")
    with pytest.raises(DatabaseUnusable, match=r"watchllm\.db"):
        schema.upgrade(engine)
    engine.dispose()
