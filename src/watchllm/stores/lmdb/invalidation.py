"""Invalidations of the exact cache on their way from the call to the last deletion.

`invalidate` takes effect in three steps. At the call, a Purge hides what matches from this process's reads. Then the
writer commits a record: from that transaction on, in every process, a put whose call began earlier is refused. Then
the project's `meta` is walked in small transactions and what was written before the record is deleted. A record whose
deletions were cut off by a crash is finished by any process that finds it.
"""

from collections.abc import Callable
from typing import Any

import lmdb
import msgspec

from watchllm.cache.entry import Entry, InvalidationFilter
from watchllm.stores.lmdb.cache_layout import PROJECT_LENGTH, Databases, Invalidation, Meta
from watchllm.stores.lmdb.cache_session import WriteSession

KEPT_MS = 2 * 3_600_000
"""How long a record can refuse a put: longer than any call upstream may take."""

_MOST_RECORDS = 128
_SCAN = 4_000
_DELETE = 1_000


class Purge:
    """One invalidation under way. `done(count, error)` is called once, from the writer's thread."""

    def __init__(
        self,
        project: bytes,
        what: InvalidationFilter,
        at_ms: int,
        forgotten: set[bytes],
        done: Callable[[int, Exception | None], None] | None,
    ) -> None:
        self.project = project
        self.what = what
        self.at_ms = at_ms
        self.record: Invalidation | None = None
        self._forgotten = forgotten
        self._count = len(forgotten)
        self._done = done
        self._position = project

    @classmethod
    def resumed(cls, project: bytes, record: Invalidation) -> "Purge":
        """Deletions that another process left unfinished."""
        purge = cls(project, record.what, record.at_ms, set(), None)
        purge.record = record
        return purge

    def hides(self, project: bytes, key: bytes, entry: Entry) -> bool:
        """Whether a committed entry must not be seen any more, although it may still be there."""
        return (
            project == self.project
            and entry.created_ms <= self.at_ms
            and self.what.matches(entry.model, entry.kind, entry.created_ms, key, entry.key_id)
        )

    def refuses(self, project: bytes, model: str, kind: str, created_ms: int, begun_ms: int, key: bytes | None) -> bool:
        """Whether the answer of a call that began at `begun_ms` must not be given to others."""
        return project == self.project and begun_ms <= self.at_ms and self.what.matches(model, kind, created_ms, key)

    def refuses_entry(self, project: bytes, key: bytes, entry: Entry, begun_ms: int) -> bool:
        """Whether the answer of a call that began at `begun_ms` must not be stored or seen at `key`."""
        return (
            begun_ms <= self.at_ms
            and project == self.project
            and self.what.matches(entry.model, entry.kind, entry.created_ms, key, entry.key_id)
        )

    def report(self, error: Exception | None = None) -> None:
        """Tell the caller, once, that all is done or that it failed (then the deletions are still tried again)."""
        done, self._done = self._done, None
        if done is not None:
            done(self._count, error)

    def record_in(self, session: WriteSession) -> Invalidation:
        """Write the record, in place of those it makes superfluous."""
        at_ms = self.at_ms
        known = session.invalidations(self.project)
        same = [record for record in known if record.what == self.what]
        others = [record for record in known if record.what != self.what]
        merged = others[: _MOST_RECORDS // 2] if len(others) >= _MOST_RECORDS else []
        coarse = []
        if merged:
            # Many different filters: the older half becomes one that refuses more than was asked, which costs a miss.
            latest = max(record.at_ms for record in merged)
            coarse.append(Invalidation(merged[-1].at, latest, InvalidationFilter()))
        session.replace_invalidations(self.project, same + merged, coarse)
        record = Invalidation(session.id, max([at_ms, *(record.at_ms for record in same)]), self.what)
        session.add_invalidation(self.project, record)
        return record

    def next_batch(self, env: lmdb.Environment, databases: Databases) -> tuple[list[bytes], bytes | None]:
        """Ids to delete next, and where to go on; None at the end. Reads only: nobody's writing waits for the walk."""
        assert self.record is not None
        found: list[bytes] = []
        last = self._position
        with env.begin() as txn, txn.cursor(databases.meta) as cursor:
            if self.what.keys is not None:
                named = [self.project + key for key in self.what.keys]
                metas = [(entry_id, txn.get(entry_id, db=databases.meta)) for entry_id in named]
                return [
                    entry_id
                    for entry_id, packed in metas
                    if packed is not None and self._finds(txn, databases, entry_id, packed)
                ], None
            if cursor.set_range(self._position):
                for scanned, (entry_id, packed) in enumerate(cursor):
                    if not entry_id.startswith(self.project):
                        break
                    if scanned >= _SCAN or len(found) >= _DELETE:
                        return found, last + b"\0"
                    last = entry_id
                    if self._finds(txn, databases, entry_id, packed):
                        found.append(entry_id)
        return found, None

    def delete_in(self, session: WriteSession, batch: list[bytes], *, final: bool) -> set[bytes]:
        """Delete what of the batch still is what was found; the ids deleted."""
        assert self.record is not None
        gone = set()
        for entry_id in batch:
            meta = session.meta(entry_id)
            if meta is not None and self._covers(entry_id, meta):
                session.delete(entry_id)
                gone.add(entry_id)
        if final:
            session.finish_purge(self.project, self.record)
        return gone

    def advance(self, gone: set[bytes], position: bytes | None) -> None:
        """A batch is committed. An entry that was pending and stored counts once."""
        self._count += len(gone - self._forgotten)
        if position is not None:
            self._position = position

    def _finds(self, txn: "lmdb.Transaction[bytes]", databases: Databases, entry_id: bytes, packed: bytes) -> bool:
        """Whether what is at that id is to be deleted. Who caused it stands in the entry itself, which is only read
        where that matters."""
        if not self._covers(entry_id, Meta.unpack(packed)):
            return False
        if self.what.source is None:
            return True
        value = txn.get(entry_id, db=databases.entries)
        return value is not None and _decode_caused(value).key_id == self.what.source

    def _covers(self, entry_id: bytes, meta: Meta) -> bool:
        """Leaves out who caused it; what was found is not replaced without being written anew."""
        assert self.record is not None
        key = entry_id[PROJECT_LENGTH:]
        return meta.written < self.record.at and self.what.matches(meta.model, meta.kind, meta.created_ms, key)


class _Caused(msgspec.Struct, array_like=True):
    """The beginning of an Entry: all but its body is read."""

    created_ms: int
    expires_ms: int
    kind: str
    provider: str
    model: str
    usage: Any
    cost: Any
    key_id: str


_decode_caused = msgspec.msgpack.Decoder(_Caused).decode


def is_useless(record: Invalidation, now_ms: int) -> bool:
    """Whether it can refuse nothing any more. One from the future is of a clock that was set back."""
    return abs(now_ms - record.at_ms) > KEPT_MS


def prune(session: WriteSession, records: list[tuple[bytes, Invalidation]]) -> None:
    """Drop these records, each with its project."""
    by_project: dict[bytes, list[Invalidation]] = {}
    for project, record in records:
        by_project.setdefault(project, []).append(record)
    for project, found in by_project.items():
        session.replace_invalidations(project, found, [])
