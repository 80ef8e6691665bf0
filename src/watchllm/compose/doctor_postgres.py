"""What `watchllm doctor` looks at where the database is a PostgreSQL, beside what it asks of every database."""

import time
from collections.abc import Iterator
from contextlib import closing

from sqlalchemy import func, select

from watchllm.analytics.tables import journal_positions
from watchllm.compose.checks import FAILED, OK, WARNING, Check
from watchllm.compose.database import open_engine
from watchllm.compose.errors import FAILURES
from watchllm.configuration import Configuration
from watchllm.control import private_schema, schema
from watchllm.control.database import Database
from watchllm.control.database_errors import SAYS_MORE
from watchllm.journal.recorder import DAY_MS
from watchllm.stores import home

_ANSWER_SECONDS = 5.0


def examine_postgres(configuration: Configuration, database: Database) -> Iterator[Check]:
    """`database` can be reached, and its schema is that of this program. Raises DatabaseUnusable."""
    with database.reading() as connection:
        found = private_schema.openings(connection)
    if found:
        advice = f"REVOKE it, ENABLE ROW LEVEL SECURITY: the schema {private_schema.SCHEMA} is for its owner only"
        yield Check("database rights", FAILED, "; ".join(found[:5]) + (" …" if found[5:] else ""), advice)
    else:
        yield Check("database rights", OK, "row-level security on every table, and no rights for others")
    if configuration.redis_url is None:
        yield from _other_hosts(configuration, database)
    if configuration.database_direct_url is not None:
        yield _reached("database direct", configuration.database_direct_url, "migrations will fail")
    if configuration.database_replica_url is not None:
        yield _reached("database replica", configuration.database_replica_url, "meanwhile the database itself is read")


def _other_hosts(configuration: Configuration, database: Database) -> Iterator[Check]:
    """Who shares a database with other hosts has to share limits and changes with them, too."""
    own = configuration.home / home.IDENTITY_FILE
    its_name = own.read_text(encoding="ascii").strip() if own.exists() else ""
    columns = journal_positions.c
    since = time.time_ns() // 1_000_000 - DAY_MS
    recorded = select(func.count(columns.home.distinct())).where(columns.home != its_name, columns.updated_ms > since)
    with database.reading() as connection:
        others = connection.scalar(recorded) or 0
    if others:
        detail = (
            f"{others} other home{'' if others == 1 else 's'} recorded into this database within a day, and this one "
            "has no Redis: keys have their whole limits on each of them, and changes take up to a minute"
        )
        yield Check("other hosts", WARNING, detail, "set the same WATCHLLM_REDIS_URL on every host")


def _reached(name: str, url: str, consequence: str) -> Check:
    variable = f"WATCHLLM_{name.upper().replace(' ', '_')}_URL"
    try:
        engine = open_engine(url, answer_seconds=_ANSWER_SECONDS)
        with closing(Database(engine, lambda: 0)) as database, database.reading() as connection:
            current = schema.version(connection)
    except FAILURES as error:
        return Check(name, WARNING, str(error).removesuffix(SAYS_MORE), f"see {variable}; {consequence}")
    if current != schema.HEAD:
        return Check(name, WARNING, f"its schema is {current}, this program's {schema.HEAD}", f"see {variable}")
    return Check(name, OK, f"schema {current}")
