"""Runs a coroutine at once, on the caller's stack, up to its first real wait.

What never waits never becomes a task: no event-loop turn, no context copy, no scheduling (asyncio's own eager tasks
exist from Python 3.12 only, and cost five times as much). What does wait goes on from the awaited future's callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def run(
    coroutine: Coroutine[Any, Any, None],
    loop: asyncio.AbstractEventLoop,
    on_error: Callable[[BaseException], None],
) -> EagerRun | None:
    """Run `coroutine` until it ends (None) or waits (the run that goes on).

    It may await plain futures of the running loop, outcomes, and what is built of them. `on_error` gets what it
    raises, cancellation excepted.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration:
        return None
    except Exception as error:  # noqa: BLE001  (the run's edge: everything goes to `on_error`)
        on_error(error)
        return None
    return EagerRun(coroutine, loop, on_error, awaited)


class Outcome(Generic[T]):
    """A future without the loop: who waits for it, one run at most, goes on inside the call that resolves it.

    That saves a turn of the loop and its system call. Only the first resolution counts.
    """

    __slots__ = ("_asyncio_future_blocking", "_error", "_go_on", "_resolved", "_value")

    _asyncio_future_blocking: bool
    """Part of what asyncio's futures are; nothing here looks at it."""

    def __init__(self) -> None:
        self._resolved = False
        self._go_on: Callable[[Any], None] | None = None

    def done(self) -> bool:
        return self._resolved

    def resolve(self, value: T) -> None:
        if not self._resolved:
            self._value = value
            self._end(None)

    def fail(self, error: Exception) -> None:
        if not self._resolved:
            self._end(error)

    def result(self) -> T:
        """What it was resolved with, or what it failed with is raised; asyncio.InvalidStateError before either."""
        if not self._resolved:
            raise asyncio.InvalidStateError("the outcome is not known yet")
        if self._error is not None:
            # Several may be told of one error: without this, each would find the frames of all before it in there.
            raise self._error.with_traceback(None)
        return self._value

    def add_done_callback(self, go_on: Callable[[Any], None]) -> None:
        """For the run that waits."""
        self._go_on = go_on

    def remove_done_callback(self, _go_on: Callable[[Any], None]) -> None:
        self._go_on = None

    def __await__(self) -> Generator[Any, None, T]:
        if not self._resolved:
            yield self
        return self.result()

    def _end(self, error: Exception | None) -> None:
        self._resolved = True
        self._error = error
        go_on, self._go_on = self._go_on, None
        if go_on is not None:
            go_on(self)


class EagerRun:
    """A coroutine that waits. Made by `run`. `on_end` is called when it is over, however it ended."""

    __slots__ = ("_awaited", "_coroutine", "_loop", "_on_error", "done", "on_end")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, None],
        loop: asyncio.AbstractEventLoop,
        on_error: Callable[[BaseException], None],
        awaited: asyncio.Future[Any] | Outcome[Any] | None,
    ) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._on_error = on_error
        self._awaited: asyncio.Future[Any] | Outcome[Any] | None = None
        self.done = False
        self.on_end: Callable[[], None] | None = None
        self._wait_for(awaited)

    def cancel(self) -> None:
        """Raise CancelledError at the point where the coroutine waits. Idempotent."""
        if self.done:
            return
        if self._awaited is not None:
            self._awaited.remove_done_callback(self._step)
            self._awaited = None
        self._advance(self._coroutine.throw, asyncio.CancelledError())

    def _step(self, _awaited: asyncio.Future[Any] | Outcome[Any] | None) -> None:
        self._awaited = None
        if not self.done:
            self._advance(self._coroutine.send, None)

    def _advance(self, resume: Callable[[Any], Any], argument: BaseException | None) -> None:
        try:
            awaited = resume(argument)
        except (StopIteration, asyncio.CancelledError):
            self._end()
        except Exception as error:  # noqa: BLE001  (as in `run`)
            self.done = True
            self._on_error(error)
            self._end()
        else:
            self._wait_for(awaited)

    def _end(self) -> None:
        self.done = True
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()

    def _wait_for(self, awaited: asyncio.Future[Any] | Outcome[Any] | None) -> None:
        if awaited is None:  # asyncio.sleep(0)
            self._loop.call_soon(self._step, None)
            return
        awaited._asyncio_future_blocking = False
        self._awaited = awaited
        awaited.add_done_callback(self._step)
