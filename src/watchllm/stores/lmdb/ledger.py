"""The ledger in LMDB: written by the recorder of a host, read by its proxies.

    !               it was written
    @ + series      the Place up to which its records are counted
    $ + subject     Periods of a key, project or organization

It says nothing that the database does not say, too: whatever is wrong with it, it is written anew from there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import lmdb
import msgspec

from watchllm.domain.ledger import NotTold, Periods, Place
from watchllm.stores.lmdb import environment

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

_WRITTEN, _SERIES, _SUBJECT = b"!", b"@", b"$"
_MAP_SIZE = 1 << 30

_encode = msgspec.msgpack.encode
_periods = msgspec.msgpack.Decoder(Periods).decode
_place = msgspec.msgpack.Decoder(Place).decode


class LmdbLedger:
    """Implements `domain.ledger.LedgerReader`, and `journal.ledgered.Ledger`. Raises StoreBroken when it cannot be
    opened."""

    def __init__(self, folder: StrPath) -> None:
        self._folder = folder
        self._environment = environment.acquire(folder, map_size=_MAP_SIZE)

    def read(self, subjects: list[str]) -> tuple[dict[str, Periods], dict[str, Place]] | None:
        with self._environment.begin(buffers=False) as transaction:
            if transaction.get(_WRITTEN) is None:
                return None
            places = dict(_places(transaction))
            found: dict[str, Periods] = {}
            for subject in subjects:
                value = transaction.get(_SUBJECT + subject.encode())
                if value is not None:
                    found[subject] = _periods(value)
        return found, places

    def places(self) -> dict[str, Place]:
        """How far each series is counted."""
        with self._told(), self._environment.begin() as transaction:
            return dict(_places(transaction))

    def write(self, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        """Put these in the place of what was there, at once for every reader."""
        with self._told(), self._environment.begin(write=True) as transaction:
            _put(transaction, spent, places)

    def replace(self, spent: dict[str, Periods], places: dict[str, Place]) -> None:
        """Put these in the place of everything."""
        with self._told(), self._environment.begin(write=True) as transaction:
            for key in list(transaction.cursor().iternext(values=False)):
                transaction.delete(bytes(key))
            transaction.put(_WRITTEN, b"1")
            _put(transaction, spent, places)

    def close(self) -> None:
        environment.release(self._folder)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise NotTold(f"the ledger {os.fspath(self._folder)} cannot be written: {error}") from None


def _put(transaction: lmdb.Transaction[bytes], spent: dict[str, Periods], places: dict[str, Place]) -> None:
    for subject, periods in spent.items():
        transaction.put(_SUBJECT + subject.encode(), _encode(periods))
    for series, place in places.items():
        transaction.put(_SERIES + series.encode(), _encode(place))


def _places(transaction: lmdb.Transaction[bytes]) -> Iterable[tuple[str, Place]]:
    cursor = transaction.cursor()
    if cursor.set_range(_SERIES):
        for key, value in cursor:
            if not key.startswith(_SERIES):
                return
            yield key[1:].decode(), _place(value)
