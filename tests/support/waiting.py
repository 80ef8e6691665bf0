"""Waiting on a condition, with a bound: what tests do instead of sleeping."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

_DAY_SECONDS = 86_400

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, *, within: float = 10.0, every: float = 0.01) -> T:
    """Call `condition` until it gives something true, and return that.

    Times are seconds. Raises AssertionError, naming `what` was awaited and the last value, when `within` has passed.
    """
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {within:g} s in vain: {what} (last: {value!r})")
        time.sleep(every)


def wait_for_a_day(seconds: float, clock: Callable[[], float] = time.time) -> None:
    """Return when the day (UTC) does not end within so many seconds; `clock` gives epoch seconds."""
    midnight = (clock() // _DAY_SECONDS + 1) * _DAY_SECONDS
    if midnight - clock() < seconds:
        wait_for(lambda: clock() >= midnight, "midnight", within=2 * seconds)


async def until(condition: Callable[[], object]) -> None:
    """Let the running loop go on until `condition` is true. Raises TimeoutError after ten seconds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)
