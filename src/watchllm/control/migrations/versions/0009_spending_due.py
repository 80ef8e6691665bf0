"""Rows of usage that nobody has counted in `spending`: an earlier version's recorder goes on writing them while this
one is being rolled out.

A trigger copies what has to be counted of such a row into `spending_due`, from where a recorder of this version takes
it. Recorders that count by themselves say so: in PostgreSQL by a setting of their transaction, in SQLite, where nobody
else writes meanwhile, by the row 0 of `spending_due`.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_COLUMNS = "key_id, project_id, at_ms, endpoint, provider, status, ended, streamed, first_byte_us, cost_nanos"
_VALUES = ", ".join(f"NEW.{name}" for name in _COLUMNS.split(", "))
_COPY = f"INSERT INTO {{}}spending_due ({_COLUMNS}) VALUES ({_VALUES})"  # noqa: S608 (names of our own)


def upgrade() -> None:
    op.create_table(
        "spending_due",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, primary_key=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("key_id", "project_id", "endpoint", "provider")),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("ended", sa.Text(), nullable=False),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("first_byte_us", sa.BigInteger()),
        sa.Column("cost_nanos", sa.BigInteger()),
    )
    op.create_index("ix_spending_period", "spending", ["period"])
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION watchllm.spending_is_due() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            + _COPY.format("watchllm.")
            + "; RETURN NULL; END $$"
        )
        op.execute(
            "CREATE TRIGGER spending_is_due AFTER INSERT ON watchllm.usage_logs FOR EACH ROW "
            "WHEN (current_setting('watchllm.counts_spending', true) IS DISTINCT FROM 'on') "
            "EXECUTE FUNCTION watchllm.spending_is_due()"
        )
    else:
        op.execute(
            "CREATE TRIGGER spending_is_due AFTER INSERT ON usage_logs "  # noqa: S608 (names of our own)
            f"WHEN NOT EXISTS (SELECT 1 FROM spending_due WHERE id = 0) BEGIN {_COPY.format('')}; END"
        )
