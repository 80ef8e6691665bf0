"""Normalising takes time in proportion to a text's length: what would not is left as it is."""

import json
from typing import Literal

import pytest

from watchllm.cache.canonical import canonical_form, is_plain
from watchllm.cache.normal_form import MOST_MARKS, normalized
from watchllm.cache.semantic.features import features
from watchllm.domain import json_body

ACUTE, BELOW = "\u0301", "\u0323"


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("NFC", "e" + ACUTE, "\u00e9"),
        ("NFKC", "\uff21\uff76\uff9e", "A\u30ac"),
        ("NFC", "a" + ACUTE * 15 + BELOW * 15, "\u1ea1" + BELOW * 14 + ACUTE * 15),
        ("NFC", "\U0001f600" * 1_000, "\U0001f600" * 1_000),
        ("NFC", "\uff0c" * 1_000, "\uff0c" * 1_000),
        ("NFKC", ("\u30ab\uff9e" + ACUTE) * 100, ("\u30ac" + ACUTE) * 100),
    ],
)
def test_what_people_write_is_normalised(form: Literal["NFC", "NFKC"], text: str, expected: str) -> None:
    assert normalized(form, text) == expected


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("NFC", (ACUTE + BELOW) * MOST_MARKS),
        ("NFC", ACUTE * MOST_MARKS + BELOW),
        ("NFC", "\u0f73" * (MOST_MARKS + 1)),  # Of class 0 themselves, but not what they are made of.
        ("NFKC", ("\uff9e" + ACUTE) * MOST_MARKS),  # A letter, which this form makes a mark of.
    ],
)
def test_more_marks_than_any_writing_stacks_are_not_put_in_order(form: Literal["NFC", "NFKC"], row: str) -> None:
    assert normalized(form, f"before a{row} after") is None


def test_a_request_with_such_marks_is_compared_as_it_was_written() -> None:
    rows = [(ACUTE + BELOW) * MOST_MARKS, (BELOW + ACUTE) * MOST_MARKS, (ACUTE + BELOW) * (MOST_MARKS + 1)]
    forms = set()
    for row in rows:
        body = json.dumps({"prompt": f"e{row}"}, ensure_ascii=False).encode()
        form = canonical_form(json_body.parse(body), plain=is_plain(body))
        assert json.loads(form)["prompt"] == f"e{row}"
        forms.add(form)
    assert len(forms) == len(rows)


def test_a_question_with_such_marks_is_not_compared() -> None:
    assert features("What is a" + (ACUTE + BELOW) * MOST_MARKS).too_long
