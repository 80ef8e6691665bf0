"""Organizations: the unit of billing. The embedded default has one, named Default."""

import msgspec
from sqlalchemy import Connection, insert, select

from watchllm.control.database import UnitOfWork
from watchllm.control.tables import organizations
from watchllm.domain.ids import ORGANIZATION, new_id

DEFAULT_NAME = "Default"


class Organization(msgspec.Struct, frozen=True):
    id: str
    name: str
    created_ms: int


def first(connection: Connection) -> Organization | None:
    """The oldest organization, which everything belongs to until others are made."""
    row = connection.execute(select(organizations).order_by(organizations.c.created_ms, organizations.c.id)).first()
    return None if row is None else Organization(row.id, row.name, row.created_ms)


def get(connection: Connection, organization_id: str) -> Organization | None:
    row = connection.execute(select(organizations).where(organizations.c.id == organization_id)).first()
    return None if row is None else Organization(row.id, row.name, row.created_ms)


def create(work: UnitOfWork, name: str) -> Organization:
    organization = Organization(new_id(ORGANIZATION), name, work.now_ms)
    work.connection.execute(insert(organizations).values(msgspec.structs.asdict(organization)))
    work.record("organization.create", organization.id, name=name)
    return organization


def default(work: UnitOfWork) -> Organization:
    """The first organization, made when there is none."""
    return first(work.connection) or create(work, DEFAULT_NAME)
