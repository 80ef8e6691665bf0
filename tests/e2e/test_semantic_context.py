"""Only the last user message is compared by meaning: whatever else differs, a like question is another one."""

from typing import Any

import pytest

from tests.support.product import Gateway, Project
from tests.support.semantic import LIKE, QUESTION, outcome, serving, wait_until_warm

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
SYSTEM = {"role": "system", "content": "Be brief."}


def asks(text: str, *before: dict[str, Any]) -> list[dict[str, Any]]:
    return [*before, {"role": "user", "content": text}]


@pytest.fixture(scope="module")
def project(gateway: Gateway) -> Project:
    """QUESTION was answered in it, with nothing else said."""
    project = serving(wait_until_warm(gateway))
    gateway.chat(project.key, QUESTION)
    return project


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "gpt-4o"},
        {"temperature": 0.2},
        {"seed": 7},
        {"max_tokens": 50},
        {"tools": [TOOL]},
        {"response_format": {"type": "json_object"}},
        {"a_field_of_tomorrow": 1},
        {"messages": asks(LIKE, SYSTEM)},
        {"messages": asks(LIKE, {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"})},
        {"messages": [{"role": "user", "content": LIKE, "name": "ada"}]},
    ],
    ids=str,
)
def test_another_context_is_a_miss(gateway: Gateway, project: Project, fields: dict[str, Any]) -> None:
    assert outcome(gateway.chat(project.key, LIKE, **fields)) == "MISS"


@pytest.mark.parametrize("header", ["OpenAI-Beta", "anthropic-beta"])
def test_a_header_that_shapes_the_answer_is_context(gateway: Gateway, project: Project, header: str) -> None:
    assert outcome(gateway.chat(project.key, LIKE, headers={header: "x"})) == "MISS"


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "ada"},
        {"metadata": {"a": "b"}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LIKE}]}]},
        {"temperature": 1},  # the default
    ],
    ids=str,
)
def test_what_the_exact_cache_leaves_out_is_no_context(
    gateway: Gateway, project: Project, fields: dict[str, Any]
) -> None:
    assert outcome(gateway.chat(project.key, LIKE, **fields)) == "HIT-SEMANTIC"


def test_the_same_context_with_turns_tools_and_a_system_prompt_is_a_hit(gateway: Gateway) -> None:
    project = serving(gateway)
    before = [SYSTEM, {"role": "user", "content": "I need help."}, {"role": "assistant", "content": "With what?"}]
    for text, kind in ((QUESTION, "MISS"), (LIKE, "HIT-SEMANTIC")):
        answer = gateway.chat(project.key, "", messages=asks(text, *before), tools=[TOOL], temperature=0.1)
        assert outcome(answer) == kind


def test_an_earlier_turn_is_compared_to_the_letter(gateway: Gateway) -> None:
    project = serving(gateway)
    for first in (QUESTION, LIKE):
        before = [{"role": "user", "content": first}, {"role": "assistant", "content": "Click on it."}]
        assert outcome(gateway.chat(project.key, "", messages=asks("Where is it?", *before))) == "MISS"


def test_projects_do_not_share(gateway: Gateway, project: Project) -> None:
    assert outcome(gateway.chat(serving(gateway, "another").key, LIKE)) == "MISS"


def test_live_and_test_keys_do_not_share(gateway: Gateway, project: Project) -> None:
    test_key = gateway.installation.key(project.id, test=True)
    assert outcome(gateway.chat(test_key, QUESTION, model="sim/echo")) == "MISS"
    assert outcome(gateway.chat(project.key, LIKE, model="sim/echo")) == "MISS"
    assert outcome(gateway.chat(test_key, "How could I reset my password?", model="sim/echo")) == "HIT-SEMANTIC"


def test_keys_of_a_project_share(gateway: Gateway, project: Project) -> None:
    assert outcome(gateway.chat(gateway.installation.key(project.id), LIKE)) == "HIT-SEMANTIC"


def test_users_do_not_share_where_each_has_a_cache(gateway: Gateway) -> None:
    project = serving(gateway, cache_scope="user")
    ada, bob = {"X-WatchLLM-User": "ada"}, {"X-WatchLLM-User": "bob"}
    assert outcome(gateway.chat(project.key, QUESTION, headers=ada)) == "MISS"
    assert outcome(gateway.chat(project.key, LIKE, headers=bob)) == "MISS"
    assert outcome(gateway.chat(project.key, LIKE)) == "BYPASS"
    assert outcome(gateway.chat(project.key, LIKE, headers=ada)) == "HIT-SEMANTIC"


def test_a_request_that_asks_for_the_scope_of_a_user_does_not_share(gateway: Gateway, project: Project) -> None:
    headers = {"X-WatchLLM-User": "ada", "X-WatchLLM-Cache-Scope": "user"}
    assert outcome(gateway.chat(project.key, LIKE, headers=headers)) == "MISS"
