"""Replayed messages are read by the official client, whose stream helpers must not be able to tell."""

import asyncio
import json
from typing import Any

import anthropic
import httpx2
import pytest

from watchllm.domain.errors import LimitExceeded, Unavailable
from watchllm.providers.anthropic.errors import error_body, error_event
from watchllm.providers.anthropic.replay import replay

ASKED: dict[str, Any] = {
    "model": "claude-sonnet-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "?"}],
}
TEXT = "The capital of France is Paris. 🗼 It has some two million inhabitants. " * 5
PAGE = {
    "type": "page_location",
    "cited_text": "Paris",
    "document_index": 0,
    "document_title": "Cities",
    "start_page_number": 1,
    "end_page_number": 2,
}


def message(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 9,
        "output_tokens": 12,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "output_tokens_details": {"thinking_tokens": 3},
        "service_tier": "standard",
    }
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5"}
    rest = {"content": list(content), "stop_reason": "end_turn", "stop_sequence": None, "stop_details": None}
    return head | rest | {"usage": usage} | fields


STORED = [
    message({"type": "text", "text": TEXT}),
    message({"type": "text", "text": "Paris.", "citations": [PAGE, PAGE | {"start_page_number": 2}]}),
    message(
        {"type": "thinking", "thinking": TEXT, "signature": "EqQBCgIYAg=="},
        {"type": "redacted_thinking", "data": "abc"},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich", "days": [1, 2.5]}},
        {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
        stop_reason="tool_use",
    ),
    message({"type": "text", "text": "one, two"}, stop_reason="stop_sequence", stop_sequence=","),
]


def answering(body: bytes, kind: str = "text/event-stream", status: int = 200) -> httpx2.MockTransport:
    return httpx2.MockTransport(lambda _request: httpx2.Response(status, headers={"content-type": kind}, content=body))


def client(body: bytes, kind: str = "text/event-stream", status: int = 200) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key="k", max_retries=0, http_client=httpx2.Client(transport=answering(body, kind, status))
    )


@pytest.mark.parametrize("stored", STORED, ids=["text", "citations", "thinking and tools", "stop sequence"])
def test_the_stream_helper_puts_the_stored_message_together(stored: dict[str, Any]) -> None:
    body = json.dumps(stored).encode()
    with client(replay(body)) as told, told.messages.stream(**ASKED) as stream:
        kinds = [event.type for event in stream]
        got = stream.get_final_message().to_dict()
    whole = client(body, "application/json").messages.create(**ASKED).to_dict()
    assert got == whole
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


def test_the_helper_tells_text_and_input_as_they_come() -> None:
    with client(replay(json.dumps(STORED[0]).encode())) as told, told.messages.stream(**ASKED) as stream:
        pieces = list(stream.text_stream)
    assert "".join(pieces) == TEXT
    assert len(pieces) > 2


def test_the_asynchronous_client_reads_it_too() -> None:
    async def read() -> dict[str, Any]:
        http = httpx2.AsyncClient(transport=answering(replay(json.dumps(STORED[2]).encode())))
        async with (
            anthropic.AsyncAnthropic(api_key="k", max_retries=0, http_client=http) as asked,
            asked.messages.stream(**ASKED) as stream,
        ):
            return (await stream.get_final_message()).to_dict()

    assert asyncio.run(read())["content"] == STORED[2]["content"]


def test_an_error_of_ours_is_the_clients_own_error() -> None:
    body = error_body(LimitExceeded("Slow down."), "req_1")
    with pytest.raises(anthropic.RateLimitError) as caught, client(body, "application/json", 429) as refused:
        refused.messages.create(**ASKED)
    assert caught.value.api_message == "Slow down."
    assert caught.value.type == "rate_limit_error"
    assert json.loads(body)["request_id"] == "req_1"


def test_an_error_of_ours_inside_a_stream_is_the_clients_own_error() -> None:
    begun = replay(json.dumps(STORED[0]).encode()).partition(b"event: content_block_stop")[0]
    body = begun + error_event(Unavailable("Come back later."), "req_1")
    with (
        client(body) as told,
        told.messages.stream(**ASKED) as stream,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        stream.until_done()
    assert caught.value.type == "overloaded_error"
    assert caught.value.api_message == "Come back later."
