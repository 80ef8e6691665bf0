"""The recorder: brings every journal of a host into the database, each record exactly once.

How far a series was applied is written in the transaction that writes its rows, so that a kill at any moment repeats
nothing and leaves nothing out; files are removed only after that transaction. A series whose process has ended is
read to its end, and its calls that never settled are closed as `aborted`.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import msgspec

from watchllm.domain.ledger import Periods
from watchllm.domain.usage_event import OpenedCall, UsageEvent
from watchllm.journal import series as files
from watchllm.journal.records import (
    FIRST_RECORD,
    MAGIC,
    OPENED,
    SETTLED,
    Record,
    is_known,
    next_frame,
    read_header,
    read_segment,
)
from watchllm.journal.segment import segment_path

BATCH_BYTES = 2 << 20
DAY_MS = 86_400_000
DAMAGE_TAG = 0
_PATIENCE_SECONDS = 2.0
_VANISHED_SECONDS = 60.0
_MAX_DAMAGE_KEPT = 1 << 20

# A text that is not UTF-8 is an error of another kind.
_NOT_UNDERSTOOD = (msgspec.MsgspecError, UnicodeDecodeError)

_decode_settled = msgspec.msgpack.Decoder(UsageEvent).decode
_decode_opened = msgspec.msgpack.Decoder(OpenedCall).decode
_decode_any = msgspec.msgpack.Decoder().decode


class StoreUnavailable(Exception):
    """The database is locked or cannot be reached now; nothing was applied. The message is for the operator."""


class Position(NamedTuple):
    """How far a series was applied: all of earlier segments, and segment `sequence` up to `offset`."""

    sequence: int
    offset: int
    finished: bool = False


class SetAside(NamedTuple):
    """A record that this program cannot read, or (with DAMAGE_TAG) bytes that are no record."""

    series: str
    sequence: int
    offset: int
    tag: int
    region: str
    payload: bytes


class Batch:
    """What one transaction applies. `read_from` are the positions that those in `positions` go on from, None = the
    beginning; `torn` counts damaged places by series; `finished` series have their open calls closed; `unreadable` are
    the ids of requests whose end was set aside."""

    def __init__(self) -> None:
        self.settled: list[tuple[UsageEvent, str]] = []
        self.opened: list[tuple[str, str, OpenedCall]] = []
        self.unreadable: list[str] = []
        self.set_aside: list[SetAside] = []
        self.readable_now: list[SetAside] = []
        self.read_from: dict[str, Position | None] = {}
        self.positions: dict[str, Position] = {}
        self.torn: dict[str, int] = {}
        self.finished: list[str] = []
        self.size = 0


class Retention(NamedTuple):
    """For how many whole days (UTC), today's not counted, rows are kept: of everything (None = for ever), and of
    projects where that is less."""

    days: int | None = None
    project_days: Mapping[str, int] = MappingProxyType({})

    def first_day(self, now_ms: int) -> int | None:
        """The oldest day that is kept, counted from 1970-01-01."""
        return None if self.days is None else now_ms // DAY_MS - self.days

    def first_days(self, now_ms: int) -> dict[str, int]:
        """The same of the projects that keep less."""
        return {project: now_ms // DAY_MS - days for project, days in self.project_days.items()}


class UsageStore(Protocol):
    """The database as the recorder uses it. Every method raises StoreUnavailable."""

    def positions(self) -> dict[str, Position]: ...

    def set_aside(self) -> list[SetAside]:
        """What was set aside as unreadable, damage left out."""
        ...

    def apply(self, batch: Batch) -> int:
        """Apply everything in one transaction: rows, rollups, open calls, positions; the number of rows written.

        A request that has a row already is not written again. Raises PositionsChanged (journal.restored), and applies
        nothing, where the database's positions are not those in `read_from`.
        """
        ...

    def expire(self, retention: Retention) -> bool:
        """Forget rows that are older, up to a bounded number of them; whether there is more to forget at once.

        Rollups are kept: invoices and long-term charts are made from them. So is what was spent, but for days and
        months that are long over (`analytics.spending`) and for who is not there any more.
        """
        ...

    def catch_up(self) -> bool:
        """Count in what was `spent` the rows of recorders of earlier versions, which do not; whether there was any.
        `positions` that were asked before it are then counted up to, whoever recorded."""
        ...

    def spent(self, subjects: Iterable[str] | None, periods: Iterable[str]) -> dict[str, Periods]:
        """What these keys, projects and organizations have spent in `periods`, None = all of them."""
        ...

    def organizations_of(self, projects: Iterable[str]) -> dict[str, str]:
        """By project, the organization that it belongs to; projects that are not known are left out."""
        ...


class Recorder:
    """Applies the journals in `folder` to `store`. Not for several threads; one per folder (see compose.recorder).

    `report` is told, once each, what an operator must know: damage, records set aside, journals that are too new.
    """

    def __init__(
        self,
        folder: Path,
        store: UsageStore,
        report: Callable[[str], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.applied = 0
        self.torn = 0
        self.set_aside = 0
        self.pending_bytes = 0
        self._folder = folder
        self._store = store
        self._report = report
        self._monotonic = monotonic
        self._positions: dict[str, Position] | None = None
        self._regions: dict[str, str | None] = {}
        self._damaged_since: dict[tuple[str, int, int], float] = {}
        self._missing_since: dict[str, float] = {}
        self._reported: set[str] = set()
        self._first = ""

    @property
    def positions(self) -> dict[str, Position]:
        """How far each series was applied, as this recorder believes; empty where it will ask."""
        return self._positions or {}

    def run_once(self) -> bool:
        """Apply what there is, up to a batch's size; whether there is more to do at once.

        Raises StoreUnavailable (nothing was applied; call again) and OSError.
        """
        try:
            return self._apply_once()
        except StoreUnavailable:
            # What the database holds is asked anew: a commit may have succeeded without our knowing.
            self._positions = None
            raise

    def _apply_once(self) -> bool:
        if self._positions is None:
            self._positions = self._store.positions()
            self._take_back()
        found = files.scan(self._folder)
        batch = Batch()
        notes: list[str] = []
        more = False
        for name in self._in_turn(found):
            if batch.size >= BATCH_BYTES:
                self._first, more = name, True
                break
            more |= self._read_series(name, found, batch, notes)
        self._close_vanished(found, batch, notes)
        if batch.positions or batch.finished:
            self.applied += self._store.apply(batch)
            self._positions.update(batch.positions)
            self.torn += sum(batch.torn.values())
            self.set_aside += len(batch.set_aside)
        for note in notes:
            self._report(note)
        self._remove_applied(found)
        self.pending_bytes = 0 if not more else sum(_size(self._folder, name, found[name]) for name in found)
        return more

    def _in_turn(self, found: dict[str, list[int]]) -> list[str]:
        """All series, beginning with the one that did not fit into the last batch: none is starved."""
        names = sorted(found)
        start = next((index for index, name in enumerate(names) if name >= self._first), 0)
        self._first = ""
        return names[start:] + names[:start]

    def _read_series(self, name: str, found: dict[str, list[int]], batch: Batch, notes: list[str]) -> bool:
        """Add what is new in a series to the batch; whether the batch's size cut it short."""
        assert self._positions is not None
        # Asked before reading: what a process wrote before it ended is then certainly seen.
        live = files.is_live(self._folder, name)
        before = self._positions.get(name)
        if before is not None and before.finished and not live:
            return False
        if not live:
            # It may have begun one more segment since the folder was looked at.
            found[name] = files.scan(self._folder).get(name, found[name])
        sequences = found[name]
        position = Position(sequences[0] if sequences else 0, FIRST_RECORD) if before is None else before
        position = position._replace(finished=False)
        first = max(1, 0 if before is None else before.sequence)
        if sequences and first < sequences[0]:
            notes.append(
                f"journal {name}: nothing says that all before segment {sequences[0]} was recorded, and it is there no "
                "more; what the database lacks of it is lost"
            )
        cut = False
        while True:
            if position.sequence not in sequences:
                later = next((number for number in sequences if number > position.sequence), None)
                if later is None:
                    break
                position = Position(later, FIRST_RECORD)
            path = Path(segment_path(self._folder, name, position.sequence))
            region = self._region(name, path)
            if region is None:
                self._report_once(f"{path.name} was written by a newer version; it is left for that version's recorder")
                return False
            reading = read_segment(path, position.offset, limit=max(BATCH_BYTES - batch.size, 1))
            for record in reading.records:
                self._take(name, position.sequence, region, record, batch, notes)
            batch.size += reading.next_offset - position.offset
            position = position._replace(offset=reading.next_offset)
            if reading.torn:
                after = self._skip_damage(name, position, region, path, batch, notes, live=live)
                if after is None:
                    break
                position = position._replace(offset=after)
                continue
            if batch.size >= BATCH_BYTES and not reading.sealed:
                cut = True
                break
            if not reading.sealed and (live or position.sequence == sequences[-1]):
                break
            position = Position(position.sequence + 1, FIRST_RECORD)
        if not live and not cut:
            position = position._replace(finished=True)
            batch.finished.append(name)
        if position != before:
            batch.read_from[name] = before
            batch.positions[name] = position
        return cut

    def _take(self, name: str, sequence: int, region: str, record: Record, batch: Batch, notes: list[str]) -> None:
        if is_known(record.tag):
            try:
                if record.kind == SETTLED:
                    batch.settled.append((_decode_settled(record.payload), region))
                    return
                if record.kind == OPENED:
                    batch.opened.append((name, region, _decode_opened(record.payload)))
                    return
            except _NOT_UNDERSTOOD as error:
                notes.append(
                    f"journal {name}: a record of segment {sequence} cannot be understood ({error}); set aside"
                )
        else:
            notes.append(
                f"journal {name}: a record of kind {record.kind}, version {record.version} is newer than this program; "
                "set aside until a newer one runs"
            )
        batch.set_aside.append(SetAside(name, sequence, record.offset, record.tag, region, record.payload))
        request_id = _request_id(record.payload)
        if request_id is not None and record.kind != OPENED:
            batch.unreadable.append(request_id)

    def _skip_damage(
        self, name: str, position: Position, region: str, path: Path, batch: Batch, notes: list[str], *, live: bool
    ) -> int | None:
        """Where to go on behind damage, which is set aside; None = not yet."""
        if live:
            # Another processor's write may not be whole yet as we see it.
            key = (name, position.sequence, position.offset)
            since = self._damaged_since.setdefault(key, self._monotonic())
            if self._monotonic() - since < _PATIENCE_SECONDS:
                return None
        after = next_frame(path, position.offset)
        if after is None and live:
            return None
        size = path.stat().st_size
        end = size if after is None else after
        with path.open("rb") as file:
            file.seek(position.offset)
            damage = file.read(min(end - position.offset, _MAX_DAMAGE_KEPT)).rstrip(b"\0")
        batch.set_aside.append(SetAside(name, position.sequence, position.offset, DAMAGE_TAG, region, damage))
        batch.torn[name] = batch.torn.get(name, 0) + 1
        batch.size += end - position.offset
        notes.append(
            f"journal {name}: {len(damage)} bytes at {position.offset} of segment {position.sequence} are no record "
            "(torn by a power loss, or damaged); kept in journal_set_aside"
        )
        return end

    def _region(self, name: str, path: Path) -> str | None:
        """The region that a segment's header names, "" where the header is damaged; None = a newer format."""
        if name not in self._regions:
            header = read_header(path)
            if header is not None:
                self._regions[name] = header.region
            else:
                with path.open("rb") as file:
                    magic = file.read(len(MAGIC))
                is_newer = magic[:-1] == MAGIC[:-1] and magic != MAGIC
                self._regions[name] = None if is_newer else ""
        return self._regions[name]

    def _close_vanished(self, found: dict[str, list[int]], batch: Batch, notes: list[str]) -> None:
        """A series whose files somebody removed, and which no process has written anew, is over."""
        assert self._positions is not None
        now = self._monotonic()
        for name, position in self._positions.items():
            if name in found or position.finished:
                self._missing_since.pop(name, None)
            elif now - self._missing_since.setdefault(name, now) > _VANISHED_SECONDS:
                batch.finished.append(name)
                batch.read_from[name] = position
                batch.positions[name] = position._replace(finished=True)
                notes.append(f"journal {name}: its files are there no more; what was not recorded of it is lost")

    def _take_back(self) -> None:
        """Apply what an earlier version set aside and this one can read."""
        assert self._positions is not None
        readable = [record for record in self._store.set_aside() if is_known(record.tag)]
        batch = Batch()
        for item in readable:
            scratch, notes = Batch(), list[str]()
            self._take(
                item.series, item.sequence, item.region, Record(item.offset, item.tag, item.payload), scratch, notes
            )
            if not scratch.set_aside:
                batch.settled += scratch.settled
                batch.opened += scratch.opened
                batch.readable_now.append(item)
                position = self._positions.get(item.series)
                if scratch.opened and (position is None or position.finished):
                    batch.finished.append(item.series)
        if batch.readable_now:
            self.applied += self._store.apply(batch)

    def _remove_applied(self, found: dict[str, list[int]]) -> None:
        assert self._positions is not None
        for name, sequences in found.items():
            position = self._positions.get(name)
            if position is None:
                continue
            if position.finished:
                files.remove_series(self._folder, name, sequences)
                self._regions.pop(name, None)
            else:
                applied = [number for number in sequences if number < position.sequence]
                files.remove_segments(self._folder, name, applied)

    def _report_once(self, note: str) -> None:
        if note not in self._reported:
            self._reported.add(note)
            self._report(note)


def _request_id(payload: bytes) -> str | None:
    try:
        fields = _decode_any(payload)
    except _NOT_UNDERSTOOD:
        return None
    return fields[0] if type(fields) is list and fields and type(fields[0]) is str else None


def _size(folder: Path, name: str, sequences: list[int]) -> int:
    total = 0
    for sequence in sequences:
        try:
            total += os.stat(segment_path(folder, name, sequence)).st_size
        except FileNotFoundError:
            pass  # Removed a moment ago, as applied.
    return total
