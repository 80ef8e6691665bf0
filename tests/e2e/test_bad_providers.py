"""Whatever a provider does wrong: the right error in the client's dialect, one usage record, nothing stored.

Each client dialect against each upstream dialect, whole and streamed, parsed by hand here; what the official clients
make of it is in test_bad_providers_clients.py.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support.journal import usage_in
from tests.support.product import UPSTREAM_KEY, Gateway, Installation, Project, Sim
from tests.support.raw_http import RawResponse
from watchllm.wire.sse import EventScanner, event_data

PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
CLIENTS = tuple(PATHS)
# Who speaks what: groq chat only, anthropic messages only, openai chat and responses.
PROVIDERS = ("openai", "groq", "anthropic")
QUESTION = "Tell me a tale of six words"


@pytest.fixture(scope="module")
def gateway(shared_sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    environment = {
        f"{name}_{variable}": value
        for name in ("OPENAI", "GROQ", "ANTHROPIC")
        for variable, value in (("BASE_URL", shared_sim.base_url), ("API_KEY", UPSTREAM_KEY))
    }
    installation = Installation(tmp_path_factory.mktemp("bad") / "home", environment)
    installation.project("first")
    proxy = installation.start_proxy()
    yield proxy
    proxy.stop()


class Told(NamedTuple):
    """An error as it was told: `status` of the answer, its code (None in Anthropic's form), type and message."""

    status: int
    code: str | None
    type: str
    message: str


class Row(NamedTuple):
    status: int
    ended: str
    error: str | None
    cache: str
    input: int | None
    output: int | None


def ask(
    gateway: Gateway, project: Project, client: str, model: str, *, stream: bool, headers: dict[str, str] | None = None
) -> RawResponse:
    body: dict[str, Any] = {"model": model, "stream": stream}
    if client == "responses":
        body["input"] = QUESTION
    else:
        body |= {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 900}
    lines = {"anthropic-version": "2023-06-01"} if client == "messages" else {}
    return gateway.post(PATHS[client], project.key, body, headers={**lines, **(headers or {})}, timeout=20)


def events(body: bytes) -> list[Any]:
    """What a strict reader of the stream sees: every event is whole and JSON (or the end marker)."""
    scanner = EventScanner()
    raw = scanner.feed(body)
    assert scanner.rest() == b"", "the stream ends inside an event"
    found = [data for data in map(event_data, raw) if data is not None]
    return [data.decode() if data == b"[DONE]" else json.loads(data) for data in found]


def told(answer: RawResponse, client: str) -> Told:
    """The one error of an answer, which must be its last word and in the client's form."""
    if answer.header("content-type") == "application/json":
        document = answer.json()
        if client == "messages":
            assert document["request_id"] == answer.header("x-request-id")
    else:
        assert str(answer.header("content-type")).startswith("text/event-stream")
        *before, document = events(answer.body)
        assert not [event for event in before if event == "[DONE]" or "error" in event], "nothing may follow an error"
    error = document["error"]
    if client == "messages":
        assert (set(error), document["type"]) == ({"type", "message"}, "error")
        return Told(answer.status, None, error["type"], error["message"])
    assert set(error) == {"message", "type", "param", "code"}
    return Told(answer.status, error["code"], error["type"], error["message"])


def rows(gateway: Gateway, project: Project) -> list[Row]:
    with usage_in(gateway.installation.home) as usage:
        usage.record()
        columns = "status, ended, error, cache, input_tokens, output_tokens"
        found = usage.query(f"SELECT {columns} FROM usage_logs WHERE project_id = '{project.id}' ORDER BY id")
    return [Row(*row) for row in found]


def twice(
    gateway: Gateway, project: Project, sim: Sim, client: str, model: str, *, stream: bool, **wishes: Any
) -> tuple[RawResponse, Row]:
    """The answer to a question asked twice, of which nothing may have been stored, and the first one's usage row."""
    first = ask(gateway, project, client, model, stream=stream, **wishes)
    calls = sim.calls()
    second = ask(gateway, project, client, model, stream=stream, **wishes)
    assert second.header("x-watchllm-cache") == first.header("x-watchllm-cache") == "MISS"
    assert sim.calls() > calls
    found = rows(gateway, project)
    assert len(found) == 2
    return first, found[0]


every_pair = pytest.mark.parametrize(
    ("client", "provider"), [(client, provider) for client in CLIENTS for provider in PROVIDERS]
)


@every_pair
@pytest.mark.parametrize("knob", ["html", "half_json", "wrong_type", "empty", "error_200", "reset", "cut-3", "short-3"])
def test_a_whole_answer_that_is_none(
    gateway: Gateway, project: Project, sim: Sim, client: str, provider: str, knob: str
) -> None:
    answer, row = twice(gateway, project, sim, client, f"{provider}/echo+{knob}", stream=False)
    error = told(answer, client)
    assert error[:3] == (502, None if client == "messages" else "provider_error", "api_error")
    assert row[:4] == (502, "error", "provider_error", "MISS")


def test_the_message_says_what_was_wrong(gateway: Gateway, project: Project) -> None:
    def message(knob: str) -> str:
        return told(ask(gateway, project, "chat", f"openai/echo+{knob}", stream=False), "chat").message

    assert "'text/html; charset=utf-8' in place of JSON" in message("html")
    assert "'text/plain' in place of JSON" in message("wrong_type")
    assert message("error_200").endswith(
        "an error: The server had an error while processing your request. Sorry about that!"
    )
    assert "closed the connection" in message("cut-3")


@every_pair
@pytest.mark.parametrize("knob", ["html", "wrong_type", "reset"])
def test_what_fails_before_a_streams_first_byte_has_the_status_of_an_error(
    gateway: Gateway, project: Project, sim: Sim, client: str, provider: str, knob: str
) -> None:
    answer, row = twice(gateway, project, sim, client, f"{provider}/echo+{knob}", stream=True)
    error = told(answer, client)
    assert error[:3] == (502, None if client == "messages" else "provider_error", "api_error")
    assert row[:4] == (502, "error", "provider_error", "MISS")


@every_pair
@pytest.mark.parametrize(
    "knob", ["half_json", "empty", "no_done", "cut-0", "cut-3", "cut-9", "short-3", "big-11000000"]
)
def test_a_stream_that_breaks_off_ends_with_an_error(
    gateway: Gateway, project: Project, sim: Sim, client: str, provider: str, knob: str
) -> None:
    model = f"{provider}/{'tale' if knob.startswith('big') else 'echo'}+{knob}"
    answer, row = twice(gateway, project, sim, client, model, stream=True)
    error = told(answer, client)
    assert error[:3] == (200, None if client == "messages" else "provider_error", "api_error")
    assert "not valid HTTP" not in error.message
    assert row[:4] == (200, "cut", "provider_error", "MISS")
    # What was read and written so far is charged, though the counts never came.
    assert row.input is not None
    assert row.input > 0


@every_pair
@pytest.mark.parametrize("knob", ["error_200", "stream_error-1", "stream_error-4"])
def test_a_providers_error_inside_its_stream_ends_the_clients(
    gateway: Gateway, project: Project, sim: Sim, client: str, provider: str, knob: str
) -> None:
    answer, row = twice(gateway, project, sim, client, f"{provider}/echo+{knob}", stream=True)
    error = last_error(answer, client)
    assert answer.status == 200
    assert "Overloaded" in error or "The server had an error" in error
    assert row[:4] == (200, "error", "provider_error", "MISS")
    assert row.input is not None
    assert row.input > 0


SPOKEN = {"openai": ("chat", "responses"), "groq": ("chat",), "anthropic": ("messages",)}


@every_pair
def test_a_stream_whose_events_come_twice_is_not_stored(
    gateway: Gateway, project: Project, sim: Sim, client: str, provider: str
) -> None:
    answer, row = twice(gateway, project, sim, client, f"{provider}/echo+duplicate", stream=True)
    # What the provider says in the client's own words is passed on byte for byte.
    if client not in SPOKEN[provider]:
        assert told(answer, client)[:3] == (200, None if client == "messages" else "provider_error", "api_error")
        assert row[:4] == (200, "cut", "provider_error", "MISS")
    else:
        assert row[:4] == (200, "complete", None, "MISS")
    assert row.input is not None


def last_error(answer: RawResponse, client: str) -> str:
    """The message of the error that ends the stream; a provider's own event of Responses has it beside its type."""
    document = events(answer.body)[-1]
    if client == "responses":
        assert document["type"] == "error"
        return str(document["message"])
    assert (document.get("type") == "error") is (client == "messages")
    return str(document["error"]["message"])


@every_pair
@pytest.mark.parametrize(("knob", "stream"), [("hang", False), ("hang", True), ("stall-3", False), ("stall-3", True)])
def test_a_provider_that_falls_silent_is_given_up(
    gateway: Gateway, project: Project, client: str, provider: str, knob: str, stream: bool
) -> None:
    begun = stream and knob != "hang"
    wishes = {"X-WatchLLM-Timeout": "1" if begun else "0.3"}  # What is to begin needs time for it.
    answer = ask(gateway, project, client, f"{provider}/echo+{knob}", stream=stream, headers=wishes)
    error = told(answer, client)
    assert error.status == (200 if begun else 504)
    assert (error.code, error.type) == (
        (None, "timeout_error") if client == "messages" else ("provider_timeout", "api_error")
    )
    (row,) = rows(gateway, project)
    assert row[:4] == (error.status, "cut" if begun else "error", "provider_timeout", "MISS")
    assert row.input is not None
    assert row.input > 0


@every_pair
@pytest.mark.parametrize("knob", ["split", "split-7", "gzip", "gzip+split-3"])
@pytest.mark.parametrize("stream", [False, True])
def test_bytes_that_come_in_any_pieces_or_encoded_are_the_same_answer(
    gateway: Gateway, project: Project, client: str, provider: str, knob: str, stream: bool
) -> None:
    asked = f"{QUESTION}: tränenüberströmt, 日本, 🙂"
    body: dict[str, Any] = {"model": f"{provider}/echo+{knob}", "stream": stream}
    conversation = [{"role": "user", "content": asked}]
    body |= {"input": conversation} if client == "responses" else {"messages": conversation, "max_tokens": 900}
    first, second = (gateway.post(PATHS[client], project.key, body) for _ in range(2))
    assert [answer.header("x-watchllm-cache") for answer in (first, second)] == ["MISS", "HIT"]
    assert first.header("content-encoding") is None
    for answer in (first, second):
        assert text_of(answer, client, stream=stream) == asked


def text_of(answer: RawResponse, client: str, *, stream: bool) -> str:
    if not stream:
        document = answer.json()
        if client == "chat":
            return str(document["choices"][0]["message"]["content"])
        blocks = document["content"] if client == "messages" else document["output"][-1]["content"]
        return "".join(block["text"] for block in blocks)
    pieces = []
    for event in events(answer.body):
        if client == "chat" and event != "[DONE]" and event["choices"]:
            pieces.append(event["choices"][0]["delta"].get("content") or "")
        elif client == "messages" and event["type"] == "content_block_delta":
            pieces.append(event["delta"]["text"])
        elif client == "responses" and event["type"] == "response.output_text.delta":
            pieces.append(event["delta"])
    return "".join(pieces)
