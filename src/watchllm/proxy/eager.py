"""Runs a coroutine at once, on the caller's stack, up to its first real wait.

What never waits never becomes a task: no event-loop turn, no context copy, no scheduling (asyncio's own eager tasks
exist from Python 3.12 only, and cost five times as much). What does wait goes on from the awaited future's callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def run(
    coroutine: Coroutine[Any, Any, None],
    loop: asyncio.AbstractEventLoop,
    on_error: Callable[[BaseException], None],
) -> EagerRun | None:
    """Run `coroutine` until it ends (None) or waits (the run that goes on).

    It may await plain futures of the running loop, and what is built of them. `on_error` gets what it raises,
    cancellation excepted.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration:
        return None
    except Exception as error:  # noqa: BLE001  (the run's edge: everything goes to `on_error`)
        on_error(error)
        return None
    return EagerRun(coroutine, loop, on_error, awaited)


class EagerRun:
    """A coroutine that waits. Made by `run`."""

    __slots__ = ("_awaited", "_coroutine", "_loop", "_on_error", "done")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        loop: asyncio.AbstractEventLoop,
        on_error: Callable[[BaseException], None],
        awaited: asyncio.Future[Any] | None,
    ) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._on_error = on_error
        self._awaited: asyncio.Future[Any] | None = None
        self.done = False
        self._wait_for(awaited)

    def cancel(self) -> None:
        """Raise CancelledError at the point where the coroutine waits. Idempotent."""
        if self.done:
            return
        if self._awaited is not None:
            self._awaited.remove_done_callback(self._step)
            self._awaited = None
        self._advance(self._coroutine.throw, asyncio.CancelledError())

    def _step(self, _future: asyncio.Future[Any] | None) -> None:
        self._awaited = None
        if not self.done:
            self._advance(self._coroutine.send, None)

    def _advance(self, resume: Callable[[Any], Any], argument: BaseException | None) -> None:
        try:
            awaited = resume(argument)
        except (StopIteration, asyncio.CancelledError):
            self.done = True
        except Exception as error:  # noqa: BLE001  (as in `run`)
            self.done = True
            self._on_error(error)
        else:
            self._wait_for(awaited)

    def _wait_for(self, awaited: asyncio.Future[Any] | None) -> None:
        if awaited is None:  # asyncio.sleep(0)
            self._loop.call_soon(self._step, None)
            return
        awaited._asyncio_future_blocking = False
        self._awaited = awaited
        awaited.add_done_callback(self._step)
