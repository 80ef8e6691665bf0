"""The schema's version and its forward-only migrations (Alembic, packaged beside this module).

`upgrade` runs in one transaction that excludes other writers, so that processes that start at once do it once.
Whether anything is to do is asked without importing Alembic, which costs a tenth of a second.
"""

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from watchllm.control.errors import DatabaseUnusable

HEAD = "0007"
"""The newest migration; a test compares it with the files."""


def version(connection: Connection) -> str | None:
    """The schema's version, None before the first migration."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def upgrade(engine: Engine) -> bool:
    """Bring the schema to HEAD; whether there was anything to do.

    Raises DatabaseUnusable when the database cannot be used or its schema is newer than this program.
    """
    try:
        with engine.connect() as connection, connection.begin():
            current = version(connection)
        if current == HEAD:
            return False
        _refuse_newer(current)
        with engine.connect().execution_options(watchllm_writes=True) as connection, connection.begin():
            # Asked again under the write lock: another process may have been quicker.
            if version(connection) == HEAD:
                return False
            _run(connection)
            return True
    except DBAPIError as error:
        place = engine.url.render_as_string(hide_password=True)
        raise DatabaseUnusable(f"the schema of {place} cannot be upgraded: {error.orig}") from error


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
