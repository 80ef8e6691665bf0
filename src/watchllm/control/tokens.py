"""Management tokens: what scripts present to the console's API. Made once, shown once, kept as a digest; revoked, never
deleted. Proxies know nothing of them."""

import hmac
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from watchllm.control import organizations
from watchllm.control.database import UnitOfWork
from watchllm.control.errors import Invalid, NotFound
from watchllm.control.names import checked
from watchllm.control.tables import tokens
from watchllm.domain import ids
from watchllm.domain import tokens as token_form

ROLES = ("admin", "viewer")
NEVER_EXPIRES = 0


class Token(msgspec.Struct, frozen=True):
    """What may be known of a token. `expires_at` in epoch seconds, 0 = never; `revoked_ms` None = in force."""

    id: str
    organization_id: str
    prefix: str
    name: str
    role: str
    expires_at: int
    created_ms: int
    revoked_ms: int | None = None

    @property
    def actor(self) -> str:
        """Who it is in the audit log. Names are not unique; ids are."""
        return f"token:{self.name} {self.id}" if self.name else f"token:{self.id}"


class NewToken(msgspec.Struct, frozen=True):
    """A token at its creation, the only moment at which `secret` is known."""

    record: Token
    secret: str

    def __repr__(self) -> str:
        return f"NewToken({self.record!r})"


def create(work: UnitOfWork, organization_id: str, *, name: str, role: str, expires_at: int) -> NewToken:
    """Raises NotFound for the organization, Invalid for an unknown role, an over-long name or a time gone by."""
    organizations.get(work.connection, organization_id)
    if role not in ROLES:
        raise Invalid(f"unknown role {role!r}; a token's roles: {', '.join(ROLES)}")
    name = checked(name, "a token", may_be_empty=True)
    if expires_at != NEVER_EXPIRES and expires_at * 1000 <= work.now_ms:
        raise Invalid("the token would have expired already; give a time to come")
    secret = token_form.generate()
    token = Token(
        ids.new_id(ids.TOKEN),
        organization_id,
        token_form.display_prefix(secret),
        name,
        role,
        expires_at,
        work.now_ms,
    )
    row = msgspec.structs.asdict(token) | {"digest": token_form.digest(secret)}
    work.connection.execute(insert(tokens).values(row))
    work.record("token.create", token.id, name=name, role=role, expires_at=expires_at, organization=organization_id)
    return NewToken(token, secret)


def revoke(work: UnitOfWork, token_id: str) -> Token:
    """Put a token out of force for good; one that is already stays as it was. Raises NotFound."""
    row = work.connection.execute(select(tokens).where(tokens.c.id == token_id)).first()
    if row is None:
        raise NotFound(f"no token has the id {token_id!r}; `watchllm token list` shows them")
    token = _token(row)
    if token.revoked_ms is not None:
        return token
    work.connection.execute(update(tokens).where(tokens.c.id == token_id).values(revoked_ms=work.now_ms))
    work.record("token.revoke", token_id, name=token.name)
    return msgspec.structs.replace(token, revoked_ms=work.now_ms)


def listed(connection: Connection) -> list[Token]:
    """All tokens, revoked ones too, oldest first."""
    return [_token(row) for row in connection.execute(select(tokens).order_by(tokens.c.created_ms, tokens.c.id))]


def in_force(connection: Connection, digest: bytes, now_ms: int) -> Token | None:
    """The token of this digest; None where there is none, or it was revoked or has expired."""
    row = connection.execute(select(tokens).where(tokens.c.digest == digest)).first()
    if row is None or not hmac.compare_digest(bytes(row.digest), digest):
        return None
    token = _token(row)
    expired = token.expires_at != NEVER_EXPIRES and token.expires_at * 1000 <= now_ms
    return None if expired or token.revoked_ms is not None else token


def _token(row: Row[Any]) -> Token:
    return Token(
        row.id,
        row.organization_id,
        row.prefix,
        row.name,
        row.role,
        row.expires_at,
        row.created_ms,
        row.revoked_ms,
    )
