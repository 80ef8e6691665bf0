"""The SQLAlchemy engine over an embedded SQLite file: WAL, a busy time-out, one writer at a time by intent.

A transaction that writes begins with BEGIN IMMEDIATE. Begun as a reader and turned writer later, it would be refused
with "database is locked" at once, whatever the time-out, when another process had written in between.
"""

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url

from watchllm.control.errors import DatabaseUnusable
from watchllm.stores.home import prepare

BUSY_SECONDS = 15.0


def open_engine(url: str) -> Engine:
    """The engine for `sqlite:///FILE`; the file is made, readable by its owner only. Raises DatabaseUnusable."""
    parsed = make_url(url)
    if not parsed.database or parsed.database == ":memory:":
        raise DatabaseUnusable("WATCHLLM_DATABASE_URL: several processes share the database, so it must be a file")
    _make_private_file(Path(parsed.database))
    engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    return engine


def _make_private_file(path: Path) -> None:
    # SQLite gives its journal files the database's mode, so that this covers them too.
    # Never opened here when it exists: closing it again would drop the locks that other connections of this process
    # hold on it (POSIX locks belong to process and file), and SQLite would remove a write-ahead log that is in use.
    try:
        prepare(path.parent)
        if not os.access(path, os.R_OK | os.W_OK):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        if not path.is_file():
            raise DatabaseUnusable(f"the database {path} is not a file")
    except FileExistsError:
        if not os.access(path, os.R_OK | os.W_OK):
            raise DatabaseUnusable(f"the database {path} may not be read and written by this user") from None
    except OSError as error:
        raise DatabaseUnusable(f"the database {path} cannot be opened or made: {error.strerror}") from None


def _prepare_connection(connection: Any, _record: Any) -> None:
    # The driver must not begin transactions by itself; `_begin` does, and knows which kind.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    _switch_to_wal(connection)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # The mode is kept in the file. The switch needs the file for itself and does not heed the busy time-out, so that
    # processes that make one database at the same moment would fail here.
    deadline = time.monotonic() + BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("watchllm_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
