"""Rollups: hits count only what was answered. Those who waited for a call that failed were counted as HIT-COALESCED."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_HITS = {
    "hits": "HIT",
    "hits_semantic": "HIT-SEMANTIC",
    "hits_coalesced": "HIT-COALESCED",
    "hits_partial": "HIT-PARTIAL",
    "hits_stale": "HIT-STALE",
}
_HOUR_MS = 3_600_000


def upgrade() -> None:
    """Take the failed ones off, by the rows that are still there: hours whose rows are gone stay as they were."""
    connection = op.get_bind()
    logs = sa.table("usage_logs", *map(sa.column, ("at_ms", "project_id", "provider", "model", "cache", "status")))
    hourly = sa.table("usage_hourly", *map(sa.column, ("hour_ms", "project_id", "provider", "model", *_HITS)))
    key = ((logs.c.at_ms - logs.c.at_ms % _HOUR_MS).label("hour_ms"), logs.c.project_id, logs.c.provider, logs.c.model)
    failed = (
        sa.select(*key, *(sa.func.count().filter(logs.c.cache == cache).label(name) for name, cache in _HITS.items()))
        .where(logs.c.cache.in_(_HITS.values()), sa.not_(logs.c.status.between(200, 299)))
        .group_by(*key)
    )
    for row in connection.execute(failed).mappings().all():
        connection.execute(
            sa.update(hourly)
            .where(*(hourly.c[name] == row[name] for name in ("hour_ms", "project_id", "provider", "model")))
            .values({name: hourly.c[name] - row[name] for name in _HITS})
        )
