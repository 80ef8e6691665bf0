"""The SQLAlchemy engine over PostgreSQL, at home behind a pooler that hands out its connections by transaction.

Such a pooler keeps nothing of a session: there are no prepared statements, no `SET` outlives its transaction, and locks
are a transaction's. So every name is qualified with the schema. Transactions that write exclude each other by one
advisory lock, as SQLite's do: what was decided by a look at the database is still so when it is written.
"""

import logging
from collections.abc import Mapping
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError

from watchllm.control.errors import DatabaseUnusable
from watchllm.control.private_schema import SCHEMA
from watchllm.setting_forms import PERCENT_ENCODED
from watchllm.stores.postgres.bounded import BoundedConnection

_CONNECT_SECONDS = 10
_FORM = "postgresql://USER:PASSWORD@HOST:PORT/NAME"
_LOCK_WAIT = "15s"
# Another process may be upgrading a large database; whoever comes next waits, so that all start.
_UPGRADE_WAIT = "10min"
# "watchllm" in the two halves of the number space that advisory locks have for pairs.
_WRITERS = (0x77617463, 0x686C6C6D)
# Of other programs' poolers and clients; libpq refuses what it does not know.
_FOREIGN_PARAMETERS = ("pgbouncer", "connection_limit", "pool_timeout", "supa")

_LOCK = f"pg_advisory_xact_lock({_WRITERS[0]}, {_WRITERS[1]})"
_BEGIN_WRITING = text(
    f"SELECT set_config('lock_timeout', :wait, true), {_LOCK}, set_config('lock_timeout', :then, true)"
)
_BEGIN_READING = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def open_engine(url: str, *, answer_seconds: float | None = 20.0) -> Engine:
    """The engine for `postgresql://…`; nothing is connected yet.

    A statement whose answer does not begin or go on for `answer_seconds` (None = ever) fails and loses its connection.
    Raises DatabaseUnusable for a URL that cannot be understood; the message does not repeat it.
    """
    parsed = _parsed(url)
    options = {
        # Of 0 libpq would make no bound at all.
        "connect_timeout": _CONNECT_SECONDS
        if answer_seconds is None
        else max(2, min(_CONNECT_SECONDS, answer_seconds)),
        "application_name": "watchllm",
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    # It writes a traceback for each connection that is lost, which whoever uses it hears of by an exception.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    engine = create_engine(
        parsed,
        # A connection that the server or a pooler has closed meanwhile is noticed before it is used.
        pool_pre_ping=True,
        pool_recycle=600,
        execution_options={"schema_translate_map": {None: SCHEMA}},
        use_native_hstore=False,
        connect_args={"prepare_threshold": None}
        | {name: value for name, value in options.items() if name not in parsed.query},
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: Any, options: Mapping[str, Any]) -> psycopg.Connection[Any]:
        connection = BoundedConnection.connect(*arguments, **options)
        connection.answer_seconds = answer_seconds
        return connection

    event.listen(engine, "begin", _begin)
    return engine


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError):
        raise DatabaseUnusable(f"the database's URL is not of the form {_FORM}; {PERCENT_ENCODED}") from None
    if "@" in (parsed.host or "") + (parsed.database or ""):
        raise DatabaseUnusable(f"the database's URL has one @ too many: {_FORM}; {PERCENT_ENCODED}")
    if not parsed.database:
        raise DatabaseUnusable(f"the database's URL names no database: {_FORM}")
    return parsed.difference_update_query(_FOREIGN_PARAMETERS)


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("watchllm_writes", False):
        connection.execute(_BEGIN_READING)
        return
    wait = _UPGRADE_WAIT if options.get("watchllm_upgrades", False) else _LOCK_WAIT
    connection.execute(_BEGIN_WRITING, {"wait": wait, "then": _LOCK_WAIT})
