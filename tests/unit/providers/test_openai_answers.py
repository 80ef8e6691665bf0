"""Which answers may be stored, and what usage they report."""

import json
from typing import Any

import pytest

from watchllm.domain.usage import TokenUsage
from watchllm.providers.openai import storable
from watchllm.providers.openai.storable import judge
from watchllm.providers.openai.usage import token_usage


def chat(finish: Any = "stop", message: Any = None, **more: Any) -> bytes:
    message = {"role": "assistant", "content": "Hi"} if message is None else message
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": finish}]} | more).encode()


def text(finish: Any = "stop", said: Any = "Hi") -> bytes:
    return json.dumps({"choices": [{"index": 0, "text": said, "finish_reason": finish}]}).encode()


CALLS = {"content": None, "tool_calls": [{"id": "1"}]}


@pytest.mark.parametrize(
    ("family", "body"),
    [
        ("generate", chat()),
        ("generate", chat("length")),
        ("generate", chat("tool_calls", CALLS)),
        ("generate", chat("function_call", {"content": None, "function_call": {"name": "f"}})),
        ("generate", chat(message={"content": [{"type": "text", "text": "Hi"}]})),
        ("generate", chat(message={"content": None, "refusal": "I cannot help with that."})),
        ("generate", chat(message={"content": None, "audio": {"id": "a"}})),
        ("completions", text()),
        ("completions", text("length")),
    ],
)
def test_complete_successful_answers_are_stored(family: str, body: bytes) -> None:
    assert judge(family, body).refused is None
    assert judge(family, body).storable


USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


@pytest.mark.parametrize(
    "more",
    [
        {"usage": USAGE},
        {"usage": USAGE, "id": "chatcmpl-1", "created": 1, "model": "m", "service_tier": "default"},
        {"usage": USAGE | {"prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 1}}},
        {"usage": USAGE | {"prompt_tokens_details": {"cached_tokens": 50, "cache_write_tokens": 2}}},
        {"usage": USAGE | {"completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 40}}},
        {"usage": USAGE | {"prompt_tokens_details": None, "completion_tokens_details": None}},
        {"usage": USAGE | {"prompt_tokens": -1}},
        {"usage": USAGE | {"completion_tokens": 1 << 30}},
        {"usage": USAGE, "error": {"code": 1}},
        {"usage": None},
    ],
)
@pytest.mark.parametrize("said", ["Hi", " ", "", "H\u00e9"])
def test_an_answer_of_the_usual_form_is_judged_as_any_other(
    more: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = chat(message={"role": "assistant", "content": said, "refusal": None}, **more)
    at_a_glance = judge("generate", body, expected=1)
    monkeypatch.setattr(storable, "_judge_usual", lambda _body: None)
    assert at_a_glance == judge("generate", body, expected=1)


def test_what_is_wrong_in_a_member_that_nobody_needs_is_found() -> None:
    body = chat(usage=USAGE, created=1)
    assert judge("generate", body).storable
    for wrong in (b"1e999", b'"\\ud800"', b'"\xff"', b"01"):
        for member in (b'"created": ', b'"x": '):
            assert not judge("generate", body.replace(b'"created": 1', member + wrong)).readable


@pytest.mark.parametrize(
    ("family", "body", "because"),
    [
        ("generate", chat("content_filter"), "content_filter"),
        ("generate", chat("error"), "error"),
        ("generate", chat(None), "no finish_reason"),
        ("generate", chat([]), "no finish_reason"),
        ("generate", chat(message={"content": ""}), "empty"),
        ("generate", chat(message={"content": " \n"}), "empty"),
        ("generate", chat(message={"content": None, "tool_calls": []}), "empty"),
        ("generate", chat("length", {"content": "", "reasoning_content": "Hm"}), "empty"),
        ("generate", chat(message={}), "empty"),
        ("generate", chat(message=[]), "no message"),
        ("generate", chat(message={"content": "a", "tool_calls": [1]}), "tool calls"),
        ("generate", chat(message={"content": "a", "function_call": "f"}), "function call"),
        ("generate", chat(error={"message": "x"}), "error"),
        ("generate", json.dumps({"error": {"message": "x"}}).encode(), "error"),
        ("generate", json.dumps({"choices": []}).encode(), "no choices"),
        ("generate", json.dumps({"choices": [1]}).encode(), "no choices"),
        ("generate", b"{}", "no choices"),
        ("generate", b"[]", "object"),
        ("generate", b"<html>", "JSON"),
        ("generate", b"", "JSON"),
        ("generate", chat()[:-3], "JSON"),
        ("completions", text("content_filter"), "content_filter"),
        ("completions", text(said=""), "empty"),
        ("completions", text(said=None), "empty"),
    ],
)
def test_errors_cut_filtered_and_empty_answers_are_not(family: str, body: bytes, because: str) -> None:
    refused = judge(family, body).refused
    assert refused is not None
    assert because in refused


def test_one_bad_choice_is_enough() -> None:
    def both(second: Any) -> bytes:
        good = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}
        return json.dumps({"choices": [good, good | second]}).encode()

    assert judge("generate", both({"index": 1})).storable
    assert not judge("generate", both({"index": 1, "finish_reason": "content_filter"})).storable
    assert not judge("generate", both({"index": 1, "content_filter_results": {"hate": {"filtered": True}}})).storable
    assert judge("generate", both({"index": 1, "content_filter_results": {"hate": {"filtered": False}}})).storable
    assert not judge("generate", both({"index": 0})).storable
    assert not judge("generate", both({"index": 1, "error": {"code": 502}})).storable
    assert not judge("generate", both({"index": 1}), expected=3).storable


def test_finish_reasons_and_usage_are_told_of_refused_answers_too() -> None:
    verdict = judge("generate", chat("content_filter", usage={"prompt_tokens": 1, "completion_tokens": 2}))
    assert verdict.finish_reasons == ("content_filter",)
    assert verdict.usage == TokenUsage(input=1, output=2)


def vectors(*data: Any, **more: Any) -> bytes:
    return json.dumps(
        {"object": "list", "data": data, "usage": {"prompt_tokens": 4, "total_tokens": 4}} | more
    ).encode()


def vector(index: int, embedding: Any = (0.5, 1)) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": embedding}


def test_embeddings_are_stored_when_all_are_there() -> None:
    verdict = judge("embeddings", vectors(vector(1), vector(0, "AAAA")), expected=2)
    assert (verdict.refused, verdict.usage) == (None, TokenUsage(input=4))


@pytest.mark.parametrize(
    "body",
    [
        vectors(),
        vectors(vector(0)),
        vectors(vector(0), vector(0)),
        vectors(vector(0), vector(2)),
        vectors(vector(0), vector(1), vector(2)),
        vectors(vector(0), vector(1, [])),
        vectors(vector(0), vector(1, "")),
        vectors(vector(0), vector(1, None)),
        vectors(vector(0), {"index": 1}),
        vectors(vector(0), vector(1), error={"message": "x"}),
        b"{}",
        b"not JSON",
    ],
)
def test_incomplete_embeddings_are_not_stored(body: bytes) -> None:
    assert not judge("embeddings", body, expected=2).storable


def test_usage_names_the_parts_of_a_price() -> None:
    reported = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 10, "cache_write_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 7, "accepted_prediction_tokens": 1},
    }
    assert token_usage(reported) == TokenUsage(100, 50, 40, 5, 30, 10, 7)


@pytest.mark.parametrize(
    "reported",
    [None, {}, [], "x", 3, {"prompt_tokens": None}, {"prompt_tokens": "3"}, {"prompt_tokens": True},
     {"prompt_tokens": -1}, {"completion_tokens": 1.5}, {"prompt_tokens": 10**30},
     {"prompt_tokens": 2**27 + 1}, {"total_tokens": 3}],
)  # fmt: skip
def test_what_counts_nothing_is_no_usage(reported: Any) -> None:
    assert token_usage(reported) is None


@pytest.mark.parametrize("details", [None, [], "x", {"cached_tokens": "1"}, {"cached_tokens": None}, {}])
def test_details_of_a_wrong_type_count_as_left_out(details: Any) -> None:
    reported = {"prompt_tokens": 3, "prompt_tokens_details": details, "completion_tokens_details": details}
    assert token_usage(reported) == TokenUsage(input=3)


def test_a_part_never_exceeds_its_total() -> None:
    usage = token_usage({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}})
    assert usage == TokenUsage(input=3, cached_input=3)
