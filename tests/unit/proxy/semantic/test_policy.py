"""What a look-up asks for: the project's bounds, which no request loosens and none of them falls below a least."""

import pytest

from watchllm.domain.settings import LEAST_CONFIDENCE, ProjectSettings
from watchllm.proxy.directives import Directives
from watchllm.proxy.semantic.stage import _policy

USUAL = Directives(True, True, 60)


@pytest.mark.parametrize(("given", "asked"), [(0.0, LEAST_CONFIDENCE), (0.5, 0.5), (0.9, 0.9), (None, 0.8)])
def test_what_a_project_was_given_before_there_was_a_least_is_the_least(given: float | None, asked: float) -> None:
    assert _policy(ProjectSettings(min_confidence=given), USUAL).min_confidence == asked


def test_no_request_loosens_the_projects_threshold() -> None:
    settings = ProjectSettings(similarity_threshold=0.9)
    for wished, used in ((None, 0.9), (0.5, 0.9), (0.95, 0.95)):
        assert _policy(settings, Directives(True, True, 60, threshold=wished)).similarity_threshold == used
