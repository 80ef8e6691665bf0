"""What is known of journal and recorder from outside: their states for `/health/ready`, and the recorder's own file."""

import fcntl
import os
import time
from pathlib import Path

import msgspec

from watchllm.journal.journal import Journal
from watchllm.journal.segment import is_same
from watchllm.journal.series import is_locked

RECORDER_LOCK = "recorder.pid"
RECORDER_STATUS = "recorder.json"

_DEGRADED = "degraded: "
_TOLERATED_SILENCE_SECONDS = 5.0
# With much to apply it rests between batches, and hurries from 15 s on (compose.recorder): so far all is well.
_TOLERATED_LAG_SECONDS = 30.0


class RecorderStatus(msgspec.Struct):
    """What the recorder says of itself, about each half second. `at_ms` by its clock; `lag_seconds` since it last had
    applied everything; `problem` is what keeps it from its work now."""

    pid: int = 0
    at_ms: int = 0
    lag_seconds: float = 0.0
    pending_bytes: int = 0
    applied: int = 0
    torn: int = 0
    set_aside: int = 0
    problem: str | None = None


def journal_state(journal: Journal) -> str:
    """`ok`, `degraded: …` while requests are served, or what makes them be refused."""
    state = journal.state()
    if journal.refusal is not None:
        return f"requests are refused: {state}"
    return "ok" if state is None else _DEGRADED + state


def recorder_status(folder: Path) -> RecorderStatus | None:
    """The status of the recorder of this host's journals; None when none runs, or none has said anything yet."""
    try:
        if not is_locked(folder / RECORDER_LOCK):
            return None
        return msgspec.json.decode((folder / RECORDER_STATUS).read_bytes(), type=RecorderStatus)
    except (OSError, msgspec.MsgspecError):
        return None


def recorder_lag(folder: Path) -> float | None:
    """Seconds since the recorder last had applied everything; None when none runs, or none has said anything yet."""
    status = recorder_status(folder)
    return None if status is None else _behind(status)


def recorder_state(folder: Path) -> str:
    """`ok`, or `degraded: …`: usage is then late in the database, and nothing is lost."""
    status = recorder_status(folder)
    if status is None:
        what = "starting" if _is_held(folder) else "not running"
        return f"{_DEGRADED}{what}; usage waits in the journal"
    behind = _behind(status)
    if status.problem is None and _silence(status) <= _TOLERATED_SILENCE_SECONDS and behind <= _TOLERATED_LAG_SECONDS:
        return "ok"
    reason = "" if status.problem is None else f": {status.problem}"
    return f"{_DEGRADED}{behind:.1f} s behind{reason}"


def _is_held(folder: Path) -> bool:
    try:
        return is_locked(folder / RECORDER_LOCK)
    except OSError:
        return False  # As in `recorder_status`: what cannot be looked at tells of no recorder.


def _silence(status: RecorderStatus) -> float:
    return max(0.0, time.time() - status.at_ms / 1000)


def _behind(status: RecorderStatus) -> float:
    """Seconds since everything was applied. One that only rests says so in time; one that says nothing, or is in
    trouble, applies nothing meanwhile."""
    silent = _silence(status)
    is_at_work = status.problem is None and silent <= _TOLERATED_SILENCE_SECONDS
    return status.lag_seconds if is_at_work else round(status.lag_seconds + silent, 3)


def write_status(folder: Path, status: RecorderStatus) -> None:
    """Replace the recorder's file. Raises OSError."""
    draft = folder / (RECORDER_STATUS + ".new")
    draft.write_bytes(msgspec.json.encode(status))
    draft.rename(folder / RECORDER_STATUS)


def lock_recorder(folder: Path) -> int | None:
    """Become this folder's only recorder: a descriptor to keep open, None while another one is. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / RECORDER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def forget_status(folder: Path) -> None:
    """Take away what an earlier recorder said; for the one that has the lock. Raises OSError."""
    (folder / RECORDER_STATUS).unlink(missing_ok=True)


def holds_lock(folder: Path, descriptor: int) -> bool:
    """Whether the lock is still where others look for it: the folder may have been removed. Raises OSError."""
    return is_same(folder / RECORDER_LOCK, descriptor)
