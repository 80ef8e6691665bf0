"""`python -m benchmarks.semantic.evaluate FILE…`: the pairs behind the figures of `watchllm eval`.

The figures are those of the product (`watchllm.cache.semantic.evaluate`), for several files at once. `--misses`,
`--wrong` and `--vetoes` print the pairs that were missed, served wrongly, and forbidden wrongly.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from watchllm.cache.semantic.decide import Policy
from watchllm.cache.semantic.evaluate import Judged, Pair, judge, read_pairs, summary
from watchllm.cache.semantic.static import StaticEmbedder

_HEADING = (
    f"{'kind':16} {'pairs':>5} {'hits':>6} {'precis':>6} {'95 %':>15} {'recall':>6} {'false':>6} {'95 %':>15}"
    f" {'judged':>6} {'us':>6}"
)


def pairs(files: Sequence[Path]) -> Iterator[Pair]:
    """The pairs of all files. Raises BadPair."""
    for file in files:
        with file.open("rb") as lines:
            yield from read_pairs(lines)


def line(name: str, row: dict[str, Any]) -> str:
    """One row of the table, from a row of `summary`."""
    return (
        f"{name:16.16} {row['pairs']:5} {_percent(row['hit_rate'])} {_percent(row['precision'])}"
        f" {_interval(row['precision_95'])} {_percent(row['recall'])} {_percent(row['false_hit_rate'])}"
        f" {_interval(row['false_hit_rate_95'])} {_percent(row['recall_judged'])} {row['microseconds']:6.1f}"
    )


def _percent(share: float | None) -> str:
    return f"{'-':>6}" if share is None else f"{share * 100:6.1f}"


def _interval(shares: list[float] | None) -> str:
    return f"{'-':>15}" if shares is None else f"  ({shares[0] * 100:5.1f}-{shares[1] * 100:5.1f})"


def _shown(judged: Judged, arguments: argparse.Namespace) -> bool:
    label, decision = judged.pair.label, judged.decision
    return bool(
        (arguments.wrong and decision.hit and label == 0)
        or (arguments.misses and not decision.hit and label == 1)
        or (arguments.vetoes and decision.guard is not None and label == 1)
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.semantic.evaluate", description="Judge decisions.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--min-confidence", type=float, default=Policy().min_confidence)
    parser.add_argument("--misses", action="store_true", help="print pairs that might have been served")
    parser.add_argument("--wrong", action="store_true", help="print pairs that were served and must not be")
    parser.add_argument("--vetoes", action="store_true", help="print pairs that a guard forbade wrongly")
    arguments = parser.parse_args()
    policy = Policy(arguments.min_confidence)
    judged = list(judge(pairs(arguments.files), StaticEmbedder.load(), policy))
    if not judged:
        parser.error("there are no pairs in these files")
    print(_HEADING)
    for name, row in summary(judged, policy).items():
        print(line(name, row))
    print("guards:", dict(Counter(one.decision.guard for one in judged if one.decision.guard).most_common()))
    for one in judged:
        if _shown(one, arguments):
            print(
                f"{one.pair.id} [{one.decision.guard}] {one.decision.confidence:.2f} {one.decision.reason}"
                f"\n   {one.pair.a[:300]}\n   {one.pair.b[:300]}"
            )


if __name__ == "__main__":
    main()
