"""An operator's plans.toml of the wrong form is told by the plan and the field."""

from pathlib import Path

import pytest

from watchllm.control.errors import PlansUnusable
from watchllm.control.plans import FILE_NAME, plans


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("monthly_requests = 'many'", "Expected `int | null`, got `str` - at `monthly_requests`"),
        ("allowed_models = [1]", "Expected `str`, got `int` - at `allowed_models[0]`"),
        ("requests = 1", "Object contains unknown field `requests`"),
    ],
)
def test_the_plan_and_the_field_of_the_wrong_form_are_named(tmp_path: Path, row: str, says: str) -> None:
    (tmp_path / FILE_NAME).write_text(f"[right]\n[team]\n{row}\n")
    with pytest.raises(PlansUnusable) as caught:
        plans(tmp_path)
    assert f"{FILE_NAME}: [team]: {says};" in str(caught.value)
