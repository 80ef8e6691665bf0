"""Project keys: made once, shown once, kept as a digest; revoked, never deleted."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from watchllm.control import limits, projects
from watchllm.control.database import KEY, UnitOfWork
from watchllm.control.errors import Invalid, NotFound
from watchllm.control.names import checked
from watchllm.control.tables import keys
from watchllm.domain import ids
from watchllm.domain import keys as key_form
from watchllm.domain.limits import LIMIT_FORMS, Limits
from watchllm.domain.moments import expiry
from watchllm.domain.setting_values import parsed
from watchllm.domain.snapshot import KeyRecord

SCOPES = ("inference", "cache:write")
NEVER_EXPIRES = 0


class Key(msgspec.Struct, frozen=True):
    """What may be known of a key. `expires_at` in epoch seconds, 0 = never; `revoked_ms` None = in force; `limits` are
    those of its own, beside its project's."""

    id: str
    project_id: str
    prefix: str
    name: str
    scopes: tuple[str, ...]
    test: bool
    expires_at: int
    created_ms: int
    revoked_ms: int | None = None
    limits: Limits = Limits()


class NewKey(msgspec.Struct, frozen=True):
    """A key at its creation, the only moment at which `secret` is known."""

    record: Key
    secret: str

    def __repr__(self) -> str:
        return f"NewKey({self.record!r})"


class _Settings(msgspec.Struct):
    """What can be set on a key beside its limits, with the defaults."""

    name: str = ""
    scopes: tuple[str, ...] = ("inference",)
    expires: int = NEVER_EXPIRES


SETTINGS = _Settings.__struct_fields__


def parse_changes(pairs: Mapping[str, str], now: float) -> dict[str, Any]:
    """Turn `name=value` texts into typed values: limits, `name`, `scopes` and `expires` (90d, 12h, 30m from `now`, or a
    date; to epoch seconds). Raises InvalidSetting."""
    forms: dict[str, Callable[[str], Any]] = {
        **LIMIT_FORMS,
        "name": str,
        "scopes": lambda text: tuple(part.strip() for part in text.split(",") if part.strip()),
        "expires": lambda text: expiry(text, now),
    }
    return {
        name: parsed(name, text, forms, Limits() if name in LIMIT_FORMS else _Settings())
        for name, text in pairs.items()
    }


def create(
    work: UnitOfWork,
    project_id: str,
    *,
    name: str,
    test: bool,
    scopes: Sequence[str],
    expires_at: int,
    own_limits: Mapping[str, Any],
) -> NewKey:
    """One with `own_limits` that `domain.limits.parse_limits` gave: nobody can use it without them. Raises NotFound for
    the project, Invalid for an unknown scope, an over-long name or a time that has passed."""
    projects.get(work.connection, project_id)
    ordered = _ordered(scopes)
    name = checked(name, "a key", may_be_empty=True)
    _check_expiry(expires_at, work.now_ms)
    secret = key_form.generate(test=test)
    key = Key(
        ids.new_id(ids.KEY),
        project_id,
        key_form.display_prefix(secret),
        name,
        ordered,
        test,
        expires_at,
        work.now_ms,
        limits=Limits(**own_limits),
    )
    row = msgspec.structs.asdict(key) | {
        "scopes": ",".join(ordered),
        "digest": key_form.digest(secret),
        "limits": limits.encoded(key.limits),
    }
    work.connection.execute(insert(keys).values(row))
    details = {"name": name, "test": test, "scopes": ordered, "expires_at": expires_at}
    if own_limits:
        details["limits"] = msgspec.to_builtins(dict(own_limits))
    work.record("key.create", key.id, project=project_id, **details)
    work.publish(KEY, key.id)
    return NewKey(key, secret)


def revoke(work: UnitOfWork, key_id: str) -> Key:
    """Put a key out of force for good; one that is already stays as it was. Raises NotFound."""
    key = get(work.connection, key_id)
    if key.revoked_ms is not None:
        return key
    work.connection.execute(update(keys).where(keys.c.id == key_id).values(revoked_ms=work.now_ms))
    work.record("key.revoke", key_id, project=key.project_id)
    work.publish(KEY, key_id)
    return msgspec.structs.replace(key, revoked_ms=work.now_ms)


def change(work: UnitOfWork, key_id: str, changes: Mapping[str, Any]) -> Key:
    """Apply what `parse_changes` gave. Raises NotFound, and Invalid as `create` does and for a revoked key."""
    key = get(work.connection, key_id)
    if key.revoked_ms is not None:
        raise Invalid(f"the key {key_id} was revoked; make a new one with `watchllm key create`")
    own = {name: value for name, value in changes.items() if name in LIMIT_FORMS}
    changed = msgspec.structs.replace(
        key,
        name=checked(changes.get("name", key.name), "a key", may_be_empty=True),
        scopes=_ordered(changes.get("scopes", key.scopes)),
        expires_at=changes.get("expires", key.expires_at),
        limits=msgspec.structs.replace(key.limits, **own),
    )
    if "expires" in changes:
        _check_expiry(changed.expires_at, work.now_ms)
    work.connection.execute(
        update(keys)
        .where(keys.c.id == key_id)
        .values(
            name=changed.name,
            scopes=",".join(changed.scopes),
            expires_at=changed.expires_at,
            limits=limits.encoded(changed.limits),
        )
    )
    work.record("key.set", key_id, project=key.project_id, **msgspec.to_builtins(dict(changes)))
    work.publish(KEY, key_id)
    return changed


def get(connection: Connection, key_id: str) -> Key:
    """Raises NotFound."""
    row = connection.execute(select(keys).where(keys.c.id == key_id)).first()
    if row is None:
        raise NotFound(f"no key has the id {key_id!r}; `watchllm key list` shows them")
    return _key(row)


def listed(connection: Connection, project_id: str | None = None) -> list[Key]:
    """All keys, revoked ones too, oldest first. Raises NotFound for a project that does not exist."""
    query = select(keys).order_by(keys.c.created_ms, keys.c.id)
    if project_id is not None:
        projects.get(connection, project_id)
        query = query.where(keys.c.project_id == project_id)
    return [_key(row) for row in connection.execute(query)]


def page(
    connection: Connection, project_id: str, after: str | None, most: int, *, only_in_force: bool = False
) -> list[Key]:
    """At most `most` keys of a project in the order of their ids, which is that of their creation, from the one behind
    the id `after` on, None = from the first. `only_in_force`: without those that were revoked."""
    query = select(keys).where(keys.c.project_id == project_id)
    if after is not None:
        query = query.where(keys.c.id > after)
    if only_in_force:
        query = query.where(keys.c.revoked_ms.is_(None))
    return [_key(row) for row in connection.execute(query.order_by(keys.c.id).limit(most))]


def published(connection: Connection, only: Sequence[str] | None = None) -> dict[bytes, KeyRecord | None]:
    """What proxies know of keys, by digest, None for revoked ones: of all keys, or of those of the ids in `only`."""
    columns = (keys.c.digest, keys.c.id, keys.c.project_id, keys.c.test, keys.c.scopes, keys.c.expires_at)
    query = select(*columns, keys.c.limits, keys.c.revoked_ms)
    if only is not None:
        query = query.where(keys.c.id.in_(only))
    found: dict[bytes, KeyRecord | None] = {}
    # All keys are read once a minute: plain tuples, and each combination of scopes split once.
    split = cache(lambda text: tuple(text.split(",")))
    read = cache(limits.decoded)
    for digest, key_id, project_id, test, scopes, expires_at, own, revoked_ms in connection.execute(query):
        record = None
        if revoked_ms is None:
            record = KeyRecord(key_id, project_id, test, split(scopes), expires_at, None if own == "{}" else read(own))
        found[bytes(digest)] = record
    return found


def _ordered(scopes: Sequence[str]) -> tuple[str, ...]:
    unknown = set(scopes) - set(SCOPES)
    if unknown or not scopes:
        raise Invalid(f"unknown scope {', '.join(sorted(unknown)) or '(none)'}; scopes: {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in scopes)


def _check_expiry(expires_at: int, now_ms: int) -> None:
    if expires_at != NEVER_EXPIRES and expires_at * 1000 <= now_ms:
        raise Invalid("the key would have expired already; give a time to come, or `watchllm key revoke` it")


def _key(row: Row[Any]) -> Key:
    return Key(
        row.id,
        row.project_id,
        row.prefix,
        row.name,
        tuple(row.scopes.split(",")),
        row.test,
        row.expires_at,
        row.created_ms,
        row.revoked_ms,
        limits.decoded(row.limits),
    )
