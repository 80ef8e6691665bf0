"""Routes of projects, uses of provider keys by hour, and the provider key in the log of usage."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "routes",
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("choices", sa.Text, nullable=False),
        sa.Column("fallbacks", sa.Text, nullable=False),
        sa.Column("retries", sa.Integer, nullable=False),
        sa.Column("try_timeout", sa.Float),
        sa.Column("timeout", sa.Float),
        sa.Column("hedge_after", sa.Float),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "name", name="pk_routes"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_routes_project_id"),
    )
    op.create_table(
        "provider_key_uses",
        sa.Column("provider_key_id", sa.Text, nullable=False),
        sa.Column("hour_ms", sa.BigInteger, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("uses", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False),
        sa.Column("last_refused_ms", sa.BigInteger),
        sa.Column("last_worked_ms", sa.BigInteger),
        sa.PrimaryKeyConstraint("provider_key_id", "hour_ms", name="pk_provider_key_uses"),
    )
    op.create_index("ix_provider_key_uses_hour_ms", "provider_key_uses", ["hour_ms"])
    op.create_index("ix_provider_key_uses_project_id_hour_ms", "provider_key_uses", ["project_id", "hour_ms"])
    op.create_index("ix_audit_at_ms", "audit", ["at_ms"])
    op.add_column("usage_logs", sa.Column("provider_key_id", sa.Text))
    # Earlier versions knew neither; what they recorded was not hedged.
    op.add_column("usage_logs", sa.Column("hedged", sa.Boolean, nullable=False, server_default=sa.false()))
