"""Which responses may be stored, what usage they report, and the form of errors."""

import json
from typing import Any

import pytest

from tests.unit.providers.responses.responses import CALL, CUSTOM_CALL, REASONING, message, response, text_part
from watchllm.domain.errors import ProviderFailed
from watchllm.domain.usage import TokenUsage
from watchllm.providers.responses.dialect import DIALECT
from watchllm.providers.responses.storable import judge
from watchllm.providers.responses.usage import token_usage

SAID = message(text_part("Hi"))


def verdict_on(answer: Any) -> Any:
    return judge(json.dumps(answer).encode(), {})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response(SAID), "completed"),
        (response(REASONING, SAID), "completed"),
        (response(CALL), "completed"),
        (response(CUSTOM_CALL, CALL), "completed"),
        (response(message({"type": "refusal", "refusal": "I cannot help with that."})), "completed"),
        (response(SAID, status="incomplete", incomplete_details={"reason": "max_output_tokens"}), "max_output_tokens"),
    ],
)
def test_complete_successful_responses_are_stored(answer: dict[str, Any], reason: str) -> None:
    verdict = verdict_on(answer)
    assert verdict.refused is None
    assert verdict.finish_reasons == (reason,)
    assert verdict.usage == TokenUsage(input=36, output=87, cached_input=8, reasoning=20)


@pytest.mark.parametrize(
    ("answer", "because"),
    [
        (response(), "empty"),
        (response(message()), "empty"),
        (response(message(text_part(" \n"))), "empty"),
        (response(REASONING), "empty"),
        (response(SAID, status="incomplete", incomplete_details={"reason": "content_filter"}), "content_filter"),
        (response(SAID, status="incomplete"), "incomplete"),
        (response(SAID, status="in_progress"), "in_progress"),
        (response(SAID, status="queued"), "queued"),
        (response(SAID, status="cancelled"), "cancelled"),
        (response(SAID, status="failed", error={"code": "server_error", "message": "x"}), "error"),
        (response(SAID, error={"code": "server_error", "message": "x"}), "error"),
        (response(SAID, status=None), "no status"),
        (response(SAID, status=["completed"]), "no status"),
        (response(SAID) | {"output": None}, "no output"),
        (response(SAID, {"type": "web_search_call", "id": "ws_1", "status": "completed"}), "web_search_call"),
        (response(SAID, {"type": "compaction", "id": "c", "encrypted_content": "x"}), "compaction"),
        (response(SAID, {}), "an item"),
        (response(SAID, 3), "an item"),  # type: ignore[arg-type]
        (response(SAID | {"id": 3}), "malformed message"),
        (response(SAID | {"content": "Hi"}), "malformed message"),
        (response(message({"type": "output_text"})), "malformed message"),
        (response(message({"type": ["output_text"], "text": "Hi"})), "malformed message"),
        (response(message(text_part("Hi", annotations=3))), "malformed message"),
        (response(message(text_part("Hi", logprobs="x"))), "malformed message"),
        (response(REASONING | {"summary": "Hm"}, SAID), "malformed reasoning"),
        (response(REASONING | {"content": [3]}, SAID), "malformed reasoning"),
        (response(CALL | {"arguments": {}}), "malformed function_call"),
        (response(CALL | {"call_id": None}), "malformed function_call"),
        (response(CUSTOM_CALL | {"input": None}), "malformed custom_tool_call"),
        ({"error": {"message": "x"}}, "error"),
        ({}, "no status"),
        ([], "object"),
    ],
)
def test_errors_unfinished_filtered_and_empty_responses_are_not(answer: Any, because: str) -> None:
    refused = verdict_on(answer).refused
    assert refused is not None
    assert because in refused


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff", b"[]"])
def test_what_is_no_object_is_no_response(body: bytes) -> None:
    assert not judge(body, {}).readable


@pytest.mark.parametrize(
    "reported",
    [None, {}, [], 3, {"input_tokens": "3"}, {"output_tokens": -1}, {"total_tokens": 3}, {"input_tokens": True},
     {"input_tokens": 2**27 + 1}],
)  # fmt: skip
def test_what_counts_nothing_is_no_usage(reported: Any) -> None:
    assert token_usage(reported) is None


def test_a_part_of_usage_never_exceeds_its_total() -> None:
    reported = {
        "input_tokens": 3.0,
        "input_tokens_details": {"cached_tokens": 9, "cache_write_tokens": 2},
        "output_tokens_details": "x",
    }
    assert token_usage(reported) == TokenUsage(input=3, cached_input=3, cache_write=2)


def test_an_error_of_the_gateway_has_the_form_of_its_place() -> None:
    error = ProviderFailed("The provider failed.", param="model")
    fields = {"message": "The provider failed.", "type": "api_error", "param": "model", "code": "provider_error"}
    assert json.loads(DIALECT.error_body(error, "req_1")) == {"error": fields}
    name, data, end = DIALECT.error_event(error, "req_1").split(b"\n", 2)
    assert (name, end) == (b"event: error", b"\n")
    event = json.loads(data.removeprefix(b"data: "))
    assert event["type"] == "error"
    assert event["error"] == fields
    assert (event["code"], event["message"], event["param"]) == ("provider_error", "The provider failed.", "model")
