"""Judges the engine on pairs of prompts: each by itself, with no history, by the function that the proxy uses."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, Final, NamedTuple

import msgspec
import numpy

from watchllm.cache.semantic import cross_encoder
from watchllm.cache.semantic.cross_encoder import Calibration
from watchllm.cache.semantic.decide import Candidate, Decision, Policy, decide
from watchllm.cache.semantic.embedder import Embedder
from watchllm.cache.semantic.features import features
from watchllm.cache.semantic.judge import approved, can_be_shown, is_asked_about

MAX_LINE: Final = 4 * 1024 * 1024
"""Bytes of one line of a file of pairs."""
_Z: Final = 1.959963984540054  # of a 95 % interval


class BadPair(ValueError):
    """A line that is no pair; the message names the line and what was expected."""


class Pair(msgspec.Struct, frozen=True):
    """`label` 1 = serving the answer to `a` for `b` is right, 0 = it is not, None = nobody said. `context` is what both
    were asked in: it is the same for both, so it decides nothing."""

    id: str | int
    a: str
    b: str
    label: int | None = None
    capability: str = "all"
    context: Any = None


class Opinion(NamedTuple):
    """What a judge said of a pair, None = neither yes nor no; how long that took, and the tokens that it was billed."""

    verdict: bool | None
    seconds: float
    tokens: tuple[int, int]


class CrossRead(NamedTuple):
    """What a cross-encoder said of a pair of which the local `confidence` was that; `logit` None = it is too long."""

    confidence: float
    logit: float | None
    is_yes: bool
    seconds: float


class Judged(NamedTuple):
    """A pair, what was decided about it and how long the decision took, the prompts' features apart. `reading` is that
    of a cross-encoder, `opinion` that of a judge: they are asked about some."""

    pair: Pair
    decision: Decision
    seconds: float
    opinion: Opinion | None = None
    reading: CrossRead | None = None


def read_pairs(lines: Iterable[bytes]) -> Iterator[Pair]:
    """The pairs of a file of JSON lines; empty lines are passed over. Raises BadPair."""
    seen = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE:
            raise BadPair(f"line {number} has more than {MAX_LINE} bytes")
        try:
            pair = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadPair(f'line {number} is not {{"id", "a", "b"}}: {error}') from None
        if pair.label not in (None, 0, 1):
            raise BadPair(f"line {number}: label is 1, 0 or left out, not {pair.label}")
        if pair.id in seen:
            raise BadPair(f"line {number}: the id {str(pair.id)[:80]!r} was there before")
        seen.add(pair.id)
        yield pair


def judge(pairs: Iterable[Pair], embedder: Embedder, policy: Policy) -> Iterator[Judged]:
    """Decide whether the answer to each pair's `a` would be served for its `b`."""
    for pair in pairs:
        stored, asked = embedder.embed([pair.a, pair.b])
        question, candidate = features(pair.b), Candidate(float(numpy.dot(stored, asked)), features(pair.a))
        began = time.perf_counter()
        decision = decide(question, candidate, policy)
        yield Judged(pair, decision, time.perf_counter() - began)


def read_across(
    judged: Iterable[Judged], policy: Policy, logit: Callable[[str, str], float | None], calibration: Calibration
) -> Iterator[Judged]:
    """Have a cross-encoder decide about the pairs that a proxy would ask one about."""
    for one in judged:
        pair, decision = one.pair, one.decision
        if not (is_asked_about(decision, policy) and can_be_shown(pair.a) and can_be_shown(pair.b)):
            yield one
            continue
        began = time.perf_counter()
        number = logit(pair.a, pair.b)
        seconds = time.perf_counter() - began
        found = 0.0 if number is None else cross_encoder.lifted(decision.confidence, number, calibration)
        is_yes = number is not None and found >= policy.min_confidence
        yield one._replace(
            decision=cross_encoder.approved(decision, found) if is_yes else decision,
            reading=CrossRead(decision.confidence, number, is_yes, seconds),
        )


def consult(judged: Iterable[Judged], policy: Policy, ask: Callable[[Pair], Opinion]) -> Iterator[Judged]:
    """Have a judge decide about the pairs that a proxy would ask one about."""
    for one in judged:
        if not is_judged(one, policy):
            yield one
            continue
        opinion = ask(one.pair)
        yield one._replace(decision=approved(one.decision) if opinion.verdict else one.decision, opinion=opinion)


def is_judged(one: Judged, policy: Policy) -> bool:
    """Whether a proxy would ask a judge about that pair, whatever it thinks of it itself."""
    pair = one.pair
    return is_asked_about(one.decision, policy) and can_be_shown(pair.a) and can_be_shown(pair.b)


def summary(judged: Iterable[Judged], policy: Policy) -> dict[str, dict[str, Any]]:
    """What came of it by capability, and of all together under `all`: rates from 0 to 1, None where nothing counts.

    `recall_judged` is the recall with a judge without fault, who is asked about what a proxy would ask one about.
    """
    everything = list(judged)
    ordered = sorted(everything, key=lambda one: one.pair.capability)
    found = {name: _row(list(rows), policy) for name, rows in groupby(ordered, key=lambda one: one.pair.capability)}
    return {**{name: row for name, row in found.items() if name != "all"}, "all": _row(everything, policy)}


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a rate (Wilson, "Probable inference, the law of succession", 1927)."""
    if not trials:
        return 0.0, 1.0
    rate, z2 = successes / trials, _Z * _Z
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials * trials)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


_decode = msgspec.json.Decoder(Pair).decode


def _row(judged: list[Judged], policy: Policy) -> dict[str, Any]:
    labelled = [one for one in judged if one.pair.label is not None]
    positives = sum(one.pair.label == 1 for one in labelled)
    hits = [one for one in labelled if one.decision.hit]
    right = sum(one.pair.label == 1 for one in hits)
    negatives, wrong = len(labelled) - positives, len(hits) - right
    return {
        "pairs": len(judged),
        "hits": sum(one.decision.hit for one in judged),
        "hit_rate": _share(sum(one.decision.hit for one in judged), len(judged)),
        "precision": _share(right, len(hits)),
        "precision_95": _interval(right, len(hits)),
        "recall": _share(right, positives),
        "recall_judged": _share(
            sum(one.pair.label == 1 and (one.decision.hit or is_judged(one, policy)) for one in labelled), positives
        ),
        "false_hit_rate": _share(wrong, negatives),
        "false_hit_rate_95": _interval(wrong, negatives),
        "microseconds": round(sum(one.seconds for one in judged) / len(judged) * 1e6, 1) if judged else None,
    }


def _interval(part: int, whole: int) -> list[float] | None:
    """As many digits as anybody reads: 1.0 is no 0.9999999999999999."""
    return [round(bound, 6) for bound in wilson(part, whole)] if whole else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
