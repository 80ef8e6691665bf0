"""Moves everything from SQLite into PostgreSQL, in one transaction: all of it is there afterwards, or nothing is.

Nothing is sealed anew: the same master secret opens it. Journals stay where they are; how far they were recorded moves
along, so that the recorder goes on where it was.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, cast

from sqlalchemy import Connection, Engine, Table, delete, func, insert, make_url, select, text

from watchllm.analytics import tables as usage
from watchllm.compose.control import keyring_of
from watchllm.compose.database import is_postgres, open_engine
from watchllm.configuration import Configuration, mask_url
from watchllm.control import installation, private_schema, schema, secrets, tables
from watchllm.control.database import Database
from watchllm.control.errors import DatabaseUnusable, Invalid
from watchllm.domain.sealing import WrongSecret
from watchllm.domain.usage_log import COLUMNS
from watchllm.journal.recorder import DAY_MS
from watchllm.journal.status import lock_recorder
from watchllm.stores import home
from watchllm.stores.postgres import copying, partitions, spending

_PAGE = 2000
_OF_A_HOME = ("journal_positions", "journal_set_aside")
_SUMS = ("requests", "cost_nanos", "saved_nanos", "input_tokens", "output_tokens")


def move(
    configuration: Configuration, source_url: str, target_url: str, tell: Callable[[str, int], None]
) -> dict[str, int]:
    """Move everything; the number of rows by table. `tell` is told each table once it is copied.

    Raises Invalid where the URLs, the secret or a running recorder forbid it or the target is not empty, and
    DatabaseUnusable; in both cases the target has no row more than before, and the source is as it was.
    """
    _check_urls(source_url, target_url)
    with ExitStack() as stack:
        stack.enter_context(_no_recorder(configuration))
        source = _opened(stack, source_url)
        target = _opened(stack, target_url)
        schema.upgrade(source)
        _check_secret(configuration, source)
        schema.upgrade(target)
        reading = stack.enter_context(Database(source, _no_clock).unit_of_work("move")).connection
        writing = stack.enter_context(Database(target, _no_clock).unit_of_work("move")).connection
        # The one that it was made with gives way to that of the source.
        writing.execute(delete(tables.instance).where(tables.instance.c.name == installation.INSTALLATION))
        _check_empty(writing, target_url)
        counts = {}
        for table in _all_tables():
            _copy(reading, writing, table, home.identity(configuration.home))
            counts[table.name] = _verified(reading, writing, table)
            tell(table.name, counts[table.name])
        _verify_sums(reading, writing)
    return counts


def _check_urls(source_url: str, target_url: str) -> None:
    if not source_url.startswith("sqlite:") or not is_postgres(target_url):
        raise Invalid("a database is moved from sqlite:///FILE to postgresql://USER:PASSWORD@HOST:PORT/NAME")
    file = make_url(source_url).database
    if not file or not os.path.isfile(file):
        raise Invalid(f"there is no database at {source_url}; name the file with --from sqlite:///FILE")


@contextmanager
def _no_recorder(configuration: Configuration) -> Iterator[None]:
    lock = lock_recorder(configuration.home / "journal")
    if lock is None:
        raise Invalid(f"a recorder works on {configuration.home}: stop `watchllm up` (or `watchllm recorder`) first")
    try:
        yield
    finally:
        os.close(lock)


def _opened(stack: ExitStack, url: str) -> Engine:
    engine = open_engine(url, answer_seconds=None)
    stack.callback(engine.dispose)
    return engine


def _check_secret(configuration: Configuration, source: Engine) -> None:
    keyring = keyring_of(configuration)
    with closing(Database(source, _no_clock)) as database:
        canary = database.value(secrets.CANARY)
    if canary is None:
        return
    try:
        keyring.in_force(canary, "the database that is to be moved")
    except WrongSecret as error:
        file = configuration.home / home.SECRET_FILE
        advice = f"set WATCHLLM_SECRET_KEY to what {file} holds" if file.exists() else "set the one used before"
        raise Invalid(f"{error}; nothing is sealed anew by a move: {advice}") from None


def _all_tables() -> list[Table]:
    """Those that others refer to first."""
    return [*tables.metadata.sorted_tables, *usage.metadata.sorted_tables]


def _check_empty(target: Connection, url: str) -> None:
    filled = [table.name for table in _all_tables() if target.execute(select(table).limit(1)).first() is not None]
    if filled:
        raise Invalid(f"{mask_url(url)} is not empty ({', '.join(filled)}); move into a new database")


def _copy(source: Connection, target: Connection, table: Table, home_id: str) -> None:
    if table is usage.usage_logs:
        _copy_log(source, target)
        return
    for page in source.execute(select(table).execution_options(yield_per=_PAGE)).mappings().partitions():
        rows = [{name: _storable(value) for name, value in row.items()} for row in page]
        if table.name in _OF_A_HOME:
            rows = [{**row, "home": home_id} for row in rows]
        target.execute(insert(table), rows)
    column = table.autoincrement_column
    if column is None or "id" not in table.c:
        return
    # What is numbered from now on comes after what was.
    target.execute(
        text("SELECT setval(pg_get_serial_sequence(:table, :column), :last)"),
        {
            "table": f"{private_schema.SCHEMA}.{table.name}",
            "column": column.name,
            "last": (target.scalar(select(func.max(column))) or 0) + 1,
        },
    )


def _copy_log(source: Connection, target: Connection) -> None:
    log = usage.usage_logs
    driver = cast(partitions.RawConnection, target.connection.driver_connection)
    # What was spent comes with its own table.
    driver.execute(spending.COUNTS_BY_ITSELF)
    partitions.make(driver, set(source.scalars(select(log.c.at_ms // DAY_MS).distinct())))
    rows = source.execute(
        select(*(log.c[name] for name in COLUMNS)).order_by(log.c.id).execution_options(yield_per=_PAGE)
    )
    with driver.cursor() as cursor, cursor.copy(copying.STATEMENT) as copy:
        for block in copying.blocks(tuple(row) for row in rows):
            copy.write(block)


def _verified(source: Connection, target: Connection, table: Table) -> int:
    there, here = (connection.scalar(select(func.count()).select_from(table)) or 0 for connection in (source, target))
    if there != here:
        raise DatabaseUnusable(f"{table.name} has {there} rows and {here} arrived; nothing was moved")
    return here


def _verify_sums(source: Connection, target: Connection) -> None:
    columns = usage.usage_hourly.c
    query = select(*(func.coalesce(func.sum(columns[name]), 0) for name in _SUMS))
    there, here = (list(map(int, connection.execute(query).one())) for connection in (source, target))
    if there != here:
        raise DatabaseUnusable("the sums of usage differ after the copy; nothing was moved")


def _storable(value: Any) -> Any:
    return value.replace("\0", copying.UNSTORABLE) if isinstance(value, str) else value


def _no_clock() -> int:
    return 0
