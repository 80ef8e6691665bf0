"""Finds what a cross-encoder's numbers are worth, from pairs of which somebody knows whether they are equal.

Platt's method ("Probabilistic outputs for support vector machines", 1999; Newton's steps and smoothed labels as in Lin,
Lin and Weng, 2007), with the local confidence as a given: what is fitted is only what the model adds to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import pstdev
from typing import Final, NamedTuple

from watchllm.cache.semantic.cross_encoder import Calibration, log_odds, probability

LEAST_OF_EACH: Final = 10
"""Equal pairs, and as many others, below which nothing is fitted."""
_MOST_STEPS: Final = 100
_RIDGE: Final = 1e-6
_CLOSE: Final = 1e-9


class Reading(NamedTuple):
    """A pair in doubt: the local confidence, the model's number, and whether serving is right."""

    confidence: float
    logit: float
    equal: bool


def fitted(readings: Sequence[Reading]) -> Calibration | None:
    """What the numbers are worth; None where there are too few pairs of a kind, or the numbers tell nothing, or the
    opposite of what they should."""
    equal = sum(one.equal for one in readings)
    different = len(readings) - equal
    spread = pstdev(one.logit for one in readings) if readings else 0.0
    if min(equal, different) < LEAST_OF_EACH or spread == 0.0:
        return None
    high, low = (equal + 1.0) / (equal + 2.0), 1.0 / (different + 2.0)
    rows = [(log_odds(one.confidence), one.logit / spread, high if one.equal else low) for one in readings]
    slope, intercept = _likeliest(rows)
    return Calibration(slope / spread, intercept) if slope > 0.0 else None


def ranked_right(readings: Sequence[Reading]) -> float | None:
    """How often an equal pair has a higher number than another one, a tie as half (the area under the ROC curve); None
    where either is missing."""
    equal = [one.logit for one in readings if one.equal]
    others = [one.logit for one in readings if not one.equal]
    if not equal or not others:
        return None
    ahead = sum((a > b) + 0.5 * (a == b) for a in equal for b in others)
    return ahead / (len(equal) * len(others))


def _likeliest(rows: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """The slope and the intercept under which the pairs' labels are likeliest."""
    slope = intercept = 0.0
    loss = _loss(rows, slope, intercept)
    for _ in range(_MOST_STEPS):
        step, size = _step(rows, slope, intercept), 1.0
        while (ahead := _loss(rows, slope + size * step[0], intercept + size * step[1])) > loss:
            size /= 2.0
            if size < _CLOSE:
                return slope, intercept
        slope, intercept, loss = slope + size * step[0], intercept + size * step[1], ahead
        if max(abs(step[0]), abs(step[1])) < _CLOSE:
            break
    return slope, intercept


def _loss(rows: Sequence[tuple[float, float, float]], slope: float, intercept: float) -> float:
    """How unlikely the pairs' labels are: the negative log-likelihood."""
    total = 0.0
    for given, logit, target in rows:
        odds = given + slope * logit + intercept
        total += max(odds, 0.0) - target * odds + math.log1p(math.exp(-abs(odds)))
    return total


def _step(rows: Sequence[tuple[float, float, float]], slope: float, intercept: float) -> tuple[float, float]:
    """Newton's next step of the log-likelihood."""
    gradient_slope = gradient_intercept = 0.0
    slopes = both = intercepts = 0.0
    for given, logit, target in rows:
        likely = probability(given + slope * logit + intercept)
        wrong, weight = target - likely, likely * (1.0 - likely)
        gradient_slope += wrong * logit
        gradient_intercept += wrong
        slopes += weight * logit * logit
        both += weight * logit
        intercepts += weight
    # What all are sure of has no curvature.
    slopes, intercepts = slopes + _RIDGE, intercepts + _RIDGE
    determinant = slopes * intercepts - both * both
    return (
        (intercepts * gradient_slope - both * gradient_intercept) / determinant,
        (slopes * gradient_intercept - both * gradient_slope) / determinant,
    )
