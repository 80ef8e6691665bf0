"""Reading the audit log: who changed what, and when. It is written by the unit of work."""

from typing import Any

import msgspec
from sqlalchemy import Connection, select

from watchllm.control.tables import audit


class AuditLine(msgspec.Struct, frozen=True):
    at_ms: int
    actor: str
    action: str
    object_id: str
    details: dict[str, Any]


def listed(connection: Connection, object_id: str | None = None, limit: int = 100) -> list[AuditLine]:
    """The newest lines first, all or those of one object."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if object_id is not None:
        query = query.where(audit.c.object_id == object_id)
    return [
        AuditLine(row.at_ms, row.actor, row.action, row.object_id, msgspec.json.decode(row.details))
        for row in connection.execute(query)
    ]
