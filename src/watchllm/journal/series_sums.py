"""What the records of one series say was spent, remembered in pieces, so that each record is read about once.

A piece is a stretch of the series and the sums of everybody in it. The recorder moves the place from which on is
counted to any record; then the one piece in which that lies is read again from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from watchllm.domain.usage_event import OpenedCall, UsageEvent
from watchllm.journal.records import FIRST_RECORD, OPENED, SETTLED, Record, is_known, next_frame, read_segment
from watchllm.journal.recovery import aborted
from watchllm.journal.segment import segment_path
from watchllm.journal.sums import Everybodys, Sums

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

MOST_SUMS = 50_000
"""How many sums are remembered, some 300 bytes each; a series that has more of them is read each time."""

_MOST_PIECES = 32
_STEP_BYTES = 256 << 10

_decode_settled = msgspec.msgpack.Decoder(UsageEvent).decode
_decode_opened = msgspec.msgpack.Decoder(OpenedCall).decode


class At(NamedTuple):
    """A place in a series: a segment's number and an offset in it."""

    sequence: int
    offset: int


class Files(NamedTuple):
    """A series as it lies in its folder: the numbers of its segments, ascending."""

    folder: StrPath
    name: str
    sequences: list[int]


class _Step(NamedTuple):
    sequence: int
    records: list[Record]
    start: At
    end: At
    is_sound: bool
    """Nothing before its end can still change."""


class _Piece:
    def __init__(self, start: At) -> None:
        self.start = start
        self.end = start
        self.size = 0
        """Records, the ones of no interest included."""
        self.sums = Everybodys()


class SeriesSums:
    """The sums of one series. Not for several threads."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._opened: dict[str, list[tuple[At, OpenedCall]]] = {}
        self._piece_records = 1 << 10
        self._too_many_up_to = At(-1, 0)

    def count(self, files: Files, start: At, stop: At | None, into: Sums, *, ended: bool) -> None:
        """Add what was spent from `start` up to `stop` (None = all that is there); of a series that has `ended`, what
        it left open as it will be closed. Raises OSError; FileNotFoundError where a segment is gone."""
        if start < self._too_many_up_to:
            self._read_through(files, start, stop, into, ended=ended)
            return
        self._begin_at(files, start)
        rest = self._read_on(files, stop)
        if rest is None:
            self.forget()
            self._read_through(files, start, stop, into, ended=ended)
            return
        opened = self._opened
        for piece in self._pieces:
            if stop is None or piece.end <= stop:
                into.add_all(piece.sums)
            elif piece.start < stop:
                # Who asked before somebody else did, and waited longer.
                for step in _steps(files, piece.start, stop):
                    _take(step, into, None)
        if rest:
            opened = {name: list(calls) for name, calls in opened.items()}
        for step in rest:  # a step at a time: it can be nearly all of the journal
            _take(step, into, opened)
        if ended:
            _close(opened, into)

    def forget(self) -> None:
        """Remember nothing."""
        self._pieces = []
        self._opened = {}

    @property
    def size(self) -> int:
        return sum(piece.sums.size for piece in self._pieces)

    def _begin_at(self, files: Files, start: At) -> None:
        """Have the first piece begin there."""
        pieces = self._pieces
        if not pieces or not pieces[0].start <= start <= pieces[-1].end:
            self.forget()
            self._pieces = [_Piece(start)]
            return
        self._pieces = [piece for piece in pieces if piece.end > start] or [_Piece(start)]
        self._opened = {
            name: kept
            for name, calls in self._opened.items()
            if (kept := [(at, call) for at, call in calls if at >= start])
        }
        first = self._pieces[0]
        if first.start < start:
            anew = _Piece(start)
            for step in _steps(files, start, first.end):
                _take(step, anew.sums, None)
                anew.size += len(step.records)
            anew.end = first.end
            self._pieces[0] = anew

    def _read_on(self, files: Files, stop: At | None) -> Iterable[_Step] | None:
        """Remember what is new, up to where it can still change; what is after that, yet to be read, or (). None = it
        is too much."""
        steps = _steps(files, self._pieces[-1].end, stop)
        for step in steps:
            if not step.is_sound:
                return chain((step,), steps)
            if self._pieces[-1].size >= self._piece_records:
                self._pieces.append(_Piece(step.start))
            piece = self._pieces[-1]
            # Who says where to stop has not ended.
            _take(step, piece.sums, self._opened if stop is None else None)
            piece.size += len(step.records)
            piece.end = step.end
            if not self._is_bounded():
                self._too_many_up_to = step.end
                return None
        return ()

    def _is_bounded(self) -> bool:
        while len(self._pieces) > 1 and (len(self._pieces) > _MOST_PIECES or self.size > MOST_SUMS):
            self._piece_records *= 2
            self._pieces = [_merged(self._pieces[index : index + 2]) for index in range(0, len(self._pieces), 2)]
        return self.size + len(self._opened) <= MOST_SUMS

    def _read_through(self, files: Files, start: At, stop: At | None, into: Sums, *, ended: bool) -> None:
        opened: dict[str, list[tuple[At, OpenedCall]]] = {}
        for step in _steps(files, start, stop):
            _take(step, into, opened)
        if ended:
            _close(opened, into)


def _merged(pieces: list[_Piece]) -> _Piece:
    first = pieces[0]
    for piece in pieces[1:]:
        first.sums.merge(piece.sums)
        first.size += piece.size
        first.end = piece.end
    return first


def _steps(files: Files, start: At, stop: At | None) -> Iterator[_Step]:
    """What is in a series from `start` up to `stop`, some hundred kilobytes at a time, damage left out."""
    is_sound = True
    at = start
    for sequence in files.sequences:
        if sequence < start.sequence or (stop is not None and sequence > stop.sequence):
            continue
        path = segment_path(files.folder, files.name, sequence)
        offset = start.offset if sequence == start.sequence else FIRST_RECORD
        bound = stop.offset if stop is not None and sequence == stop.sequence else None
        while bound is None or offset < bound:
            reading = read_segment(path, offset, limit=_STEP_BYTES)
            records = reading.records
            if bound is not None and reading.next_offset > bound:
                records = [record for record in records if record.offset < bound]
            is_over = not records or reading.torn or reading.sealed
            end = At(sequence + 1, FIRST_RECORD) if reading.sealed else At(sequence, reading.next_offset)
            if bound is not None:
                end = min(end, At(sequence, bound))
            if records or reading.sealed:
                yield _Step(sequence, records, at, end, is_sound)
            at, offset = end, reading.next_offset
            if reading.torn and (bound is None or offset < bound):
                # It may not be whole yet as we see it.
                is_sound = False
                after = next_frame(path, offset)
                if after is None:
                    break
                offset = after
            elif is_over:
                break
        else:
            continue
        is_sound = is_sound and reading.sealed


def _take(step: _Step, into: Sums | Everybodys, opened: dict[str, list[tuple[At, OpenedCall]]] | None) -> None:
    """Add what was spent in a step, and note which calls are open after it."""
    for record in step.records:
        if not is_known(record.tag):
            continue
        try:
            if record.kind == SETTLED:
                event = _decode_settled(record.payload)
                into.add(event)
                if opened:
                    opened.pop(event.request_id, None)
            elif record.kind == OPENED and opened is not None:
                call = _decode_opened(record.payload)
                opened.setdefault(call.request_id, []).append((At(step.sequence, record.offset), call))
        except msgspec.MsgspecError:
            pass  # The recorder sets it aside and tells the operator.


def _close(opened: dict[str, list[tuple[At, OpenedCall]]], into: Sums) -> None:
    for calls in opened.values():
        into.add(aborted([call for _, call in calls]))
