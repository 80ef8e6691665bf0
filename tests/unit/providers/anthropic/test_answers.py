"""Messages judged, their usage counted, errors written, and what is known of models."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.providers.anthropic.messages import json_values, messages
from watchllm.domain.errors import BadRequest, Forbidden, GatewayError, NotFound, ProviderFailed, TimedOut, Unauthorized
from watchllm.domain.usage import TokenUsage
from watchllm.providers.anthropic.dialect import DIALECT
from watchllm.providers.anthropic.errors import error_body
from watchllm.providers.anthropic.models import default_max_tokens, thinking_style
from watchllm.providers.anthropic.storable import judge
from watchllm.providers.anthropic.usage import token_usage

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 5},
}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}


def judged(**fields: Any) -> Any:
    return judge(json.dumps(MESSAGE | fields).encode())


@pytest.mark.parametrize("reason", ["end_turn", "max_tokens", "stop_sequence", "model_context_window_exceeded"])
def test_a_whole_message_may_be_stored(reason: str) -> None:
    verdict = judged(stop_reason=reason)
    assert verdict.storable
    assert verdict.finish_reasons == (reason,)
    assert verdict.usage == TokenUsage(3, 5)


def test_a_message_that_only_calls_tools_may_be_stored() -> None:
    assert judged(content=[CALL], stop_reason="tool_use").storable


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"stop_reason": "refusal"}, "stop_reason refusal"),
        ({"stop_reason": "pause_turn"}, "stop_reason pause_turn"),
        ({"stop_reason": None}, "no stop_reason"),
        ({"stop_reason": ["end_turn"]}, "no stop_reason"),
        ({"content": []}, "empty"),
        ({"content": [{"type": "text", "text": " \n"}]}, "empty"),
        ({"content": [{"type": "thinking", "thinking": "Hm", "signature": "s"}]}, "empty"),
        ({"content": [CALL | {"input": "{}"}]}, "malformed tool use"),
        ({"content": [CALL | {"id": ""}]}, "malformed tool use"),
        ({"content": ["Hello"]}, "malformed content"),
        (
            {
                "content": [
                    {"type": "web_search_tool_result", "content": {"type": "web_search_tool_result_error"}},
                    {"type": "text", "text": "I could not search."},
                ]
            },
            "a tool's error",
        ),
        ({"type": "error", "error": {"type": "api_error", "message": "x"}}, "an error"),
    ],
)
def test_what_is_not_whole_and_good_may_not_be_stored(fields: dict[str, Any], refused: str) -> None:
    assert judged(**fields).refused == refused


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"choices": []}', b"\xff", b"[" * 100_000, b""])
def test_what_is_no_message_is_not_readable(body: bytes) -> None:
    verdict = judge(body)
    assert not verdict.readable
    assert not verdict.storable


@given(messages(), st.data())
def test_any_value_in_any_field_is_judged(message: dict[str, Any], data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([message, *message["content"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)
    verdict = judge(json.dumps(message).encode())
    assert all(type(reason) is str for reason in verdict.finish_reasons)


def test_input_is_all_input_and_its_parts_are_told() -> None:
    usage = token_usage(
        {
            "input_tokens": 10,
            "cache_read_input_tokens": 200,
            "cache_creation_input_tokens": 30,
            "output_tokens": 7,
            "output_tokens_details": {"thinking_tokens": 9},
        }
    )
    assert usage == TokenUsage(input=240, output=7, cached_input=200, cache_write=30, reasoning=7)


@given(json_values | st.dictionaries(st.sampled_from(["input_tokens", "output_tokens", "x"]), json_values))
def test_any_usage_is_read(reported: Any) -> None:
    usage = token_usage(reported)
    assert usage is None or (0 <= usage.input <= 3 << 27 and 0 <= usage.output <= 1 << 27)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BadRequest("x"), "invalid_request_error"),
        (Unauthorized("x"), "authentication_error"),
        (Forbidden("x"), "permission_error"),
        (NotFound("x"), "not_found_error"),
        (GatewayError("x", status=405), "invalid_request_error"),
        (GatewayError("x", status=413), "request_too_large"),
        (GatewayError("x", status=429), "rate_limit_error"),
        (GatewayError("x"), "api_error"),
        (ProviderFailed("x"), "api_error"),
        (GatewayError("x", status=503), "overloaded_error"),
        (TimedOut("x"), "timeout_error"),
    ],
)
def test_errors_have_anthropics_types(error: GatewayError, kind: str) -> None:
    assert json.loads(error_body(error, "req_1")) == {
        "type": "error",
        "error": {"type": kind, "message": "x"},
        "request_id": "req_1",
    }


@pytest.mark.parametrize(
    ("model", "limit", "thinking"),
    [
        ("claude-3-haiku-20240307", 4096, "none"),
        ("claude-3-5-sonnet-latest", 8192, "none"),
        ("claude-3-7-sonnet-20250219", 64_000, "budget"),
        ("claude-opus-4-20250514", 32_000, "budget"),
        ("claude-opus-4-1-20250805", 32_000, "budget"),
        ("claude-sonnet-4-20250514", 64_000, "budget"),
        ("claude-haiku-4-5", 64_000, "budget"),
        ("us.anthropic.claude-opus-4-5-20251101-v1:0", 64_000, "budget"),
        ("anthropic/claude-opus-4-6", 128_000, "adaptive"),
        ("claude-sonnet-4-6", 128_000, "adaptive"),
        ("claude-opus-5-5", 128_000, "adaptive"),
        ("claude-new-9", 64_000, "adaptive"),
        ("someone-elses", 8192, "budget"),
    ],
)
def test_what_a_model_writes_at_most_and_how_it_thinks(model: str, limit: int, thinking: str) -> None:
    assert default_max_tokens(model) == limit
    assert thinking_style(model) == thinking


def test_the_dialect_reads_its_own_answers() -> None:
    body = json.dumps(MESSAGE).encode()
    assert DIALECT.judge(body, {}).storable
    assembler = DIALECT.assembler({})
    for line in DIALECT.replay(body, include_usage=False).splitlines():
        if line.startswith(b"data: "):
            assembler.feed(line.removeprefix(b"data: "))
    assert json.loads(assembler.result() or b"") == MESSAGE
