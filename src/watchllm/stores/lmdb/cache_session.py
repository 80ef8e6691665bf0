"""One write transaction of the exact cache: every change of an entry together with its indexes and counters.

    with WriteSession(env, databases) as session:
        session.put(entry_id, entry)

commits at the end of the block and aborts when an exception leaves it.
"""

from typing import Any, Self

import lmdb
import msgspec

from watchllm.cache.entry import NEVER, Entry
from watchllm.stores.lmdb.cache_layout import (
    ID_LENGTH,
    PROJECT_LENGTH,
    TOTAL,
    TOTAL_KEY,
    Databases,
    Invalidation,
    Meta,
    cost_of,
    expiry_key,
    recency_key,
)
from watchllm.stores.lmdb.derived_file import U64

KindCounts = dict[str, list[int]]
"""Entries and bytes by kind."""

_encode = msgspec.msgpack.Encoder().encode
_decode_counts = msgspec.msgpack.Decoder(KindCounts).decode
_decode_invalidation = msgspec.msgpack.Decoder(Invalidation).decode
_NOTHING = b""
_TOUCH_FRACTION = 8


class WriteSession:
    """Blocks in `__enter__` while another process writes; raises lmdb.Error where LMDB fails."""

    def __init__(self, env: lmdb.Environment, databases: Databases) -> None:
        self._env = env
        self._db = databases
        self._counts: dict[bytes, KindCounts] = {}
        self._invalidations: dict[bytes, list[Invalidation]] = {}
        self._oldest: dict[bytes, int] = {}
        self.entries = 0
        self.bytes = 0
        self._changed = False

    def __enter__(self) -> Self:
        self.txn = self._env.begin(write=True)
        self.id = self.txn.id()
        stored = self.txn.get(TOTAL_KEY, db=self._db.info)
        if stored is not None:
            self.entries, self.bytes = TOTAL.unpack(stored)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.txn.abort()
            return
        try:
            self._write_counts()
        except BaseException:
            self.txn.abort()
            raise
        self.txn.commit()

    def put(self, entry_id: bytes, entry: Entry) -> None:
        """Store, in place of what was there."""
        self.delete(entry_id)
        value = _encode(entry)
        cost = cost_of(len(value))
        meta = Meta(entry.created_ms, entry.expires_ms, self.id, self.id, cost, entry.kind, entry.model)
        put = self.txn.put
        put(entry_id, value, db=self._db.entries)
        put(entry_id, meta.pack(), db=self._db.meta)
        put(recency_key(entry_id, self.id), _NOTHING, db=self._db.recency)
        if entry.expires_ms != NEVER:
            put(expiry_key(entry_id, entry.expires_ms), _NOTHING, db=self._db.expiry)
        self._count(entry_id, entry.kind, 1, cost)

    def meta(self, entry_id: bytes) -> Meta | None:
        packed = self.txn.get(entry_id, db=self._db.meta)
        return None if packed is None else Meta.unpack(packed)

    def delete(self, entry_id: bytes) -> Meta | None:
        """Forget an entry; what it was, or None when it was not there."""
        meta = self.meta(entry_id)
        if meta is None:
            return None
        delete = self.txn.delete
        delete(entry_id, db=self._db.entries)
        delete(entry_id, db=self._db.meta)
        delete(recency_key(entry_id, meta.used), db=self._db.recency)
        if meta.expires_ms != NEVER:
            delete(expiry_key(entry_id, meta.expires_ms), db=self._db.expiry)
        self._count(entry_id, meta.kind, -1, -meta.cost)
        return meta

    def touch(self, entry_id: bytes) -> bool:
        """Note a use. As in CLOCK, an entry that is still among its project's youngest is left where it is."""
        meta = self.meta(entry_id)
        if meta is None or meta.used == self.id:
            return False
        if (self.id - meta.used) * _TOUCH_FRACTION < self.id - self._oldest_use(entry_id[:PROJECT_LENGTH]):
            return False
        self.txn.delete(recency_key(entry_id, meta.used), db=self._db.recency)
        self.txn.put(recency_key(entry_id, self.id), _NOTHING, db=self._db.recency)
        self.txn.put(entry_id, msgspec.structs.replace(meta, used=self.id).pack(), db=self._db.meta)
        return True

    def project_bytes(self) -> dict[bytes, int]:
        """What each project holds, changes of this transaction included."""
        with self.txn.cursor(self._db.projects) as cursor:
            held = {project: sum(row[1] for row in _decode_counts(packed).values()) for project, packed in cursor}
        held.update({project: sum(row[1] for row in counts.values()) for project, counts in self._counts.items()})
        return held

    def held_by(self, project: bytes) -> int:
        """Bytes of one project, changes of this transaction included."""
        counts = self._counts.get(project)
        if counts is None:
            counts = read_counts(self.txn, self._db, project)
        return sum(row[1] for row in counts.values())

    def least_recent(self, project: bytes, limit: int) -> list[bytes]:
        """Ids of the project's entries, least recently used first."""
        return [
            project + key[-(ID_LENGTH - PROJECT_LENGTH) :]
            for key in _keys_from(self.txn, self._db.recency, project, limit)
            if key.startswith(project)
        ]

    def expired_before(self, time_ms: int, limit: int) -> list[bytes]:
        """Ids of entries that expired before `time_ms`, longest expired first."""
        bound = U64.pack(max(time_ms, 0))
        return [key[U64.size :] for key in _keys_from(self.txn, self._db.expiry, _NOTHING, limit) if key < bound]

    def invalidations(self, project: bytes) -> list[Invalidation]:
        known = self._invalidations.get(project)
        if known is None:
            known = self._invalidations[project] = read_invalidations(self.txn, self._db, project)
        return known

    def add_invalidation(self, project: bytes, record: Invalidation) -> None:
        """Write the record and note that its deletions are to be done."""
        key = project + U64.pack(record.at)
        packed = _encode(record)
        self.txn.put(key, packed, db=self._db.invalidations)
        self.txn.put(key, packed, db=self._db.purges)
        self._invalidations.pop(project, None)

    def replace_invalidations(self, project: bytes, old: list[Invalidation], new: list[Invalidation]) -> None:
        """Exchange records that guard puts; deletions that are not finished stay on the list."""
        for record in old:
            self.txn.delete(project + U64.pack(record.at), db=self._db.invalidations)
        for record in new:
            self.txn.put(project + U64.pack(record.at), _encode(record), db=self._db.invalidations)
        self._invalidations.pop(project, None)

    def finish_purge(self, project: bytes, record: Invalidation) -> None:
        self.txn.delete(project + U64.pack(record.at), db=self._db.purges)

    def _oldest_use(self, project: bytes) -> int:
        oldest = self._oldest.get(project)
        if oldest is None:
            keys = _keys_from(self.txn, self._db.recency, project, 1)
            found = keys[0][PROJECT_LENGTH : -(ID_LENGTH - PROJECT_LENGTH)] if keys else U64.pack(self.id)
            oldest = self._oldest[project] = U64.unpack(found)[0]
        return oldest

    def _count(self, entry_id: bytes, kind: str, entries: int, cost: int) -> None:
        project = entry_id[:PROJECT_LENGTH]
        counts = self._counts.get(project)
        if counts is None:
            counts = self._counts[project] = read_counts(self.txn, self._db, project)
        row = counts.setdefault(kind, [0, 0])
        row[0] += entries
        row[1] += cost
        self.entries += entries
        self.bytes += cost
        self._changed = True

    def _write_counts(self) -> None:
        if not self._changed:
            return
        for project, counts in self._counts.items():
            held = {kind: row for kind, row in counts.items() if row[0]}
            if held:
                self.txn.put(project, _encode(held), db=self._db.projects)
            else:
                self.txn.delete(project, db=self._db.projects)
        self.txn.put(TOTAL_KEY, TOTAL.pack(self.entries, self.bytes), db=self._db.info)


def read_total(txn: "lmdb.Transaction[bytes]", databases: Databases) -> tuple[int, int]:
    """Entries and bytes of all projects."""
    stored = txn.get(TOTAL_KEY, db=databases.info)
    return (0, 0) if stored is None else TOTAL.unpack(stored)


def read_counts(txn: "lmdb.Transaction[bytes]", databases: Databases, project: bytes) -> KindCounts:
    packed = txn.get(project, db=databases.projects)
    return {} if packed is None else _decode_counts(packed)


def read_invalidations(txn: "lmdb.Transaction[bytes]", databases: Databases, project: bytes) -> list[Invalidation]:
    """The project's records, oldest first."""
    found = []
    with txn.cursor(databases.invalidations) as cursor:
        if cursor.set_range(project):
            for key, packed in cursor:
                if not key.startswith(project):
                    break
                found.append(_decode_invalidation(packed))
    return found


def read_records(txn: "lmdb.Transaction[bytes]", database: Any) -> list[tuple[bytes, Invalidation]]:
    """All projects' records in `invalidations` or `purges`."""
    with txn.cursor(database) as cursor:
        return [(key[:PROJECT_LENGTH], _decode_invalidation(packed)) for key, packed in cursor]


def _keys_from(txn: "lmdb.Transaction[bytes]", database: Any, start: bytes, limit: int) -> list[bytes]:
    keys: list[bytes] = []
    with txn.cursor(database) as cursor:
        if cursor.set_range(start) if start else cursor.first():
            for key in cursor.iternext(values=False):
                keys.append(key)
                if len(keys) >= limit:
                    break
    return keys
