"""What the journals of a host say was spent, beyond what the ledger has counted already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from watchllm.domain.billable import counts
from watchllm.domain.ledger import LedgerReader, Periods, Place
from watchllm.domain.usage_event import OpenedCall, UsageEvent
from watchllm.journal import series as files
from watchllm.journal.records import FIRST_RECORD, OPENED, SETTLED, Record, is_known, next_frame, read_segment
from watchllm.journal.recovery import aborted
from watchllm.journal.segment import segment_path

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

_TRIES = 20
_DAY_NS = 86_400_000_000_000

_decode_settled = msgspec.msgpack.Decoder(UsageEvent).decode
_decode_opened = msgspec.msgpack.Decoder(OpenedCall).decode


class NotYetKnown(Exception):
    """Who has spent what cannot be said now; the message is for the operator."""


class End(NamedTuple):
    """Up to where this process's own series is to be counted."""

    series: str
    place: Place


class Sums:
    """Billable requests and nano-dollars of each subject by number of the day since 1970."""

    def __init__(self, subjects: set[str], organization_of: Callable[[str], str | None]) -> None:
        self.days: dict[str, dict[int, list[int]]] = {subject: {} for subject in subjects}
        self._organization_of = organization_of

    def add(self, event: UsageEvent) -> None:
        requests, nanos = counts(event), event.cost or 0
        if not requests and not nanos:
            return
        for subject in (event.key_id, event.project_id, self._organization_of(event.project_id)):
            days = self.days.get(subject) if subject is not None else None
            if days is not None:
                sums = days.setdefault(max(event.at_ns, 0) // _DAY_NS, [0, 0])
                sums[0] += requests
                sums[1] += nanos


def spent_up_to(
    end: End,
    subjects: list[str],
    ledger: LedgerReader,
    folder: StrPath,
    organization_of: Callable[[str], str | None],
    *,
    patient: bool,
) -> tuple[dict[str, Periods], Sums]:
    """What the ledger says of each of `subjects`, and what has to be added to that. For a thread: it reads files.

    Other series are counted to their ends, and what one that has ended left open as the recorder will close it; who is
    `patient` has the recorder do that. Raises NotYetKnown, OSError.
    """
    for _ in range(_TRIES):
        found = ledger.read(subjects)
        if found is None:
            raise NotYetKnown("the recorder has not said yet who has spent what")
        told, places = found
        sums = Sums(set(subjects), organization_of)
        if patient and any(
            name != end.series and not (name in places and places[name].finished) and not files.is_live(folder, name)
            for name in files.scan(folder)
        ):
            raise NotYetKnown("the recorder has still to close what a process left that has ended")
        try:
            for name, sequences in files.scan(folder).items():
                _read_series(name, sequences, places.get(name), end, folder, sums)
        except FileNotFoundError:
            continue  # The recorder has counted more meanwhile, and removed it: begin from there.
        after = ledger.read([])
        if after is not None and _removed_unread(places, after[1], folder):
            continue
        return told, sums
    raise NotYetKnown("the recorder is quicker than the journals can be read")


def _removed_unread(before: dict[str, Place], after: dict[str, Place], folder: StrPath) -> bool:
    """Whether a series may have been removed before it was seen: it moved on, and is no longer there."""
    moved = [name for name, place in after.items() if before.get(name) != place]
    return bool(moved) and not set(moved) <= files.scan(folder).keys()


def _read_series(name: str, sequences: list[int], counted: Place | None, end: End, folder: StrPath, sums: Sums) -> None:
    if counted is not None and counted.finished:
        return
    own = name == end.series
    live = own or files.is_live(folder, name)
    place = Place(0, FIRST_RECORD) if counted is None else counted
    open_calls: dict[str, list[OpenedCall]] = {}
    if counted is not None and sequences and sequences[0] > place.sequence:
        raise FileNotFoundError(name)
    for sequence in sequences:
        if sequence < place.sequence or (own and sequence > end.place.sequence):
            continue
        offset = place.offset if sequence == place.sequence else FIRST_RECORD
        stop = end.place.offset if own and sequence == end.place.sequence else None
        for record in _records(segment_path(folder, name, sequence), offset):
            if stop is not None and record.offset >= stop:
                break
            _count(record, sums, open_calls)
    if not live:
        for calls in open_calls.values():
            sums.add(aborted(calls))


def _records(path: str, offset: int) -> list[Record]:
    found: list[Record] = []
    while True:
        reading = read_segment(path, offset)
        found += reading.records
        if not reading.torn:
            return found
        after = next_frame(path, reading.next_offset)
        if after is None:
            return found
        offset = after


def _count(record: Record, sums: Sums, open_calls: dict[str, list[OpenedCall]]) -> None:
    if not is_known(record.tag):
        return
    try:
        if record.kind == SETTLED:
            event = _decode_settled(record.payload)
            open_calls.pop(event.request_id, None)
            sums.add(event)
        elif record.kind == OPENED:
            call = _decode_opened(record.payload)
            open_calls.setdefault(call.request_id, []).append(call)
    except msgspec.MsgspecError:
        pass  # The recorder sets it aside and tells the operator.
