"""Which installation a database is of: made once with it, at random, and taken along by a backup and by a move."""

from watchllm.control.database import Database, place
from watchllm.control.errors import DatabaseUnusable
from watchllm.control.publication import Installation

INSTALLATION = "installation"
"""Its name among the values of the instance."""


def of(database: Database) -> Installation:
    """The installation of a database whose schema is up to date. Raises DatabaseUnusable."""
    where = place(database.engine)
    found = database.value(INSTALLATION)
    if found is None:
        raise DatabaseUnusable(f"the database {where} does not say of which installation it is; restore its backup")
    return Installation(found.decode(), where)
