"""Forked children: what they are started with, the pipes that connect them with their parent, and how they end.

A child holds the reading end of a pipe whose other end only its parent has: when that dies, however it dies, the child
sees the end of the pipe and stops. Over another pipe it tells once that it is ready, or why it cannot be.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

import msgspec

from watchllm.configuration import Configuration

BOOTSTRAP_SECONDS = 300.0
_READ_SIZE = 65_536


class StartFailed(Exception):
    """A role did not come up; the message says why."""


class Given(msgspec.Struct, frozen=True):
    """What a child is started with: the configuration with the ports that are in use, the pipe to watch (at its end the
    parent has ended), the sockets to listen on, if any, and a function to call with its own port once it is ready."""

    configuration: Configuration
    parent: int
    sockets: Sequence[socket.socket]
    ready: Callable[[int], None]


Run = Callable[[Given], int]
"""Runs to the end; the exit code."""


class Child(msgspec.Struct, eq=False):
    """A process that was forked.

    `alive` is the parent's end of the pipe that the child watches; each child has one of its own, because whether a
    pipe blocks is shared by all who hold it. `reader` is where it tells that it is ready, -1 once that was read.
    `kill_at` is when it is ended the hard way (by the monotonic clock; None: it was not asked to end). `code` is its
    exit code.
    """

    name: str
    pid: int
    alive: int
    reader: int
    started: float
    kill_at: float | None = None
    code: int = 0

    def ask(self, number: signal.Signals, kill_after: float) -> None:
        """Send a signal that asks it to end, and give it `kill_after` seconds for that."""
        self.kill_at = time.monotonic() + kill_after
        self.signal(number)

    def signal(self, number: signal.Signals) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            pass  # It has ended already, and is about to be waited for.

    def read_ready(self, seconds: float) -> int:
        """Its port, told within `seconds`. Raises StartFailed with what it told instead."""
        reader, self.reader = self.reader, -1
        message = read_all(reader, seconds)
        if message.isdigit():
            return int(message)
        raise StartFailed(message.decode("utf-8", "replace") or "see the messages above")

    def close(self) -> None:
        """Let go of the pipes."""
        self.close_reader()
        if self.alive >= 0:
            os.close(self.alive)
            self.alive = -1

    def close_reader(self) -> None:
        """Nobody waits until it is ready."""
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


def fork(
    name: str,
    run: Run,
    configuration: Configuration,
    sockets: Sequence[socket.socket],
    forget: Callable[[], None],
) -> Child:
    """Start a child that runs `run`; `forget` is called in it first and closes what is its parent's alone."""
    reader, writer = os.pipe()
    parent, alive = os.pipe()
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal that comes before the child has set its own handlers must not run its parent's.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.close(alive)
        forget()
        told = _Told(writer)
        _run_child(name, run, Given(configuration, parent, sockets, told.ready), told, before)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(writer)
    os.close(parent)
    return Child(name, pid, alive, reader, started)


_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)


class _Told:
    """What a child tells its parent, once: its port, or why it is not ready."""

    def __init__(self, writer: int) -> None:
        self._writer = writer
        self.done = False

    def ready(self, port: int) -> None:
        self.tell(str(port))

    def tell(self, message: str) -> None:
        self.done = True
        try:
            os.write(self._writer, message.encode())
        except BrokenPipeError:
            pass  # A child that was started again: nobody waits for it.
        os.close(self._writer)


def _run_child(name: str, run: Run, given: Given, told: _Told, mask: set[int | signal.Signals]) -> None:
    """Never returns."""
    import setproctitle

    setproctitle.setproctitle(f"watchllm {name}")
    for number in _HANDLED:
        signal.signal(number, signal.SIG_DFL)
    # A terminal that is closed tells all of its processes; what follows from it is for the supervisor to decide.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    code = 1
    try:
        code = run(given)
    except KeyboardInterrupt:
        code = 0
    except BaseException as error:  # noqa: BLE001  (this frame is the child's last: it tells, and ends the process)
        if told.done or not _is_for_operators(error):
            _print_traceback()
        else:
            told.tell(str(error))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _is_for_operators(error: BaseException) -> bool:
    """Whether the message alone says what is wrong."""
    from watchllm.compose.errors import FAILURES, WRONG_USAGE

    return isinstance(error, (OSError, *FAILURES, *WRONG_USAGE))


def _print_traceback() -> None:
    import traceback

    traceback.print_exc()


def in_child(work: Callable[[], bytes]) -> bytes:
    """What `work` returns, run in a child whose heavy imports end with it.

    Raises StartFailed with the message of what `work` raised.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            _write_all(writer, work())
            code = 0
        except Exception as error:  # noqa: BLE001  (told to the parent, which raises)
            if not _is_for_operators(error):
                _print_traceback()
            _write_all(writer, str(error).encode())
        finally:
            os._exit(code)
    os.close(writer)
    message = read_all(reader, BOOTSTRAP_SECONDS)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise StartFailed(message.decode())
    return message


def read_all(reader: int, seconds: float) -> bytes:
    """What a child writes into its pipe until it closes it, or until the time is over; closes the reading end."""
    import select

    message = b""
    end = time.monotonic() + seconds
    try:
        while (left := end - time.monotonic()) > 0:
            if select.select([reader], [], [], left)[0]:
                piece = os.read(reader, _READ_SIZE)
                if not piece:
                    break
                message += piece
    finally:
        os.close(reader)
    return message


def _write_all(writer: int, message: bytes) -> None:
    while message:
        message = message[os.write(writer, message) :]
