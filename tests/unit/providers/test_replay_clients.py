"""Replayed streams are read by the clients that people use: the official SDK and LangChain, over a real socket."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI

from watchllm.providers.openai.replay import replay

USAGE = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}
TEXT = "The capital of France is Paris. 🗼 It has some two million inhabitants. " * 5


def answer(finish: str = "stop", logprobs: Any = None, **message: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": None, "refusal": None, "annotations": []} | message
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_730_000_000, "model": "gpt-4o-mini"}
    return head | {"choices": [choice], "usage": USAGE, "service_tier": "default", "system_fingerprint": "fp_1"}


class Provider(ThreadingHTTPServer):
    daemon_threads = True
    family = "generate"
    answer: dict[str, Any] = {}  # noqa: RUF012


class Handler(BaseHTTPRequestHandler):
    server: Provider
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        body = replay(self.server.family, json.dumps(self.server.answer).encode(), include_usage=usage)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    server = Provider(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(provider: Provider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{provider.server_port}/v1", api_key="k", max_retries=0) as client:
        yield client


ASKED: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "?"}]}


def test_the_official_client_reads_text_and_usage(provider: Provider, client: openai.OpenAI) -> None:
    provider.answer = answer(content=TEXT)
    chunks = list(client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 21
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-2].choices[0].finish_reason == "stop"
    plain = list(client.chat.completions.create(**ASKED, stream=True))
    assert len(plain) == len(chunks) - 1


@pytest.mark.parametrize(
    "stored",
    [
        answer(content=TEXT),
        answer("tool_calls", tool_calls=[CALL, CALL | {"id": "call_2"}]),
        answer(refusal="I cannot help with that."),
        answer(content="ab", logprobs={"content": [
            {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []},
            {"token": "b", "logprob": -0.2, "bytes": [98], "top_logprobs": []},
        ], "refusal": None}),
    ],
    ids=["text", "tools", "refusal", "logprobs"],
)  # fmt: skip
def test_the_official_client_puts_the_stored_answer_together(
    provider: Provider, client: openai.OpenAI, stored: dict[str, Any]
) -> None:
    provider.answer = stored
    with client.chat.completions.stream(**ASKED, stream_options={"include_usage": True}) as stream:
        got = stream.get_final_completion().to_dict()
    expected = stored["choices"][0]
    (choice,) = got["choices"]
    assert choice["finish_reason"] == expected["finish_reason"]
    assert choice["message"].get("content") == expected["message"]["content"]
    assert choice["message"].get("refusal") == expected["message"]["refusal"]
    calls = [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in choice["message"].get("tool_calls") or []
    ]
    assert calls == [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in expected["message"].get("tool_calls") or []
    ]
    assert (choice.get("logprobs") or {}).get("content") == (expected["logprobs"] or {}).get("content")
    assert got["usage"] == USAGE


def test_the_official_client_reads_legacy_completions(provider: Provider, client: openai.OpenAI) -> None:
    provider.family = "completions"
    provider.answer = {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "gpt-3.5-turbo-instruct",
        "choices": [{"text": TEXT, "index": 0, "logprobs": None, "finish_reason": "length"}],
        "usage": USAGE,
    }
    chunks = list(client.completions.create(model="m", prompt="?", stream=True))
    assert "".join(c.choices[0].text for c in chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason == "length"


def test_langchain_reads_text_tools_and_usage(provider: Provider) -> None:
    chat = ChatOpenAI(
        model="gpt-4o-mini",
        base_url=f"http://127.0.0.1:{provider.server_port}/v1",
        api_key="k",  # type: ignore[arg-type]
        stream_usage=True,
    )
    provider.answer = answer(content=TEXT)
    pieces = list(chat.stream("?"))
    assert "".join(str(piece.content) for piece in pieces) == TEXT
    provider.answer = answer("tool_calls", tool_calls=[CALL])
    first, *others = chat.stream("?")
    for piece in others:
        first = first + piece
    assert [(call["name"], call["args"]) for call in first.tool_calls] == [("weather", {"city": "Zürich"})]
    assert first.usage_metadata is not None
    assert first.usage_metadata["total_tokens"] == 21
