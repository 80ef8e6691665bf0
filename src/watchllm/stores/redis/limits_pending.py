"""What one proxy has used of an organization's quotas and budgets that the database has not counted yet."""

from __future__ import annotations

from typing import NamedTuple

from watchllm.domain.ledger import Place
from watchllm.domain.money import Nanos
from watchllm.limits.spending import Moment
from watchllm.stores.redis.limits_layout import place_text

# Until the process ends: where its usage cannot be written down, it is never counted by the database before.
_NOWHERE = "}"
_MOST_SEGMENTS = 64
# Of all segments together, unless more keys and projects than that have used something.
_MOST_ROWS = 400
# As long as there are fewer, each use is a segment of its own: of several, the database may have counted some, and all
# of them count again until it has counted the last.
_MOST_FINE = 50


class Segment(NamedTuple):
    """What was used up to a place in this process's journal: nanos and requests by subject and time."""

    place: str
    used: dict[tuple[str, Moment], list[int]]


class Pending:
    """The segments of one organization, oldest first; those that are `fresh` were not told yet."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.fresh: list[Segment] = []

    @property
    def is_long(self) -> bool:
        """Whether the database is far behind."""
        return len(self.segments) > _MOST_SEGMENTS

    def book(self, name: str, at: Moment, nanos: Nanos, requests: int, place: Place | None) -> None:
        """Count what was used, which is in the journal before `place`, None = it could not be written yet."""
        ends = _NOWHERE if place is None else place_text(place)
        last = self.fresh[-1] if self.fresh else None
        if last is None or (last.place != ends and len(self.fresh) < _MOST_FINE):
            self.fresh.append(Segment(ends, {(name, at): [nanos, requests]}))
            return
        _add(last.used, (name, at), nanos, requests)
        if last.place != ends:
            self.fresh[-1] = Segment(max(ends, last.place), last.used)

    def seal(self) -> list[Segment]:
        """What was booked since the last time; it is told from now on."""
        fresh, self.fresh = self.fresh, []
        self.segments += fresh
        return fresh

    def merge(self) -> bool:
        """Make fewer of too many; whether there were: what was told of them is to be told anew."""
        has_merged = False
        while len(self.segments) > 1 and (len(self.segments) > _MOST_SEGMENTS + _MOST_FINE or self._has_many_rows()):
            self.segments = _merged(self.segments)
            has_merged = True
        return has_merged

    def _has_many_rows(self) -> bool:
        rows = sum(len(segment.used) for segment in self.segments)
        # Below half of that, the next few would be too many again.
        return rows > max(_MOST_ROWS, 2 * len({key for segment in self.segments for key in segment.used}))

    def count(self, place: str) -> None:
        """The database has counted what is up to `place`."""
        if self.segments and self.segments[0].place <= place:
            self.segments = [segment for segment in self.segments if segment.place > place]


def _merged(segments: list[Segment]) -> list[Segment]:
    """Half as many: each two as one that ends where the second does."""
    merged = []
    for first, second in zip(segments[::2], segments[1::2], strict=False):
        used = {key: list(sums) for key, sums in first.used.items()}
        for key, (nanos, requests) in second.used.items():
            _add(used, key, nanos, requests)
        merged.append(Segment(second.place, used))
    return merged + segments[len(segments) // 2 * 2 :]


def _add(used: dict[tuple[str, Moment], list[int]], key: tuple[str, Moment], nanos: Nanos, requests: int) -> None:
    sums = used.setdefault(key, [0, 0])
    sums[0] += nanos
    sums[1] += requests
