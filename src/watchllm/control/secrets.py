"""The master secret as the database knows it: its canary, what all proxies share, and its rotation.

The canary tells which secret everything in the database is sealed under, one and the same for all of it at any time: a
wrong secret is found at start, not by the first request that needs a key.
"""

from sqlalchemy import Connection, insert, select, update

from watchllm.control.database import PROJECT, Database, UnitOfWork
from watchllm.control.errors import Invalid
from watchllm.control.tables import instance, provider_keys
from watchllm.domain.sealing import Keyring, SealBroken, Sealer

CANARY, CACHE_HASH = "canary", "cache_hash"


def check(database: Database, keyring: Keyring) -> None:
    """Raise WrongSecret unless the database is sealed under a secret of the keyring; the first caller leaves its
    mark."""
    canary = database.value(CANARY)
    if canary is None:
        with database.unit_of_work("system") as work:
            # Read again under the write lock: two first starts must not leave two marks.
            canary = _value(work.connection, CANARY)
            if canary is None:
                canary = keyring.current.canary
                _set(work.connection, CANARY, canary)
    keyring.in_force(canary, "the database")


def in_force(connection: Connection, keyring: Keyring) -> Sealer:
    """The secret that the database is sealed under now: what is added is sealed under it, too. Raises WrongSecret."""
    return keyring.in_force(_value(connection, CANARY), "the database")


def shared(connection: Connection, keyring: Keyring) -> dict[str, bytes]:
    """What all proxies share, for the snapshot: the key of the cache's hash, and the canary. Raises SealError."""
    sealer = in_force(connection, keyring)
    return {CACHE_HASH: _cache_hash(connection, sealer), CANARY: sealer.canary}


def rotate(work: UnitOfWork, keyring: Keyring, new: Sealer) -> int:
    """Seal everything under `new`; the number of provider keys.

    The key of the cache's hash stays what it is, so that the cache stays warm: it was derived from the first secret,
    and is kept from now on. Raises WrongSecret; Invalid, which names it, for a provider key that does not open.
    """
    old = in_force(work.connection, keyring)
    cache_hash = _cache_hash(work.connection, old)
    _set(work.connection, CACHE_HASH, new.seal(cache_hash, CACHE_HASH))
    _set(work.connection, CANARY, new.canary)
    rows = work.connection.execute(select(provider_keys.c.id, provider_keys.c.project_id, provider_keys.c.sealed)).all()
    for row in rows:
        sealed = new.seal(_open(old, bytes(row.sealed), row.id), row.id)
        work.connection.execute(update(provider_keys).where(provider_keys.c.id == row.id).values(sealed=sealed))
    for project_id in sorted({row.project_id for row in rows}):
        work.publish(PROJECT, project_id)
    work.record("secret.rotate", "instance", provider_keys=len(rows))
    return len(rows)


def _open(sealer: Sealer, sealed: bytes, key_id: str) -> bytes:
    try:
        return sealer.open(sealed, key_id)
    except SealBroken as error:
        raise Invalid(
            f"{error}, nothing was rotated; `watchllm provider-key remove {key_id}` gives it up, then rotate again"
        ) from None


def _cache_hash(connection: Connection, sealer: Sealer) -> bytes:
    kept = _value(connection, CACHE_HASH)
    return sealer.derive("cache hash") if kept is None else sealer.open(kept, CACHE_HASH)


def _value(connection: Connection, name: str) -> bytes | None:
    value = connection.scalar(select(instance.c.value).where(instance.c.name == name))
    return None if value is None else bytes(value)


def _set(connection: Connection, name: str, value: bytes) -> None:
    if connection.execute(update(instance).where(instance.c.name == name).values(value=value)).rowcount == 0:
        connection.execute(insert(instance).values(name=name, value=value))
