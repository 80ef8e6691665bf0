"""A cross-encoder: a small local model that reads two questions at once, asked where no guard said no and the local
evidence is too weak for a yes, as a judge is (`judge.is_asked_about`).

What its number is worth stands here, for the proxy and `watchllm eval`. Loads no library.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol

from watchllm.cache.semantic.decide import Decision
from watchllm.cache.semantic.vectors import QUESTION_LENGTH

_FARTHEST: Final = 30.0
"""Beyond such log-odds nothing is more certain."""


class CrossEncoderUnavailable(Exception):
    """A cross-encoder cannot be loaded; the message says what is missing and what to do."""


class CrossEncoder(Protocol):
    """`version` stands for the model: another one's numbers mean something else."""

    @property
    def version(self) -> str: ...

    def logit(self, stored: str, asked: str) -> float | None:
        """How far it takes two questions for equal, on a scale of its own that has no ends; None where they are longer
        together than it reads: what is cut off may be what differs. Takes milliseconds: not for the event loop."""
        ...


class Calibration(NamedTuple):
    """What a model's number is worth: `slope * number + intercept` is taken for the logarithm of the likelihood ratio
    of equal and different questions. As it comes, for a model that was trained on as many of either."""

    slope: float = 1.0
    intercept: float = 0.0


AS_IT_COMES: Final = Calibration()


def lifted(confidence: float, logit: float, calibration: Calibration) -> float:
    """The probability that serving is right once the model has read both questions, by Bayes' rule."""
    return probability(log_odds(confidence) + calibration.slope * logit + calibration.intercept)


def approved(decision: Decision, confidence: float) -> Decision:
    """The decision after the model's yes."""
    return decision._replace(confidence=confidence, hit=True, reason="the cross-encoder said that it will do")


def digest_of(question: str, version: str, calibration: Calibration, least: float) -> bytes:
    """What tells a question, to the letter, from others that a verdict is remembered of: a yes or no of this model, as
    it is calibrated, where the confidence has to be `least`. Never that of a judge's verdict."""
    settings = f"{version} {calibration.slope!r} {calibration.intercept!r} {least!r}\0"
    said_by = blake2b(settings.encode(), digest_size=16, person=b"cross-encoder").digest()
    return blake2b(question.encode(errors="surrogatepass"), digest_size=QUESTION_LENGTH, key=said_by).digest()


def log_odds(share: float) -> float:
    if share <= 0.0 or share >= 1.0:
        return math.copysign(_FARTHEST, share - 0.5)
    return math.log(share / (1.0 - share))


def probability(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-_FARTHEST, min(_FARTHEST, odds))))
