"""The engine of look-ups by meaning in one process: loaded in a thread when some project uses it, missed until then."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from watchllm.proxy.health import DEGRADED, WARMING
from watchllm.proxy.semantic.looked import NOT_TRIED, Looked
from watchllm.proxy.semantic.looked import WARMING as WARMING_UP

if TYPE_CHECKING:
    from types import ModuleType

    from watchllm.cache.entry import Entry
    from watchllm.cache.semantic.engine import Engine
    from watchllm.providers.endpoints import Endpoint
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services
    from watchllm.proxy.unanswered import Unanswered
    from watchllm.routing.target import Target

SWITCH_SECONDS = 0.0005
"""Threads give way to the event loop after this long, instead of 5 ms: what is loaded, read or merged in one must not
be felt."""
_TRIES_AFTER = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between attempts to load what may be had later; then always the last."""


class CannotLoad(Exception):
    """The engine cannot be had; the message says why and what to do. `passes`: it may be had later."""

    def __init__(self, message: str, *, passes: bool = False) -> None:
        super().__init__(message)
        self.passes = passes


class Semantic:
    """`open_engine` loads it, in a thread; it raises CannotLoad where it cannot be had, which makes every look-up a
    miss. `is_used` tells whether any project is known to want it."""

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
        self._stage: ModuleType | None = None
        self._keep: ModuleType | None = None
        self._closed = threading.Event()

    def start_if_used(self) -> None:
        """Load it unless no project uses it; once the socket listens."""
        if self._is_used():
            self.start()

    def start(self) -> None:
        """Load it, unless that was begun before: a project uses it."""
        if self._thread is None:
            sys.setswitchinterval(SWITCH_SECONDS)
            self._thread = threading.Thread(target=self._load, name="semantic-load", daemon=True)
            self._thread.start()

    def look_up(self, services: Services, unanswered: Unanswered) -> Entry | Coroutine[Any, Any, Entry | None] | None:
        """What `stage.look_up` gives; a miss while it is not loaded. Never loads anything on the event loop."""
        if self._stage is not None:
            try:
                return self._stage.look_up(services, unanswered)  # type: ignore[no-any-return]
            except Exception as error:  # noqa: BLE001  (reported; the provider can still answer)
                self.failed(services, unanswered.request, error)
                return None
        self.start()
        reason = "unavailable" if self._problem is not None else ""
        self.count(WARMING_UP, reason)
        unanswered.request.looked = Looked(WARMING_UP, reason)
        return None

    def failed(self, services: Services, request: Request, error: Exception) -> None:
        """Report a bug that a look-up ran into; it is a miss."""
        services.counters.internal_errors += 1
        message = f"the look-up by meaning of {request.id} failed"
        self._loop.call_exception_handler({"message": message, "exception": error})
        self.count(NOT_TRIED, "failed")
        request.looked = Looked(NOT_TRIED, "failed")

    def keep_later(
        self,
        services: Services,
        request: Request,
        endpoint: Endpoint,
        asked: Target,
        answered: Target,
        key: bytes,
        body: bytes,
    ) -> None:
        """What `keep.keep_later` does; nothing while it is not loaded."""
        if self._keep is not None:
            self._keep.keep_later(services, request, endpoint, asked, answered, key, body)

    @property
    def state(self) -> str | None:
        """`ok`, `warming` or what is wrong with it; None where nobody uses it."""
        if self._problem is not None:
            return DEGRADED + self._problem
        if self.engine is None:
            return None if self._thread is None else WARMING
        if self.engine.is_warming:
            return WARMING
        wrong = self.engine.health()
        return "ok" if wrong is None else DEGRADED + wrong

    def count(self, outcome: str, reason: str) -> None:
        self.looked_up[outcome, reason] = self.looked_up.get((outcome, reason), 0) + 1

    def close(self) -> None:
        """Write what is waiting to be written. Waits for a loading that was begun."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        if self._opened is not None:
            self._opened.close()
            self._opened = self.engine = None

    def _load(self) -> None:
        for seconds in chain(_TRIES_AFTER, repeat(_TRIES_AFTER[-1])):
            if not self._tried() or self._closed.wait(seconds):
                return

    def _tried(self) -> bool:
        """Load it; whether to try again later."""
        try:
            self._opened = self._open()
            from watchllm.proxy.semantic import keep, stage  # with all that the engine needs
        except CannotLoad as error:
            self._problem = f"look-ups by meaning are misses: {error}"
            return error.passes
        except Exception as error:
            self._problem = f"look-ups by meaning are misses: {type(error).__name__}: {error}"
            raise
        else:
            self._tell(partial(self._loaded, stage, keep))
        return False

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:
            pass  # The loop has ended; `close` sees to the rest.

    def _loaded(self, stage: ModuleType, keep: ModuleType) -> None:
        if self._opened is not None and not self._closed.is_set():
            self._problem = None
            self._stage, self._keep = stage, keep
            self.engine = self._opened
            self.engine.follow(self._loop)
