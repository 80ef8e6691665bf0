"""Bad HTTP gets the right 4xx in OpenAI's form, or a closed connection where no answer is safe; and on it goes."""

from collections.abc import Iterator

import pytest

from tests.support.admin import status_of
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import ConnectionClosed, RawConnection, RawResponse
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hi"}]}'
KIB = 1024


@pytest.fixture(autouse=True)
def life_goes_on(gateway: Gateway, sim: Sim, project: Project) -> Iterator[None]:
    """After whatever a test has sent, the next request is served as if nothing had been, and no bytes stay held."""
    yield
    answer = gateway.chat(project.key, "Are you still there?")
    assert (answer.status, answer.header("X-WatchLLM-Cache")) == (200, "MISS")
    wait_for(lambda: status_of(gateway)["inflight_bytes"] == 0, "the release of all request bytes")


def head(*lines: str, target: str = CHAT, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def answers(gateway: Gateway, data: bytes) -> tuple[list[RawResponse], bool]:
    """Everything that comes back to `data`, and whether the connection was closed then."""
    got: list[RawResponse] = []
    with RawConnection(gateway.port, timeout=5) as connection:
        connection.send(data)
        try:
            while True:
                got.append(connection.response(b"POST"))
        except ConnectionClosed as closed:
            # Half an answer is not an end.
            return got, closed.received == b""
        except TimeoutError:
            return got, False


def is_openai_error(answer: RawResponse) -> bool:
    error = answer.json()["error"]
    return (
        set(error) == {"message", "type", "param", "code"}
        and bool(error["message"] and error["type"] and error["code"])
        and answer.header("Content-Type") == "application/json"
        and str(answer.header("X-Request-Id")).startswith("req_")
    )


HOST = "Host: gateway"
JSON = "Content-Type: application/json"
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"
CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

MALFORMED: dict[str, bytes] = {
    "length and chunking": head(HOST, JSON, LENGTH, CHUNKED) + CHUNK,
    "chunking and length": head(HOST, JSON, CHUNKED, LENGTH) + CHUNK,
    "two lengths": head(HOST, JSON, LENGTH, "Content-Length: 5") + BODY,
    "two equal lengths": head(HOST, JSON, LENGTH, LENGTH) + BODY,
    "list of lengths": head(HOST, JSON, f"Content-Length: {len(BODY)}, {len(BODY)}") + BODY,
    "negative length": head(HOST, JSON, "Content-Length: -1") + BODY,
    "signed length": head(HOST, JSON, f"Content-Length: +{len(BODY)}") + BODY,
    "hexadecimal length": head(HOST, JSON, "Content-Length: 0x20") + BODY,
    "length that is no number": head(HOST, JSON, "Content-Length: many") + BODY,
    "length beyond all numbers": head(HOST, JSON, "Content-Length: 99999999999999999999999") + BODY,
    "space before the colon": head(HOST, JSON, f"Content-Length : {len(BODY)}") + BODY,
    "chunked twice": head(HOST, JSON, "Transfer-Encoding: chunked, chunked") + CHUNK,
    "chunked not last": head(HOST, JSON, "Transfer-Encoding: chunked, gzip") + CHUNK,
    "gzip before chunked": head(HOST, JSON, "Transfer-Encoding: gzip, chunked") + CHUNK,
    "gzip and chunked in two lines": head(HOST, JSON, "Transfer-Encoding: gzip", CHUNKED) + CHUNK,
    "unknown transfer coding": head(HOST, JSON, "Transfer-Encoding: xchunked") + CHUNK,
    "transfer coding identity": head(HOST, JSON, "Transfer-Encoding: identity") + BODY,
    "chunk size that is no number": head(HOST, JSON, CHUNKED) + b"zz\r\n" + BODY,
    "negative chunk size": head(HOST, JSON, CHUNKED) + b"-1\r\n" + BODY,
    "chunk size with 0x": head(HOST, JSON, CHUNKED) + b"0x10\r\n" + BODY,
    "chunk size beyond all numbers": head(HOST, JSON, CHUNKED) + b"ffffffffffffffffff\r\n" + BODY,
    "chunk longer than its size": head(HOST, JSON, CHUNKED) + b"2\r\nabcdef\r\n0\r\n\r\n",
    "bare LF behind a chunk size": head(HOST, JSON, CHUNKED) + b"2\nab\n0\n\n",
    "folded header": head(HOST, "X-A: 1\r\n 2", JSON, LENGTH) + BODY,
    "bare LF": head(HOST, JSON, LENGTH).replace(b"\r\n", b"\n") + BODY,
    "bare CR": head(HOST, "X-A: 1\rX-B: 2", JSON, LENGTH) + BODY,
    "NUL in a header": head(HOST, "X-A: a\0b", JSON, LENGTH) + BODY,
    "NUL in a name": head(HOST, "X\0A: b", JSON, LENGTH) + BODY,
    "NUL in the target": head(HOST, JSON, LENGTH, target="/v1/chat\0/completions") + BODY,
    "space in a name": head(HOST, "X A: b", JSON, LENGTH) + BODY,
    "header without a colon": head(HOST, "nonsense", JSON, LENGTH) + BODY,
    "header without a name": head(HOST, ": b", JSON, LENGTH) + BODY,
    "absurd method": head(HOST, JSON, LENGTH, method="GIMME") + BODY,
    "long method": head(HOST, JSON, LENGTH, method="A" * 5000) + BODY,
    "lower-case method": head(HOST, JSON, LENGTH, method="post") + BODY,
    "CONNECT": head(HOST, method="CONNECT", target="example.com:443"),
    "no host": head(JSON, LENGTH) + BODY,
    "two hosts": head(HOST, "Host: other", JSON, LENGTH) + BODY,
    "absolute target of a user": head(HOST, JSON, LENGTH, target="http://a@example.com/v1/chat/completions") + BODY,
    "absolute target of another scheme": head(HOST, JSON, LENGTH, target="ftp://example.com" + CHAT) + BODY,
    "absolute target without a host": head(HOST, JSON, LENGTH, target="http:///v1/chat/completions") + BODY,
    "target without a slash": head(HOST, JSON, LENGTH, target="v1/chat/completions") + BODY,
    "asterisk": head(HOST, method="OPTIONS", target="*"),
    "old HTTP": b"GET /health\r\n\r\n",
    "HTTP/2 in clear": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "future HTTP": b"GET /health HTTP/9.9\r\nHost: a\r\n\r\n",
    "TLS to a clear port": bytes.fromhex("160301020001000001fc0303") + bytes(64),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "unknown expectation": head(HOST, JSON, LENGTH, "Expect: miracles") + BODY,
    "long header": head(HOST, "X-A: " + "a" * 70 * KIB, JSON, LENGTH) + BODY,
    "many headers": head(HOST, *(f"X-{number}: {'a' * 60}" for number in range(1500)), JSON, LENGTH) + BODY,
    "long target": head(HOST, JSON, LENGTH, target="/v1/" + "a" * 70 * KIB) + BODY,
    "endless header": head(HOST)[:-2] + b"X-A: " + b"a" * 200 * KIB,
    "endless trailers": head(HOST, JSON, CHUNKED) + CHUNK[:-2] + b"X-A: b\r\n" * 20_000,
    "endless chunk extension": head(HOST, JSON, CHUNKED) + b"5;a=" + b"b" * 200 * KIB,
    "declared body over the limit": head(HOST, JSON, f"Content-Length: {33 * KIB * KIB}"),
}
_STATUS = {
    "gzip before chunked": {501},
    "gzip and chunked in two lines": {501},
    "absurd method": {400, 405},
    "long method": {400, 405},
    "lower-case method": {400, 405},
    "CONNECT": {400, 405},
    "HTTP/2 in clear": {400, 405, 505},
    "future HTTP": {400, 505},
    "TLS to a clear port": {400, 405},
    "SSH": {400, 405},
    "old HTTP": {400, 505},
    "unknown expectation": {417},
    "long header": {431},
    "many headers": {431},
    "long target": {414, 431},
    "endless header": {431},
    "endless trailers": {400, 431},
    "endless chunk extension": {400, 413, 431},
    "declared body over the limit": {413},
}


@pytest.mark.parametrize("how", MALFORMED)
def test_malformed_http_is_refused_and_the_connection_closed(
    gateway: Gateway, sim: Sim, project: Project, how: str
) -> None:
    # With a valid key, so that no answer is a 401 that hides what would have happened.
    line, end, rest = MALFORMED[how].partition(b" HTTP/1.1\r\n")
    data = line + end + b"Authorization: Bearer " + project.key.encode() + b"\r\n" + rest if end else line
    got, closed = answers(gateway, data + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert len(got) <= 1, "what follows a malformed request must not be read as another one"
    assert closed
    for answer in got:
        assert answer.status in _STATUS.get(how, {400, 501}), answer
        assert is_openai_error(answer)
    assert sim.calls() == 0


def test_a_body_over_the_limit_is_refused_however_it_comes(installation: Installation, sim: Sim) -> None:
    installation.environment |= upstream_environment(sim.base_url) | {"WATCHLLM_MAX_BODY_BYTES": "100KiB"}
    project = installation.project("small bodies")
    proxy = installation.start_proxy()
    authorization = f"Authorization: Bearer {project.key}"
    big = BODY[:-1] + b',"x":"' + b"a" * 150 * KIB + b'"}'
    declared = head(HOST, authorization, JSON, f"Content-Length: {len(big)}")
    chunked = head(HOST, authorization, JSON, CHUNKED)
    one_chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(big), big)
    small_chunks = b"100\r\n" + b"a" * 256 + b"\r\n"
    for data in (declared, declared + big, chunked + one_chunk, chunked + small_chunks * 600 + b"0\r\n\r\n"):
        got, closed = answers(proxy, data)
        assert [answer.status for answer in got] == [413]
        assert got[0].json()["error"]["code"] == "request_too_large"
        assert "102400" in got[0].json()["error"]["message"]
        assert closed
    small = BODY[:-1] + b',"x":"' + b"a" * 90 * KIB + b'"}'
    assert proxy.post(CHAT, project.key, small).status == 200
    assert status_of(proxy)["internal_errors"] == 0
