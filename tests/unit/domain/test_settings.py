"""What `project set` takes for a setting whose words are its own."""

import pytest

from watchllm.domain.settings import InvalidSetting, ProjectSettings, parse_settings, with_changes


def test_models_without_a_price_are_used_until_a_project_refuses_them() -> None:
    assert ProjectSettings().unpriced == "allow"
    refusing = with_changes(ProjectSettings(), parse_settings({"unpriced": "refuse"}))
    assert refusing.unpriced == "refuse"
    assert with_changes(refusing, parse_settings({"unpriced": ""})).unpriced == "allow"
    with pytest.raises(InvalidSetting, match="unpriced=no: expected allow or refuse"):
        parse_settings({"unpriced": "no"})
