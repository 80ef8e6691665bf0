"""People who may sign in to the console. Passwords are kept as argon2id hashes only."""

import msgspec
from sqlalchemy import Connection, insert, select

from watchllm.control.database import UnitOfWork
from watchllm.control.errors import Invalid
from watchllm.control.tables import users
from watchllm.domain.ids import USER, new_id

ROLES = ("owner", "admin", "developer", "viewer")


class User(msgspec.Struct, frozen=True):
    id: str
    organization_id: str
    email: str
    role: str
    created_ms: int


def create(work: UnitOfWork, organization_id: str, email: str, password: str, role: str) -> User:
    """Raises Invalid for an unknown role, an address without `@` or one that is taken."""
    email = email.strip().lower()
    if role not in ROLES:
        raise Invalid(f"unknown role {role!r}; roles: {', '.join(ROLES)}")
    if "@" not in email.strip("@"):
        raise Invalid(f"{email!r} is not an e-mail address")
    if work.connection.scalar(select(users.c.id).where(users.c.email == email)) is not None:
        raise Invalid(f"{email} exists already")
    from argon2 import PasswordHasher

    user = User(new_id(USER), organization_id, email, role, work.now_ms)
    hashed = PasswordHasher().hash(password)
    work.connection.execute(insert(users).values(password_hash=hashed, **msgspec.structs.asdict(user)))
    work.record("user.create", user.id, email=email, role=role)
    return user


def get(connection: Connection, user_id: str) -> User | None:
    row = connection.execute(select(users).where(users.c.id == user_id)).first()
    return None if row is None else User(row.id, row.organization_id, row.email, row.role, row.created_ms)


def authenticate(connection: Connection, email: str, password: str) -> User | None:
    """The user with this address and password, or None; takes as long for an unknown address as for a known one."""
    from argon2 import PasswordHasher
    from argon2.exceptions import VerificationError

    row = connection.execute(select(users).where(users.c.email == email.strip().lower())).first()
    hasher = PasswordHasher()
    if row is None:
        # The same work, so that the time tells nobody which addresses exist.
        hasher.hash(password)
        return None
    try:
        hasher.verify(row.password_hash, password)
    except VerificationError:
        return None
    return User(row.id, row.organization_id, row.email, row.role, row.created_ms)
