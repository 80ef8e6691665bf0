"""The schema's version and its forward-only migrations (Alembic, packaged beside this module).

`upgrade` runs in one transaction that excludes other writers, so that processes that start at once do it once.
Whether anything is to do is asked without importing Alembic, which costs a tenth of a second. Migrations only add: a
program that is running goes on with a schema that a newer one has upgraded.
"""

from sqlalchemy import Connection, Engine, column, inspect, select, table
from sqlalchemy.exc import DBAPIError

from watchllm.control import private_schema
from watchllm.control.database import place
from watchllm.control.database_errors import unusable
from watchllm.control.errors import DatabaseUnusable

HEAD = "0011"
"""The newest migration; a test compares it with the files."""
_UPGRADES = {"watchllm_writes": True, "watchllm_upgrades": True}


def version(connection: Connection) -> str | None:
    """The schema's version, None before the first migration."""
    schema = private_schema.SCHEMA if _is_postgres(connection) else None
    if not inspect(connection).has_table("alembic_version", schema=schema):
        return None
    found: str | None = connection.scalar(select(column("version_num")).select_from(table("alembic_version")))
    return found


def upgrade(engine: Engine) -> bool:
    """Bring the schema to HEAD; whether there was anything to do.

    Raises DatabaseUnusable when the database cannot be used or its schema is newer than this program.
    """
    try:
        if is_current(engine):
            return False
        with engine.connect().execution_options(**_UPGRADES) as connection, connection.begin():
            # Asked again under the write lock: another process may have been quicker.
            if version(connection) == HEAD:
                return False
            if _is_postgres(connection):
                private_schema.enter(connection)
            _run(connection)
            if _is_postgres(connection):
                private_schema.close(connection)
            return True
    except DBAPIError as error:
        raise unusable(f"the schema of {place(engine)} cannot be upgraded", error) from error


def close(engine: Engine) -> None:
    """Take back what outsiders were granted since the last upgrade, where the database knows of such. Raises
    DatabaseUnusable."""
    try:
        with engine.connect().execution_options(**_UPGRADES) as connection, connection.begin():
            if _is_postgres(connection) and private_schema.openings(connection):
                private_schema.close(connection)
    except DBAPIError as error:
        raise unusable(f"the schema of {place(engine)} cannot be closed", error) from error


def is_current(engine: Engine) -> bool:
    """Whether there is nothing to upgrade. Raises as `upgrade` does."""
    try:
        with engine.connect() as connection, connection.begin():
            current = version(connection)
    except DBAPIError as error:
        raise unusable(f"{place(engine)} cannot be used", error) from error
    _refuse_newer(current)
    return current == HEAD


def _is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _refuse_newer(current: str | None) -> None:
    if current is not None and current > HEAD:
        raise DatabaseUnusable(
            f"the database's schema {current} is newer than this program's {HEAD}; use the WatchLLM that upgraded it"
        )


def _run(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "watchllm.control:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
