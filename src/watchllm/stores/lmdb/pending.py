"""Writes of the exact cache that are not committed yet: the read-your-own-writes overlay, bounded in bytes.

The event loop adds and looks up, one writer thread takes everything at once and settles it when it is committed.
What was taken stays visible until then. Look-ups take no lock: `take` publishes the taken writes before it empties
the fresh ones, and both are replaced, never cleared.
"""

import threading
from collections.abc import Callable

import msgspec

from watchllm.cache.entry import Entry

ENTRY_OVERHEAD = 600
"""Bytes that a pending write is taken to occupy beyond its body."""


class Write(msgspec.Struct, frozen=True):
    """An entry to store, or None to remove what is there. `begun_ms`: when the call that bought it began."""

    entry: Entry | None
    begun_ms: int
    size: int


class PendingWrites:
    """`max_bytes` bounds what is held: more is refused. `fresh` waits for the writer, `taken` is with it."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._changed = threading.Condition(threading.Lock())
        self.fresh: dict[bytes, Write] = {}
        self.taken: dict[bytes, Write] = {}
        self._fresh_bytes = 0
        self._taken_bytes = 0
        self._generation = 1
        self._settled = 0
        self._writer_waits = False
        self._urgent = False
        self.closed = False

    def size(self) -> int:
        """Bytes held."""
        return self._fresh_bytes + self._taken_bytes

    def add(self, entry_id: bytes, write: Write) -> bool:
        """Whether the write fits; in place of an earlier one for the same id."""
        with self._changed:
            old = self.fresh.get(entry_id)
            grows = write.size if old is None else write.size - old.size
            if self._fresh_bytes + self._taken_bytes + grows > self._max_bytes:
                return False
            self.fresh[entry_id] = write
            self._fresh_bytes += grows
            if self._writer_waits:
                self._writer_waits = False
                self._changed.notify_all()
            return True

    def find(self, entry_id: bytes) -> Write | None:
        return self.fresh.get(entry_id) or self.taken.get(entry_id)

    def drop(self, matches: Callable[[bytes, Write], bool], is_void: Callable[[bytes, Write], bool]) -> set[bytes]:
        """Forget the writes that match and are not with the writer yet; ids of those that were not void already.

        They become removals: just taken away, they would bring back the committed entries that they replaced.
        """
        with self._changed:
            gone = {entry_id: write for entry_id, write in self.fresh.items() if matches(entry_id, write)}
            void = {entry_id for entry_id, write in gone.items() if is_void(entry_id, write)}
            for entry_id, write in gone.items():
                self._fresh_bytes -= write.size
                if entry_id in void:
                    del self.fresh[entry_id]
                else:
                    self.fresh[entry_id] = Write(None, 0, ENTRY_OVERHEAD)
                    self._fresh_bytes += ENTRY_OVERHEAD
            return gone.keys() - void

    def hurry(self) -> None:
        """Wake the writer now."""
        with self._changed:
            self._urgent = True
            self._changed.notify_all()

    def close(self) -> None:
        self.closed = True
        self.hurry()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was added before is settled; whether it is (`timeout` in seconds)."""
        with self._changed:
            target = self._generation if self.fresh else self._generation - 1
            self._urgent = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._settled >= target or not (self.fresh or self.taken), timeout)

    def wait(self, idle: float, group: float) -> None:
        """For the writer: until something is to be written, at most `idle` seconds, and `group` seconds more for others
        to join it; not at all when hurried."""
        with self._changed:
            if not self.fresh and not self._urgent:
                self._writer_waits = True
                self._changed.wait(idle)
                self._writer_waits = False
            if self.fresh and not self._urgent:
                self._changed.wait(group)
            self._urgent = False

    def take(self) -> dict[bytes, Write]:
        """For the writer: all fresh writes, oldest first."""
        with self._changed:
            if not self.fresh:
                return {}
            self.taken, self._taken_bytes = self.fresh, self._fresh_bytes
            self.fresh, self._fresh_bytes = {}, 0
            self._generation += 1
            return self.taken

    def settle(self) -> None:
        """For the writer: what was taken is committed, or lost for good."""
        with self._changed:
            self.taken, self._taken_bytes = {}, 0
            self._settled = self._generation - 1
            self._changed.notify_all()
