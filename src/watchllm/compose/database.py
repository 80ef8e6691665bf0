"""Picks the database by its URL: SQLite in a file of the home folder, or PostgreSQL."""

import time
from contextlib import closing

from watchllm.configuration import Configuration
from watchllm.control import schema
from watchllm.control.database import Database
from watchllm.journal.recorder import UsageStore
from watchllm.stores import home
from watchllm.stores.sqlite.engine import open_engine as open_sqlite


def is_postgres(url: str) -> bool:
    """Whether it is the URL of a PostgreSQL."""
    return url.partition("://")[0] in ("postgresql", "postgres")


def open_database(configuration: Configuration) -> Database:
    """The database alone, whatever its schema. Raises DatabaseUnusable."""
    return open_at(configuration.database_url)


def open_at(url: str, *, answer_seconds: float | None = 30.0) -> Database:
    """The database of a URL. `answer_seconds` bounds how long a PostgreSQL is waited for, None = for ever.

    Raises DatabaseUnusable.
    """
    if not is_postgres(url):
        return Database(open_sqlite(url), _now_ms)
    # Here, not above: its driver is nothing that an installation on SQLite has to load.
    from watchllm.stores.postgres.engine import open_engine as open_postgres

    return Database(open_postgres(url, answer_seconds=answer_seconds), _now_ms)


def open_reports(configuration: Configuration) -> Database:
    """Where usage is read for people: the replica where there is one, else the database over a pool of its own.

    Raises DatabaseUnusable.
    """
    return open_at(configuration.database_replica_url or configuration.database_url)


def bring_up_to_date(configuration: Configuration, database: Database) -> bool:
    """Bring the schema to that of this program, over the direct connection where there is one; whether it had to be
    changed. Of processes that start at once one does it. Raises DatabaseUnusable."""
    if schema.is_current(database.engine):
        return False
    url = configuration.database_direct_url or configuration.database_url
    # An index over a large table takes its time.
    with closing(open_at(url, answer_seconds=None)) as direct:
        return schema.upgrade(direct.engine)


def usage_store(configuration: Configuration, database: Database) -> UsageStore:
    """The recorder's store in `database`. Raises HomeUnusable."""
    if is_postgres(configuration.database_url):
        from watchllm.stores.postgres.usage import PostgresUsageStore

        return PostgresUsageStore(database.engine, _now_ms, home.identity(configuration.home))
    from watchllm.stores.sqlite.usage import SqliteUsageStore

    return SqliteUsageStore(database.engine, _now_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
