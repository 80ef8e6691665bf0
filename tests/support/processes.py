"""Subprocesses for tests: started in a group of their own, awaited until ready, stopped by process id, logs kept.

What the running processes wrote is attached to the report of a test that fails (see `tests/support/fixtures.py`).
"""

import os
import pwd
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.support.waiting import wait_for

_LOG_TAIL = 8_000


class ProcessEnded(AssertionError):
    """The process ended before it was ready; the message carries the end of its log."""


class BackgroundProcess:
    """One program in the background, and all that it starts."""

    running: ClassVar[list["BackgroundProcess"]] = []

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        user: str | None = None,
    ) -> None:
        """`user` is who runs it where the tests run as root, for programs that refuse that."""
        self.name = " ".join(Path(part).name if index == 0 else part for index, part in enumerate(arguments[:4]))
        self.log_path = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment) if environment is not None else None,
                cwd=directory,
                start_new_session=True,
                user=user,
                group=None if user is None else pwd.getpwnam(user).pw_gid,
                extra_groups=None if user is None else [],
            )
        self.shared = False
        """Whether it goes on when the test that started it ends."""
        self.running.append(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number when one ended it."""
        return self._process.poll()

    def log(self) -> str:
        """The end of what it wrote so far, both streams in one."""
        return self.log_path.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace")

    def wait_until(self, ready: Callable[[], bool], what: str, *, within: float = 20.0) -> None:
        """Wait until `ready`. Raises ProcessEnded when it ends before that, AssertionError after `within` seconds."""

        def probe() -> bool:
            if self.exit_code is not None:
                raise ProcessEnded(f"{self.name} ended with {self.exit_code} before {what}\n{self.log()}")
            return ready()

        wait_for(probe, f"{what} of {self.name}", within=within)

    def signal(self, number: int) -> None:
        """Send a signal to the process itself (not to its children)."""
        self._process.send_signal(number)

    def wait(self, within: float = 10.0) -> int:
        """Its exit code. Raises AssertionError when it does not end in `within` seconds."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {within:g} s\n{self.log()}") from None

    def stop(self, within: float = 10.0) -> int:
        """End the whole group, kindly first. Its exit code. Harmless when it has ended already."""
        if self in self.running:
            self.running.remove(self)
        self._signal_group(signal.SIGTERM)
        try:
            code = self._process.wait(within)
        except subprocess.TimeoutExpired:
            code = None
        self._signal_group(signal.SIGKILL)
        return self._process.wait(within) if code is None else code

    def kill(self) -> None:
        """End the whole group at once, as a crash would."""
        if self in self.running:
            self.running.remove(self)
        self._signal_group(signal.SIGKILL)
        self._process.wait(10)

    def _signal_group(self, number: int) -> None:
        # The group outlives its leader while a child is left, so this also reaches children of a leader that has ended.
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # Nothing left of it (macOS says PermissionError for a group of zombies).
