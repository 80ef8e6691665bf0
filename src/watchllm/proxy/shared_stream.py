"""A stream as several readers share it: whole events, with and without the usage that only some asked for."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from watchllm.domain.usage import TokenUsage
from watchllm.providers.dialect import Assembler
from watchllm.providers.openai.strip_usage import without_usage
from watchllm.wire.sse import EventScanner, event_data

# Beyond this a stream can no longer be joined, and is kept only as far as its slowest reader lags behind.
JOINABLE_BYTES = 1024 * 1024
# How far that may be, where others read on.
MAX_LAG_BYTES = 8 * 1024 * 1024
_READ_BYTES = 65_536
# As many bytes a piece takes at least, as an object.
_LEAST = 128


class Piece(NamedTuple):
    """Some events as the provider sent them, and as they are without usage that was not asked for (maybe empty)."""

    full: bytes
    without_usage: bytes


class SharedStream:
    """Pieces are numbered from 0; those from `first` to `end` are held.

    `has_usage`: upstream was asked for usage, by the client or by the gateway, so it has to be taken out for those who
    did not ask. `ended` says how the stream ended, None = it goes on.
    """

    def __init__(self, assembler: Assembler, *, has_usage: bool) -> None:
        self._assembler = assembler
        self._scanner = EventScanner()
        self._pieces: deque[Piece] = deque()
        self._held = 0
        self._total = 0
        self.has_usage = has_usage
        self.first = 0
        self.ended: str | None = None

    @property
    def end(self) -> int:
        return self.first + len(self._pieces)

    @property
    def whole(self) -> bool:
        """Whether everything since the first byte is held."""
        return self.first == 0 and self._total <= JOINABLE_BYTES

    @property
    def overfull(self) -> bool:
        return self._held > MAX_LAG_BYTES

    @property
    def usage(self) -> TokenUsage | None:
        """What the provider reported."""
        return self._assembler.usage

    @property
    def error(self) -> Any:
        """The error that came inside the stream."""
        return self._assembler.error

    @property
    def ends_well(self) -> bool:
        """Whether the stream came to its own end marker, or to an error that the provider itself told."""
        return self._assembler.error is not None or self._assembler.done

    def usage_so_far(self) -> TokenUsage | None:
        """What a stream that was broken off has used, as far as the provider told."""
        return self._assembler.usage

    def completion(self) -> bytes | None:
        """The whole answer in non-streamed form, where it is complete."""
        return self._assembler.result()

    def feed(self, data: bytes) -> Piece | None:
        """The events that `data` completes. Raises BadMessage when one is too large."""
        return self._piece(self._scanner.feed(data))

    def finish(self) -> Piece | None:
        """What came after the last complete event."""
        rest = self._scanner.rest()
        return self._piece([rest]) if rest else None

    def append(self, piece: Piece) -> None:
        self._pieces.append(piece)
        size = _size_of(piece)
        self._held += size
        self._total += size

    def read(self, position: int, *, include_usage: bool) -> tuple[bytes, int]:
        """The bytes from piece `position` on, about 64 KiB at most, and the position after them."""
        parts = []
        size = 0
        while position < self.end and size < _READ_BYTES:
            piece = self._pieces[position - self.first]
            part = self.as_shown(piece, include_usage=include_usage)
            parts.append(part)
            size += len(part)
            position += 1
        return parts[0] if len(parts) == 1 else b"".join(parts), position

    def as_shown(self, piece: Piece, *, include_usage: bool) -> bytes:
        """The bytes of one piece for a reader that did or did not ask for usage; maybe empty."""
        return piece.full if include_usage or not self.has_usage else piece.without_usage

    def trim(self, position: int) -> None:
        """Forget what all readers have, once the stream is too long to be joined."""
        if self._total <= JOINABLE_BYTES:
            return
        while self.first < position and self._pieces:
            self._held -= _size_of(self._pieces.popleft())
            self.first += 1

    def _piece(self, events: list[bytes]) -> Piece | None:
        if not events:
            return None
        for event in events:
            data = event_data(event)
            if data is not None:
                self._assembler.feed(data)
        full = events[0] if len(events) == 1 else b"".join(events)
        if not self.has_usage or b'"usage"' not in full:
            return Piece(full, full)
        return Piece(full, b"".join([without_usage(event) for event in events]))


def _size_of(piece: Piece) -> int:
    size = len(piece.full)
    return max(_LEAST, size)
