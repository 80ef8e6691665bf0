"""Finds what a cross-encoder's numbers are worth, from pairs of which somebody knows whether they are equal.

Platt's method ("Probabilistic outputs for support vector machines", 1999; Newton's steps and smoothed labels as in Lin,
Lin and Weng, 2007), with the local confidence as a given: what is fitted is only what the model adds to it.
"""

from __future__ import annotations

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
    slope = intercept = 0.0
    for _ in range(_MOST_STEPS):
        step = _step(rows, slope, intercept)
        slope, intercept = slope + step[0], intercept + step[1]
        if max(abs(step[0]), abs(step[1])) < _CLOSE:
            break
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


def _step(rows: Sequence[tuple[float, float, float]], slope: float, intercept: float) -> tuple[float, float]:
    """Newton's next step of the log-likelihood, bounded: far from the best one it would go too far."""
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
        _bounded((intercepts * gradient_slope - both * gradient_intercept) / determinant),
        _bounded((slopes * gradient_intercept - both * gradient_slope) / determinant),
    )


def _bounded(step: float) -> float:
    return max(-1.0, min(1.0, step))
