"""Plans of organizations, limits of organizations and keys, and what each has spent.

Whoever is there already keeps to no limits. What they spent is summed up from the usage log.
"""

from collections import Counter
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_DAY_MS = 86_400_000
_INFERENCE = (
    "audio",
    "chat.completions",
    "completions",
    "embeddings",
    "images",
    "messages",
    "moderations",
    "responses",
)


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        # What a recorder that is running writes is in the sums, or comes after the trigger of 0009: never between them.
        op.execute("LOCK TABLE watchllm.usage_logs IN SHARE ROW EXCLUSIVE MODE")
    op.add_column("organizations", sa.Column("plan", sa.Text(), nullable=False, server_default="self-hosted"))
    op.add_column("organizations", sa.Column("limits", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("organizations", sa.Column("overage_cap_usd", sa.Double()))
    op.add_column("keys", sa.Column("limits", sa.Text(), nullable=False, server_default="{}"))
    spending = op.create_table(
        "spending",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("nanos", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject", "period", name="pk_spending"),
    )
    rows = _spent(op.get_bind())
    if rows:
        op.bulk_insert(spending, rows)


def _spent(connection: sa.Connection) -> list[dict[str, object]]:
    logs = sa.table(
        "usage_logs", *map(sa.column, ("project_id", "key_id", "at_ms", "endpoint", "provider", "status", "cost_nanos"))
    )
    projects = sa.table("projects", sa.column("id"), sa.column("organization_id"))
    owners = sa.select(projects.c.id, projects.c.organization_id)
    organizations = {row.id: row.organization_id for row in connection.execute(owners)}
    counts = sa.and_(logs.c.status.between(200, 299), logs.c.provider != "sim", logs.c.endpoint.in_(_INFERENCE))
    day = (logs.c.at_ms - logs.c.at_ms % _DAY_MS).label("day")
    query = sa.select(
        logs.c.key_id,
        logs.c.project_id,
        day,
        sa.func.sum(sa.case((counts, 1), else_=0)),
        sa.func.sum(sa.func.coalesce(logs.c.cost_nanos, 0)),
    ).group_by(logs.c.key_id, logs.c.project_id, day)
    requests: Counter[tuple[str, str]] = Counter()
    nanos: Counter[tuple[str, str]] = Counter()
    for key_id, project_id, day_ms, counted, cost in connection.execute(query):
        date = datetime.fromtimestamp(day_ms // 1000, UTC)
        for subject in filter(None, (key_id, project_id, organizations.get(project_id))):
            for period in ("total", f"{date:%Y-%m}", f"{date:%Y-%m-%d}"):
                requests[subject, period] += int(counted)
                nanos[subject, period] += int(cost)
    return [
        {"subject": subject, "period": period, "requests": count, "nanos": nanos[subject, period]}
        for (subject, period), count in requests.items()
        if count or nanos[subject, period]
    ]
