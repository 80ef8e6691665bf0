"""Billable requests and nano-dollars, summed up by who they are of and by day."""

from __future__ import annotations

from collections.abc import Callable

from watchllm.domain.billable import counts
from watchllm.domain.usage_event import UsageEvent

_DAY_NS = 86_400_000_000_000


class Sums:
    """Of some keys, projects and organizations, by number of the day since 1970."""

    def __init__(self, subjects: set[str], organization_of: Callable[[str], str | None]) -> None:
        self.days: dict[str, dict[int, list[int]]] = {subject: {} for subject in subjects}
        self._organization_of = organization_of

    def add(self, event: UsageEvent) -> None:
        requests, nanos = counts(event), event.cost or 0
        if requests or nanos:
            day = day_of(event)
            for subject in (event.key_id, event.project_id, self._organization_of(event.project_id)):
                self._add(subject, day, requests, nanos)

    def add_all(self, those: Everybodys) -> None:
        """What has been summed up of everybody, as far as it concerns these."""
        for day, spent in those.keys.items():
            for subject in self.days.keys() & spent.keys():
                self._add(subject, day, *spent[subject])
        for day, spent in those.projects.items():
            for project, (requests, nanos) in spent.items():
                self._add(project, day, requests, nanos)
                self._add(self._organization_of(project), day, requests, nanos)

    def _add(self, subject: str | None, day: int, requests: int, nanos: int) -> None:
        days = self.days.get(subject) if subject is not None else None
        if days is not None:
            sums = days.setdefault(day, [0, 0])
            sums[0] += requests
            sums[1] += nanos


class Everybodys:
    """Of all keys and projects that there are, by day and then by id. `size` is how many sums it holds."""

    def __init__(self) -> None:
        self.keys: dict[int, dict[str, list[int]]] = {}
        self.projects: dict[int, dict[str, list[int]]] = {}

    def add(self, event: UsageEvent) -> None:
        requests, nanos = counts(event), event.cost or 0
        if requests or nanos:
            day = day_of(event)
            _add(self.keys.setdefault(day, {}), event.key_id, requests, nanos)
            _add(self.projects.setdefault(day, {}), event.project_id, requests, nanos)

    def merge(self, other: Everybodys) -> None:
        for mine, others in ((self.keys, other.keys), (self.projects, other.projects)):
            for day, spent in others.items():
                here = mine.setdefault(day, {})
                for name, (requests, nanos) in spent.items():
                    _add(here, name, requests, nanos)

    @property
    def size(self) -> int:
        return sum(map(len, self.keys.values())) + sum(map(len, self.projects.values()))


def day_of(event: UsageEvent) -> int:
    """The number of the day that an event counts for."""
    return max(event.at_ns, 0) // _DAY_NS


def _add(spent: dict[str, list[int]], name: str, requests: int, nanos: int) -> None:
    sums = spent.get(name)
    if sums is None:
        spent[name] = [requests, nanos]
    else:
        sums[0] += requests
        sums[1] += nanos
