"""The partitions of `usage_logs`: one a day in UTC, made before a row of that day comes, dropped as a whole.

There is none by default: a row in it would keep its day's own partition from being made, and would outlive its time.
A partition is made by itself and then attached, which keeps neither readers nor writers of the others waiting.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import TypeAlias

import psycopg
from psycopg.rows import TupleRow

from watchllm.control.private_schema import OUTSIDERS
from watchllm.journal.recorder import DAY_MS

RawConnection: TypeAlias = psycopg.Connection[TupleRow]

_LOCK = "SELECT pg_advisory_xact_lock(2003909740, 1885434988)"
_PRESENT = (
    "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid "
    "WHERE inhparent = 'watchllm.usage_logs'::regclass ORDER BY 1"
)
_DROP_WAIT = "500ms"
_PREFIX = "usage_logs_"


def name_of(day: int) -> str:
    """The partition of a day, counted from 1970-01-01."""
    return _PREFIX + datetime.fromtimestamp(day * DAY_MS / 1000, UTC).strftime("%Y%m%d")


def present(connection: RawConnection) -> dict[int, str]:
    """The days that have a partition, and its name."""
    found = {}
    for (name,) in connection.execute(_PRESENT).fetchall():
        date = datetime.strptime(name.removeprefix(_PREFIX), "%Y%m%d").replace(tzinfo=UTC)
        found[int(date.timestamp()) * 1000 // DAY_MS] = name
    return found


def make(connection: RawConnection, days: Collection[int]) -> set[int]:
    """Make those of the days' partitions that are not there, in the transaction of the connection; all days that have
    one then. Hosts that make the same one at the same moment do so one after the other."""
    connection.execute(_LOCK)
    there = set(present(connection))
    missing = sorted(set(days) - there)
    if missing:
        known = connection.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(OUTSIDERS)]).fetchall()
        outsiders = ", ".join(["PUBLIC", *(name for (name,) in known)])
        for day in missing:
            for statement in _statements(day, outsiders):
                connection.execute(statement)
    return there.union(missing)


def drop(connection: RawConnection, before_day: int) -> list[str]:
    """Drop the partitions of all days before one; their names. Raises LockNotAvailable while somebody reads for long:
    whoever waits for the table, waits behind this."""
    names = [name for day, name in present(connection).items() if day < before_day]
    if names:
        connection.execute("SELECT set_config('lock_timeout', %s, true)", [_DROP_WAIT])
    for name in names:
        # Another host's recorder may have been quicker.
        connection.execute(f"DROP TABLE IF EXISTS watchllm.{name}")
    return names


def _statements(day: int, outsiders: str) -> list[str]:
    name, first = f"watchllm.{name_of(day)}", day * DAY_MS
    return [
        f"CREATE TABLE {name} (LIKE watchllm.usage_logs INCLUDING ALL)",
        # A partition does not inherit it, and can be asked by its own name.
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"REVOKE ALL ON {name} FROM {outsiders}",
        f"ALTER TABLE watchllm.usage_logs ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({first + DAY_MS})",
    ]
