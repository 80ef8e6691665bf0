"""The engine of look-ups by meaning in one process: loaded in a thread when some project uses it, missed until then."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from watchllm.proxy.health import DEGRADED, WARMING

if TYPE_CHECKING:
    from watchllm.cache.semantic.engine import Engine

# Threads give way to the event loop after this long, instead of 5 ms: what is loaded or read in one must not be felt.
_SWITCH_SECONDS = 0.0005


class CannotLoad(Exception):
    """The engine cannot be had; the message says why and what to do."""


class Semantic:
    """`open_engine` loads it, in a thread; it raises CannotLoad where it cannot be had, which makes every look-up a
    miss. `is_used` tells, in that thread, whether any project wants it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        open_engine: Callable[[], Engine],
        is_used: Callable[[], bool] = lambda: True,
    ) -> None:
        self.engine: Engine | None = None
        """None while it is not there."""
        self.looked_up: dict[tuple[str, str], int] = {}
        """How many look-ups came to what, by (outcome, reason)."""
        self._loop = loop
        self._open = open_engine
        self._is_used = is_used
        self._thread: threading.Thread | None = None
        self._problem: str | None = None
        self._opened: Engine | None = None
        self._closed = False

    def start_if_used(self) -> None:
        """Load it unless no project uses it; once the socket listens."""
        if self._thread is None:
            self._begin(self._load_if_used)

    def start(self) -> None:
        """Load it, unless that was begun before: a project uses it."""
        if self._thread is None:
            self._begin(self._load)

    @property
    def state(self) -> str | None:
        """`ok`, `warming` or what is wrong with it; None where nobody uses it."""
        if self._problem is not None:
            return DEGRADED + self._problem
        if self.engine is None:
            return None if self._thread is None else WARMING
        wrong = self.engine.health()
        return "ok" if wrong is None else DEGRADED + wrong

    def count(self, outcome: str, reason: str) -> None:
        self.looked_up[outcome, reason] = self.looked_up.get((outcome, reason), 0) + 1

    def close(self) -> None:
        """Write what is waiting to be written. Waits for a loading that was begun."""
        self._closed = True
        if self._thread is not None:
            self._thread.join()
        if self._opened is not None:
            self._opened.close()
            self._opened = self.engine = None

    def _begin(self, load: Callable[[], None]) -> None:
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._thread = threading.Thread(target=load, name="semantic-load", daemon=True)
        self._thread.start()

    def _load_if_used(self) -> None:
        if self._is_used():
            self._load()
        else:
            self._tell(self._not_used)

    def _load(self) -> None:
        try:
            self._opened = self._open()
        except CannotLoad as error:
            self._problem = f"look-ups by meaning are misses: {error}"
        except Exception as error:
            self._problem = f"look-ups by meaning are misses: {type(error).__name__}: {error}"
            raise
        else:
            self._tell(self._loaded)

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            pass  # The loop has ended; `close` sees to the rest.

    def _loaded(self) -> None:
        if self._opened is not None and not self._closed:
            self.engine = self._opened
            self.engine.follow(self._loop)

    def _not_used(self) -> None:
        self._thread = None  # A project may want it later.
