"""What this process knows of invalidations, and since when: see `stores.redis.cache_layout`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from watchllm.cache.entry import InvalidationFilter
from watchllm.stores.redis.cache_layout import KEPT_MS, Record

MOST_RECORDS = 256
"""Of a project; whatever is looked up is compared with all of them."""

_MOST_MOMENTS = 4096
_MOST_PROJECTS = 20_000


class Generations:
    """Times in epoch milliseconds of this host, which are only compared with each other."""

    def __init__(self) -> None:
        self.latest = 0
        self._moments: list[tuple[int, int]] = []
        self._records: dict[bytes, tuple[int, tuple[Record, ...]]] = {}

    def learn(self, generation: int, now_ms: int) -> None:
        """`generation` has been given out: what begins after now begins after it."""
        if generation > self.latest:
            self.latest = generation
            if self._moments and now_ms < self._moments[-1][0]:
                # The clock was set back: what is known of earlier moments would be wrong for those to come.
                self._moments.clear()
            self._moments.append((now_ms, generation))
            del self._moments[:-_MOST_MOMENTS]

    def at(self, begun_ms: int) -> int:
        """The highest that was known before `begun_ms`; 0 = none."""
        place = bisect_left(self._moments, (begun_ms, 0))
        return self._moments[place - 1][1] if place else 0

    def known(self, project: bytes) -> int | None:
        """Up to which generation the project's records are known; None = nothing is known of it."""
        found = self._records.get(project)
        return None if found is None else found[0]

    def replace(self, project: bytes, generation: int, records: Iterable[Record], now_ms: int) -> tuple[Record, ...]:
        """All of a project's records as Redis has them; what was known and it has lost stays, as long as Redis would
        have kept it. Those that are new."""
        before, told = self.of(project), tuple(records)
        fresh = tuple(record for record in told if record not in before)
        over = self.at(now_ms - KEPT_MS)
        kept = tuple(record for record in before if record.generation > over or record in told)
        self._keep(project, generation, (*kept, *fresh))
        return fresh

    def add(self, project: bytes, record: Record) -> None:
        """One more, heard of by a message: whether it is the next one is not known."""
        known, records = self._records.get(project, (-1, ()))
        if record not in records:
            self._keep(project, known, (*records, record))

    def of(self, project: bytes) -> tuple[Record, ...]:
        found = self._records.get(project)
        return () if found is None else found[1]

    def voids(
        self,
        project: bytes,
        generation: int,
        model: str,
        kind: str,
        created_ms: int,
        key: bytes | None = None,
        source: str | None = None,
    ) -> bool:
        """Whether a known invalidation voids the answer of a call that began in `generation`."""
        return any(record.voids(generation, model, kind, created_ms, key, source) for record in self.of(project))

    def forget(self) -> None:
        """Messages may have been missed: of every project the records are read again before they are relied on."""
        self._records = {project: (-1, records) for project, (_, records) in self._records.items() if records}

    def _keep(self, project: bytes, known: int, records: tuple[Record, ...]) -> None:
        if len(self._records) >= _MOST_PROJECTS and project not in self._records:
            self._records.clear()
        if len(records) > MOST_RECORDS:
            # As in Redis: the older half becomes one that refuses more, which costs misses.
            ordered = sorted(records, key=lambda record: record.generation)
            older, newer = ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]
            records = (Record(older[-1].generation, InvalidationFilter()), *newer)
        self._records[project] = known, records

    def restart(self) -> None:
        """Redis counts from the beginning again: what it had is gone, and numbers known so far mean nothing to it."""
        self.latest = 0
        self._moments.clear()
        self._records.clear()
