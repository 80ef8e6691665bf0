"""The snapshot as a proxy reads it: memory-mapped, a few microseconds a look-up, nothing loaded at open.

One unnamed LMDB database; the first byte of a key says what follows (cheaper than named databases, which cost a look-up
of their root in each transaction):

    #                   version, 8 bytes big-endian
    k + SHA-256 digest  KeyRecord            p + project id     ProjectRecord
    v                   all vendors          $ + provider name  the provider's price rows
    s + name            a shared secret's bytes
    o                   the price rows that the operator has set, for publishers: they are in `$` as well
    @                   of a copy: which snapshot it is a copy of (`stores.lmdb.snapshot_copy`)

Every read is a transaction of its own: it sees the newest commit and pins no old pages.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, takewhile
from typing import TYPE_CHECKING

import lmdb
import msgspec

from watchllm.domain.snapshot import KeyRecord, PriceRow, ProjectRecord, Vendor
from watchllm.stores.lmdb import environment

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

VERSION, POSITION = b"#", b"@"
KEY, PROJECT, VENDORS, PRICES, SECRET, OWN_PRICES = b"k", b"p", b"v", b"$", b"s", b"o"

_key = msgspec.msgpack.Decoder(KeyRecord).decode
_project = msgspec.msgpack.Decoder(ProjectRecord).decode
_vendors = msgspec.msgpack.Decoder(tuple[Vendor, ...]).decode
_prices = msgspec.msgpack.Decoder(tuple[PriceRow, ...]).decode
_number = int.from_bytes


def _is_project(item: tuple[bytes, bytes]) -> bool:
    return item[0].startswith(PROJECT)


class LmdbSnapshotReader:
    """Implements `domain.snapshot.SnapshotReader`. Open it after a fork; an absent file is made, empty, version 0.

    Raises StoreBroken when the folder cannot be opened.
    """

    def __init__(self, folder: StrPath) -> None:
        self._folder = folder
        self._environment = environment.acquire(folder)
        self._begin = self._environment.begin

    def version(self) -> int:
        # Read with every request, so without a step between.
        try:
            transaction = self._begin()
            try:
                value = transaction.get(VERSION)
            finally:
                transaction.abort()
        except lmdb.MapResizedError:
            value = self._read(VERSION)
        return _number(value, "big") if value is not None else 0

    def key(self, digest: bytes) -> KeyRecord | None:
        value = self._read(KEY + digest)
        return _key(value) if value is not None else None

    def project(self, project_id: str) -> ProjectRecord | None:
        value = self._read(PROJECT + project_id.encode())
        return _project(value) if value is not None else None

    def any_project(self, is_wanted: Callable[[ProjectRecord], bool], limit: int) -> bool:
        """Whether one of the first `limit` projects `is_wanted`; some 3 µs each."""
        try:
            return self._any_project(is_wanted, limit)
        except lmdb.MapResizedError:
            self._environment.set_mapsize(0)  # as below
            return self._any_project(is_wanted, limit)

    def _any_project(self, is_wanted: Callable[[ProjectRecord], bool], limit: int) -> bool:
        with self._begin() as transaction, transaction.cursor() as cursor:
            if not cursor.set_range(PROJECT):
                return False
            found = takewhile(_is_project, islice(cursor, limit))
            return any(is_wanted(_project(value)) for _, value in found)

    def vendors(self) -> tuple[Vendor, ...]:
        value = self._read(VENDORS)
        return _vendors(value) if value is not None else ()

    def prices(self, provider: str) -> tuple[PriceRow, ...]:
        value = self._read(PRICES + provider.encode())
        return _prices(value) if value is not None else ()

    def secret(self, name: str) -> bytes | None:
        return self._read(SECRET + name.encode())

    def close(self) -> None:
        environment.release(self._folder)

    def _read(self, key: bytes) -> bytes | None:
        try:
            with self._begin() as transaction:
                return transaction.get(key)
        except lmdb.MapResizedError:
            # The publisher, in another process, made room; adopt the file's new size.
            self._environment.set_mapsize(0)
            with self._begin() as transaction:
                return transaction.get(key)
        except lmdb.BadValsizeError:
            # A key of a length that LMDB cannot hold (a provider's name may come from a request's `provider/model`).
            return None
