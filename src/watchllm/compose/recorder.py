"""Builds and runs the recorder process: from this host's journals into the database, until it is told to stop.

One recorder works on a home folder at a time; a second one stands by until the first has ended. Whatever goes wrong
with the database is tried again with growing pauses: the journals keep what is not applied yet.
"""

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from watchllm.compose.recorder_stop import Stop
from watchllm.configuration import Configuration, ConfigurationError
from watchllm.control.errors import ControlError, OtherInstallation, PlansUnusable
from watchllm.journal.recorder import Recorder, StoreUnavailable
from watchllm.journal.restored import check_positions
from watchllm.journal.series import any_live, remove_drafts
from watchllm.journal.status import RecorderStatus, forget_status, holds_lock, lock_recorder, write_status
from watchllm.stores import home
from watchllm.stores.lmdb.environment import StoreBroken

if TYPE_CHECKING:
    from watchllm.control.database import Database
    from watchllm.journal.ledgered import Ledgered
    from watchllm.journal.shared_ledger import SharedLedger, SharedUsageStore

POLL_SECONDS = 0.05
_STANDBY_SECONDS = 0.25
_STATUS_SECONDS = 0.5
_DRAFTS_SECONDS = 60.0
_EXPIRE_SECONDS = 600.0
# Recorders of an earlier version may work on other hosts, while this one is being rolled out.
_CATCH_UP_SECONDS = 5.0
_LONGEST_REST_SECONDS = 0.5
_URGENT_SECONDS = 15.0
_URGENT_PART = 0.25
# The database is not to wait for a Redis that hangs.
_REDIS_SECONDS = 0.25
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
# Less than the supervisor waits for its children beyond their drain.
_BEYOND_DRAIN_SECONDS = 3.0


def run_recorder(
    configuration: Configuration,
    *,
    parent: int | None = None,
    on_ready: Callable[[int], None] | None = None,
    outlive_proxies: bool = False,
) -> int:
    """Run until SIGTERM or SIGINT; then apply what is there and end. The exit code.

    With `outlive_proxies` it then goes on until the proxies of this home have ended and all is applied, for no longer
    than they may take (see `Stop`); SIGUSR2 ends it as SIGTERM does without: another recorder is about to go on.

    `parent` is the reading end of a pipe that the supervisor holds open: at its end this process ends at once.
    """
    folder = configuration.home / "journal"
    patience = configuration.drain_seconds + _BEYOND_DRAIN_SECONDS if outlive_proxies else 0.0
    with Stop(parent, patience, lambda: _proxies_run(folder)) as stop:
        home.prepare(configuration.home)
        if on_ready is not None:
            on_ready(0)
        while not stop.is_set():
            lock = _become_the_one(folder, stop)
            if lock is None:
                break
            try:
                _work(configuration, folder, lock, stop)
            finally:
                os.close(lock)
    return 0


def _proxies_run(folder: Path) -> bool:
    try:
        return any_live(folder)
    except OSError:
        return False  # What cannot be looked at cannot be recorded, and is not waited for.


def _become_the_one(folder: Path, stop: Stop) -> int | None:
    told = False
    while True:
        try:
            lock = lock_recorder(folder)
            if lock is not None:
                forget_status(folder)
                return lock
            reason = "another recorder works on this folder; standing by"
        except OSError as error:
            reason = f"{folder} cannot be used: {error.strerror}; trying again"
        if not told:
            _say(reason)
            told = True
        if stop.wait(_STANDBY_SECONDS) or stop.is_asked:
            return None  # Whoever has the lock sees to the rest.


def _work(configuration: Configuration, folder: Path, lock: int, stop: Stop) -> None:
    """Record, whatever goes wrong, until told to stop or until the folder with our lock was removed."""
    status = _Status(folder)
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            _record(configuration, folder, lock, status, stop)
            return
        except (StoreUnavailable, ControlError, StoreBroken, OSError) as error:
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


def _record(configuration: Configuration, folder: Path, lock: int, status: "_Status", stop: Stop) -> None:
    """Apply until told to stop, or until the lock is lost. Raises StoreUnavailable, ControlError, StoreBroken and
    OSError."""
    # Here, not above: SQLAlchemy takes a quarter of a second, in which this process is ready already.
    from watchllm.compose.database import bring_up_to_date, open_database, usage_store
    from watchllm.compose.installation import check_no_other
    from watchllm.compose.retention import retention_of

    # Into a database that it made beside the installation's it would be lost: the journals keep it.
    check_no_other(configuration)
    with ExitStack() as stack:
        database = stack.enter_context(closing(open_database(configuration)))
        bring_up_to_date(configuration, database)
        kept = usage_store(configuration, database)
        shared = _shared_ledger(configuration, database, kept, stack)
        store = shared or _own_ledger(configuration, kept, stack)
        recorder = Recorder(folder, store, _say)
        drafts_removed, expired, caught_up = 0.0, -_EXPIRE_SECONDS, 0.0
        while True:
            # Asked before the pass: what was written before the signal is applied by it (up to a batch).
            last = stop.is_set()
            began = time.monotonic()
            more = recorder.run_once()
            took = time.monotonic() - began
            if (last and not (more and stop.is_patient())) or not holds_lock(folder, lock):
                return
            status.progress(recorder, more=more)
            if shared is not None:
                shared.tend()
            status.not_told = store.problem
            if time.monotonic() - caught_up > _CATCH_UP_SECONDS:
                store.catch_up()
                # Where nothing is recorded meanwhile, a restored database would not be noticed.
                check_positions(recorder.positions, kept.positions())
                caught_up = time.monotonic()
            if time.monotonic() - drafts_removed > _DRAFTS_SECONDS:
                remove_drafts(folder)
                drafts_removed = time.monotonic()
            if time.monotonic() - expired > _EXPIRE_SECONDS:
                try:
                    more_to_forget = store.expire(retention_of(configuration, database))
                except PlansUnusable as error:
                    # Recording goes on, and nothing is forgotten that somebody may have meant to keep.
                    _say(f"{error}; until then nothing is forgotten")
                    more_to_forget = False
                if not more_to_forget:
                    expired = time.monotonic()
            if not more:
                stop.wait(POLL_SECONDS)
            else:
                stop.wait(rest_after(took, status.behind, recorder.pending_bytes / configuration.journal_max_bytes))


def _own_ledger(configuration: Configuration, store: "SharedUsageStore", stack: ExitStack) -> "Ledgered":
    """`store`, and the proxies of this host are told who has spent what."""
    from watchllm.compose.limiting import LEDGER_FOLDER
    from watchllm.journal.ledgered import Ledgered
    from watchllm.stores.lmdb.ledger import LmdbLedger

    return Ledgered(store, stack.enter_context(closing(LmdbLedger(configuration.home / LEDGER_FOLDER))))


def _shared_ledger(
    configuration: Configuration, database: "Database", store: "SharedUsageStore", stack: ExitStack
) -> "SharedLedger | None":
    """The same for the proxies of all hosts; None where they share nothing. Raises OtherInstallation where they serve
    another installation than the database's: what those of this home recorded stays in the journals."""
    if configuration.redis_url is None:
        return None
    from watchllm.compose.installation import SNAPSHOT_FOLDER
    from watchllm.control import installation
    from watchllm.journal.shared_ledger import SharedLedger
    from watchllm.stores.lmdb.snapshot_copy import SnapshotCopy
    from watchllm.stores.redis.blocking import Blocking
    from watchllm.stores.redis.limits_ledger import RedisAccounts

    try:
        redis = stack.enter_context(closing(Blocking(configuration.redis_url, _REDIS_SECONDS)))
    except ValueError as error:
        raise ConfigurationError(f"WATCHLLM_REDIS_URL is not valid; expected {error}") from None
    own = installation.of(database)
    copy = stack.enter_context(closing(SnapshotCopy(configuration.home / SNAPSHOT_FOLDER)))
    accounts = RedisAccounts(redis, own.id, own.database, copy.position)
    refused = accounts.refused()
    if refused is not None:
        raise OtherInstallation(refused)
    return SharedLedger(store, accounts)


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


def _say(message: str) -> None:
    sys.stderr.write(f"watchllm recorder: {message}\n")
    sys.stderr.flush()
