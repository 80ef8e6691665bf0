"""Picks the database by its URL: SQLite in a file of the home folder, or PostgreSQL."""

import time

from sqlalchemy import Engine

from watchllm.configuration import Configuration
from watchllm.control import schema
from watchllm.control.database import Database
from watchllm.journal.shared_ledger import SharedUsageStore
from watchllm.stores import home
from watchllm.stores.sqlite.engine import open_engine as open_sqlite

_CHECK_SECONDS = 5.0


def is_postgres(url: str) -> bool:
    """Whether it is the URL of a PostgreSQL."""
    return url.partition("://")[0] in ("postgresql", "postgres")


def open_database(configuration: Configuration) -> Database:
    """The database, whatever its schema, with its replica where one is configured. Raises DatabaseUnusable."""
    replica = configuration.database_replica_url
    engine = open_engine(configuration.database_url)
    return Database(engine, _now_ms, replica=None if replica is None else open_engine(replica))


def open_engine(url: str, *, answer_seconds: float | None = 20.0) -> Engine:
    """The engine of a URL. `answer_seconds` bounds how long a PostgreSQL is waited for, None = for ever.

    Raises DatabaseUnusable.
    """
    if not is_postgres(url):
        return open_sqlite(url)
    # Here, not above: its driver is nothing that an installation on SQLite has to load.
    from watchllm.stores.postgres.engine import open_engine as open_postgres

    return open_postgres(url, answer_seconds=answer_seconds)


def check_answers(configuration: Configuration) -> None:
    """Raise DatabaseUnusable where the database does not answer within seconds, or is a newer program's."""
    engine = open_engine(configuration.database_url, answer_seconds=_CHECK_SECONDS)
    try:
        schema.is_current(engine)
    finally:
        engine.dispose()


def bring_up_to_date(configuration: Configuration, database: Database) -> bool:
    """Bring the schema to that of this program, over the direct connection where there is one; whether it had to be
    changed. Of processes that start at once one does it. Raises DatabaseUnusable."""
    if schema.is_current(database.engine):
        return False
    url = configuration.database_direct_url or configuration.database_url
    # An index over a large table takes its time.
    direct = open_engine(url, answer_seconds=None)
    try:
        return schema.upgrade(direct)
    finally:
        direct.dispose()


def usage_store(configuration: Configuration, database: Database) -> SharedUsageStore:
    """The recorder's store in `database`. Raises HomeUnusable."""
    if is_postgres(configuration.database_url):
        from watchllm.stores.postgres.usage import PostgresUsageStore

        return PostgresUsageStore(database.engine, _now_ms, home.identity(configuration.home))
    from watchllm.stores.sqlite.usage import SqliteUsageStore

    return SqliteUsageStore(database.engine, _now_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
