"""The answers that this process had at hand last: a bounded tier in front of the shared cache."""

from __future__ import annotations

from collections import OrderedDict

from watchllm.cache.entry import Entry
from watchllm.stores.redis.cache_layout import Record

_OVERHEAD = 600


class Memory:
    """At most `max_bytes`, the least recently used go first; what alone is larger is not taken."""

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, tuple[Entry, int]] = OrderedDict()
        self._projects: dict[bytes, set[bytes]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry_id: bytes) -> bool:
        return entry_id in self._entries

    def has_fresh(self, entry_id: bytes, now_ms: int) -> bool:
        found = self._entries.get(entry_id)
        return found is not None and found[0].is_fresh(now_ms)

    def get(self, entry_id: bytes) -> Entry | None:
        found = self._entries.get(entry_id)
        if found is None:
            return None
        self._entries.move_to_end(entry_id)
        return found[0]

    def put(self, project: bytes, entry_id: bytes, entry: Entry, generation: int) -> None:
        self.remove(project, entry_id)
        size = len(entry.body) + _OVERHEAD
        if size > self._max_bytes:
            return
        self._entries[entry_id] = entry, generation
        self._projects.setdefault(project, set()).add(entry_id)
        self.bytes += size
        while self.bytes > self._max_bytes:
            oldest = next(iter(self._entries))
            self.remove(oldest[: len(project)], oldest)

    def remove(self, project: bytes, entry_id: bytes, only: Entry | None = None) -> None:
        """Forget it; with `only`, if it is this very one."""
        found = self._entries.get(entry_id)
        if found is None or (only is not None and found[0] is not only):
            return
        del self._entries[entry_id]
        self.bytes -= len(found[0].body) + _OVERHEAD
        mine = self._projects[project]
        mine.discard(entry_id)
        if not mine:
            del self._projects[project]

    def invalidate(self, project: bytes, record: Record) -> None:
        """Forget what the invalidation voids."""
        for entry_id in list(self._projects.get(project, ())):
            entry, generation = self._entries[entry_id]
            if record.voids(
                generation, entry.model, entry.kind, entry.created_ms, entry_id[len(project) :], entry.key_id
            ):
                self.remove(project, entry_id)

    def clear(self) -> None:
        self._entries.clear()
        self._projects.clear()
        self.bytes = 0
