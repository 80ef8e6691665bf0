"""A model's price is found by the snapshot's rows in order; unknown is unpriced, never 0."""

from typing import Any

import pytest

from watchllm.domain.snapshot import PriceRow
from watchllm.domain.usage import ModelPrice
from watchllm.providers.prices import find

PRICE = ModelPrice(input=1)


@pytest.mark.parametrize(
    ("match", "matching", "other"),
    [
        ({"equals": "gpt-4o"}, "GPT-4o", "gpt-4o-mini"),
        ({"starts_with": "gpt-"}, "gpt-4o", "a-gpt-4o"),
        ({"ends_with": "-mini"}, "gpt-4o-mini", "gpt-4o-mini-2"),
        ({"contains": "4o"}, "gpt-4o-mini", "gpt-4"),
        ({"regex": "^o[13]"}, "o3-mini", "gpt-o3"),
        ({"or": [{"equals": "a"}, {"equals": "b"}]}, "b", "c"),
        ({"and": [{"starts_with": "a"}, {"ends_with": "b"}]}, "a-b", "a-c"),
    ],
)
def test_match_trees(match: dict[str, Any], matching: str, other: str) -> None:
    rows = (PriceRow(match, PRICE),)
    assert find(rows, matching) == PRICE
    assert find(rows, other) is None


def test_the_first_matching_row_wins() -> None:
    rows = (PriceRow({"equals": "a"}, PRICE), PriceRow({"starts_with": ""}, ModelPrice(input=2)))
    assert [find(rows, name) for name in ("a", "b")] == [PRICE, ModelPrice(input=2)]


def test_a_clause_of_a_newer_control_plane_matches_nothing() -> None:
    assert find((PriceRow({"soundex": "x"}, PRICE),), "x") is None
