"""What `watchllm doctor` looks at where the database is a PostgreSQL, beside what it asks of every database."""

from collections.abc import Iterator
from contextlib import closing

from watchllm.compose.checks import FAILED, OK, WARNING, Check
from watchllm.compose.database import open_engine
from watchllm.compose.errors import FAILURES
from watchllm.configuration import Configuration
from watchllm.control import private_schema, schema
from watchllm.control.database import Database
from watchllm.control.database_errors import SAYS_MORE

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
    if configuration.database_direct_url is not None:
        yield _reached("database direct", configuration.database_direct_url, "migrations will fail")
    if configuration.database_replica_url is not None:
        yield _reached("database replica", configuration.database_replica_url, "meanwhile the database itself is read")


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
