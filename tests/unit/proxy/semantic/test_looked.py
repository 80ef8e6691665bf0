"""What came of a look-up is said in words, whoever said no."""

import pytest

from watchllm.proxy.semantic import cross_encoding, judging
from watchllm.proxy.semantic.looked import HIT, MISS, because

DECIDED = "confidence 0.31 is below 0.80: 2 and 1 words without explanation"
REASONS = sorted(
    {
        value
        for module in (judging, cross_encoding)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("_")
    }
)


def test_there_are_reasons_of_both() -> None:
    assert {"judge", "judge_resting", "cross_encoder", "cross_encoder_long"} <= set(REASONS)


@pytest.mark.parametrize("reason", [one for one in REASONS if one.startswith(("judge", "cross_encoder", "gone"))])
def test_who_said_no_last_is_said_first(reason: str) -> None:
    told = because(MISS, reason, DECIDED)
    assert told.endswith(f"; before that: {DECIDED}")
    assert len(told) > len(DECIDED) + 30


def test_what_nobody_was_asked_about_is_what_was_decided() -> None:
    assert because(MISS, "confidence", DECIDED) == DECIDED
    assert because(HIT, "judge", "a judge said that it will do") == "a judge said that it will do"
