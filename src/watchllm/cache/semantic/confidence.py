"""How likely it is that serving is right: a logistic model of what was found, with weights from `confidence.toml`.

The weights are made by `benchmarks/semantic/train.py`, which tells from what.
"""

import math
import tomllib
from functools import cache
from importlib.resources import files
from operator import mul
from typing import Final

from watchllm.cache.semantic.align import Alignment
from watchllm.cache.semantic.features import Features

EVIDENCE: Final = (
    "bias",
    "similarity",
    "shared",
    "unexplained",
    "unexplained_many",
    "moved",
    "forms",
    "typos",
    "optional",
    "reordered",
    "opposites",
    "tense",
    "question",
    "short",
)
"""What the model looks at, in the order of its weights."""


_ANY: Final = ("", "?")


def evidence(a: Features, b: Features, alignment: Alignment, similarity: float) -> tuple[float, ...]:
    """The model's inputs, each between 0 and 1."""
    shared, forms, typos, optional, reordered, opposites, moved, left, right, retold = alignment
    unexplained = len(left) + len(right)
    tokens = max(len(a.keys), len(b.keys))
    return (
        1.0,
        max(0.0, similarity),
        shared,
        1.0 if unexplained or moved else 0.0,
        min(unexplained, 6) / 6,
        1.0 if moved else 0.0,
        min(forms, 4) / 4 if forms else 0.0,
        min(typos, 4) / 4 if typos else 0.0,
        min(optional, 4) / 4 if optional else 0.0,
        float(reordered),
        min(opposites, 2) / 2 if opposites else 0.0,
        1.0 if a.past != b.past and not retold else 0.0,
        1.0 if a.question != b.question and a.question not in _ANY and b.question not in _ANY else 0.0,
        1.0 if tokens < 3 else 0.0,
    )


def confidence(inputs: tuple[float, ...]) -> float:
    """The probability, between 0 and 1, that serving is right."""
    score = sum(map(mul, weights(), inputs))
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, score))))


@cache
def weights() -> tuple[float, ...]:
    """The model's weights, in the order of `EVIDENCE`."""
    text = (files(__package__) / "confidence.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)["weights"]
    return tuple(float(table[name]) for name in EVIDENCE)
