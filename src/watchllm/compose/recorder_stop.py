"""When a recorder ends: at once, or when the proxies whose usage it records have ended before it."""

import os
import select
import signal
import time
from collections.abc import Callable
from typing import Self

# Everything is applied within a moment once the proxies have ended, unless the database does not answer.
_AFTER_PROXIES_SECONDS = 5.0
_ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


class Stop:
    """What SIGTERM, SIGINT, SIGUSR2 and the supervisor's end ask for.

    Without `patience` (seconds) each of them sets it, and ends a wait at once. With it, SIGTERM and SIGINT set it when
    no proxy is there any more (`proxies_run`), at the latest when `patience` has passed.
    """

    def __init__(self, parent: int | None, patience: float, proxies_run: Callable[[], bool]) -> None:
        self._parent = parent
        self._patience = patience
        self._proxies_run = proxies_run
        self._reader, self._writer = os.pipe()
        for pipe in (self._reader, self._writer):
            os.set_blocking(pipe, False)
        self._ends: float | None = None
        """By the monotonic clock; None = nobody asked for an end."""
        self._alone_since: float | None = None

    def __enter__(self) -> Self:
        for number in _ASKING:
            signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number in _ASKING:
            signal.signal(number, signal.SIG_DFL)
        os.close(self._reader)
        os.close(self._writer)

    @property
    def is_asked(self) -> bool:
        return self._ends is not None

    def is_set(self) -> bool:
        """Whether the pass that begins now may be the last one."""
        self._look(0.0)
        return self._ends is not None and (self._is_over() or not self._wait_for_proxies())

    def is_patient(self) -> bool:
        """Whether there is time to apply what is left."""
        self._look(0.0)
        return self._ends is not None and not self._is_over()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until there is nothing more to wait for; whether that is so."""
        self._look(seconds)
        return self._ends is not None and self._is_over()

    def _is_over(self) -> bool:
        now = time.monotonic()
        late = self._ends is not None and now >= self._ends
        return late or (self._alone_since is not None and now - self._alone_since >= _AFTER_PROXIES_SECONDS)

    def _wait_for_proxies(self) -> bool:
        if self._alone_since is None and not self._proxies_run():
            self._alone_since = time.monotonic()
        return self._alone_since is None

    def _look(self, seconds: float) -> None:
        """Hear what is asked for within so many seconds."""
        if self._ends is not None:
            seconds = min(seconds, max(self._ends - time.monotonic(), 0.0))
        watched = [self._reader] if self._parent is None else [self._reader, self._parent]
        readable, _, _ = select.select(watched, [], [], seconds)
        if self._parent in readable:
            self._ends = 0.0
        if self._reader in readable:
            for told in os.read(self._reader, 64):
                if told == signal.SIGUSR2:
                    self._ends = 0.0
                elif self._ends is None:
                    self._ends = time.monotonic() + self._patience

    def _on_signal(self, number: int, _frame: object) -> None:
        os.write(self._writer, bytes([number]))
