"""The cross-encoder of one process: loaded and asked in a thread of its own, for who waits only so long.

What was begun goes on when nobody waits any more: its verdict is remembered.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import Final

from watchllm.cache.semantic.cross_encoder import AS_IT_COMES, Calibration, CrossEncoder, CrossEncoderUnavailable
from watchllm.cache.semantic.shares import Shares

MOST_UNDER_WAY: Final = 16
"""Pairs that are read or wait for it, which projects share: with so many before it, another would not be in time."""


class CrossEncoding:
    """For one event loop. `load` gives the model, and raises CrossEncoderUnavailable; `seconds` is how long a look-up
    waits for what it says of a pair."""

    def __init__(
        self,
        load: Callable[[], CrossEncoder],
        calibration: Calibration = AS_IT_COMES,
        *,
        seconds: float,
        most_under_way: int = MOST_UNDER_WAY,
    ) -> None:
        self.calibration = calibration
        self.seconds = seconds
        self.counted: Counter[str] = Counter()
        """Pairs by what came of them: `read`, `late`, `too_long`, `failed`."""
        self._load = load
        self._places = Shares(most_under_way)
        self._thread = ThreadPoolExecutor(1, "semantic-cross")
        self._loading: Future[CrossEncoder] | None = None
        self._problem: str | None = None

    def start(self) -> None:
        """Load the model, in the thread."""
        if self._loading is None:
            self._loading = self._thread.submit(self._load)

    @property
    def is_loading(self) -> bool:
        return self._loading is not None and not self._loading.done()

    @property
    def version(self) -> str | None:
        """The model's, None while it is not there."""
        encoder = self._encoder()
        return None if encoder is None else encoder.version

    @property
    def problem(self) -> str | None:
        """Why it is of no use, or was of none for the latest pair."""
        if self._loading is None or not self._loading.done() or self._loading.cancelled():
            return None
        error = self._loading.exception()
        if error is None:
            return self._problem
        told = str(error) if isinstance(error, CrossEncoderUnavailable) else f"{type(error).__name__}: {error}"
        return f"doubts stay misses: {told}"

    def read(self, stored: str, asked: str, project: bytes) -> asyncio.Future[float | None] | None:
        """The model's number for two questions of a project, as `CrossEncoder.logit` says; None where too many are
        under way, or the model is not there."""
        encoder = self._encoder()
        if encoder is None or not self._places.take(project):
            return None
        reading = asyncio.get_running_loop().run_in_executor(self._thread, encoder.logit, stored, asked)
        reading.add_done_callback(partial(self._ended, project, monotonic()))
        return reading

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _encoder(self) -> CrossEncoder | None:
        loading = self._loading
        if loading is None or not loading.done() or loading.cancelled() or loading.exception() is not None:
            return None
        return loading.result()

    def _ended(self, project: bytes, began: float, reading: asyncio.Future[float | None]) -> None:
        self._places.give_back(project)
        if reading.cancelled():
            return
        error = reading.exception()
        if error is not None:
            self.counted["failed"] += 1
            self._problem = f"the cross-encoder failed with {type(error).__name__}: {error}"
            return
        in_time = monotonic() - began <= self.seconds
        self._problem = None if in_time else f"the cross-encoder took longer than {self.seconds * 1000:.0f} ms"
        self.counted["too_long" if reading.result() is None else "read" if in_time else "late"] += 1
