"""The journal's folder as a reader sees it: which series there are, which of them live, and what may be removed."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING

from watchllm.journal.segment import remove_file, segment_path

if TYPE_CHECKING:
    from pathlib import Path

    from watchllm.domain.paths import StrPath

_DRAFT_SECONDS = 60.0
_DIGITS = 8
_LOCK = ".lock"


def scan(folder: StrPath) -> dict[str, list[int]]:
    """The sequence numbers of each series' segments, ascending; a series without any, an empty list. Raises OSError."""
    found: dict[str, list[int]] = {}
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return found
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        if not dot:
            continue
        if suffix == "lock":
            found.setdefault(stem, [])
        elif suffix == "seg":
            series, _, number = stem.rpartition("-")
            if series and len(number) >= _DIGITS and number.isdecimal():
                found.setdefault(series, []).append(int(number))
    for numbers in found.values():
        numbers.sort()
    return found


def make_lock(folder: StrPath, series: str) -> int:
    """Make the folder and the series' lock, held until the descriptor is closed. Raises OSError.

    The file appears under its name only when it is locked, so that nobody takes the series for dead.
    """
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = lock_path(folder, series)
    draft = path.removesuffix(_LOCK) + ".new-lock"
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(draft, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def folder_bytes(folder: StrPath) -> int:
    """The bytes of all segments in a folder. Raises OSError."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".seg"):
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:
                    pass  # The recorder has just removed it.
    return total


def is_live(folder: StrPath, series: str) -> bool:
    """Whether the process that writes this series still runs: it holds the series' lock file. Raises OSError."""
    return is_locked(lock_path(folder, series))


def any_live(folder: StrPath) -> bool:
    """Whether a process that writes here still runs. Raises OSError."""
    return any(is_live(folder, series) for series in scan(folder))


def lock_path(folder: StrPath, series: str) -> str:
    """The file that a live series' writer holds locked."""
    return os.path.join(folder, series + _LOCK)


def is_locked(path: StrPath) -> bool:
    """Whether somebody holds a lock on this file. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who ask at once do not take each other for the holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove_segments(folder: StrPath, series: str, sequences: list[int]) -> None:
    """Remove these segments. Raises OSError."""
    for sequence in sequences:
        remove_file(segment_path(folder, series, sequence))


def remove_series(folder: StrPath, series: str, sequences: list[int]) -> None:
    """Remove a series whose process has ended; the lock last, so that half a removal is taken up again."""
    remove_segments(folder, series, sequences)
    remove_file(lock_path(folder, series))


def remove_drafts(folder: Path) -> None:
    """Remove what processes that were killed while they made a file have left. Raises OSError."""
    now = time.time()
    for pattern in ("*.new", "*.new-lock"):
        for path in folder.glob(pattern):
            try:
                # A clock that jumped backwards makes them look young, and they stay until it has caught up.
                if now - path.stat().st_mtime > _DRAFT_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                pass  # It has got its name meanwhile.
