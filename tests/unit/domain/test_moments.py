"""When something ends, as people write it."""

import pytest

from watchllm.domain.moments import expiry, timestamp

NOW = 1_700_000_000.9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("90d", 1_700_000_000 + 90 * 86_400),
        ("12h", 1_700_000_000 + 12 * 3600),
        ("30m", 1_700_000_000 + 1800),
        ("5s", 1_700_000_005),
        ("2030-01-31", 1_896_048_000),
        ("2030-01-31T12:00:00Z", 1_896_091_200),
        ("2030-01-31T12:00:00+02:00", 1_896_084_000),
    ],
)
def test_what_is_understood(text: str, expected: int) -> None:
    assert expiry(text, NOW) == expected


@pytest.mark.parametrize("text", ["soon", "d", "-5d", "1.5h", "2030-13-01", "99999999d", "9999-12-31T23:59:59-10:00"])
def test_what_cannot_be_told_again_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected 90d, 12h, 30m or a date such as 2030-01-31"):
        expiry(text, NOW)


def test_the_last_moment_can_be_written() -> None:
    assert timestamp(expiry("9999-12-31T23:59:59Z", NOW) * 1000) == "9999-12-31T23:59:59Z"
