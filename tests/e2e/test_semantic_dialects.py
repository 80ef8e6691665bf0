"""A like question is one in every dialect: where the exact cache shares an entry, look-ups by meaning share it too."""

from typing import Any

import pytest

from tests.support.product import Gateway
from tests.support.raw_http import RawResponse
from tests.support.semantic import LIKE, QUESTION, UNLIKE, outcome, serving, wait_until_warm

MODEL = "gpt-4o-mini"


def chat(gateway: Gateway, key: str, text: str, **fields: Any) -> RawResponse:
    return gateway.chat(key, text, max_tokens=200, **fields)


def messages(gateway: Gateway, key: str, text: str, **fields: Any) -> RawResponse:
    body = {"model": MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": text}], **fields}
    return gateway.post("/v1/messages", key, body, headers={"anthropic-version": "2023-06-01"})


def responses(gateway: Gateway, key: str, text: str, **fields: Any) -> RawResponse:
    body = {"model": MODEL, "max_output_tokens": 200, "store": False, "input": text, **fields}
    return gateway.post("/v1/responses", key, body)


def text_of(answer: RawResponse) -> str:
    told = answer.json()
    if "choices" in told:
        return str(told["choices"][0]["message"]["content"])
    if "content" in told:
        return str(told["content"][-1]["text"])
    return str(told["output"][-1]["content"][0]["text"])


DIALECTS = {"chat": chat, "messages": messages, "responses": responses}
FORMS = {"chat": "choices", "messages": "content", "responses": "output"}
"""A field that only the answers of the dialect have."""


@pytest.mark.parametrize("second", DIALECTS)
@pytest.mark.parametrize("first", DIALECTS)
def test_an_answer_is_found_from_every_dialect(gateway: Gateway, first: str, second: str) -> None:
    project = serving(wait_until_warm(gateway))
    stored = DIALECTS[first](gateway, project.key, QUESTION)
    assert outcome(stored) == "MISS"
    like = DIALECTS[second](gateway, project.key, LIKE)
    assert outcome(like) == "HIT-SEMANTIC"
    assert FORMS[second] in like.json()
    assert text_of(like) == text_of(stored)
    assert outcome(DIALECTS[second](gateway, project.key, UNLIKE)) == "MISS"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_like_question_can_be_streamed_in_every_dialect(gateway: Gateway, dialect: str) -> None:
    project = serving(wait_until_warm(gateway))
    DIALECTS[dialect](gateway, project.key, QUESTION)
    answer = DIALECTS[dialect](gateway, project.key, LIKE, stream=True)
    assert outcome(answer) == "HIT-SEMANTIC"
    assert (answer.header("Content-Type") or "").startswith("text/event-stream")


def test_completions_have_like_prompts_too(gateway: Gateway) -> None:
    project = serving(wait_until_warm(gateway))

    def complete(prompt: object) -> RawResponse:
        return gateway.post("/v1/completions", project.key, {"model": MODEL, "prompt": prompt, "max_tokens": 200})

    stored = complete(QUESTION)
    like = complete([LIKE])
    assert (outcome(stored), outcome(like)) == ("MISS", "HIT-SEMANTIC")
    assert like.json() == stored.json()
    assert outcome(complete([QUESTION, UNLIKE])) == "MISS"
    assert outcome(gateway.chat(project.key, LIKE)) == "MISS"


def test_what_a_translation_would_lose_is_compared_in_its_own_words(gateway: Gateway) -> None:
    project = serving(wait_until_warm(gateway))
    for text, kind in ((QUESTION, "MISS"), (LIKE, "HIT-SEMANTIC")):
        given = [{"role": "user", "content": [{"type": "input_text", "text": text}]}]
        answer = responses(gateway, project.key, "", input=given, truncation="auto", top_logprobs=2)
        assert outcome(answer) == kind
