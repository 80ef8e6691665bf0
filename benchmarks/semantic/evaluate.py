"""`python -m benchmarks.semantic.evaluate FILE…`: the engine's decisions on labelled pairs, by kind.

Each file is JSONL of {"id", "capability", "a", "b", "label"}. `--misses`, `--wrong` and `--vetoes` print the pairs
behind the figures. False-hit rate = share of the pairs that must not be served and were; judged = the recall with a
judge without fault, who is asked about what no guard forbade.
"""

import argparse
import math
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from benchmarks.semantic.pairs import Pair, bag_similarity, read_pairs
from watchllm.cache.semantic.decide import Candidate, Decision, Policy, decide
from watchllm.cache.semantic.features import features

_Z = 1.959963984540054


class Judged(NamedTuple):
    """A pair and what was decided about it."""

    pair: Pair
    decision: Decision
    seconds: float


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson 1927)."""
    if not trials:
        return 0.0, 1.0
    rate, z2 = successes / trials, _Z * _Z
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials * trials)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def judge(pairs: list[Pair], policy: Policy) -> list[Judged]:
    """Decide every pair by itself; only the decision is timed, its features are there."""
    judged = []
    for pair in pairs:
        question, stored = features(pair.b), features(pair.a)
        candidate = Candidate(bag_similarity(pair.a, pair.b), stored)
        start = time.perf_counter()
        decision = decide(question, candidate, policy)
        judged.append(Judged(pair, decision, time.perf_counter() - start))
    return judged


def line(name: str, judged: list[Judged]) -> str:
    """One row of the table."""
    positive = [item for item in judged if item.pair.label]
    hits = [item for item in judged if item.decision.hit]
    right = sum(item.pair.label for item in hits)
    wrong, negatives = len(hits) - right, len(judged) - len(positive)
    open_to_judge = sum(item.decision.hit or item.decision.guard is None for item in positive)
    microseconds = sum(item.seconds for item in judged) / len(judged) * 1e6
    return (
        f"{name:16.16} {len(judged):5} {_rate(len(hits), len(judged))} {_rate(right, len(hits))}"
        f" {_rate(right, len(positive))} {_rate(wrong, negatives)}"
        f" {_share(open_to_judge, len(positive)):>6} {microseconds:6.1f}"
    )


def _rate(successes: int, trials: int) -> str:
    if not trials:
        return f"{'-':>20}"
    low, high = wilson(successes, trials)
    return f"{successes / trials * 100:5.1f} ({low * 100:5.1f}-{high * 100:5.1f})"


def _share(successes: int, trials: int) -> str:
    return f"{successes / trials * 100:.1f}" if trials else "-"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.semantic.evaluate", description="Judge decisions.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--min-confidence", type=float, default=Policy().min_confidence)
    parser.add_argument("--misses", action="store_true", help="print pairs that might have been served")
    parser.add_argument("--wrong", action="store_true", help="print pairs that were served and must not be")
    parser.add_argument("--vetoes", action="store_true", help="print pairs that a guard forbade wrongly")
    arguments = parser.parse_args()
    judged = judge(list(read_pairs(arguments.files)), Policy(arguments.min_confidence))
    if not judged:
        parser.error("there are no pairs in these files")
    print(
        f"{'kind':16} {'pairs':>5} {'hit rate':>19} {'precision':>19} {'recall':>19} {'false-hit rate':>19}"
        f" {'judged':>6} {'us':>6}"
    )
    for name in sorted({item.pair.capability for item in judged}):
        print(line(name, [item for item in judged if item.pair.capability == name]))
    print(line("all", judged))
    print("guards:", dict(Counter(item.decision.guard for item in judged if item.decision.guard).most_common()))
    for pair, decision, _ in judged:
        shown = (
            (arguments.wrong and decision.hit and not pair.label)
            or (arguments.misses and not decision.hit and pair.label)
            or (arguments.vetoes and decision.guard is not None and pair.label)
        )
        if shown:
            print(
                f"{pair.id} [{decision.guard}] {decision.confidence:.2f} {decision.reason}"
                f"\n   {pair.a[:300]}\n   {pair.b[:300]}"
            )


if __name__ == "__main__":
    main()
