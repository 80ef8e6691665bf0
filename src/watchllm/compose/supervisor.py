"""Keeps one forked child per role alive, starts again what dies, and replaces them one after the other on SIGHUP.

It runs no event loop and opens no store itself, because neither survives a fork. It holds the listening sockets of its
children: what waits in one to be accepted is there for the next child, so that none is lost while one is replaced.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

import msgspec

from watchllm.compose.children import Child, Run, StartFailed, fork
from watchllm.compose.proxy import RETIRE
from watchllm.configuration import Configuration, ConfigurationError

_READY_SECONDS = 30.0
_RESTART_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0)
_STEADY_SECONDS = 30.0
_KILL_AFTER_DRAIN_SECONDS = 5.0
_LONGEST_SLEEP_SECONDS = 1.0


class Role(msgspec.Struct, eq=False):
    """A process to keep alive, and what it listens on.

    `retire` is the signal by which a child is asked to leave its place to another one (None: it is not replaced);
    `overlaps`, whether that one is started while it is there still. `serves` is whether it has clients to be served to
    the end when all of them are to retire.
    """

    name: str
    run: Run
    sockets: Sequence[socket.socket] = ()
    retire: signal.Signals | None = None
    overlaps: bool = False
    serves: bool = False
    child: Child | None = None
    failures: int = 0
    due: float | None = None
    """When it is to be started again, by the monotonic clock."""


class Supervisor:
    """Forks, watches, replaces and stops the roles.

    `configuration` is what children are started with from here on; `reload`, where set, reads it anew before all are
    replaced, and raises ConfigurationError.
    """

    def __init__(self, name: str, configuration: Configuration) -> None:
        self.roles: list[Role] = []
        self.configuration = configuration
        self.reload: Callable[[], Configuration] | None = None
        self._name = name
        self._children: dict[int, Child] = {}
        self._stopping = self._retiring = self._replace_asked = False
        self._to_replace: list[Role] = []
        self._successor: Child | None = None
        self._had_terminal = os.isatty(0)
        self._wakes, self._writer = os.pipe()
        for pipe in (self._wakes, self._writer):
            os.set_blocking(pipe, False)
        # A signal ends a wait through this pipe, also one that comes just before the wait begins.
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, RETIRE):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hangup)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def start(self, role: Role) -> None:
        """Start one of the roles and wait until it is ready; raises StartFailed."""
        role.child = self._fork(role)
        if self._stopping and not self._retiring:
            role.child.signal(signal.SIGTERM)  # Told before this one was known, `_on_stop` has left it out.
        try:
            role.child.read_ready(_READY_SECONDS)
        except StartFailed as error:
            if self._stopping:
                raise StartFailed("stopped before it was up") from None
            raise StartFailed(f"{role.name} did not start: {error}") from None

    def watch(self) -> None:
        """Start again what dies, with growing pauses, and replace all when asked to, until told to stop."""
        while not self._stopping:
            self._sleep()
            for child in self._reap():
                self._bury(child)
            self._take_successor()
            self._replace()
            self._start_due()
            self._kill_late()

    def stop_all(self) -> None:
        """Ask every child to drain and wait for it; what outlives the drain by far is killed."""
        self._stopping = True
        for role in self.roles:
            # From here on only the children hold them: nobody would accept what waits in ours.
            _close(role.sockets)
        serve = {role.name for role in self.roles if role.serves and self._retiring}
        for child in self._children.values():
            child.ask(RETIRE if child.name in serve else signal.SIGTERM, self._patience)
        while self._children:
            self._sleep()
            self._reap()
            self._kill_late()

    # --- children ----------------------------------------------------------------------------------------------------

    @property
    def _patience(self) -> float:
        return self.configuration.drain_seconds + _KILL_AFTER_DRAIN_SECONDS

    def _fork(self, role: Role) -> Child:
        child = fork(role.name, role.run, self.configuration, role.sockets, lambda: self._forget_but(role))
        self._children[child.pid] = child
        return child

    def _forget_but(self, own: Role) -> None:
        """In a child: close what belongs to its parent and to the other roles."""
        signal.set_wakeup_fd(-1)
        for pipe in (self._wakes, self._writer):
            os.close(pipe)
        for child in self._children.values():
            child.close()
        for role in self.roles:
            if role is not own:
                _close(role.sockets)

    def _reap(self) -> list[Child]:
        """Those that have ended."""
        ended = []
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            child = self._children.pop(pid, None)
            if child is not None:
                child.close()
                child.code = os.waitstatus_to_exitcode(status)
                ended.append(child)
        return ended

    def _bury(self, child: Child) -> None:
        """See to the place of a child that has ended."""
        if self._stopping:
            return
        if child is self._successor:
            self._successor = None
            place = self._to_replace.pop(0)
            self._give_up(f"the new {place.name} ended with {child.code}")
            if place.child is None:
                self._start_later(place, child)
            return
        for role in self.roles:
            if role.child is not child:
                continue  # One that was replaced, and has finished what it had to do, is nobody's.
            role.child = None
            is_replaced = role in self._to_replace[:1] and (self._successor is not None or child.kill_at is not None)
            if not is_replaced:
                self._start_later(role, child)

    def _start_later(self, role: Role, child: Child) -> None:
        now = time.monotonic()
        if now - child.started > _STEADY_SECONDS:
            role.failures = 0
        pause = _RESTART_SECONDS[min(role.failures, len(_RESTART_SECONDS) - 1)]
        role.failures += 1
        role.due = now + pause
        self._tell(f"{role.name} ended with {child.code}; starting it again in {pause:g} s")

    def _start_due(self) -> None:
        for role in self.roles:
            if role.due is not None and role.due <= time.monotonic() and not self._stopping:
                role.due = None
                role.child = self._fork(role)
                role.child.close_reader()

    def _kill_late(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.kill_at is not None and child.kill_at <= now:
                child.kill_at = now + _LONGEST_SLEEP_SECONDS  # One that the kernel holds is not asked in a hurry.
                child.signal(signal.SIGKILL)

    # --- replacing all -----------------------------------------------------------------------------------------------

    def _replace(self) -> None:
        """Go on with replacing the roles' children, one at a time, as far as that goes without waiting."""
        if self._replace_asked and not self._to_replace and self._read_configuration():
            self._replace_asked = False
            self._to_replace = [role for role in self.roles if role.retire is not None]
            self._tell("replacing all processes, one after the other")
        while self._to_replace and self._successor is None and not self._stopping:
            role = self._to_replace[0]
            current = role.child
            if any(child.name == role.name and child.kill_at is not None for child in self._children.values()):
                return  # One of an earlier time, or the one that has to be gone before: its end wakes us.
            if current is not None and not role.overlaps:
                assert role.retire is not None
                current.ask(role.retire, self._patience)
                return
            role.due = None
            self._successor = self._fork(role)

    def _take_successor(self) -> None:
        """If the one that is being started is ready, let it take the place, and ask the one before to retire."""
        successor = self._successor
        if successor is None or successor.reader < 0:
            return  # Or it has said that it is not, and its end is waited for.
        if not select.select([successor.reader], [], [], 0)[0]:
            if successor.kill_at is None and time.monotonic() - successor.started > _READY_SECONDS:
                successor.ask(signal.SIGKILL, 0)
            return
        try:
            successor.read_ready(_READY_SECONDS)
        except StartFailed as error:
            self._tell(f"the new {successor.name} cannot be used: {error}")
            successor.ask(signal.SIGTERM, self._patience)
            return
        role = self._to_replace.pop(0)
        self._successor = None
        before, role.child, role.failures = role.child, successor, 0
        if before is not None:
            assert role.retire is not None
            before.ask(role.retire, self._patience)
        if not self._to_replace:
            self._tell("all processes are replaced")

    def _give_up(self, reason: str) -> None:
        self._to_replace.clear()
        self._tell(f"{reason}; what was not replaced yet stays as it is")

    def _read_configuration(self) -> bool:
        """Have the children that are started from here on get what is configured now; False where that is not valid."""
        if self.reload is None:
            return True
        try:
            self.configuration = self.reload()
        except ConfigurationError as error:
            self._replace_asked = False
            self._tell(f"nothing is replaced: {error}")
            return False
        return True

    # --- signals -----------------------------------------------------------------------------------------------------

    def _sleep(self) -> None:
        """Until a signal comes, a successor says something, or it is time for something."""
        readers = [self._wakes]
        if self._successor is not None and self._successor.reader >= 0:
            readers.append(self._successor.reader)
        now = time.monotonic()
        times = [role.due for role in self.roles] + [child.kill_at for child in self._children.values()]
        until = min([at for at in times if at is not None], default=now + _LONGEST_SLEEP_SECONDS)
        select.select(readers, [], [], min(max(until - now, 0.0), _LONGEST_SLEEP_SECONDS))
        try:
            os.read(self._wakes, 4096)
        except BlockingIOError:
            pass  # It was not a signal.

    def _on_stop(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._retiring = number == RETIRE
        for child in self._children.values():
            if not self._retiring:
                child.signal(signal.SIGTERM)  # One that is waited for in `start` ends, and with it the wait.

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        if self._had_terminal and not os.isatty(0):
            self._on_stop(number, frame)  # The terminal was closed, and nobody asked for anything.
        else:
            self._replace_asked = True

    def _tell(self, message: str) -> None:
        sys.stderr.write(f"watchllm {self._name}: {message}\n")
        sys.stderr.flush()


def _close(sockets: Sequence[socket.socket]) -> None:
    for listener in sockets:
        listener.close()
