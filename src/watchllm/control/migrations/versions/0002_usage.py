"""Usage: the log, its rollups by hour, and the recorder's own state."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_SUMS = (
    "requests errors cancelled hits hits_semantic hits_coalesced hits_partial hits_stale misses bypasses input_tokens "
    "output_tokens cached_input_tokens cache_write_tokens reasoning_tokens audio_input_tokens audio_output_tokens "
    "saved_tokens unpriced estimated cost_nanos saved_nanos latency_us overhead_us"
)


def upgrade() -> None:
    sequence = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "usage_logs",
        sa.Column("id", sequence, autoincrement=True, nullable=False),
        *_required(sa.Text, "request_id"),
        *_required(sa.BigInteger, "at_ms"),
        *_required(sa.Text, "project_id key_id endpoint provider model region"),
        *_required(sa.Integer, "status"),
        *_required(sa.Text, "cache"),
        *_required(sa.Boolean, "streamed"),
        *_required(sa.Text, "ended"),
        sa.Column("error", sa.Text),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_input_tokens", sa.BigInteger),
        sa.Column("cache_write_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("audio_input_tokens", sa.BigInteger),
        sa.Column("audio_output_tokens", sa.BigInteger),
        *_required(sa.Boolean, "estimated"),
        sa.Column("cost_nanos", sa.BigInteger),
        sa.Column("saved_nanos", sa.BigInteger),
        sa.Column("price", sa.Text),
        *_required(sa.BigInteger, "latency_us overhead_us"),
        sa.Column("first_byte_us", sa.BigInteger),
        *_required(sa.BigInteger, "total_us"),
        sa.Column("user_id", sa.Text),
        sa.Column("session_id", sa.Text),
        sa.Column("tags", sa.Text),
        sa.Column("upstream_request_id", sa.Text),
        sa.Column("attempts", sa.Text),
        *_keys(),
        postgresql_partition_by="RANGE (at_ms)",
    )
    op.create_index("ix_usage_logs_project_id_at_ms", "usage_logs", ["project_id", "at_ms"])
    if not _is_postgres():
        op.create_index("ix_usage_logs_at_ms", "usage_logs", ["at_ms"])
    op.create_table(
        "usage_hourly",
        *_required(sa.BigInteger, "hour_ms"),
        *_required(sa.Text, "project_id provider model"),
        *_required(sa.BigInteger, _SUMS),
        sa.PrimaryKeyConstraint("project_id", "hour_ms", "provider", "model", name="pk_usage_hourly"),
    )
    op.create_table(
        "journal_positions",
        *_required(sa.Text, "series"),
        *_required(sa.BigInteger, "sequence offset"),
        *_required(sa.Boolean, "finished"),
        *_required(sa.BigInteger, "torn updated_ms"),
        sa.PrimaryKeyConstraint("series", name="pk_journal_positions"),
    )
    op.create_table(
        "journal_opened",
        *_required(sa.Text, "request_id"),
        *_required(sa.Integer, "attempt"),
        *_required(sa.Text, "series region"),
        *_required(sa.LargeBinary, "call"),
        sa.PrimaryKeyConstraint("request_id", "attempt", name="pk_journal_opened"),
    )
    op.create_index("ix_journal_opened_series", "journal_opened", ["series"])
    op.create_table(
        "journal_set_aside",
        *_required(sa.Text, "series"),
        *_required(sa.BigInteger, "sequence offset"),
        *_required(sa.Integer, "tag"),
        *_required(sa.Text, "region"),
        *_required(sa.LargeBinary, "payload"),
        *_required(sa.BigInteger, "at_ms"),
        sa.PrimaryKeyConstraint("series", "sequence", "offset", name="pk_journal_set_aside"),
    )


def _keys() -> list[sa.Constraint]:
    """In PostgreSQL, where days are partitions, the time is a part of each key, and its first one an index by time."""
    if _is_postgres():
        return [
            sa.PrimaryKeyConstraint("at_ms", "id", name="pk_usage_logs"),
            sa.UniqueConstraint("request_id", "at_ms", name="uq_usage_logs_request_id"),
        ]
    return [
        sa.PrimaryKeyConstraint("id", name="pk_usage_logs"),
        sa.UniqueConstraint("request_id", name="uq_usage_logs_request_id"),
    ]


def _is_postgres() -> bool:
    return op.get_context().dialect.name == "postgresql"


def _required(kind: type[sa.types.TypeEngine[Any]], names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, kind, nullable=False) for name in names.split()]
