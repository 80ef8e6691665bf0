"""The schema `watchllm` in PostgreSQL, which nobody but its owner may look into.

Hosted databases publish over REST whatever the roles `anon` and `authenticated` may read, and grant them new tables by
default privileges. So every table has row-level security on, without a policy, and what was granted is taken back.
"""

from sqlalchemy import Connection, text

SCHEMA = "watchllm"
OUTSIDERS = ("anon", "authenticated", "service_role")
"""Roles of hosted databases whose requests come from outside; they exist in some installations only."""

_TABLES = "relnamespace = CAST(:schema AS regnamespace) AND relkind IN ('r', 'p')"
_OPEN = text(f"SELECT relname FROM pg_class WHERE {_TABLES} AND NOT relrowsecurity ORDER BY relname")  # noqa: S608
_GRANTED = text(
    """
    SELECT DISTINCT object, COALESCE(rolname, 'PUBLIC') FROM (
        SELECT relname AS object, acl.grantee FROM pg_class, aclexplode(relacl) AS acl
            WHERE relnamespace = CAST(:schema AS regnamespace)
        UNION ALL SELECT nspname, acl.grantee FROM pg_namespace, aclexplode(nspacl) AS acl
            WHERE nspname = CAST(:schema AS text)
    ) AS granted LEFT JOIN pg_roles ON pg_roles.oid = grantee
    WHERE grantee = 0 OR rolname = ANY(:outsiders) ORDER BY 1, 2
    """
)


def enter(connection: Connection) -> None:
    """Make the schema unless it is there, and have this transaction's unqualified names mean what is in it."""
    found = connection.scalar(
        text("SELECT 1 FROM pg_namespace WHERE nspname = CAST(:schema AS text)"), {"schema": SCHEMA}
    )
    if found is None:
        # Asked first: who may not make schemas may use one that was made for him.
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    connection.execute(text(f"SET LOCAL search_path = {SCHEMA}, pg_catalog"))


def close(connection: Connection) -> None:
    """Close the schema and all that is in it now."""
    for (table,) in connection.execute(_OPEN, {"schema": SCHEMA}).all():
        connection.execute(text(f'ALTER TABLE {SCHEMA}."{table}" ENABLE ROW LEVEL SECURITY'))
    whom = _outsiders(connection)
    for what in ("ALL TABLES IN SCHEMA", "ALL SEQUENCES IN SCHEMA", "ALL ROUTINES IN SCHEMA", "SCHEMA"):
        connection.execute(text(f"REVOKE ALL ON {what} {SCHEMA} FROM {whom}"))


def close_table(connection: Connection, table: str) -> None:
    """Close one table that was made just now."""
    connection.execute(text(f'ALTER TABLE {SCHEMA}."{table}" ENABLE ROW LEVEL SECURITY'))
    connection.execute(text(f'REVOKE ALL ON {SCHEMA}."{table}" FROM {_outsiders(connection)}'))


def openings(connection: Connection) -> list[str]:
    """What is not closed, in words: tables without row-level security, and what outsiders were granted."""
    bound = {"schema": SCHEMA, "outsiders": list(OUTSIDERS)}
    unprotected = [f"{table} has no row-level security" for (table,) in connection.execute(_OPEN, {"schema": SCHEMA})]
    granted = [f"{role} has rights on {name}" for name, role in connection.execute(_GRANTED, bound)]
    return unprotected + granted


def _outsiders(connection: Connection) -> str:
    query = text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:names) ORDER BY rolname")
    found = [name for (name,) in connection.execute(query, {"names": list(OUTSIDERS)})]
    return ", ".join(["PUBLIC", *found])
