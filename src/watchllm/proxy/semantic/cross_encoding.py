"""Asks the cross-encoder of the process: about each pair once, whoever waits for what it says."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from watchllm.cache.semantic.cross_encoder import Calibration, lifted
from watchllm.cache.semantic.vectors import PROJECT_LENGTH
from watchllm.cache.semantic.verdicts import Pair
from watchllm.proxy.semantic.judgement import Judgement
from watchllm.proxy.semantic.looked import BY_CROSS_ENCODER

if TYPE_CHECKING:
    from watchllm.cache.semantic.engine import Engine
    from watchllm.proxy.services import Services

NO, TOO_LONG, FAILED = BY_CROSS_ENCODER, "cross_encoder_long", "cross_encoder_failed"
TIMED_OUT, BUSY, SHADOW = "cross_encoder_timeout", "cross_encoder_busy", "cross_encoder_asked"
"""Why a look-up that a cross-encoder was, or was to be, asked about is a miss."""


class CrossReadings:
    """Those of one process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._under_way: dict[Pair, Judgement] = {}

    def ask(
        self, engine: Engine, pair: Pair, stored: str, asked: str, confidence: float, least: float
    ) -> Judgement | str:
        """Have the two questions read, or join who has; the reason where that cannot be. It is a yes if what the model
        says lifts the `confidence` to `least`."""
        judgement = self._under_way.get(pair)
        if judgement is not None:
            return judgement
        encoding = engine.cross_encoding
        assert encoding is not None
        reading = encoding.read(stored, asked, pair.partition[:PROJECT_LENGTH])
        if reading is None:
            return BUSY
        judgement = self._under_way[pair] = Judgement(TIMED_OUT)
        worth = partial(_worth, confidence, encoding.calibration, least)
        reading.add_done_callback(partial(self._ended, engine, pair, judgement, worth))
        return judgement

    def _ended(
        self,
        engine: Engine,
        pair: Pair,
        judgement: Judgement,
        worth: partial[tuple[float, bool]],
        reading: asyncio.Future[float | None],
    ) -> None:
        del self._under_way[pair]
        if reading.cancelled() or reading.exception() is not None:  # which the engine's health tells
            judgement.end(FAILED)
            return
        logit = reading.result()
        if logit is None:
            judgement.end(TOO_LONG)
            return
        judgement.confidence, equal = worth(logit)
        if self._services.semantic.engine is engine:  # else the process is ending
            engine.verdicts.put(pair, equal=equal)
        judgement.end(None if equal else NO)


def _worth(confidence: float, calibration: Calibration, least: float, logit: float) -> tuple[float, bool]:
    found = lifted(confidence, logit, calibration)
    return found, found >= least
