"""Reading the audit log: who changed what, and when. It is written by the unit of work."""

from typing import Any

import msgspec
from sqlalchemy import Connection, or_, select

from watchllm.control.tables import audit


class AuditLine(msgspec.Struct, frozen=True):
    at_ms: int
    actor: str
    action: str
    object_id: str
    details: dict[str, Any]


def listed(
    connection: Connection,
    object_id: str | None = None,
    *,
    project_id: str | None = None,
    since_ms: int | None = None,
    limit: int = 100,
) -> list[AuditLine]:
    """The newest lines first: all, those of one object, or those of a project and of what belongs to it."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if object_id is not None:
        query = query.where(audit.c.object_id == object_id)
    if project_id is not None:
        # Every line about what belongs to a project names it so; inside a name the quotes would be escaped.
        named = audit.c.details.contains(f'"project":"{project_id}"', autoescape=True)
        query = query.where(or_(audit.c.object_id == project_id, named))
    if since_ms is not None:
        query = query.where(audit.c.at_ms >= since_ms)
    return [
        AuditLine(row.at_ms, row.actor, row.action, row.object_id, msgspec.json.decode(row.details))
        for row in connection.execute(query)
    ]
