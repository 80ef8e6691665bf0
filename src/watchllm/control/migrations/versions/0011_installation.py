"""Which installation a database is of, so that no other one publishes into the Redis that it publishes into."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    instance = sa.table("instance", sa.column("name", sa.Text()), sa.column("value", sa.LargeBinary()))
    named = sa.select(instance.c.name).where(instance.c.name == "installation")
    if op.get_bind().scalar(named) is None:
        op.bulk_insert(instance, [{"name": "installation", "value": secrets.token_hex(16).encode()}])
