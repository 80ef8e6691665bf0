"""The labelled pairs that the semantic cache is tuned and judged on are whole, varied, and kept apart."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import TypedDict

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks" / "semantic"
PARTS = ("tune", "report")
TUNED_ON = ("tune", "train", "kinds")
ALL = (*TUNED_ON, "report")
KINDS = frozenset(
    (
        "surface",
        "synonym",
        "paraphrase",
        "negation",
        "antonym",
        "number",
        "unit",
        "amount",
        "name",
        "version",
        "identifier",
        "date",
        "relative_time",
        "order",
        "quantifier",
        "modifier",
        "question_kind",
        "format",
        "language_asked",
        "code",
        "flag",
        "personal",
        "role",
        "long",
        "german",
        "spanish",
        "french",
        "mixed",
    )
)


class Pair(TypedDict):
    id: str
    capability: str
    a: str
    b: str
    label: int


def pairs(part: str) -> list[Pair]:
    """The pairs of one file, in its order. Raises ValueError for a line that is no JSON."""
    lines = (FOLDER / f"pairs_{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def overlap(pair: Pair) -> float:
    """Share of the words of both prompts that stand in both, 0 to 1."""
    a, b = words(pair["a"]), words(pair["b"])
    return len(a & b) / len(a | b)


def prompts(part: str) -> set[str]:
    """Every prompt of a file, without what only its surface adds."""
    return {" ".join(re.findall(r"\w+", pair[side].casefold())) for pair in pairs(part) for side in ("a", "b")}


@pytest.mark.parametrize("part", PARTS)
def test_every_line_is_a_pair(part: str) -> None:
    for pair in pairs(part):
        assert list(pair) == ["id", "capability", "a", "b", "label"], pair
        assert pair["capability"] in KINDS, pair
        assert pair["label"] in (0, 1), pair
        assert type(pair["label"]) is int, pair
        assert pair["a"].strip(), pair
        assert pair["b"].strip(), pair
        assert pair["a"] != pair["b"], pair


@pytest.mark.parametrize("part", ALL)
def test_no_pair_is_written_twice(part: str) -> None:
    twice = Counter(frozenset((pair["a"], pair["b"])) for pair in pairs(part))

    assert [pair for pair, times in twice.items() if times > 1] == []


def test_ids_are_unique_in_all_files_together() -> None:
    ids = Counter(pair["id"] for part in ALL for pair in pairs(part))

    assert [name for name, times in ids.items() if times > 1] == []


@pytest.mark.parametrize("part", TUNED_ON)
def test_no_prompt_that_is_reported_on_was_tuned_on(part: str) -> None:
    assert prompts(part) & prompts("report") == set()


@pytest.mark.parametrize("part", PARTS)
def test_each_file_is_large_enough_to_say_something_of_each_kind(part: str) -> None:
    kinds = Counter(pair["capability"] for pair in pairs(part))

    assert sum(kinds.values()) >= 350
    assert {kind: kinds[kind] for kind in KINDS if kinds[kind] < 10} == {}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("label", [0, 1])
def test_every_kind_has_pairs_of_both_labels(part: str, label: int) -> None:
    kinds = Counter(pair["capability"] for pair in pairs(part) if pair["label"] == label)

    assert {kind: kinds[kind] for kind in KINDS if kinds[kind] < 3} == {}


@pytest.mark.parametrize("part", PARTS)
def test_at_least_half_of_the_pairs_mislead_a_comparison_of_words(part: str) -> None:
    misleading = [pair for pair in pairs(part) if (overlap(pair) >= 0.6) != bool(pair["label"])]

    assert len(misleading) >= len(pairs(part)) / 2
    assert sum(pair["label"] for pair in misleading) >= 75


@pytest.mark.parametrize("part", PARTS)
def test_long_prompts_are_long(part: str) -> None:
    lengths = [len(pair[side].split()) for pair in pairs(part) if pair["capability"] == "long" for side in ("a", "b")]

    assert min(lengths) >= 60
    assert max(lengths) <= 200
