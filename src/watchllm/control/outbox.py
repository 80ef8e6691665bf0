"""The outbox: objects whose change is committed and still has to reach the snapshot."""

from collections.abc import Collection

import msgspec
from sqlalchemy import Connection, delete, exists, select

from watchllm.control.tables import outbox


class Pending(msgspec.Struct, frozen=True):
    """A row: `kind` is one of control.database's."""

    id: int
    kind: str
    object_id: str


def is_empty(connection: Connection) -> bool:
    return not connection.scalar(select(exists(select(outbox.c.id))))


def listed(connection: Connection) -> list[Pending]:
    """The oldest rows first."""
    rows = connection.execute(select(outbox).order_by(outbox.c.id))
    return [Pending(row.id, row.kind, row.object_id) for row in rows]


def forget(connection: Connection, ids: Collection[int]) -> None:
    """Delete exactly the rows that were published; later ones, even with smaller numbers, stay."""
    numbers = list(ids)
    for start in range(0, len(numbers), 500):
        connection.execute(delete(outbox).where(outbox.c.id.in_(numbers[start : start + 500])))
