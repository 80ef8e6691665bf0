"""Whether an empty PostgreSQL is about to be begun on by a home whose own database has an installation already."""

import os
import sqlite3
from contextlib import closing

from watchllm.compose.database import is_postgres
from watchllm.configuration import Configuration, home_database_url
from watchllm.control.database import Database
from watchllm.control.errors import Invalid
from watchllm.control.secrets import CANARY


def check_nothing_left_behind(configuration: Configuration, database: Database) -> None:
    """Raise Invalid where it is. A first run there would publish an empty installation in the place of the one that
    proxies serve, and nothing could be moved there any more. `database` has its schema."""
    file = home_database_url(configuration.directory).removeprefix("sqlite:///")
    if not is_postgres(configuration.database_url) or not os.path.exists(file) or database.value(CANARY) is not None:
        return
    projects = _projects_in(file)
    if projects:
        raise Invalid(
            "the PostgreSQL of WATCHLLM_DATABASE_URL is empty, and this home has a database of its own with "
            f"{projects} project{'' if projects == 1 else 's'} in it ({file}): `watchllm db move` takes it over. To "
            "begin anew instead, move that file away"
        )


def _projects_in(file: str) -> int:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM projects").fetchone()[0])
        except sqlite3.DatabaseError:
            return 0  # It is no database of ours, or one in which nothing was made yet.
