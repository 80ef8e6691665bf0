"""Error bodies of providers in the other dialect's form; both official clients read them.

The forms follow Anthropic's API reference ("Errors") and OpenAI's guide "Error codes"; where vendors differ, what vLLM,
Mistral and Google's compatible endpoint answer.
"""

import json
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from anthropic.types.shared import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.providers.translation.replaced import any_json
from watchllm.providers.translation.errors import (
    MAX_MESSAGE,
    anthropic_to_openai,
    openai_event_to_anthropic,
    openai_to_anthropic,
)


def to_anthropic(status: int, answer: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(openai_to_anthropic(status, json.dumps(answer).encode(), "req_1"))
    return told


def to_openai(status: int, kind: str, message: str) -> dict[str, Any]:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "r"}
    told: dict[str, Any] = json.loads(anthropic_to_openai(status, json.dumps(body).encode()))
    return told


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (409, "invalid_request_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_the_status_decides_anthropics_type(status: int, kind: str) -> None:
    told = to_anthropic(status, {"error": {"message": "no", "type": "x", "param": None, "code": None}})
    assert told == {"type": "error", "error": {"type": kind, "message": "no"}, "request_id": "req_1"}


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"message": "no"}},
        {"error": "no"},
        {"message": "no", "object": "error"},
        {"detail": "no"},
        [{"error": {"code": 400, "message": "no"}}],
    ],
)
def test_the_forms_of_vendors_are_read(answer: Any) -> None:
    assert to_anthropic(400, answer)["error"]["message"] == "no"


@pytest.mark.parametrize("body", [b"", b"<html>504</html>", b"[]", b"7", b'{"error": {"message": 5}}', b"\xff"])
def test_garbage_gets_a_message_of_ours(body: bytes) -> None:
    assert "status 500" in json.loads(openai_to_anthropic(500, body, "r"))["error"]["message"]
    assert "status 500" in json.loads(anthropic_to_openai(500, body))["error"]["message"]


def test_a_long_message_is_cut() -> None:
    assert len(to_anthropic(400, {"error": "x" * 100_000})["error"]["message"]) == MAX_MESSAGE


@pytest.mark.parametrize(
    ("status", "kind", "type_", "code"),
    [
        (400, "invalid_request_error", "invalid_request_error", None),
        (401, "authentication_error", "authentication_error", "invalid_api_key"),
        (404, "not_found_error", "invalid_request_error", "not_found"),
        (429, "rate_limit_error", "rate_limit_error", "rate_limit_exceeded"),
        (529, "overloaded_error", "api_error", "overloaded"),
        (500, "a type of tomorrow", "api_error", None),
    ],
)
def test_anthropics_type_in_openais_form(status: int, kind: str, type_: str, code: str | None) -> None:
    told = to_openai(status, kind, "no")
    assert told == {"error": {"message": "no", "type": type_, "param": None, "code": code}}


def test_an_overlong_prompt_is_known_on_both_sides() -> None:
    told = to_openai(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")
    assert told["error"]["code"] == "context_length_exceeded"
    back = to_anthropic(400, {"error": {"message": "The maximum is 8192.", "code": "context_length_exceeded"}})
    assert back["error"]["message"] == "prompt is too long: The maximum is 8192."


def test_the_official_clients_raise_what_they_would_for_their_own_provider() -> None:
    def from_chat(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(429, content=openai_to_anthropic(429, b'{"error": {"message": "slow down"}}', "r"))

    def from_messages(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, content=anthropic_to_openai(429, b'{"error": {"type": "rate_limit_error"}}'))

    with (
        httpx2.Client(transport=httpx2.MockTransport(from_chat)) as transport,
        anthropic.Anthropic(api_key="k", base_url="http://x", http_client=transport, max_retries=0) as client,
        pytest.raises(anthropic.RateLimitError, match="slow down") as raised,
    ):
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "?"}])
    assert raised.value.type == "rate_limit_error"
    with (
        httpx.Client(transport=httpx.MockTransport(from_messages)) as plain,
        openai.OpenAI(api_key="k", base_url="http://x", http_client=plain, max_retries=0) as asking,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        asking.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
    assert refused.value.code == "rate_limit_exceeded"


@given(st.binary() | any_json.map(lambda value: json.dumps({"error": value}).encode()), st.integers(400, 599))
def test_whatever_comes_is_an_error_of_the_form(body: bytes, status: int) -> None:
    told = json.loads(openai_to_anthropic(status, body, "r"))
    if told["error"]["type"] != "request_too_large":  # which the client's types do not list
        ErrorResponse.model_validate(told)
    assert told["error"]["message"]
    assert set(json.loads(anthropic_to_openai(status, body))["error"]) == {"message", "type", "param", "code"}


@given(any_json)
def test_whatever_comes_inside_a_stream_is_one_error_event(error: Any) -> None:
    event = openai_event_to_anthropic(error, "req_1")
    assert event.startswith(b"event: error\ndata: {")
    assert event.count(b"\n\n") == 1
    assert event.endswith(b"\n\n")
    told = json.loads(event.partition(b"data: ")[2])
    assert (told["type"], told["request_id"]) == ("error", "req_1")
    assert b"request_id" not in openai_event_to_anthropic("x", "")
