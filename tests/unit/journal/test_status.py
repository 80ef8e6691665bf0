"""What is said of the recorder: well, late, silent, or in trouble."""

import os
import time
from pathlib import Path

import pytest

from watchllm.journal.status import (
    RecorderStatus,
    forget_status,
    lock_recorder,
    recorder_lag,
    recorder_state,
    write_status,
)


@pytest.mark.parametrize(
    ("lag", "silent", "problem", "state"),
    [
        (0.0, 0.0, None, "ok"),
        (29.0, 1.0, None, "ok"),
        (31.0, 0.0, None, "degraded: 31"),
        (0.0, 6.0, None, "degraded: 6"),
        (0.0, 0.0, "locked", "degraded: 0.0 s behind: locked"),
    ],
    ids=["idle", "resting", "late", "silent", "in trouble"],
)
def test_a_recorder_that_rests_is_well_one_that_is_late_or_silent_is_not(
    tmp_path: Path, lag: float, silent: float, problem: str | None, state: str
) -> None:
    lock = lock_recorder(tmp_path)
    assert lock is not None
    try:
        at_ms = int((time.time() - silent) * 1000)
        write_status(tmp_path, RecorderStatus(pid=os.getpid(), at_ms=at_ms, lag_seconds=lag, problem=problem))
        assert recorder_state(tmp_path).startswith(state)
        told = recorder_lag(tmp_path)
        assert told == pytest.approx(lag if state == "ok" else lag + silent, abs=0.5)
    finally:
        os.close(lock)


def test_without_a_recorder_usage_waits(tmp_path: Path) -> None:
    assert recorder_state(tmp_path) == "degraded: not running; usage waits in the journal"


def test_what_an_earlier_recorder_said_is_not_told_of_the_next_one(tmp_path: Path) -> None:
    lock = lock_recorder(tmp_path)
    assert lock is not None
    try:
        write_status(tmp_path, RecorderStatus(pid=1, at_ms=0, problem="no Redis"))
        forget_status(tmp_path)
        assert recorder_state(tmp_path) == "degraded: starting; usage waits in the journal"
        assert recorder_lag(tmp_path) is None
        forget_status(tmp_path)
    finally:
        os.close(lock)
