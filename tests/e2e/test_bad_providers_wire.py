"""Providers that break HTTP or their own dialect's rules; and what the official clients make of the errors."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.support.journal import usage_in
from tests.support.product import Gateway, Project
from tests.support.raw_http import RawResponse
from tests.support.scripted_upstream import Call, ScriptedUpstream, scripted_upstream

CHAT_ANSWER = json.dumps(
    {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
).encode()


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream(lambda call: call.reply(200, CHAT_ANSWER)) as server:
        yield server


@pytest.fixture
def project(open_gateway: Gateway, upstream: ScriptedUpstream) -> Project:
    """One whose Groq and Anthropic are `upstream`."""
    project = open_gateway.installation.project("bad")
    with open_gateway.installation.control_plane() as plane:
        for provider in ("groq", "anthropic"):
            plane.add_provider_key(project.id, provider, "sk-own", base_url=upstream.base_url)
    return project


@pytest.fixture
def chat(open_gateway: Gateway, project: Project) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=open_gateway.base_url, api_key=project.key, max_retries=0) as client:
        yield client


@pytest.fixture
def messages(open_gateway: Gateway, project: Project) -> Iterator[anthropic.Anthropic]:
    url = f"http://127.0.0.1:{open_gateway.port}"
    with anthropic.Anthropic(base_url=url, api_key=project.key, max_retries=0) as client:
        yield client


def ask(gateway: Gateway, project: Project, model: str = "groq/m", **fields: Any) -> RawResponse:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, **fields}
    return gateway.post("/v1/chat/completions", project.key, body)


def ends(gateway: Gateway, project: Project) -> list[tuple[Any, ...]]:
    with usage_in(gateway.installation.home) as usage:
        usage.record()
        where = f"WHERE project_id = '{project.id}' ORDER BY id"
        return usage.query(f"SELECT status, ended, error, cache FROM usage_logs {where}")


def raw(head: str, body: bytes = b"") -> Callable[[Call], None]:
    """A provider that answers with these very bytes, then hangs up."""

    def answer(call: Call) -> None:
        call.wfile.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        call.wfile.flush()
        call.hang_up()

    return answer


OK = "HTTP/1.1 200 OK\nContent-Type: application/json\n"
LIES = {
    "length beyond the body": raw(f"{OK}Content-Length: {len(CHAT_ANSWER) + 10}", CHAT_ANSWER),
    "length within the body": raw(f"{OK}Content-Length: {len(CHAT_ANSWER) - 10}", CHAT_ANSWER),
    "two lengths": raw(f"{OK}Content-Length: {len(CHAT_ANSWER)}\nContent-Length: 5", CHAT_ANSWER),
    "length and chunks": raw(f"{OK}Content-Length: 5\nTransfer-Encoding: chunked", b"5\r\n{}   \r\n0\r\n\r\n"),
    "length that is no number": raw(f"{OK}Content-Length: many", CHAT_ANSWER),
    "chunks that are none": raw(f"{OK}Transfer-Encoding: chunked", CHAT_ANSWER),
    "chunks without an end": raw(f"{OK}Transfer-Encoding: chunked", b"5\r\n{}   \r\n"),
    "no HTTP": raw("SSH-2.0-OpenSSH_9.2"),
    "gzip that is none": raw(f"{OK}Content-Encoding: gzip\nContent-Length: {len(CHAT_ANSWER)}", CHAT_ANSWER),
    "encoding that is unknown": raw(f"{OK}Content-Encoding: rot13\nContent-Length: 4", b"\x01\x02\x03\x04"),
    "redirect": raw("HTTP/1.1 302 Found\nLocation: http://127.0.0.1:1/\nContent-Length: 0"),
    "switch of protocols": raw("HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: upgrade"),
    "nothing but a hang-up": lambda call: call.hang_up(),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("stream", [False, True])
def test_http_that_lies_is_the_providers_error(
    open_gateway: Gateway, project: Project, upstream: ScriptedUpstream, lie: str, stream: bool
) -> None:
    upstream.script = LIES[lie]
    answer = ask(open_gateway, project, stream=stream)
    assert (answer.status, answer.json()["error"]["code"]) == (502, "provider_error"), answer
    upstream.script = lambda call: call.reply(200, CHAT_ANSWER)
    assert ask(open_gateway, project).header("x-watchllm-cache") == "MISS", "nothing was stored"
    assert ends(open_gateway, project)[0] == (502, "error", "provider_error", "MISS")


def events(*documents: dict[str, Any]) -> bytes:
    """A stream of Anthropic's events."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (document["type"].encode(), json.dumps(document).encode())
        for document in documents
    )


def streams(body: bytes) -> Callable[[Call], None]:
    return lambda call: call.reply(200, body, content_type="text/event-stream")


START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 7, "output_tokens": 1},
    },
}
TEXT = (
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Half of it"}},
)
ODD = {"type": "content_block_start", "index": 1, "content_block": {"type": "server_tool_use", "id": "s", "name": "w"}}


@pytest.mark.parametrize("odd", [ODD, {"type": "content_block_delta", "index": 9}, {"type": "message_stop"}])
def test_an_event_that_cannot_be_translated_ends_the_stream_after_what_came_before_it(
    open_gateway: Gateway, project: Project, upstream: ScriptedUpstream, odd: dict[str, Any]
) -> None:
    # All in one piece: what precedes the event in it is told all the same.
    upstream.script = streams(events(START, *TEXT, odd))
    answer = ask(open_gateway, project, "anthropic/m", stream=True)
    *before, last = [event for event in answer.body.split(b"\n\n") if event]
    assert any(b"Half of it" in event for event in before)
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert error["code"] == "provider_error"
    assert "cannot be told" in error["message"]
    assert ends(open_gateway, project) == [(200, "cut", "provider_error", "MISS")]


def test_the_openai_client_raises_what_ends_a_stream(chat: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    upstream.script = streams(events(START, *TEXT))
    ask_: Any = {"model": "anthropic/m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    stream = chat.chat.completions.create(**ask_, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "Half of it"]
    with pytest.raises(openai.APIError, match="ended before its answer was complete") as broken:
        next(stream)
    assert broken.value.code == "provider_error"
    with (
        pytest.raises(openai.APIError, match="ended before its answer was complete"),
        chat.responses.stream(model="anthropic/m", input="Hi") as told,
    ):
        list(told)
    upstream.script = lambda call: call.reply(200, b"<html>", content_type="text/html")
    with pytest.raises(openai.InternalServerError) as failed:
        chat.chat.completions.create(**ask_)
    assert (failed.value.status_code, failed.value.code) == (502, "provider_error")
    with pytest.raises(openai.InternalServerError):
        chat.responses.create(model="groq/m", input="Hi")


@pytest.mark.parametrize("provider", ["groq", "anthropic"])
def test_the_anthropic_client_raises_what_ends_a_stream(
    messages: anthropic.Anthropic, upstream: ScriptedUpstream, provider: str
) -> None:
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": "Half of it"}}],
    }
    chunks = b"data: %b\n\n" % json.dumps(chunk).encode()
    upstream.script = streams(events(START, *TEXT) if provider == "anthropic" else chunks)
    ask_: Any = {"model": f"{provider}/m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    with messages.messages.stream(**ask_) as stream:
        pieces = stream.text_stream
        assert next(pieces) == "Half of it"
        with pytest.raises(anthropic.APIStatusError, match="ended before its answer was complete") as broken:
            next(pieces)
    body: Any = broken.value.body
    assert body["error"]["type"] == "api_error"
    assert body["request_id"].startswith("req_")
    upstream.script = lambda call: call.reply(200, b"<html>", content_type="text/html")
    with pytest.raises(anthropic.InternalServerError) as failed:
        messages.messages.create(**ask_)
    assert failed.value.status_code == 502
    assert failed.value.request_id is None or failed.value.request_id.startswith("req_")
