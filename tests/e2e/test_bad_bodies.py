"""Bad bodies: cut short, compressed bombs, JSON of every wrong kind, fields of every wrong type."""

import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import brotli
import pytest

from tests.support.admin import status_of
from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawConnection, RawResponse, request_bytes
from tests.support.waiting import wait_for

try:
    from compression import zstd
except ImportError:
    from backports import zstd

CHAT = "/v1/chat/completions"
MIB = 1 << 20
ASK = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
BODY = json.dumps(ASK).encode()


@pytest.fixture(autouse=True)
def life_goes_on(gateway: Gateway, sim: Sim, project: Project) -> Iterator[None]:
    """After whatever a test has sent, the next request is served as if nothing had been, and no bytes stay held."""
    yield
    answer = gateway.chat(project.key, "Are you still there?")
    assert (answer.status, answer.header("X-WatchLLM-Cache")) == (200, "MISS")
    wait_for(lambda: status_of(gateway)["inflight_bytes"] == 0, "the release of all request bytes")


def error_of(answer: RawResponse) -> tuple[int, str]:
    """Status and code of an error in OpenAI's form."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return answer.status, error["code"]


# --- JSON ------------------------------------------------------------------------------------------------------------

_NESTED = b'{"model":"gpt-4o-mini","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"

INVALID_JSON: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \n ",
    "not JSON": b"hello",
    "cut": BODY[:-1],
    "two documents": BODY + BODY,
    "trailing comma": BODY[:-1] + b",}",
    "single quotes": b"{'model':'gpt-4o-mini'}",
    "comment": b"/* hi */" + BODY,
    "not UTF-8": BODY.replace(b"Hi", b"\xff\xfe"),
    "overlong UTF-8": BODY.replace(b"Hi", b"\xc0\x80"),
    "UTF-8 surrogates": BODY.replace(b"Hi", b"\xed\xa0\x80"),
    "lone surrogate": BODY.replace(b"Hi", b"\\ud800"),
    "UTF-16": BODY.decode().encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + BODY,
    "NUL": BODY.replace(b"Hi", b"\0"),
    "control character": BODY.replace(b"Hi", b"\n"),
    "NaN": BODY[:-1] + b',"temperature":NaN}',
    "Infinity": BODY[:-1] + b',"temperature":-Infinity}',
    "number out of range": BODY[:-1] + b',"temperature":1e999}',
    "huge integer": BODY[:-1] + b',"seed":' + b"9" * 5000 + b"}",
    "leading zero": BODY[:-1] + b',"seed":01}',
    "repeated key": BODY[:-1] + b',"model":"gpt-4o"}',
    "repeated key below": BODY.replace(b'"role": "user"', b'"role":"user","role":"system"'),
    "repeated key in disguise": BODY[:-1] + b',"mod\\u0065l":"gpt-4o"}',
    "10,000 arrays deep": _NESTED,
    "10,000 objects deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "1,000,000 brackets": b"[" * 1_000_000,
}


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings"])
@pytest.mark.parametrize("how", INVALID_JSON)
def test_what_is_not_strict_json_is_refused_as_such(
    gateway: Gateway, sim: Sim, project: Project, how: str, path: str
) -> None:
    answer = gateway.post(path, project.key, INVALID_JSON[how])
    assert error_of(answer) == (400, "invalid_json")
    assert sim.calls() == 0


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/moderations"])
@pytest.mark.parametrize("item", [b"[]", b'{"a":1}', b"1e300", b"0.5"])
def test_a_body_that_would_hold_up_everyone_else_is_refused(
    gateway: Gateway, sim: Sim, project: Project, item: bytes, path: str
) -> None:
    body = BODY[:-1] + b',"x":[' + b",".join([item] * (11 * MIB // len(item + b","))) + b"]}"
    answer = gateway.post(path, project.key, body, timeout=30)
    assert error_of(answer) == (413, "request_too_large")
    packed = gzip.compress(body, 1)
    answer = gateway.post(path, project.key, packed, headers={"Content-Encoding": "gzip"}, timeout=30)
    assert error_of(answer) == (413, "request_too_large")
    assert sim.calls() == 0


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"text"', b"true", b"[{}]"])
def test_a_document_that_is_no_object_is_refused(gateway: Gateway, sim: Sim, project: Project, body: bytes) -> None:
    assert error_of(gateway.post(CHAT, project.key, body)) == (400, "invalid_request")


def test_a_request_without_any_length_has_no_body(gateway: Gateway, sim: Sim, project: Project) -> None:
    with RawConnection(gateway.port) as connection:
        connection.send(request_bytes(CHAT, key=project.key, method="POST"))
        assert error_of(connection.response(b"POST")) == (411, "length_required")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "json", ""]
)
def test_another_content_type_is_refused(gateway: Gateway, sim: Sim, project: Project, content_type: str) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project.key}\r\n"
    head += f"Content-Type: {content_type}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    with RawConnection(gateway.port) as connection:
        connection.send(head.encode() + BODY)
        assert error_of(connection.response(b"POST")) == (415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/x+json"])
def test_json_by_another_spelling_is_accepted(gateway: Gateway, sim: Sim, project: Project, content_type: str) -> None:
    data = request_bytes(CHAT, key=project.key, body=BODY).replace(b"application/json", content_type.encode())
    with RawConnection(gateway.port) as connection:
        connection.send(data)
        assert connection.response(b"POST").status == 200


# --- types -----------------------------------------------------------------------------------------------------------

_VALUES: list[object] = [None, True, 5, -1, 1.5, "", "text", [], {}, [None], [[]], [5], {"a": None}, [{}], ["a", 5]]
_FIELDS = (
    "model",
    "messages",
    "stream",
    "stream_options",
    "n",
    "tools",
    "response_format",
    "stop",
    "store",
    "metadata",
)


@pytest.mark.parametrize("field", _FIELDS)
def test_no_value_of_a_chat_field_breaks_anything(gateway: Gateway, sim: Sim, project: Project, field: str) -> None:
    for value in _VALUES:
        answer = gateway.post(CHAT, project.key, {**ASK, field: value})
        assert answer.status in (200, 400, 404), (value, answer)
        if answer.status != 200:
            error_of(answer)


@pytest.mark.parametrize("field", ["role", "content", "name", "tool_calls", "tool_call_id"])
def test_no_value_within_a_message_breaks_anything(gateway: Gateway, sim: Sim, project: Project, field: str) -> None:
    for value, role in itertools.product(_VALUES, ("user", "assistant")):
        message = {"role": role, "content": "Hi", field: value}
        answer = gateway.post(CHAT, project.key, {**ASK, "messages": [message]})
        assert answer.status in (200, 400), (value, answer)


@pytest.mark.parametrize(
    ("path", "field", "model"),
    [("/v1/embeddings", "input", "text-embedding-3-small"), ("/v1/completions", "prompt", "gpt-3.5-turbo-instruct")],
)
def test_no_value_of_an_input_breaks_anything(
    gateway: Gateway, sim: Sim, project: Project, path: str, field: str, model: str
) -> None:
    for value in _VALUES:
        answer = gateway.post(path, project.key, {"model": model, field: value})
        assert answer.status in (200, 400), (value, answer)


@pytest.mark.parametrize("value", [None, True, 5, "", [], {}, "gpt\n4", "gpt-\u65e5\u672c", "a" * 10_000, "gpt-\0"])
def test_a_model_that_is_no_name_is_refused_before_any_call(
    gateway: Gateway, sim: Sim, project: Project, value: object
) -> None:
    answer = gateway.post(CHAT, project.key, {**ASK, "model": value})
    assert error_of(answer) == (400, "invalid_request")
    assert answer.json()["error"]["param"] == "model"
    assert sim.calls() == 0


@pytest.mark.parametrize("value", ["yes", 1, 0, "true", [], {}])
def test_a_stream_that_is_no_truth_value_is_refused(
    gateway: Gateway, sim: Sim, project: Project, value: object
) -> None:
    answer = gateway.post(CHAT, project.key, {**ASK, "stream": value})
    assert error_of(answer) == (400, "invalid_request")
    assert answer.json()["error"]["param"] == "stream"


@pytest.mark.parametrize("messages", ["", [], {}, None, 5, [5], ["Hi"], [{"content": "Hi"}]])
def test_messages_that_are_none_are_the_providers_to_refuse(
    gateway: Gateway, sim: Sim, project: Project, messages: object
) -> None:
    answer = gateway.post(CHAT, project.key, {**ASK, "messages": messages})
    assert error_of(answer)[0] == 400
    assert str(answer.json()["error"]["param"]).startswith("messages")


@pytest.mark.parametrize("options", ["x", 5, [], {"include_usage": "yes"}])
def test_stream_options_of_a_wrong_type_are_not_mended(
    gateway: Gateway, sim: Sim, project: Project, options: object
) -> None:
    gateway.post(CHAT, project.key, {**ASK, "stream": True, "stream_options": options})
    assert json.loads(sim.requests()[0]["body"])["stream_options"] == options


# --- bodies that are cut or packed -----------------------------------------------------------------------------------

_CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=5),
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("coding", _CODINGS)
def test_compressed_requests_are_read(gateway: Gateway, sim: Sim, project: Project, coding: str) -> None:
    packed = _CODINGS[coding](BODY)
    assert gateway.post(CHAT, project.key, packed, headers={"Content-Encoding": coding}).status == 200
    assert gateway.post(CHAT, project.key, BODY).header("X-WatchLLM-Cache") == "HIT"
    assert json.loads(sim.requests()[0]["body"]) == ASK
    assert "content-encoding" not in sim.requests()[0]["headers"]


@pytest.mark.parametrize("coding", _CODINGS)
@pytest.mark.parametrize("how", ["cut", "broken", "not packed", "rest"])
def test_broken_codings_are_refused(gateway: Gateway, sim: Sim, project: Project, coding: str, how: str) -> None:
    packed = _CODINGS[coding](BODY)
    data = {
        "cut": packed[:-4],
        "broken": packed[:20] + b"\xff\xff\xff" + packed[23:],
        "not packed": BODY,
        "rest": packed + b"more",
    }
    answer = gateway.post(CHAT, project.key, data[how], headers={"Content-Encoding": coding})
    assert error_of(answer)[0] == 400
    assert sim.calls() == 0


@pytest.mark.parametrize("coding", ["compress", "gzip, gzip", "x-unknown"])
def test_unknown_codings_are_refused(gateway: Gateway, sim: Sim, project: Project, coding: str) -> None:
    answer = gateway.post(CHAT, project.key, BODY, headers={"Content-Encoding": coding})
    assert error_of(answer) == (415, "unsupported_media_type")


@pytest.mark.parametrize("coding", _CODINGS)
def test_a_bomb_is_refused_and_costs_no_more_than_the_bound(
    gateway: Gateway, sim: Sim, project: Project, coding: str
) -> None:
    bomb = _CODINGS[coding](bytes(64 * MIB))
    assert len(bomb) < MIB
    before = peak_memory(gateway)
    answer = gateway.post(CHAT, project.key, bomb, headers={"Content-Encoding": coding}, timeout=30)
    assert error_of(answer) == (413, "request_too_large")
    assert peak_memory(gateway) - before < 50 * MIB


def test_a_body_that_is_cut_short_gets_no_answer_and_holds_nothing(
    gateway: Gateway, sim: Sim, project: Project
) -> None:
    data = request_bytes(CHAT, key=project.key, body=BODY)
    chunked = data[: data.index(b"content-length")] + b"transfer-encoding: chunked\r\n\r\n40\r\n" + BODY[:10]
    for part in (data[:-5], chunked):
        with RawConnection(gateway.port) as connection:
            connection.send(part)
            connection.end_sending()
            assert connection.is_closed_by_peer()
    assert sim.calls() == 0


def peak_memory(gateway: Gateway) -> int:
    """The proxy's highest resident memory so far, in bytes (Linux; elsewhere the test is about the answer alone)."""
    status = Path(f"/proc/{gateway.process.pid}/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
