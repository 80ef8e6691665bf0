"""The snapshot as the control plane writes it; see `stores.lmdb.snapshot` for the layout.

LMDB's write lock spans processes, so `update` is exclusive on this host, and readers see all of it or none of it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import msgspec

from watchllm.control.publication import OwnPrices, Publication
from watchllm.domain.snapshot import PriceRow
from watchllm.stores.lmdb import environment
from watchllm.stores.lmdb.snapshot import KEY, OWN_PRICES, POSITION, PRICES, PROJECT, SECRET, VENDORS, VERSION

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_own_prices = msgspec.msgpack.Decoder(dict[str, tuple[PriceRow, ...]]).decode


class LmdbSnapshotWriter:
    """Implements `control.publication.SnapshotWriter`. Raises StoreBroken when the folder cannot be opened.

    `map_size` in bytes is where the file's bound starts; it doubles when it is reached.
    """

    def __init__(self, folder: Path, *, map_size: int = 1 << 30) -> None:
        self._folder = folder
        self._environment = environment.acquire(folder, map_size=map_size)
        # Slots of proxies that were killed; without this the table of readers fills up after many crashes.
        self._environment.reader_check()

    def update(self, derive: Callable[[], Publication]) -> bool:
        while True:
            try:
                with self._write_transaction() as transaction:
                    return _apply(transaction, derive())
            except lmdb.MapFullError:
                self._environment.set_mapsize(self._environment.info()["map_size"] * 2)

    def differs(self, publication: Publication) -> bool:
        with self._read_transaction() as transaction:
            return any(True for _ in _differences(transaction, publication))

    def changes(self, publication: Publication) -> dict[bytes, bytes | None]:
        """What applying it would change, in the file's own keys and values; None: removed. Takes no lock."""
        with self._read_transaction() as transaction:
            return dict(_differences(transaction, publication))

    def records(self) -> dict[bytes, bytes]:
        """All that is published, in the file's keys and values."""
        with self._read_transaction() as transaction:
            return {key: value for key, value in transaction.cursor() if key not in (VERSION, POSITION)}

    def version(self) -> int:
        with self._read_transaction() as transaction:
            return int.from_bytes(transaction.get(VERSION) or b"", "big")

    def kept_prices(self) -> OwnPrices:
        return {}  # Nobody publishes here but this home: what it does not have is not to be.

    def own_prices(self) -> OwnPrices:
        """The operator's prices that are published."""
        with self._read_transaction() as transaction:
            value = transaction.get(OWN_PRICES)
        return {} if value is None else _own_prices(value)

    def close(self) -> None:
        environment.release(self._folder)

    def _write_transaction(self) -> "lmdb.Transaction[bytes]":
        try:
            return self._environment.begin(write=True)
        except lmdb.MapResizedError:
            self._environment.set_mapsize(0)
            return self._environment.begin(write=True)

    def _read_transaction(self) -> "lmdb.Transaction[bytes]":
        try:
            return self._environment.begin()
        except lmdb.MapResizedError:
            self._environment.set_mapsize(0)
            return self._environment.begin()


def _apply(transaction: "lmdb.Transaction[bytes]", publication: Publication) -> bool:
    # All differences first: writing while a cursor walks would move it.
    changes = list(_differences(transaction, publication))
    for key, value in changes:
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)
    if changes:
        version = int.from_bytes(transaction.get(VERSION) or b"", "big") + 1
        transaction.put(VERSION, version.to_bytes(8, "big"))
        transaction.delete(POSITION)  # Written by this host itself, it is nobody's copy any more.
    return bool(changes)


def _differences(
    transaction: "lmdb.Transaction[bytes]", publication: Publication
) -> Iterator[tuple[bytes, bytes | None]]:
    wanted = dict(entries(publication))
    for key, value in wanted.items():
        if transaction.get(key) != value:
            yield key, value
    if publication.complete:
        kept = {VERSION, POSITION, *(PROJECT + project_id.encode() for project_id in publication.kept_projects)}
        for key in transaction.cursor().iternext(values=False):
            if key not in wanted and key not in kept:
                yield bytes(key), None


def entries(publication: Publication) -> Iterator[tuple[bytes, bytes | None]]:
    """The publication in the file's keys and values; None: to be removed."""
    for digest, key in publication.keys.items():
        yield KEY + digest, None if key is None else _encode(key)
    for project_id, project in publication.projects.items():
        yield PROJECT + project_id.encode(), None if project is None else _encode(project)
    for provider, rows in publication.prices.items():
        yield PRICES + provider.encode(), _encode(rows)
    for name, secret in publication.secrets.items():
        yield SECRET + name.encode(), secret
    if publication.own_prices:
        yield OWN_PRICES, _encode(publication.own_prices)
    if publication.vendors is not None:
        yield VENDORS, _encode(publication.vendors)
