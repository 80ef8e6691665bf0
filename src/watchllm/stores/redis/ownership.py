"""Whose the settings in a Redis are, and what is said to those of another installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis import RedisError

from watchllm.stores.lmdb.snapshot_copy import NOTHING, Position, SnapshotCopy
from watchllm.stores.redis.blocking import Blocking
from watchllm.stores.redis.snapshot_layout import STATE, owner_of

if TYPE_CHECKING:
    from pathlib import Path


def owner(epoch: bytes | None, position: Position) -> str | None:
    """The id of the installation that publishes `epoch` in Redis; where that says nothing (it was emptied), of the one
    that this host, whose copy is at `position`, had it from last. None = of none that is known."""
    return owner_of(epoch or b"") or owner_of(position.epoch)


def owner_at(url: str, folder: Path) -> str | None:
    """As `owner`, for a home that has no database; `folder` is its snapshot, and is not made. A Redis that cannot be
    reached says nothing. Raises ValueError for a URL that cannot be read, StoreBroken."""
    redis = Blocking(url)
    try:
        epoch = redis.redis.hget(STATE, "epoch")
    except RedisError:
        epoch = None
    finally:
        redis.close()
    position = NOTHING
    if folder.exists():
        copy = SnapshotCopy(folder)
        position = copy.position()
        copy.close()
    return owner(epoch, position)


def refusal(shown: str, database: str) -> str:
    """What to do where the Redis at `shown` is not the one of this host's `database`."""
    return (
        f"Redis at {shown} holds the settings of another installation than {database}; give this host the "
        "WATCHLLM_DATABASE_URL of that one's database, or, if this one is to take that Redis over, run "
        "`watchllm db upgrade --take-redis`"
    )
