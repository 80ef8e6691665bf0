"""`python -m benchmarks.semantic.train FILE… [--write]`: fit the confidence model to labelled pairs.

The data are pairs written for this purpose by those who made the engine: `pairs_train.jsonl` and `pairs_tune.jsonl`.
None is scraped or made from templates; `pairs_report.jsonl` is never read here. A pair that a guard forbids is left
out, for the model is not asked about it.

The model is logistic. Its weights are fitted by gradient descent from a belief of ours (`BELIEF`), with a penalty on
the square of how far they leave it; each keeps the sign that its meaning gives it (a typo never raises the
confidence), so that a chance of some hundred pairs, chosen to be hard, cannot turn it round. Where the pairs say
nothing of a weight, it stays what was believed.

Shown are cross-validated figures: log loss, Brier score, area under the curve, and how often what was said came true.
`--write` puts the weights into `confidence.toml`. The similarity is that of the embedded embedder.
"""

import argparse
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy

from benchmarks.semantic.evaluate import pairs
from watchllm.cache.semantic import confidence as model
from watchllm.cache.semantic.align import align
from watchllm.cache.semantic.comparable import comparable
from watchllm.cache.semantic.evaluate import Pair
from watchllm.cache.semantic.features import features
from watchllm.cache.semantic.guards import before_alignment, guard
from watchllm.cache.semantic.lexicon import lexicon
from watchllm.cache.semantic.static import StaticEmbedder

FOLDS = 5
STEPS = 4000
RATE = 0.5
PENALTY = 0.01
BELIEF = {
    "bias": 2.0,
    "similarity": 0.5,
    "shared": 1.0,
    "unexplained": -3.0,
    "unexplained_many": -2.0,
    "moved": -2.0,
    "forms": -0.5,
    "typos": -0.5,
    "optional": -1.0,
    "reordered": -0.3,
    "opposites": -1.0,
    "tense": -2.0,
    "question": -2.0,
    "short": -0.5,
}
_RAISES = ("similarity", "shared")
_FREE = ("bias",)
_BINS = (0.0, 0.1, 0.3, 0.5, 0.8, 0.9, 1.01)


class Example(NamedTuple):
    """The model's inputs for a pair, and whether serving it is right."""

    inputs: tuple[float, ...]
    label: int


def examples(labelled: Iterable[Pair]) -> list[Example]:
    """What the model is asked about: pairs that no guard forbids."""
    found, embedder = [], StaticEmbedder.load()
    for pair in labelled:
        a, b = features(pair.b), features(pair.a)
        if before_alignment(a, b) is not None:
            continue
        known = lexicon(a.language or b.language or "en")
        a, b = comparable(a, b)
        alignment = align(a, b, known)
        if guard(a, b, alignment, known) is None:
            one, other = embedder.embed([pair.a, pair.b])
            inputs = model.evidence(a, b, alignment, float(numpy.dot(one, other)))
            found.append(Example(inputs, int(pair.label == 1)))
    return found


def fit(data: Sequence[Example]) -> list[float]:
    """The weights, by projected gradient descent on the mean log loss."""
    belief = [BELIEF[name] for name in model.EVIDENCE]
    weights = list(belief)
    for _ in range(STEPS):
        slope = [PENALTY * (weight - believed) for weight, believed in zip(weights, belief, strict=True)]
        for inputs, label in data:
            error = (_probability(weights, inputs) - label) / len(data)
            for at, value in enumerate(inputs):
                slope[at] += error * value
        for at, name in enumerate(model.EVIDENCE):
            weight = weights[at] - RATE * slope[at]
            weights[at] = weight if name in _FREE else max(0.0, weight) if name in _RAISES else min(0.0, weight)
    return weights


def _probability(weights: Sequence[float], inputs: Sequence[float]) -> float:
    score = sum(weight * value for weight, value in zip(weights, inputs, strict=True))
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, score))))


def cross_validated(data: Sequence[Example]) -> list[tuple[float, int]]:
    """The probability of each example by a model that has not seen it, and its label."""
    said: list[tuple[float, int]] = []
    for fold in range(FOLDS):
        weights = fit([example for at, example in enumerate(data) if at % FOLDS != fold])
        said.extend((_probability(weights, inputs), label) for inputs, label in data[fold::FOLDS])
    return said


def show(said: Sequence[tuple[float, int]]) -> None:
    """Print the figures."""
    count = len(said)
    loss = -sum(math.log(max(1e-9, p if label else 1 - p)) for p, label in said) / count
    brier = sum((p - label) ** 2 for p, label in said) / count
    right, wrong = [p for p, label in said if label], [p for p, label in said if not label]
    above = sum((p > q) + 0.5 * (p == q) for p in right for q in wrong) / (len(right) * len(wrong))
    print(
        f"{count} pairs, {len(right)} right; cross-validated: log loss {loss:.3f}, Brier {brier:.3f}, AUC {above:.3f}"
    )
    for low, high in pairwise(_BINS):
        inside = [(p, label) for p, label in said if low <= p < high]
        if inside:
            mean = sum(p for p, _ in inside) / len(inside)
            came = sum(label for _, label in inside) / len(inside)
            print(
                f"  said {low:.1f} to {min(high, 1.0):.1f}: {len(inside):4} pairs,"
                f" {mean:.2f} on average, {came:.2f} came true"
            )


def main() -> None:
    """Fit, show, and write if asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.semantic.train", description="Fit the confidence model."
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="write src/watchllm/cache/semantic/confidence.toml")
    arguments = parser.parse_args()
    data = examples(pairs(arguments.files))
    show(cross_validated(data))
    weights = fit(data)
    lines = [f"{name} = {weight:.3f}" for name, weight in zip(model.EVIDENCE, weights, strict=True)]
    text = "\n".join(
        ["# Made by `python -m benchmarks.semantic.train`, which tells from what and how.", "[weights]", *lines, ""]
    )
    print(text)
    if arguments.write:
        Path(model.__file__).with_name("confidence.toml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
