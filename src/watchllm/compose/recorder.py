"""Builds and runs the recorder process: from this host's journals into the database, until it is told to stop.

One recorder works on a home folder at a time; a second one stands by until the first has ended. Whatever goes wrong
with the database is tried again with growing pauses: the journals keep what is not applied yet.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Self

from watchllm.configuration import Configuration, ConfigurationError
from watchllm.control import schema
from watchllm.control.errors import ControlError
from watchllm.journal.recorder import Recorder, StoreUnavailable, UsageStore
from watchllm.journal.series import remove_drafts
from watchllm.journal.status import RecorderStatus, holds_lock, lock_recorder, write_status
from watchllm.stores import home

if TYPE_CHECKING:
    from watchllm.journal.shared_ledger import SharedLedger
    from watchllm.stores.sqlite.usage import SqliteUsageStore

POLL_SECONDS = 0.05
_STANDBY_SECONDS = 0.25
_STATUS_SECONDS = 0.5
_DRAFTS_SECONDS = 60.0
_LONGEST_REST_SECONDS = 0.5
_URGENT_SECONDS = 15.0
_URGENT_PART = 0.25
# The database is not to wait for a Redis that hangs.
_REDIS_SECONDS = 0.25
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


def run_recorder(
    configuration: Configuration, *, parent: int | None = None, on_ready: Callable[[int], None] | None = None
) -> int:
    """Run until SIGTERM or SIGINT; then apply what is there and end. The exit code.

    `parent` is the reading end of a pipe that the supervisor holds open: at its end this process ends at once.
    """
    with _Stop(parent) as stop:
        home.prepare(configuration.home)
        if on_ready is not None:
            on_ready(0)
        folder = configuration.home / "journal"
        while not stop.is_set():
            lock = _become_the_one(folder, stop)
            if lock is None:
                break
            try:
                _work(configuration, folder, lock, stop)
            finally:
                os.close(lock)
    return 0


def _become_the_one(folder: Path, stop: "_Stop") -> int | None:
    told = False
    while True:
        try:
            lock = lock_recorder(folder)
            if lock is not None:
                return lock
            reason = "another recorder works on this folder; standing by"
        except OSError as error:
            reason = f"{folder} cannot be used: {error.strerror}; trying again"
        if not told:
            _say(reason)
            told = True
        if stop.wait(_STANDBY_SECONDS):
            return None


def _work(configuration: Configuration, folder: Path, lock: int, stop: "_Stop") -> None:
    """Record, whatever goes wrong, until told to stop or until the folder with our lock was removed."""
    status = _Status(folder)
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            _record(configuration, folder, lock, status, stop)
            return
        except (StoreUnavailable, ControlError, OSError) as error:
            # A folder that was removed comes again with the next proxy's journal.
            if status.problem is None:
                _say(f"{error}; trying again")
            status.problem = str(error)
            status.write(force=True)
        # A success in between (see `_record`) has forgotten the problem: the pauses begin anew.
        pause = _FIRST_PAUSE_SECONDS if status.recovered else min(pause * 2, _LONGEST_PAUSE_SECONDS)
        status.recovered = False
        if stop.wait(pause) or not holds_lock(folder, lock):
            return


def _record(configuration: Configuration, folder: Path, lock: int, status: "_Status", stop: "_Stop") -> None:
    """Apply until told to stop, or until the lock is lost. Raises StoreUnavailable, ControlError and OSError."""
    # Here, not above: SQLAlchemy takes a quarter of a second, in which this process is ready already.
    from watchllm.compose.control import open_database
    from watchllm.stores.sqlite.usage import SqliteUsageStore

    with ExitStack() as stack:
        database = stack.enter_context(closing(open_database(configuration)))
        schema.upgrade(database.engine)
        store = SqliteUsageStore(database.engine, lambda: time.time_ns() // 1_000_000)
        shared = _shared_ledger(configuration, store, stack)
        recorder = Recorder(folder, shared or _own_ledger(configuration, store, stack), _say)
        drafts_removed = 0.0
        while True:
            # Asked before the pass: what was written before the signal is applied by it (up to a batch).
            stopping = stop.is_set()
            began = time.monotonic()
            more = recorder.run_once()
            took = time.monotonic() - began
            if stopping or not holds_lock(folder, lock):
                return
            status.progress(recorder, more=more)
            if shared is not None:
                shared.tend()
                status.not_told = shared.problem
            if time.monotonic() - drafts_removed > _DRAFTS_SECONDS:
                remove_drafts(folder)
                drafts_removed = time.monotonic()
            if not more:
                stop.wait(POLL_SECONDS)
            else:
                stop.wait(rest_after(took, status.behind, recorder.pending_bytes / configuration.journal_max_bytes))


def _own_ledger(configuration: Configuration, store: "SqliteUsageStore", stack: ExitStack) -> UsageStore:
    """`store`, and the proxies of this host are told who has spent what."""
    from watchllm.compose.limiting import LEDGER_FOLDER
    from watchllm.journal.ledgered import Ledgered
    from watchllm.stores.lmdb.ledger import LmdbLedger

    return Ledgered(store, stack.enter_context(closing(LmdbLedger(configuration.home / LEDGER_FOLDER))))


def _shared_ledger(configuration: Configuration, store: "SqliteUsageStore", stack: ExitStack) -> "SharedLedger | None":
    """The same for the proxies of all hosts; None where they share nothing."""
    if configuration.redis_url is None:
        return None
    from watchllm.journal.shared_ledger import SharedLedger
    from watchllm.stores.redis.blocking import Blocking
    from watchllm.stores.redis.limits_ledger import RedisAccounts

    try:
        redis = stack.enter_context(closing(Blocking(configuration.redis_url, _REDIS_SECONDS)))
    except ValueError as error:
        raise ConfigurationError(f"WATCHLLM_REDIS_URL is not valid; expected {error}") from None
    return SharedLedger(store, RedisAccounts(redis))


def rest_after(took: float, behind: float, filled: float) -> float:
    """Seconds to rest after a full batch that `took` so many, where there is more to apply.

    As long as the batch itself: half of a core is left to the proxies, whose hits a busy recorder slows down. Not when
    usage is `behind` by a quarter of a minute or more, or the journals are `filled` to a quarter of their bound.
    """
    return 0.0 if behind > _URGENT_SECONDS or filled > _URGENT_PART else min(took, _LONGEST_REST_SECONDS)


class _Status:
    """Keeps the file that proxies and the console read up to date."""

    def __init__(self, folder: Path) -> None:
        self.problem: str | None = None
        self.not_told: str | None = None
        """Why the proxies could not be told who has spent what."""
        self.recovered = False
        self._folder = folder
        self._caught_up = time.monotonic()
        self._written = 0.0
        self._status = RecorderStatus(pid=os.getpid())

    def progress(self, recorder: Recorder, *, more: bool) -> None:
        if self.problem is not None:
            _say("recording again")
            self.problem, self.recovered = None, True
        if not more:
            self._caught_up = time.monotonic()
        status = self._status
        status.applied, status.torn = recorder.applied, recorder.torn
        status.set_aside, status.pending_bytes = recorder.set_aside, recorder.pending_bytes
        self.write()

    @property
    def behind(self) -> float:
        """Seconds since everything was last applied."""
        return time.monotonic() - self._caught_up

    def write(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._written < _STATUS_SECONDS:
            return
        self._written = now
        self._status.at_ms = time.time_ns() // 1_000_000
        self._status.lag_seconds = round(self.behind, 3)
        self._status.problem = self.problem or self.not_told
        try:
            write_status(self._folder, self._status)
        except OSError as error:
            # The status only informs. What keeps the journal itself from being read is told by the pass.
            if self.problem is None:
                _say(f"the recorder's status cannot be written: {error}")


class _Stop:
    """A flag that SIGTERM, SIGINT and the supervisor's end set, and that ends a wait at once."""

    def __init__(self, parent: int | None) -> None:
        self._parent = parent
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._is_set = False

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._reader)
        os.close(self._writer)

    def is_set(self) -> bool:
        self.wait(0.0)
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until the flag is set; whether it is."""
        if not self._is_set:
            watched = [self._reader] if self._parent is None else [self._reader, self._parent]
            readable, _, _ = select.select(watched, [], [], seconds)
            self._is_set = bool(readable)
        return self._is_set

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._is_set = True
        os.write(self._writer, b"x")


def _say(message: str) -> None:
    sys.stderr.write(f"watchllm recorder: {message}\n")
    sys.stderr.flush()
