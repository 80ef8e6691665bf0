"""A segment being written: a file of fixed size, allocated beforehand and mapped into memory.

A record is in the page cache as soon as it is copied into the map: it survives the death of the process without a
system call. The blocks are allocated first, because a full disk would otherwise show itself as SIGBUS.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from watchllm.journal.records import ALIGNMENT, FIRST_RECORD, SEAL, SegmentHeader, head_of

if TYPE_CHECKING:
    from watchllm.domain.paths import StrPath

_ZEROS = bytes(1 << 18)
_NAME, _DRAFT = ".seg", ".new"
_GRACE_SECONDS = 3.0


class Segment:
    """One file of a series. `position` is where the next record goes; what is before `synced` survives a power loss;
    `gone_since` (`time.monotonic`) is when its name was first missed."""

    __slots__ = ("descriptor", "gone_since", "map", "path", "position", "sequence", "size", "synced")

    def __init__(self, folder: StrPath, header: SegmentHeader, size: int) -> None:
        """Make, allocate and map the file. Raises OSError, and leaves no file then."""
        self.path = segment_path(folder, header.series, header.sequence)
        self.sequence = header.sequence
        self.size = size
        self.position = FIRST_RECORD
        self.synced = 0
        self.gone_since = 0.0
        # Under a name of its own until the header is in it: the recorder never meets a segment without one.
        draft = self.path.removesuffix(_NAME) + _DRAFT
        self.descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _allocate(self.descriptor, size)
            self.map = mmap.mmap(self.descriptor, size)
            self.map[:FIRST_RECORD] = head_of(header)
            os.rename(draft, self.path)
        except BaseException:
            os.close(self.descriptor)
            remove_file(draft)
            raise

    @property
    def limit(self) -> int:
        """Records end here: behind them is room for the seal."""
        return self.size - ALIGNMENT

    @property
    def is_in_place(self) -> bool:
        """Whether the file is still there under its name. Raises OSError."""
        return is_same(self.path, self.descriptor)

    def seal(self) -> None:
        """Say that nothing more comes here."""
        self.map[self.position : self.position + ALIGNMENT] = SEAL
        self.position += ALIGNMENT

    def sync(self) -> None:
        """Bring what was written so far to the disk; for a thread that may wait. Raises OSError."""
        position = self.position
        if position > self.synced:
            # Not mmap.flush, which would hold the interpreter while the disk works.
            _sync(self.descriptor)
            self.synced = position

    def content(self) -> bytes:
        """All that was written, header and seal included; also when the file has lost its name."""
        if not self.map.closed:
            return self.map[: self.position]
        return os.pread(self.descriptor, self.position, 0)

    def unmap(self) -> None:
        """Give the address space back; the file stays open, to be rescued from. Harmless when done already."""
        self.map.close()

    def close(self, *, keep: bool = True) -> None:
        """Close the file and give back what was allocated and not used; without `keep` it is removed."""
        self.unmap()
        try:
            if keep:
                os.ftruncate(self.descriptor, self.position)
            elif self.is_in_place:
                remove_file(self.path)
        finally:
            os.close(self.descriptor)


class SealedSegments:
    """A series' segments that nothing more comes to: held open until they are synced and the recorder removed them, so
    that they can be written anew when somebody else removes them. For one thread at a time."""

    def __init__(self) -> None:
        self._held: list[Segment] = []

    def __iter__(self) -> Iterator[Segment]:
        return iter(list(self._held))

    def add(self, segment: Segment) -> None:
        """Seal and hold it."""
        segment.seal()
        self._held.append(segment)

    def rescue(self) -> None:
        """Write what has lost its name anew. Raises OSError."""
        for segment in self:
            if not segment.is_in_place:
                write_whole(segment.path, segment.content())
                self._let_go(segment)

    def release(self) -> None:
        """Unmap what is synced; let go of what the recorder has removed. Raises OSError."""
        for segment in self:
            if segment.synced == segment.position:
                segment.unmap()
            if segment.is_in_place:
                continue
            # By the recorder, or by somebody who is removing the whole folder right now: that shows in a moment.
            segment.gone_since = segment.gone_since or time.monotonic()
            if time.monotonic() - segment.gone_since > _GRACE_SECONDS:
                segment.unmap()
                self._let_go(segment)

    def close(self) -> None:
        for segment in self:
            self._let_go(segment)

    def _let_go(self, segment: Segment) -> None:
        os.close(segment.descriptor)
        self._held.remove(segment)


def segment_path(folder: StrPath, series: str, sequence: int) -> str:
    return os.path.join(folder, f"{series}-{sequence:08d}{_NAME}")


def remove_file(path: str) -> None:
    """Remove a file unless it is gone already. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # It was to be gone.


def is_same(path: StrPath, descriptor: int) -> bool:
    """Whether the open file is still the one under this name: its folder may have been removed. Raises OSError."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    ours = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)


def write_whole(path: str, content: bytes) -> None:
    """Put a segment's content under its name, whole or not at all. Raises OSError."""
    draft = path.removesuffix(_NAME) + _DRAFT
    with open(draft, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)


_sync = getattr(os, "fdatasync", os.fsync)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):  # macOS has none
        os.posix_fallocate(descriptor, 0, size)
    # Pages that are in the cache already cost the event loop a fifth of those that it has to fault in.
    for start in range(0, size, len(_ZEROS)):
        os.pwrite(descriptor, _ZEROS[: min(len(_ZEROS), size - start)], start)
