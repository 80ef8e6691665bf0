"""Reading the uses of projects' provider keys: by hour for the audit, and the latest of each key for its state."""

from collections.abc import Mapping

import msgspec
from sqlalchemy import Connection, func, select

from watchllm.analytics.tables import provider_key_uses as uses


class HourOfUses(msgspec.Struct, frozen=True):
    """The calls made with one provider key in one hour."""

    provider_key_id: str
    hour_ms: int
    project_id: str
    uses: int
    refused: int
    last_ms: int
    last_refused_ms: int | None


class KeyState(msgspec.Struct, frozen=True):
    """When a provider key was last used; `refused_ms` is when the provider last refused it (401 or 403), None where it
    never did or has taken the key since."""

    last_used_ms: int
    refused_ms: int | None


def hours(
    connection: Connection, *, project_id: str | None = None, since_ms: int | None = None, limit: int = 100
) -> list[HourOfUses]:
    """The newest first; `since_ms` counts from the last use in the hour."""
    query = select(uses).order_by(uses.c.hour_ms.desc(), uses.c.last_ms.desc(), uses.c.provider_key_id).limit(limit)
    if project_id is not None:
        query = query.where(uses.c.project_id == project_id)
    if since_ms is not None:
        query = query.where(uses.c.last_ms >= since_ms)
    return [
        HourOfUses(
            row.provider_key_id, row.hour_ms, row.project_id, row.uses, row.refused, row.last_ms, row.last_refused_ms
        )
        for row in connection.execute(query)
    ]


def states(connection: Connection, project_id: str | None = None) -> Mapping[str, KeyState]:
    """By the key's id: of all keys that were ever used, or of a project's."""
    last = [func.max(uses.c[name]).label(name) for name in ("last_ms", "last_refused_ms", "last_worked_ms")]
    query = select(uses.c.provider_key_id, *last).group_by(uses.c.provider_key_id)
    if project_id is not None:
        query = query.where(uses.c.project_id == project_id)
    found = {}
    for row in connection.execute(query):
        refused, worked = row.last_refused_ms, row.last_worked_ms
        is_refused = refused is not None and (worked is None or worked < refused)
        found[row.provider_key_id] = KeyState(row.last_ms, refused if is_refused else None)
    return found
