"""Pairs of prompts, judged: what a file may hold, and what is counted."""

import pytest

from watchllm.cache.semantic.decide import Decision
from watchllm.cache.semantic.evaluate import BadPair, Judged, Pair, read_pairs, summary, wilson


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
        (b'{"id": 2, "a": "x", "b": "y"}', "line 2"),
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
        ]
    )
    assert list(rows) == ["date", "number", "all"]
    assert (rows["number"]["recall"], rows["number"]["precision"], rows["number"]["false_hit_rate"]) == (0.5, 1.0, None)
    assert (rows["date"]["recall"], rows["date"]["precision"], rows["date"]["false_hit_rate"]) == (None, 0.0, 0.5)
    everything = rows["all"]
    assert (everything["pairs"], everything["hits"], everything["hit_rate"]) == (5, 3, 0.6)
    assert (everything["recall"], everything["precision"], everything["false_hit_rate"]) == (0.5, 0.5, 0.5)


def test_a_judge_without_fault_is_asked_where_no_guard_forbids() -> None:
    forbidden = Judged(Pair("p", "a", "b", 1, "all"), Decision(0.9, 0.0, hit=False, guard="number", reason=""), 1e-5)
    rows = summary([judged(1, hit=True), judged(1, hit=False), judged(0, hit=False), forbidden])
    assert rows["all"]["recall"] == 1 / 3
    assert rows["all"]["recall_judged"] == 2 / 3


def test_the_interval_of_a_rate() -> None:
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)  # Wilson, 1927, by hand
    assert wilson(0, 0) == (0.0, 1.0)
