"""Requests that depend on state at the provider are never answered from the cache."""

from typing import Any

import pytest

from watchllm.cache.bypass import bypass_reason


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"store": True}, "store"),
        ({"store": "yes"}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"background": True}, "background"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, "tool web_search"),
        ({"tools": [{"type": "file_search"}]}, "tool file_search"),
        ({"tools": [{"type": "code_interpreter"}]}, "tool code_interpreter"),
        ({"tools": [{"type": "computer_use_preview"}]}, "tool computer_use_preview"),
        ({"tools": [{"type": "mcp"}]}, "tool mcp"),
        ({"tools": [{"type": "image_generation"}]}, "tool image_generation"),
        ({"tools": [{"type": []}]}, "tools"),
    ],
)
def test_stateful_requests_are_left_alone(request_: dict[str, Any], reason: str) -> None:
    assert bypass_reason({"model": "m", "messages": []} | request_) == reason


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"store": False, "background": False, "previous_response_id": None, "conversation": None},
        {"tools": [{"type": "function", "function": {"name": "web_search"}}, {"type": "custom"}, {"name": "f"}]},
        {"prompt": "Once upon"},
        {"prompt": ["Once", "upon"]},
        {"tools": None},
        {"tools": "x"},
        {"tools": [1, None]},
        {"plugins": []},
        {"modalities": ["text", "audio"]},
    ],
)
def test_others_may_be_cached(request_: dict[str, Any]) -> None:
    assert bypass_reason({"model": "m", "messages": []} | request_) is None
