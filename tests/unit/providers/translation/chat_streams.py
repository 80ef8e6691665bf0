"""Streams of chat completion chunks, and what Anthropic's official client makes of their translation."""

import json
from collections.abc import Iterable
from typing import Any

import anthropic
import httpx2
from anthropic.types import Message

from watchllm.providers.translation.stream_chat_to_messages import Translator
from watchllm.wire.sse import EventScanner, event_data

DONE = b"[DONE]"
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 7},
}


def chunk(*choices: dict[str, Any], **more: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "gpt-4o-mini"}
    return json.dumps(head | {"choices": list(choices)} | more).encode()


def says(finish: str | None = None, **delta: Any) -> bytes:
    return chunk({"index": 0, "delta": delta, "finish_reason": finish})


def calls(*deltas: dict[str, Any], finish: str | None = None) -> bytes:
    return says(finish, tool_calls=list(deltas))


def call(index: int | None, arguments: str | None = None, name: str | None = None, **more: Any) -> dict[str, Any]:
    numbered = {} if index is None else {"index": index}
    function = {field: value for field, value in (("name", name), ("arguments", arguments)) if value is not None}
    return numbered | more | {"function": function}


USAGE_CHUNK = chunk(usage=USAGE)


def fed(events: Iterable[bytes]) -> bytes:
    translator = Translator()
    return b"".join([translator.feed(data) for data in events]) + translator.finish()


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """The events, each checked to be named as its data says."""
    events = []
    for raw in EventScanner().feed(stream):
        data = json.loads(event_data(raw) or b"")
        assert raw.startswith(b"event: " + data["type"].encode() + b"\ndata: ")
        events.append(data)
    return events


def check_order(events: list[dict[str, Any]]) -> None:
    """A message's events: blocks one after the other, each whole, inside of one message."""
    assert events[0]["type"] == "message_start"
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    blocks = 0
    inside = False
    for event in events[1:-2]:
        assert event["index"] == blocks
        if event["type"] == "content_block_start":
            assert not inside
            inside = True
        else:
            assert inside
        if event["type"] == "content_block_stop":
            inside = False
            blocks += 1
    assert not inside


def message_of(stream: bytes) -> Message:
    """What the official client makes of the stream."""
    check_order(events_of(stream))

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)

    with (
        httpx2.Client(transport=httpx2.MockTransport(answer)) as transport,
        anthropic.Anthropic(api_key="k", base_url="http://provider", http_client=transport, max_retries=0) as client,
        client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}]) as read,
    ):
        return read.get_final_message()


def content_of(*events: bytes) -> list[dict[str, Any]]:
    message = message_of(fed(events))
    return [block.model_dump(exclude_none=True) for block in message.content]
