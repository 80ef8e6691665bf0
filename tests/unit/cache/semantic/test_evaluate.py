"""Pairs of prompts, judged: what a file may hold, and what is counted."""

import pytest

from watchllm.cache.semantic.decide import DEFAULT_POLICY, Decision, Policy
from watchllm.cache.semantic.evaluate import BadPair, Judged, Opinion, Pair, consult, read_pairs, summary, wilson
from watchllm.cache.semantic.judge import MAX_QUESTION


def judged(label: int | None, *, hit: bool, capability: str = "all") -> Judged:
    return Judged(Pair("p", "a", "b", label, capability), Decision(0.9, 0.9, hit, None, ""), 1e-5)


def test_lines_become_pairs_and_empty_ones_are_passed_over() -> None:
    lines = [b'{"id": "1", "a": "x", "b": "y"}\n', b"\n", b'{"id": "2", "a": "x", "b": "y", "label": 1, "more": 2}']
    assert list(read_pairs(lines)) == [Pair("1", "x", "y"), Pair("2", "x", "y", 1)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"no json", "line 2"),
        (b'{"id": "2", "a": "x"}', "line 2"),
        (b'{"id": 2.5, "a": "x", "b": "y"}', "line 2"),
        (b'{"id": "2", "a": "x", "b": "y", "label": 2}', "label is 1, 0"),
        (b'{"id": "1", "a": "x", "b": "y"}', "was there before"),
        (b"\xff", "line 2"),
        (b"[" * 100_000, "line 2"),
    ],
)
def test_what_is_no_pair_is_said_with_its_line(line: bytes, said: str) -> None:
    with pytest.raises(BadPair, match=said):
        list(read_pairs([b'{"id": "1", "a": "x", "b": "y"}', line]))


def test_rates_are_of_what_they_say() -> None:
    rows = summary(
        [
            judged(1, hit=True, capability="number"),
            judged(1, hit=False, capability="number"),
            judged(0, hit=True, capability="date"),
            judged(0, hit=False, capability="date"),
            judged(None, hit=True, capability="date"),
        ],
        DEFAULT_POLICY,
    )
    assert list(rows) == ["date", "number", "all"]
    assert (rows["number"]["recall"], rows["number"]["precision"], rows["number"]["false_hit_rate"]) == (0.5, 1.0, None)
    assert (rows["date"]["recall"], rows["date"]["precision"], rows["date"]["false_hit_rate"]) == (None, 0.0, 0.5)
    everything = rows["all"]
    assert (everything["pairs"], everything["hits"], everything["hit_rate"]) == (5, 3, 0.6)
    assert (everything["recall"], everything["precision"], everything["false_hit_rate"]) == (0.5, 0.5, 0.5)


def doubtful(
    similarity: float = 0.9, confidence: float = 0.5, *, guard: str | None = None, label: int = 1, a: str = "a"
) -> Judged:
    """A miss, and about what."""
    return Judged(Pair("p", a, "b", label), Decision(similarity, confidence, hit=False, guard=guard, reason=""), 1e-5)


@pytest.mark.parametrize(
    ("one", "policy", "asked"),
    [
        (doubtful(), Policy(), True),
        (doubtful(0.89), Policy(similarity_threshold=0.9), False),
        (doubtful(0.9), Policy(similarity_threshold=0.9), True),
        (doubtful(0.49), Policy(), False),  # they are about different things
        (doubtful(confidence=0.04), Policy(), False),  # a yes would not be enough
        (doubtful(confidence=0.04), Policy(min_confidence=0.7), True),
        (doubtful(confidence=0.5), Policy(min_confidence=1.0), False),
        (doubtful(guard="number"), Policy(), False),
        (doubtful(a="x" * (MAX_QUESTION + 1)), Policy(), False),
        # What is sure enough and yet below the floor is no matter of doubt.
        (doubtful(0.8, 0.95), Policy(similarity_threshold=0.9), False),
    ],
)
def test_recall_with_a_judge_is_of_those_that_a_proxy_would_ask_about(one: Judged, policy: Policy, asked: bool) -> None:
    consulted = list(consult([one], policy, lambda pair: Opinion(pair.label == 1, 0.1, (1, 1))))
    assert (consulted[0].opinion is not None, consulted[0].decision.hit) == (asked, asked)
    row = summary([one, judged(1, hit=True), judged(0, hit=False)], policy)["all"]
    assert row["recall"] == 1 / 2
    assert row["recall_judged"] == summary([*consulted, judged(1, hit=True)], policy)["all"]["recall"]
    assert row["recall_judged"] == (2 / 2 if asked else 1 / 2)


def test_a_judge_without_fault_makes_no_hit_of_what_is_none() -> None:
    rows = summary([judged(1, hit=True), doubtful(label=0)], DEFAULT_POLICY)
    assert (rows["all"]["recall_judged"], rows["all"]["false_hit_rate"]) == (1.0, 0.0)


def test_the_interval_of_a_rate() -> None:
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)  # Wilson, 1927, by hand
    assert wilson(0, 0) == (0.0, 1.0)


def test_intervals_are_told_in_digits_that_can_be_read() -> None:
    told = summary([judged(1, hit=True)] * 84 + [judged(0, hit=False)] * 277, Policy())["all"]
    assert told["precision_95"] == [0.956268, 1.0]
    assert told["false_hit_rate_95"] == [0.0, 0.013678]
