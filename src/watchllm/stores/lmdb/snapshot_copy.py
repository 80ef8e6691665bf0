"""A host's copy of a snapshot that is published elsewhere: the same file that proxies read, brought up to date whole.

Any process of the host may bring it up to date; of several, those that come too late change nothing. What is copied is
bytes: records are read by `stores.lmdb.snapshot`, whose layout this is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import lmdb

from watchllm.stores.lmdb import environment
from watchllm.stores.lmdb.snapshot import POSITION, VERSION

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

_OWN = (VERSION, POSITION)


class Position(NamedTuple):
    """How far a copy is: `version` of the snapshot that began as `epoch`. Both are empty where nothing was copied."""

    epoch: bytes
    version: int


NOTHING = Position(b"", 0)


class SnapshotCopy:
    """Raises StoreBroken when the folder cannot be opened. Methods may be called from any thread."""

    def __init__(self, folder: StrPath, *, map_size: int = 1 << 30) -> None:
        self._folder = folder
        self._environment = environment.acquire(folder, map_size=map_size)
        self._environment.reader_check()

    def position(self) -> Position:
        try:
            return self._position()
        except lmdb.MapResizedError:
            self._environment.set_mapsize(0)
            return self._position()

    def _position(self) -> Position:
        with self._environment.begin() as transaction:
            return _position_in(transaction)

    def apply(self, base: Position | None, target: Position, changes: Mapping[bytes, bytes | None]) -> bool:
        """Go from `base` to `target` by `changes` (None: remove), at once for every reader; True where the copy is at
        `target` or beyond now. Without a base, `changes` are all that there is. False = the copy is somewhere else.
        """
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    return _apply(transaction, base, target, changes)
            except lmdb.MapResizedError:
                self._environment.set_mapsize(0)
            except lmdb.MapFullError:
                self._environment.set_mapsize(self._environment.info()["map_size"] * 2)

    def close(self) -> None:
        environment.release(self._folder)


def _position_in(transaction: lmdb.Transaction[bytes]) -> Position:
    epoch = transaction.get(POSITION)
    if epoch is None:
        return NOTHING
    return Position(epoch, int.from_bytes(transaction.get(VERSION) or b"", "big"))


def _apply(
    transaction: lmdb.Transaction[bytes],
    base: Position | None,
    target: Position,
    changes: Mapping[bytes, bytes | None],
) -> bool:
    now = _position_in(transaction)
    if now.epoch == target.epoch and now.version >= target.version:
        return True
    if base is not None and base != now:
        return False
    for key, value in changes.items():
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)
    if base is None:
        gone = [key for key in transaction.cursor().iternext(values=False) if key not in changes and key not in _OWN]
        for key in gone:
            transaction.delete(key)
    transaction.put(POSITION, target.epoch)
    transaction.put(VERSION, target.version.to_bytes(8, "big"))
    return True
