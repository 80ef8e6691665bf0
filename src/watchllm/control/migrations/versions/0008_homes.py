"""Whose journals the recorder's positions and records are, for a database that the recorders of several hosts share."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("journal_positions", sa.Column("home", sa.Text()))
    op.add_column("journal_set_aside", sa.Column("home", sa.Text()))
