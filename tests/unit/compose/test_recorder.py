"""How hard the recorder works: never so hard that hits beside it pay for it, unless usage would be late."""

import pytest

from watchllm.compose.recorder import rest_after


@pytest.mark.parametrize(
    ("took", "behind", "filled", "rest"),
    [
        (0.2, 1.0, 0.01, 0.2),
        (0.2, 14.0, 0.24, 0.2),
        (0.2, 16.0, 0.01, 0.0),
        (0.2, 1.0, 0.3, 0.0),
        (7.0, 1.0, 0.01, 0.5),
    ],
    ids=["as long as the batch", "nearly late", "late", "journals filling up", "halted meanwhile"],
)
def test_it_rests_as_long_as_it_worked_while_nothing_is_late(
    took: float, behind: float, filled: float, rest: float
) -> None:
    assert rest_after(took, behind, filled) == rest
