"""A provider that answers 200 and then nothing that is an answer: the next of the chain answers, whoever asks."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.embeddings import MODEL, PATH, vectors
from tests.support.product import Gateway
from tests.support.raw_http import RawConnection, RawResponse, request_bytes
from tests.support.routing import (
    LLAMA,
    MINI,
    Routed,
    Waits,
    cache_of,
    completion,
    fails,
    in_turn,
    routed,
    says,
    stream_of,
    text_of,
    tried,
)
from tests.support.scripted_upstream import Call, Script
from tests.support.waiting import wait_for

PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
QUESTION = [{"role": "user", "content": "Hello?"}]
# A provider that does answer, or begins to, must do so within it, however busy the machine is.
TRY = 1.0


@pytest.fixture
def project(open_gateway: Gateway) -> Iterator[Routed]:
    with routed(open_gateway) as project:
        yield project


def ask(project: Routed, client: str, *, stream: bool) -> RawResponse:
    body: dict[str, Any] = {"model": "fast", "stream": stream}
    body |= {"input": "Hello?"} if client == "responses" else {"messages": QUESTION, "max_tokens": 9}
    return project.gateway.post(PATHS[client], project.project.key, body, timeout=20)


def replies(body: bytes, content_type: str = "application/json") -> Script:
    return lambda call: call.reply(200, body, content_type=content_type)


def breaks_off(body: bytes, content_type: str = "application/json") -> Script:
    """Announces more than it sends, and hangs up."""

    def script(call: Call) -> None:
        begin(call, content_type, len(body) + 10)
        call.wfile.write(body)
        call.hang_up()

    return script


def stalls(body: bytes, content_type: str = "application/json") -> Script:
    """Sends its head and some of its body, and then no more."""

    def script(call: Call) -> None:
        begin(call, content_type, len(body) + 10)
        call.wfile.write(body)
        Waits()(call)

    return script


def begin(call: Call, content_type: str, length: int) -> None:
    call.send_response_only(200)
    call.send_header("content-type", content_type)
    call.send_header("content-length", str(length))
    call.end_headers()


EVENTS = "text/event-stream"
PAGE = b"<html>Sign in to the network</html>"
ERROR = b'{"error":{"message":"overloaded","type":"server_error"}}'
WHOLE = completion("gpt-4o-mini", "openai")
WRONG = {
    "html": replies(PAGE, "text/html; charset=utf-8"),
    "garbage": replies(b"\xff\x00garbage"),
    "half": replies(WHOLE[:40]),
    "wrong type": replies(WHOLE, "text/plain"),
    "error": replies(ERROR),
    "empty": replies(b""),
    "breaks off": breaks_off(WHOLE[:40]),
    "stalls": stalls(WHOLE[:40]),
}
WRONG_STREAMS = {
    "html": replies(PAGE, "text/html"),
    "a whole answer": replies(WHOLE),
    "garbage": replies(b"data: \xff\x00garbage\n\n", EVENTS),
    "error": replies(b"data: " + ERROR + b"\n\ndata: [DONE]\n\n", EVENTS),
    "empty": replies(b"", EVENTS),
    "only its end": replies(b"data: [DONE]\n\n", EVENTS),
    "only comments": replies(b": PROCESSING\n\n", EVENTS),
    "breaks off": breaks_off(b"data: {", EVENTS),
    "stalls": stalls(b": PROCESSING\n\n", EVENTS),
}


@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize(
    ("stream", "wrong"), [*((False, name) for name in WRONG), *((True, name) for name in WRONG_STREAMS)]
)
def test_what_is_no_answer_leads_to_the_next_of_the_chain(
    project: Routed, client: str, stream: bool, wrong: str
) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,), try_timeout=TRY if wrong == "stalls" else None)
    project.openai.script = (WRONG_STREAMS if stream else WRONG)[wrong]
    answer = ask(project, client, stream=stream)
    assert answer.status == 200, answer
    assert b"groq" in answer.body
    assert b"error" not in answer.body.replace(b'"error":null', b"")
    assert tried(answer) == ("groq", "openai")
    assert project.calls() == (1, 1)
    [row] = project.rows(1)
    lost, won = row["attempts"]
    code = "provider_timeout" if wrong == "stalls" else "provider_error"
    assert (lost["status"], lost["error"], lost["usage"]["estimated"]) == (200, code, True)
    assert row["cost_nanos"] == lost["cost"] + won["cost"] > won["cost"]
    assert (row["status"], row["ended"], row["error"]) == (200, "complete", None)


@pytest.mark.parametrize("stream", [False, True])
def test_it_counts_against_the_provider(project: Routed, stream: bool) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script = (WRONG_STREAMS if stream else WRONG)["html"]
    for number in range(12):
        assert project.ask(f"Question {number}", stream=stream).status == 200
    assert project.calls() == (10, 12), "after ten the breaker is open"


@pytest.mark.parametrize(
    ("stream", "wrong"),
    [
        *((False, name) for name in ("html", "half", "breaks off")),
        *((True, name) for name in ("html", "breaks off")),
    ],
)
def test_it_counts_without_a_fallback_too(project: Routed, stream: bool, wrong: str) -> None:
    project.route("fast", MINI)
    project.openai.script = (WRONG_STREAMS if stream else WRONG)[wrong]
    for number in range(12):
        project.ask(f"Question {number}", stream=stream)
    assert project.calls() == (10, 0), "after ten the breaker is open"


def test_streams_that_break_after_they_began_count_though_they_are_passed_on(project: Routed) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script = breaks_off(stream_of("gpt-4o-mini", "openai")[:-30], EVENTS)
    for number in range(12):
        project.ask(f"Question {number}", stream=True)
    assert project.calls() == (10, 2), "after ten the breaker is open"


def test_embeddings_that_are_none_count(project: Routed) -> None:
    project.openai.script = WRONG["html"]
    for number in range(12):
        project.gateway.post(PATH, project.project.key, {"model": MODEL, "input": f"Number {number}"})
    assert project.calls() == (10, 0), "after ten the breaker is open"


def test_the_same_target_is_tried_again_as_often_as_the_route_says(project: Routed) -> None:
    project.route("fast", MINI, retries=2)
    project.openai.script = in_turn(WRONG["empty"], WRONG["half"], says("at last"))
    answer = project.ask()
    assert (text_of(answer), tried(answer), project.calls()) == ("at last", ("openai", None), (3, 0))
    assert cache_of(project.ask()) == "HIT"


@pytest.mark.parametrize("wrong", WRONG)
def test_where_all_fail_the_client_is_told_what_was_wrong_with_the_last(project: Routed, wrong: str) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,), try_timeout=TRY if wrong == "stalls" else None)
    project.openai.script = fails(503)
    project.groq.script = WRONG[wrong]
    answer = project.ask()
    told = answer.json()["error"]["code"]
    assert (answer.status, told) == ((504, "provider_timeout") if wrong == "stalls" else (502, "provider_error"))
    [row] = project.rows(1)
    assert [(one["provider"], one["status"]) for one in row["attempts"]] == [("openai", 503), ("groq", 200)]
    assert row["cost_nanos"] == row["attempts"][1]["cost"] > 0
    project.groq.script = says("well again")
    assert cache_of(project.ask()) == "MISS", "nothing of it was stored"


@pytest.mark.parametrize("wrong", [name for name in WRONG_STREAMS if name != "only its end"])
def test_where_all_streams_fail_the_client_is_told_too(project: Routed, wrong: str) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,), try_timeout=TRY if wrong == "stalls" else None)
    project.openai.script = fails(503)
    project.groq.script = WRONG_STREAMS[wrong]
    answer = project.ask(stream=True)
    assert b'"error"' in answer.body, answer
    [row] = project.rows(1)
    assert [(one["provider"], one["status"]) for one in row["attempts"]] == [("openai", 503), ("groq", 200)]
    assert (row["ended"] in ("cut", "error"), bool(row["error"])) == (True, True)
    project.groq.script = says("well again")
    assert cache_of(project.ask(stream=True)) == "MISS"


@pytest.mark.parametrize("client", PATHS)
def test_after_its_first_event_a_stream_is_the_clients(project: Routed, client: str) -> None:
    project.route("fast", LLAMA, fallbacks=(MINI,), try_timeout=TRY)
    seen = threading.Event()

    def slow(call: Call) -> None:
        events = stream_of("llama", "first word") + b"data: [DONE]\n\n"
        first = events.index(b"\n\n") + 2
        begin(call, EVENTS, len(events))
        call.wfile.write(events[:first])
        assert seen.wait(20), "the first event was kept back"
        call.wfile.write(events[first:])

    project.groq.script = slow
    body: dict[str, Any] = {"model": "fast", "stream": True}
    body |= {"input": "Hello?"} if client == "responses" else {"messages": QUESTION, "max_tokens": 9}
    with RawConnection(project.gateway.port) as connection:
        connection.send(request_bytes(PATHS[client], key=project.project.key, body=body))
        received = b""
        while b"first word" not in received:
            received += connection.receive()
        seen.set()
        wait_for(lambda: len(project.rows(1)) == 1, "the end")
    assert project.calls() == (0, 1)


@pytest.mark.parametrize("client", ["chat", "messages"])
def test_a_response_that_failed_says_why_in_every_dialect(project: Routed, client: str) -> None:
    with project.installation.control_plane() as plane:
        plane.add_provider_key(
            project.project.id, "mine", "sk-mine", base_url=project.groq.base_url, dialect="responses"
        )
    failed = {"object": "response", "status": "failed", "error": {"code": "server_error", "message": "Out of GPUs."}}
    project.route("fast", "mine/model")
    project.groq.script = replies(json.dumps(failed | {"id": "resp_1", "output": []}).encode())
    answer = ask(project, client, stream=False)
    assert answer.status == 502
    assert "the response failed: Out of GPUs" in answer.json()["error"]["message"]


def test_an_error_inside_a_translated_stream_names_the_request_as_anthropics_own_do(project: Routed) -> None:
    events = stream_of("llama", "Half an ans", ends=False) + b"data: " + ERROR + b"\n\n"
    project.route("fast", LLAMA)
    project.groq.script = replies(events, EVENTS)
    answer = ask(project, "messages", stream=True)
    *_, last = [event for event in answer.body.split(b"\n\n") if event]
    kind, _, data = last.partition(b"\ndata: ")
    assert kind == b"event: error"
    assert json.loads(data)["error"]["message"] == "overloaded"
    assert json.loads(data)["request_id"] == answer.header("x-request-id")


def test_the_first_good_answer_wins_over_a_hedge_that_is_none(project: Routed) -> None:
    hedge_failed = threading.Event()

    def slow(call: Call) -> None:
        assert hedge_failed.wait(20)
        says("first")(call)

    def garbage(call: Call) -> None:
        WRONG["html"](call)
        hedge_failed.set()

    project.route("fast", MINI, fallbacks=(LLAMA,), hedge_after=0.1)
    project.openai.script, project.groq.script = slow, garbage
    assert text_of(project.ask()) == "first"
    [row] = project.rows(1)
    calls = [(one["provider"], one["status"], one.get("error"), one["hedged"]) for one in row["attempts"]]
    assert calls == [("groq", 200, "provider_error", True), ("openai", 200, None, False)]


def test_an_answer_that_is_too_long_leads_on_and_is_not_kept(project: Routed) -> None:
    def endless(call: Call) -> None:
        begin(call, "application/json", 65 << 20)
        piece = b" " * (1 << 20)
        try:
            for _ in range(65):
                call.wfile.write(piece)
        except OSError:
            call.hang_up()

    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script = endless
    assert text_of(project.ask()) == "groq"


def test_embeddings_are_asked_for_again(project: Routed) -> None:
    project.route("vectors", f"openai/{MODEL}", retries=1)
    body = {"model": "vectors", "input": ["a", "bc"]}
    for wrong in (replies(PAGE, "text/html"), replies(b""), breaks_off(b'{"data":')):
        project.openai.script = in_turn(wrong, vectors)
        headers = {"Cache-Control": "no-cache"}
        assert project.gateway.post(PATH, project.project.key, body, headers=headers).status == 200
    for row in project.rows(3):
        lost, won = row["attempts"]
        assert (lost["status"], lost["error"], won["status"], won["cost"]) == (200, "provider_error", 200, 20 * 2)
        assert row["cost_nanos"] == lost["cost"] + won["cost"]


def test_an_answer_that_the_model_refused_is_an_answer(project: Routed) -> None:
    filtered = json.loads(WHOLE)
    filtered["choices"][0]["finish_reason"] = "content_filter"
    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script = replies(json.dumps(filtered).encode())
    assert text_of(project.ask()) == "openai"
    assert project.calls() == (1, 0)
