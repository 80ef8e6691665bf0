"""The tables of usage, in SQLAlchemy Core that SQLite and PostgreSQL both take.

`usage_logs` is what people query: one row a request; in PostgreSQL it is partitioned by day and its keys are others
(see migration 0002). `journal_*` is the recorder's own: how far each journal was
applied, calls that are open, and records that this version cannot read. Migrations make these tables; a test holds
the two together.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from watchllm.analytics.rollups import MEASURES

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite numbers rows by itself only in a column declared INTEGER; PostgreSQL needs the wider type.
_Sequence = BigInteger().with_variant(Integer(), "sqlite")

usage_logs = Table(
    "usage_logs",
    metadata,
    Column("id", _Sequence, primary_key=True, autoincrement=True),
    Column("request_id", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("cache", Text, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("ended", Text, nullable=False),
    Column("error", Text),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_input_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("audio_input_tokens", BigInteger),
    Column("audio_output_tokens", BigInteger),
    Column("estimated", Boolean, nullable=False),
    Column("cost_nanos", BigInteger),
    Column("saved_nanos", BigInteger),
    Column("price", Text),
    Column("latency_us", BigInteger, nullable=False),
    Column("overhead_us", BigInteger, nullable=False),
    Column("first_byte_us", BigInteger),
    Column("total_us", BigInteger, nullable=False),
    Column("user_id", Text),
    Column("session_id", Text),
    Column("tags", Text),
    Column("upstream_request_id", Text),
    Column("attempts", Text),
    Column("provider_key_id", Text),
    Column("hedged", Boolean, nullable=False),
    Column("semantic", Text),
    Column("similarity", Double),
    Column("confidence", Double),
    Column("semantic_reason", Text),
    UniqueConstraint("request_id"),
    Index("ix_usage_logs_project_id_at_ms", "project_id", "at_ms"),
    Index("ix_usage_logs_at_ms", "at_ms"),
)

usage_hourly = Table(
    "usage_hourly",
    metadata,
    Column("hour_ms", BigInteger, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in MEASURES),
    PrimaryKeyConstraint("project_id", "hour_ms", "provider", "model"),
)

provider_key_uses = Table(
    "provider_key_uses",
    metadata,
    Column("provider_key_id", Text, nullable=False),
    Column("hour_ms", BigInteger, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("uses", BigInteger, nullable=False),
    # Answers 401 and 403.
    Column("refused", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("last_refused_ms", BigInteger),
    # The latest answer 2xx.
    Column("last_worked_ms", BigInteger),
    PrimaryKeyConstraint("provider_key_id", "hour_ms"),
    Index(None, "hour_ms"),
    Index("ix_provider_key_uses_project_id_hour_ms", "project_id", "hour_ms"),
)

spending = Table(
    "spending",
    metadata,
    # The id of a key, a project or an organization.
    Column("subject", Text, nullable=False),
    # As in analytics.spending.
    Column("period", Text, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("nanos", BigInteger, nullable=False),
    PrimaryKeyConstraint("subject", "period"),
    Index(None, "period"),
)

# Of rows of usage that an earlier version's recorder wrote, what is not counted in `spending` yet (migration 0009).
spending_due = Table(
    "spending_due",
    metadata,
    Column("id", _Sequence, primary_key=True, autoincrement=True),
    Column("key_id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),
    Column("ended", Text, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("first_byte_us", BigInteger),
    Column("cost_nanos", BigInteger),
)

journal_positions = Table(
    "journal_positions",
    metadata,
    Column("series", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("finished", Boolean, nullable=False),
    Column("torn", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    # Whose journal it is, where several hosts share the database; NULL where it is one home's own.
    Column("home", Text),
)

journal_opened = Table(
    "journal_opened",
    metadata,
    Column("request_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("series", Text, nullable=False),
    Column("region", Text, nullable=False),
    # MessagePack of domain.usage_event.OpenedCall.
    Column("call", LargeBinary, nullable=False),
    PrimaryKeyConstraint("request_id", "attempt"),
    Index(None, "series"),
)

journal_set_aside = Table(
    "journal_set_aside",
    metadata,
    Column("series", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    # Of the record as the journal had it; 0 where it is not a record but damage.
    Column("tag", Integer, nullable=False),
    Column("region", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("home", Text),
    PrimaryKeyConstraint("series", "sequence", "offset"),
)
