"""`sim/judge`: what it says of two questions."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from watchllm.cache.semantic.judge import request_for, verdict_of
from watchllm.sim.judge import judge, read_labels


def asked(a: str, b: str) -> str:
    return json.dumps({"question_a": a, "question_b": b, "answer_a": "yes"})


def test_of_pairs_with_a_label_it_says_what_the_label_says() -> None:
    labels = read_labels(b'{"a": "x", "b": "y", "label": 1, "id": "1"}\n\n{"a": "same", "b": "same", "label": 0}')
    assert judge(asked("x", "y"), labels) == "yes"
    assert judge(asked("y", "x"), labels) == "no"
    assert judge(asked("same", "same"), labels) == "no"


def test_of_others_it_says_yes_where_the_words_are_the_same() -> None:
    assert judge(asked("Reset the Router!", "the router: reset"), {}) == "yes"
    assert judge(asked("Reset the router", "Reset the modem"), {}) == "no"


@pytest.mark.parametrize("message", ["", "yes", "[]", '{"question_a": "x"}', '{"question_a": 1, "question_b": 1}'])
def test_whatever_else_it_is_asked_it_says_no(message: str) -> None:
    assert judge(message, {}) == "no"


@pytest.mark.parametrize("line", [b"x", b'{"a": "x", "b": "y"}', b'{"a": "\xff", "b": "y", "label": 1}'])
def test_labels_that_are_none_are_told_with_their_line(line: bytes) -> None:
    with pytest.raises(ValueError, match="line 2"):
        read_labels(b'{"a": "x", "b": "y", "label": 1}\n' + line)


def test_it_answers_what_the_proxy_asks(make_sim: Callable[..., Any]) -> None:
    sim = make_sim()
    for b, verdict in (("the router: reset", True), ("reset the modem", False)):
        document = request_for("sim/judge", "Reset the router", b, "Press the button.")
        answer = sim.call("/v1/chat/completions", document)
        assert verdict_of(answer.json) is verdict
