"""The snapshot as the control plane publishes it to all hosts, and to its own at once; the layout and why it is so is
in `stores.redis.snapshot_layout`.

What is to be changed is found by comparing with this host's copy, which is brought up to date first: nothing but the
changes goes over the network, however large the snapshot is.

What another installation publishes is left alone (`stores.redis.ownership`), unless it is to be taken over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from redis import RedisError

from watchllm.control.errors import OtherInstallation
from watchllm.control.publication import Installation, OwnPrices, Publication
from watchllm.domain.errors import Unavailable
from watchllm.stores.lmdb.snapshot_copy import NOTHING, Position, SnapshotCopy
from watchllm.stores.lmdb.snapshot_writer import LmdbSnapshotWriter
from watchllm.stores.redis.blocking import Blocking, reason
from watchllm.stores.redis.ownership import owner, refusal
from watchllm.stores.redis.reading import Reading, base_for
from watchllm.stores.redis.snapshot_layout import (
    APPLY,
    CHANNEL,
    EXCHANGE,
    LOOK,
    MOST_AT_ONCE,
    MOST_GONE,
    PAGE,
    READ,
    STATE,
    State,
    keys_of,
    new_epoch,
    owner_of,
    page_of,
    state_of,
)

_ATTEMPTS = 100
_STAGED_SECONDS = 600
_BATCH = 500


class Found(NamedTuple):
    """What Redis says that it holds, and whether it does: what was evicted is missing, and what it had from before is
    not what was published last."""

    state: State | None
    is_whole: bool


class RedisSnapshotWriter:
    """Implements `control.publication.SnapshotWriter`. `folder` is this host's snapshot, `installation` who publishes;
    with `take_over` it puts its own in the place of another one's.

    Raises ValueError for a URL that cannot be read and StoreBroken where the folder cannot be opened; every method but
    `close` raises Unavailable while Redis cannot be reached.
    """

    def __init__(self, url: str, folder: Path, installation: Installation, *, take_over: bool = False) -> None:
        self._installation = installation
        self._takes_over = take_over
        self._blocking = Blocking(url)
        self._copy = SnapshotCopy(folder)
        self._local = LmdbSnapshotWriter(folder)

    def update(self, derive: Callable[[], Publication]) -> bool:
        with _told(self._blocking):
            for _ in range(_ATTEMPTS):
                # First, so that `derive` reads what is newer than all that was published when this was read.
                found = self._caught_up()
                changed = self._try(found, derive())
                if changed is not None:
                    return changed
        raise Unavailable("others publish without a pause; try again")

    def differs(self, publication: Publication) -> bool:
        with _told(self._blocking):
            found = self._caught_up()
            return not found.is_whole or not self._is_own(found.state) or self._local.differs(publication)

    def version(self) -> int:
        """Of the snapshot in Redis, which this host has when it returns; 0 = it holds none."""
        with _told(self._blocking):
            found = self._caught_up()
        return found.state.version if found.state is not None and found.is_whole else 0

    def kept_prices(self) -> OwnPrices:
        """As this host's copy has them; those of another installation are nothing to keep."""
        position = self._copy.position()
        if position == NOTHING or owner_of(position.epoch) not in (None, self._installation.id):
            return {}
        return self._local.own_prices()

    def close(self) -> None:
        self._blocking.close()
        self._copy.close()
        self._local.close()

    def _try(self, found: Found, publication: Publication) -> bool | None:
        """Whether anything was different; None = somebody else was quicker."""
        state = found.state
        if not found.is_whole and not publication.complete:
            raise Unavailable("Redis has lost the snapshot, which is published anew within a minute; try again")
        changes = self._local.changes(publication)
        if state is None or not found.is_whole or not self._is_own(state) or len(changes) > MOST_AT_ONCE:
            return self._exchange(state, changes)
        arguments = [part for key, value in changes.items() for part in (key, b"-" if value is None else b"+" + value)]
        keys = keys_of(state.epoch)
        reached = self._blocking.run(APPLY, keys, state.epoch, state.updates, CHANNEL, MOST_GONE, *arguments)
        if reached is None:
            return None
        if changes:
            base = Position(state.epoch, state.version)
            if not self._copy.apply(base, Position(state.epoch, int(reached)), changes):
                self._caught_up()
        return bool(changes)

    def _exchange(self, state: State | None, changes: Mapping[bytes, bytes | None]) -> bool | None:
        """Write everything, which is this host's copy with the changes, beside what is there; then put it in its
        place."""
        changed = {**self._local.records(), **changes}
        everything = {key: value for key, value in changed.items() if value is not None}
        epoch = new_epoch(self._installation.id)
        keys = keys_of(epoch)
        begun = max(time.time_ns() // 1_000_000, 0 if state is None else state.version)
        self._stage(keys, begun, everything)
        version = begun + len(everything)
        before = (b"", b"") if state is None else (state.epoch, str(state.updates).encode())
        gone = () if state is None else keys_of(state.epoch)[1:]
        if self._blocking.run(EXCHANGE, (*keys, *gone), epoch, *before, version, len(everything), CHANNEL) != 1:
            self._blocking.redis.unlink(*keys[1:])
            return None
        self._copy.apply(None, Position(epoch, version), everything)
        return True

    def _stage(self, keys: tuple[bytes, ...], begun: int, everything: Mapping[bytes, bytes]) -> None:
        """Into keys of their own, which are gone by themselves if this process is."""
        _, records, changes, _ = keys
        version = begun
        for batch in _batches(everything):
            with self._blocking.redis.pipeline(transaction=False) as pipeline:
                pipeline.hset(records, mapping=batch)
                pipeline.zadd(changes, {key: version + place for place, key in enumerate(batch, 1)})
                pipeline.expire(records, _STAGED_SECONDS)
                pipeline.expire(changes, _STAGED_SECONDS)
                pipeline.execute()
            version += len(batch)

    def _caught_up(self) -> Found:
        """What Redis holds; where that is whole, this host's copy is the same now."""
        for _ in range(_ATTEMPTS):
            state = self._look()
            position = self._copy.position()
            if owner(None if state is None else state.epoch, position) not in (None, self._installation.id):
                if not self._takes_over:
                    raise OtherInstallation(
                        refusal(self._blocking.shown, f"the database {self._installation.database}")
                    )
                return Found(state, False)
            if state is None or state.is_doubtful:
                return Found(state, False)
            if position == (state.epoch, state.version):
                # A part that is lost is noticed here, too: whoever publishes is who can repair it.
                return Found(state, page_of(self._read(state.epoch, state.version), state.version) is not None)
            base = base_for(position, state)
            reading = Reading(base)
            while not reading.is_whole:
                if not reading.take(page_of(self._read(state.epoch, reading.after), reading.after)):
                    break
            if reading.is_whole:
                self._copy.apply(base, Position(state.epoch, reading.version), reading.changes)
            elif self._look() == state:
                return Found(state, False)
        raise Unavailable("the snapshot changes faster than it can be read; try again")

    def _is_own(self, state: State | None) -> bool:
        return state is not None and owner_of(state.epoch) == self._installation.id

    def _look(self) -> State | None:
        return state_of(self._blocking.run(LOOK, (STATE,)))

    def _read(self, epoch: bytes, after: int) -> list[object]:
        return list(self._blocking.run(READ, keys_of(epoch), epoch, after, PAGE))


class _told:  # noqa: N801  (reads as what it does)
    """Turns what redis-py raises into what the control plane knows, without the URL."""

    def __init__(self, blocking: Blocking) -> None:
        self._shown = blocking.shown

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, RedisError):
            raise Unavailable(f"Redis at {self._shown} cannot be used: {reason(error)}") from error


def _batches(everything: Mapping[bytes, bytes]) -> Iterator[dict[bytes, bytes]]:
    items = iter(everything.items())
    while batch := dict(islice(items, _BATCH)):
        yield batch
