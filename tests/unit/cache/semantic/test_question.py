"""What of a request is compared by meaning, and that everything else stays in its context."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchllm.cache.semantic.question import NotTried, Parted, parted


def chat(*contents: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content} for content in contents]}


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (chat("Why?"), "Why?"),
        (chat("First", "Why?"), "Why?"),
        (chat([{"type": "text", "text": "Why"}, {"type": "text", "text": "not?"}]), "Why\nnot?"),
        ({"input": "Why?"}, "Why?"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}]}, "Why?"),
        ({"prompt": ["Why?"]}, "Why?"),
        (chat("Why?") | {"n": 1, "modalities": ["text"]}, "Why?"),
    ],
)
def test_the_last_text_of_the_user_is_compared(document: dict[str, Any], text: str) -> None:
    found = parted(document)
    assert isinstance(found, Parted)
    assert found.text == text
    assert text.partition("\n")[0] not in str(found.context)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (chat([{"type": "image_url", "image_url": {"url": "x"}}]), "media"),
        (chat([{"type": "text", "text": "Why?", "cache_control": {"type": "ephemeral"}}]), "media"),
        (chat([{"type": "tool_result", "content": "42"}]), "tool_result"),
        ({"messages": [{"role": "tool", "content": "42"}]}, "tool_result"),
        ({"input": [{"type": "function_call_output", "output": "42"}]}, "tool_result"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "not_user"),
        ({"messages": []}, "no_text"),
        ({"messages": "Why?", "prompt": "Why?"}, "no_text"),
        ({}, "no_text"),
        (chat(None), "no_text"),
        (chat([]), "no_text"),
        (chat(["Why?"]), "media"),
        (chat("Why?") | {"n": True}, "choices"),
        (chat("Why?") | {"n": 2}, "choices"),
        (chat("Why?") | {"best_of": 3}, "choices"),
        (chat("Why?") | {"modalities": ["text", "audio"]}, "audio"),
        ({"prompt": ["Why?", "How?"]}, "choices"),
        ({"prompt": [1, 2]}, "no_text"),
        (chat("\u2003"), "blank"),
    ],
)
def test_what_cannot_be_compared_says_why(document: dict[str, Any], reason: str) -> None:
    assert parted(document) == NotTried(reason)


KEYS = ("messages", "input", "prompt", "role", "content", "type", "text", "n", "modalities")
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYS), anything))
def test_nothing_breaks_it(document: dict[str, Any]) -> None:
    before = repr(document)
    found = parted(document)
    assert repr(document) == before
    assert isinstance(found, NotTried) or found.text.strip()


@given(st.text(min_size=1), st.text(min_size=1), anything)
def test_contexts_are_equal_exactly_when_all_else_is(one: str, other: str, rest: Any) -> None:
    contexts = [parted({**chat(text), "field": rest}) for text in (one, other)]
    if all(isinstance(found, Parted) for found in contexts):
        assert contexts[0][0] == contexts[1][0]  # type: ignore[index]
        assert parted({**chat(one), "field": [rest]}) != contexts[0]
