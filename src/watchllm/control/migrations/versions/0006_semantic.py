"""What became of a request's look-up by meaning, in its usage row. Those that are there were looked up exactly only."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("usage_logs", sa.Column("semantic", sa.Text()))
    op.add_column("usage_logs", sa.Column("similarity", sa.Double()))
    op.add_column("usage_logs", sa.Column("confidence", sa.Double()))
    op.add_column("usage_logs", sa.Column("semantic_reason", sa.Text()))
