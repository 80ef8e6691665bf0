"""In PostgreSQL nobody but the owner gets at anything, not even where a hosted database grants what is new."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine

from tests.support.journal import event, journal_in, usage_in
from tests.support.postgres import OWNER, Connected, Postgres
from watchllm.control import private_schema, schema
from watchllm.stores.postgres.engine import open_engine

ROLES = ("anon", "authenticated", "service_role")
OBJECTS = """
    SELECT relname, relkind::text, relrowsecurity FROM pg_class
    WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p', 'S', 'v', 'm') ORDER BY relname
"""


@pytest.fixture(scope="module")
def hosted() -> Iterator[Postgres]:
    """As Supabase sets a database up: roles of the outside, and default privileges for them on all that is made."""
    from tests.support.postgres import running_postgres

    with running_postgres() as server:
        server.execute(
            "postgres",
            *(f"CREATE ROLE {role} LOGIN" for role in ROLES),
            "ALTER ROLE service_role BYPASSRLS",
        )
        yield server


@pytest.fixture
def database(hosted: Postgres) -> Connected:
    database = Connected(hosted, hosted.database(empty=True))
    everybody = ", ".join(("PUBLIC", *ROLES))
    database.execute(
        *(
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} GRANT ALL ON {what} TO {everybody}"
            for what in ("TABLES", "SEQUENCES", "FUNCTIONS", "SCHEMAS")
        )
    )
    return database


@pytest.fixture
def engine(database: Connected, tmp_path: Path) -> Iterator[Engine]:
    """With the schema in it, and usage of two days."""
    journal = journal_in(tmp_path)
    journal.settled(event("req_1", at_ns=1_700_000_000 * 10**9))
    journal.settled(event("req_2"))
    journal.close()
    with usage_in(tmp_path, database.url) as usage:
        usage.record()
        yield usage.engine


def test_default_privileges_would_open_what_is_made(database: Connected) -> None:
    """Else the other tests here would show nothing."""
    database.execute("CREATE SCHEMA other", "CREATE TABLE other.things (id int)")
    assert database.execute("SELECT * FROM other.things", user="anon") == []


def test_every_table_has_row_level_security_and_the_partitions_too(database: Connected, engine: Engine) -> None:
    objects = database.execute(OBJECTS)
    tables = {name: secured for name, kind, secured in objects if kind in ("r", "p")}
    assert {"keys", "provider_keys", "users", "usage_logs", "usage_logs_20231114", "alembic_version"} <= tables.keys()
    assert [name for name, secured in tables.items() if not secured] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_table_sequence_and_function_refuses_the_roles_of_the_outside(
    database: Connected, engine: Engine, role: str
) -> None:
    database.execute("CREATE FUNCTION watchllm.answer() RETURNS int LANGUAGE sql AS 'SELECT 42'")
    with engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
        private_schema.close(connection)
    attempts = ["SELECT watchllm.answer()", "CREATE TABLE watchllm.mine (id int)"]
    for name, kind, _ in database.execute(OBJECTS):
        if kind == "S":
            attempts += [f"SELECT nextval('watchllm.{name}')", f"SELECT * FROM watchllm.{name}"]
        else:
            attempts += [f"SELECT * FROM watchllm.{name}", f"DELETE FROM watchllm.{name}", f"TRUNCATE watchllm.{name}"]
    assert len(attempts) > 50
    for attempt in attempts:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.execute(attempt, user=role)
    # And each thing by itself, should somebody open the schema.
    database.execute(f"GRANT USAGE ON SCHEMA watchllm TO {role}")
    for attempt in attempts:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.execute(attempt, user=role)


def test_what_somebody_opened_is_told_and_closed_by_the_next_upgrade(database: Connected, engine: Engine) -> None:
    def openings() -> list[str]:
        with engine.connect() as connection:
            return private_schema.openings(connection)

    assert openings() == []
    database.execute(
        "GRANT SELECT ON watchllm.keys TO anon",
        "GRANT USAGE ON SCHEMA watchllm TO PUBLIC",
        "ALTER TABLE watchllm.users DISABLE ROW LEVEL SECURITY",
    )
    assert openings() == ["users has no row-level security", "anon has rights on keys", "PUBLIC has rights on watchllm"]
    database.execute("UPDATE watchllm.alembic_version SET version_num = '0009'", "DROP TABLE watchllm.tokens")
    assert schema.upgrade(engine)
    assert openings() == []


def test_an_operators_own_role_for_reports_keeps_what_it_was_granted(database: Connected, engine: Engine) -> None:
    database.server.execute("postgres", "CREATE ROLE reports LOGIN BYPASSRLS")
    database.execute("GRANT USAGE ON SCHEMA watchllm TO reports", "GRANT SELECT ON watchllm.usage_logs TO reports")
    with engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
        private_schema.close(connection)
    assert database.execute("SELECT count(*) FROM watchllm.usage_logs", user="reports") == [(2,)]


def test_a_schema_that_was_made_for_a_role_that_may_make_none_will_do(hosted: Postgres) -> None:
    database = Connected(hosted, hosted.database(empty=True))
    hosted.execute("postgres", "CREATE ROLE humble LOGIN")
    hosted.execute(database.name, f"REVOKE CREATE ON DATABASE {database.name} FROM PUBLIC", user="postgres")
    hosted.execute(database.name, "CREATE SCHEMA watchllm AUTHORIZATION humble", user="postgres")
    engine = open_engine(hosted.url(database.name, user="humble"))
    assert schema.upgrade(engine)
    engine.dispose()
