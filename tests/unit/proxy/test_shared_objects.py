"""Objects that a provider keeps for its account are seen wherever a request can name one."""

import json
from typing import Any

import pytest

from watchllm.proxy.shared_objects import named_object


def named(document: dict[str, Any]) -> str | None:
    return named_object(document, json.dumps(document).encode())


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "msg_1"},
        {"id": "msg_1"},
        {"type": None, "id": "msg_1"},
        {"type": "message", "role": "assistant", "id": "msg_1", "content": []},
        {"type": "reasoning", "id": "rs_1"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "So."}]},
        {"type": "image_generation_call", "id": "ig_1"},
        {"type": "image_generation_call", "id": "ig_1", "result": None, "made_up": "x"},
        {"type": "compaction", "id": "cmp_1"},
    ],
)
def test_an_item_that_says_only_which_it_is_is_a_reference(item: dict[str, Any]) -> None:
    assert named({"input": [{"role": "user", "content": "x"}, item]}) == "item_reference"


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "x"},
        {"type": None, "role": "user", "content": "x"},
        {"type": "message", "role": "assistant", "id": "msg_1", "content": [{"type": "output_text", "text": "x"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": ""},
        {"type": "function_call_output", "id": "fco_1", "call_id": "call_1", "output": ""},
        {"type": "image_generation_call", "id": "ig_1", "result": "iVBORw0KGgo="},
        {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "x"}},
    ],
)
def test_an_item_that_says_what_is_in_it_is_none(item: dict[str, Any]) -> None:
    assert named({"input": [item]}) is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "container"),
        ({"tools": [{"type": "shell", "environment": {"container_id": "cntr_1"}}]}, "container_id"),
        ({"tools": [{"type": "shell", "environment": {"skills": [{"skill_id": "skill_1"}]}}]}, "skill_id"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "vector_store_ids"),
        ({"container": {"skills": []}}, "container"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"messages": [{"content": [{"source": {"type": "file", "file_id": "file_1"}}]}]}, "file_id"),
    ],
)
def test_fields_that_name_objects(fields: dict[str, Any], field: str) -> None:
    assert named({"model": "m"} | fields) == field
    # However the body spells the names.
    spelled = json.dumps({"model": "m"} | fields).replace("i", "\\u0069").replace("o", "\\u006f")
    assert named_object(json.loads(spelled), spelled.encode()) == field


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "Once upon a time"},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"tools": [{"type": "function", "parameters": {"properties": {"container": {"type": "string"}}}}]},
        {"metadata": {"container": "blue", "file_id": "7", "id": "1"}},
        {"file_ids": []},
    ],
)
def test_what_only_looks_like_it_names_none(fields: dict[str, Any]) -> None:
    assert named({"input": "x"} | fields) is None
