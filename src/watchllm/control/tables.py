"""The tables of the control plane, in SQLAlchemy Core that SQLite and PostgreSQL both take.

Times are epoch milliseconds (`*_ms`), apart from a key's `expires_at` in epoch seconds, as in the snapshot. Keys are
revoked, never deleted: the digest must stay known for its removal to be published. Migrations make these tables;
a test holds the two together.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite numbers rows by itself only in a column declared INTEGER; PostgreSQL needs the wider type.
_Sequence = BigInteger().with_variant(Integer(), "sqlite")

organizations = Table(
    "organizations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    # A name in plans.toml.
    Column("plan", Text, nullable=False, server_default="self-hosted"),
    # JSON of domain.limits.Limits: those of its own, which go before its plan's.
    Column("limits", Text, nullable=False, server_default="{}"),
    # What it agreed to pay for requests beyond its plan's in a month; null = as the plan says.
    Column("overage_cap_usd", Double),
)

users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), nullable=False),
    Column("email", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    UniqueConstraint("email"),
)

projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), nullable=False),
    Column("name", Text, nullable=False),
    # JSON of domain.settings.ProjectSettings, defaults left out, so that a changed default reaches old projects.
    Column("settings", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index(None, "organization_id"),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("test", Boolean, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    # JSON of domain.limits.Limits: those of its own, beside its project's.
    Column("limits", Text, nullable=False, server_default="{}"),
    UniqueConstraint("digest"),
    Index(None, "project_id"),
)

# What scripts present to the management API; proxies know nothing of them.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("organization_id", ForeignKey("organizations.id"), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    # Epoch seconds, 0 = never.
    Column("expires_at", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    UniqueConstraint("digest"),
)

provider_keys = Table(
    "provider_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("masked", Text, nullable=False),
    Column("base_url", Text),
    Column("priority", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("dialect", Text),
    Index(None, "project_id"),
)

routes = Table(
    "routes",
    metadata,
    Column("project_id", ForeignKey("projects.id"), nullable=False),
    Column("name", Text, nullable=False),
    # JSON arrays, as in domain.snapshot.RouteRecord.
    Column("choices", Text, nullable=False),
    Column("fallbacks", Text, nullable=False),
    Column("retries", Integer, nullable=False),
    # Seconds.
    Column("try_timeout", Float),
    Column("timeout", Float),
    Column("hedge_after", Float),
    Column("created_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("project_id", "name"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Sequence, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("details", Text, nullable=False),
    Index(None, "object_id"),
    Index(None, "at_ms"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _Sequence, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    # Numbers are never used twice: a publisher deletes the rows it has read by their numbers.
    sqlite_autoincrement=True,
)

instance = Table(
    "instance",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
