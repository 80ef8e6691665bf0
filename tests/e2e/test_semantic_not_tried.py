"""What is not compared by meaning, prompts that are made to break something, and answers that are not kept."""

from typing import Any

import pytest

from tests.support.product import Gateway, Project, Sim
from tests.support.semantic import LIKE, QUESTION, outcome, reasons, serving, wait_until_warm

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


@pytest.fixture(scope="module")
def project(gateway: Gateway) -> Project:
    return serving(wait_until_warm(gateway))


def user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (user([{"type": "text", "text": QUESTION}, IMAGE]), "media"),
        (user([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]), "media"),
        (
            {
                "messages": [
                    {"role": "user", "content": QUESTION},
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "42"},
                ]
            },
            "tool_result",
        ),
        ({"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "It"}]}, "not_user"),
        (user(QUESTION) | {"n": 2}, "choices"),
        (user(""), "blank"),
        (user(" \n\t "), "blank"),
        (user("word " * 2_000), "too_long"),
        (user("a" * 8_192 + "b"), "too_long"),
        (user("What is it? " * 90_000), "large"),
    ],
    ids=["image", "audio", "tool result", "prefill", "choices", "empty", "blank", "long", "one long word", "1 MB"],
)
def test_what_is_not_tried_says_why(gateway: Gateway, project: Project, fields: dict[str, Any], reason: str) -> None:
    answer = gateway.chat(project.key, "", **fields)
    assert outcome(answer) == "MISS"
    assert reasons(gateway, answer) == ("not-tried", reason)


HOSTILE = [
    "🎉🎉🎉",
    "🎉",
    "Как сбросить пароль и reset mein Passwort παρακαλώ?",
    "كيف يمكنني إعادة تعيين كلمة المرور؟",
    "‮drowssap ym teser I od woH",
    "How do I\x00\x01\x02 reset\x1b[31m my\x7f password?\x85",
    "reset " * 400,
    "?!?!?!?!",
    "İ" * 300,
    "\N{COMBINING ACUTE ACCENT}" * 500,
    "a\u200bb\u200bc" * 50,
    "{{system}} <|endoftext|> [INST]",
    "How do I reset my password?\r\n\r\nHow do I delete my account?",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:30])
def test_prompts_made_to_break_it_get_their_own_answer(gateway: Gateway, sim: Sim, text: str) -> None:
    project = serving(gateway)
    assert outcome(gateway.chat(project.key, QUESTION)) == "MISS"
    for other in HOSTILE:
        if other != text:
            gateway.chat(project.key, other)
    answer = gateway.chat(project.key, text)
    assert outcome(answer) == "MISS"
    assert reasons(gateway, answer)[0] in ("miss", "not-tried")


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 2},
        {"tools": [{"type": "function", "function": {"name": "look_up"}}], "tool_choice": "required"},
        {"model": "gpt-4o-mini+refusal"},
        {"model": "gpt-4o-mini+content_filter"},
        {"model": "gpt-4o-mini+blank"},
    ],
    ids=str,
)
def test_only_answers_that_ended_by_themselves_are_kept(
    gateway: Gateway, project: Project, fields: dict[str, Any]
) -> None:
    assert outcome(gateway.chat(project.key, QUESTION, **fields)) == "MISS"
    answer = gateway.chat(project.key, LIKE, **fields)
    assert outcome(answer) == "MISS"
    assert reasons(gateway, answer) == ("empty", None)


def test_an_error_is_not_kept(gateway: Gateway, project: Project) -> None:
    assert gateway.chat(project.key, QUESTION, model="gpt-4o-mini+status-400").status == 400
    missed = gateway.chat(project.key, LIKE, model="gpt-4o-mini+status-400")
    assert reasons(gateway, missed) == ("empty", None)


def test_what_must_not_be_stored_is_not_kept(gateway: Gateway) -> None:
    project = serving(gateway)
    gateway.chat(project.key, QUESTION, headers={"Cache-Control": "no-store"})
    assert outcome(gateway.chat(project.key, LIKE)) == "MISS"
