"""What dialect a provider of a project's own speaks. Those that are there speak chat completions, as all did so far."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("provider_keys", sa.Column("dialect", sa.Text()))
