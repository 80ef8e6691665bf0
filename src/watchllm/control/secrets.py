"""The canary in the database: a wrong master secret is found at start, not by the first request that needs a key."""

from sqlalchemy import insert

from watchllm.control.database import Database
from watchllm.control.tables import instance
from watchllm.domain.sealing import Sealer

CANARY, CACHE_HASH = "canary", "cache_hash"


def check(database: Database, sealer: Sealer) -> None:
    """Raise WrongSecret unless the database was sealed under this secret; the first caller leaves its mark."""
    canary = database.value(CANARY)
    if canary is None:
        with database.unit_of_work("system") as work:
            # Read again under the write lock: two first starts must not leave two marks.
            found = work.connection.scalar(instance.select().with_only_columns(instance.c.value).where(_is_canary))
            if found is None:
                work.connection.execute(insert(instance).values(name=CANARY, value=sealer.canary))
            canary = sealer.canary if found is None else bytes(found)
    sealer.check(canary, "the database")


def shared(sealer: Sealer) -> dict[str, bytes]:
    """What all proxies share, for the snapshot: the key of the cache's hash, and the canary."""
    return {CACHE_HASH: sealer.derive("cache hash"), CANARY: sealer.canary}


_is_canary = instance.c.name == CANARY
