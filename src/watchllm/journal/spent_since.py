"""What the journals of a host say was spent, beyond what the ledger has counted already."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from watchllm.domain.ledger import LedgerReader, Periods, Place
from watchllm.journal import series
from watchllm.journal.records import FIRST_RECORD
from watchllm.journal.series_sums import MOST_SUMS, At, Files, SeriesSums
from watchllm.journal.sums import Sums

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

_TRIES = 20
_MOST_ORGANIZATIONS = 100_000


class NotYetKnown(Exception):
    """Who has spent what cannot be said now; the message is for the operator."""


class End(NamedTuple):
    """Up to where this process's own series is to be counted."""

    series: str
    place: Place


class SpentSince:
    """Reads the ledger and the journals in `folder` for one process, and remembers of them what the next question
    would need read again. Safe to use from several threads; they wait for each other.

    `organization_of` names a project's organization, which it keeps for good; None = it is not known now.
    """

    def __init__(self, ledger: LedgerReader, folder: StrPath, organization_of: Callable[[str], str | None]) -> None:
        self._ledger = ledger
        self._folder = folder
        self._ask_organization = organization_of
        self._organizations: dict[str, str] = {}
        self._sums: dict[str, SeriesSums] = {}
        self._lock = Lock()

    def up_to(self, end: End, subjects: list[str], *, patient: bool) -> tuple[dict[str, Periods], Sums]:
        """What the ledger says of each of `subjects`, and what has to be added to that. For a thread: it reads files.

        Other series are counted to their ends, and what one that has ended left open as the recorder will close it; who
        is `patient` has the recorder do that. Raises NotYetKnown, OSError.
        """
        with self._lock:
            for _ in range(_TRIES):
                found = self._ledger.read(subjects)
                if found is None:
                    raise NotYetKnown("the recorder has not said yet who has spent what")
                told, places = found
                there = series.scan(self._folder)
                if patient and self._any_to_be_closed(there, places, end):
                    raise NotYetKnown("the recorder has still to close what a process left that has ended")
                sums = Sums(set(subjects), self._organization_of)
                try:
                    for name, sequences in series.scan(self._folder).items():
                        self._count(name, sequences, places.get(name), end, sums)
                except FileNotFoundError:
                    continue  # The recorder has counted more meanwhile, and removed it: begin from there.
                after = self._ledger.read([])
                if after is not None and self._removed_unread(places, after[1]):
                    continue
                self._keep_bounds()
                return told, sums
        raise NotYetKnown("the recorder is quicker than the journals can be read")

    def _any_to_be_closed(self, there: dict[str, list[int]], places: dict[str, Place], end: End) -> bool:
        return any(
            name != end.series
            and not (name in places and places[name].finished)
            and not series.is_live(self._folder, name)
            for name in there
        )

    def _removed_unread(self, before: dict[str, Place], after: dict[str, Place]) -> bool:
        """Whether a series may have been removed before it was seen: it moved on, and is no longer there."""
        moved = [name for name, place in after.items() if before.get(name) != place]
        return bool(moved) and not set(moved) <= series.scan(self._folder).keys()

    def _count(self, name: str, sequences: list[int], counted: Place | None, end: End, into: Sums) -> None:
        if counted is not None and counted.finished:
            return
        is_own = name == end.series
        ended = not is_own and not series.is_live(self._folder, name)
        if ended:
            # Asked again: it may have begun a segment before it ended.
            sequences = series.scan(self._folder).get(name, sequences)
        start = At(0, FIRST_RECORD) if counted is None else At(counted.sequence, counted.offset)
        if counted is not None and sequences and sequences[0] > start.sequence:
            raise FileNotFoundError(name)
        stop = At(end.place.sequence, end.place.offset) if is_own else None
        sums = self._sums.setdefault(name, SeriesSums())
        sums.count(Files(self._folder, name, sequences), start, stop, into, ended=ended)

    def _keep_bounds(self) -> None:
        """Forget series that are gone, and those that hold most where all together hold too much."""
        there = series.scan(self._folder)
        self._sums = {name: sums for name, sums in self._sums.items() if name in there}
        sizes = sorted((sums.size, name) for name, sums in self._sums.items())
        total = sum(size for size, _ in sizes)
        while total > MOST_SUMS:
            size, name = sizes.pop()
            del self._sums[name]
            total -= size

    def _organization_of(self, project_id: str) -> str | None:
        found = self._organizations.get(project_id)
        if found is None:
            found = self._ask_organization(project_id)
            if found is not None:
                if len(self._organizations) >= _MOST_ORGANIZATIONS:
                    self._organizations.clear()
                self._organizations[project_id] = found
        return found
