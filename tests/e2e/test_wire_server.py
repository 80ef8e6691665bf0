"""The proxy as an HTTP/1.1 server: connections kept, requests sent ahead, slow and silent clients, bounds."""

import http.client
import json
import socket
import ssl
import struct
from pathlib import Path

import h11
import pytest
import trustme

from tests.support.admin import status_of
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import ConnectionClosed, RawConnection, RawResponse, request_bytes
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
MIB = 1 << 20


def ask(text: str, model: str = "gpt-4o-mini", **fields: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def chat(key: str, text: str, model: str = "gpt-4o-mini", **fields: object) -> bytes:
    return request_bytes(CHAT, key=key, body=ask(text, model, **fields))


def error_of(answer: RawResponse) -> tuple[int, str]:
    return answer.status, answer.json()["error"]["code"]


# --- connections -----------------------------------------------------------------------------------------------------


def test_a_connection_serves_many_requests_of_every_kind(gateway: Gateway, sim: Sim, project: Project) -> None:
    with RawConnection(gateway.port) as connection:
        for data, method, status in [
            (chat(project.key, "One"), b"POST", 200),
            (chat(project.key, "One"), b"POST", 200),
            (chat(project.key, "Two", stream=True), b"POST", 200),
            (chat(project.key, "Two", stream=True), b"POST", 200),
            (chat("wrong", "One"), b"POST", 401),
            (chat(project.key, "One", "gpt-4o-mini+status-500"), b"POST", 500),
            (request_bytes(CHAT, key=project.key, body=b"{"), b"POST", 400),
            (request_bytes("/health", method="HEAD"), b"HEAD", 200),
            (request_bytes("/v1/moderations", key=project.key, body={"input": "x"}), b"POST", 200),
            (request_bytes("/nothing"), b"GET", 404),
            (chat(project.key, "One"), b"POST", 200),
        ]:
            connection.send(data)
            assert connection.response(method).status == status


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://gateway.example/health", 200),
        ("HTTPS://gateway.example:8443/health", 200),
        ("http://gateway.example/nothing", 404),
        ("http://gateway.example", 404),
        ("http://gateway.example?health", 404),
    ],
)
def test_a_whole_url_is_asked_for_by_its_path(gateway: Gateway, target: str, status: int) -> None:
    with RawConnection(gateway.port) as connection:
        connection.send(request_bytes(target))
        assert connection.response(b"GET").status == status


def test_a_whole_url_keeps_its_query_and_hits_as_its_path_does(gateway: Gateway, sim: Sim, project: Project) -> None:
    seen = []
    with RawConnection(gateway.port) as connection:
        for target in (f"{CHAT}?a=1", f"http://gateway.example{CHAT}?a=1", f"http://gateway.example{CHAT}?a=2"):
            connection.send(request_bytes(target, key=project.key, body=ask("By URL")))
            seen.append(connection.response(b"POST").header("X-WatchLLM-Cache"))
    assert seen == ["MISS", "HIT", "MISS"]


def test_requests_sent_ahead_are_answered_in_order(gateway: Gateway, sim: Sim, project: Project) -> None:
    gateway.chat(project.key, "known")
    wanted = [
        (chat(project.key, "slow", "gpt-4o-mini+slow-200ms"), 200, "MISS"),
        (chat(project.key, "known"), 200, "HIT"),
        (chat(project.key, "streamed", stream=True), 200, "MISS"),
        (chat("wrong", "known"), 401, None),
        (chat(project.key, "known", stream=True), 200, "HIT"),
        (chat(project.key, "slow", "gpt-4o-mini+slow-200ms"), 200, "HIT"),
        (request_bytes("/nothing"), 404, None),
        (chat(project.key, "new"), 200, "MISS"),
        (chat(project.key, "known"), 200, "HIT"),
    ]
    with RawConnection(gateway.port) as connection:
        connection.send(b"".join(data for data, _, _ in wanted))
        got = [connection.response(b"POST") for _ in wanted]
    assert [(answer.status, answer.header("X-WatchLLM-Cache")) for answer in got] == [
        (status, cache) for _, status, cache in wanted
    ]


def test_what_comes_byte_by_byte_is_one_request(gateway: Gateway, sim: Sim, project: Project) -> None:
    with RawConnection(gateway.port) as connection:
        for byte in chat(project.key, "Slowly"):
            connection.send(bytes([byte]))
        assert connection.response(b"POST").status == 200


def test_expect_100_continue(gateway: Gateway, sim: Sim, project: Project) -> None:
    head, _, body = chat(project.key, "May I?").partition(b"\r\n\r\n")
    with RawConnection(gateway.port) as connection:
        connection.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert connection.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(body)
        assert connection.response(b"POST").status == 200


def test_chunked_requests_with_extensions_and_trailers(gateway: Gateway, sim: Sim, project: Project) -> None:
    head, _, body = chat(project.key, "In pieces").partition(b"\r\n\r\n")
    head = head.replace(b"content-length: %d" % len(body), b"transfer-encoding: chunked")
    chunks = b"".join(b"1;a=b\r\n%b\r\n" % bytes([byte]) for byte in body)
    with RawConnection(gateway.port) as connection:
        for _ in range(2):
            connection.send(head + b"\r\n\r\n" + chunks + b"0\r\nX-Trailer: yes\r\nAuthorization: Bearer no\r\n\r\n")
            assert connection.response(b"POST").status == 200
    assert json.loads(sim.requests()[0]["body"]) == ask("In pieces")


def test_http_1_0(gateway: Gateway, sim: Sim, project: Project) -> None:
    for stream in (False, True):
        for cache in ("MISS", "HIT"):
            data = chat(project.key, "Old", stream=stream, temperature=int(stream))
            with RawConnection(gateway.port) as connection:
                connection.send(data.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"host: 127.0.0.1\r\n", b""))
                answer = connection.response(b"POST")
                assert (answer.status, answer.header("X-WatchLLM-Cache")) == (200, cache)
                assert answer.header("Transfer-Encoding") is None
                assert connection.is_closed_by_peer()
    with RawConnection(gateway.port) as connection:
        for _ in range(2):
            connection.send(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert connection.response().header("Connection") == "keep-alive"


def test_connection_close_is_honoured(gateway: Gateway, sim: Sim) -> None:
    with RawConnection(gateway.port) as connection:
        connection.send(request_bytes("/health", headers={"Connection": "close"}))
        assert connection.response().header("Connection") == "close"
        assert connection.is_closed_by_peer()


def test_an_upgrade_is_not_offered(gateway: Gateway, sim: Sim) -> None:
    for upgrade in ("websocket", "h2c"):
        with RawConnection(gateway.port) as connection:
            connection.send(request_bytes("/health", headers={"Connection": "Upgrade", "Upgrade": upgrade}))
            assert connection.response().status == 200


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_the_body_behind_an_offer_of_another_protocol_is_read(
    gateway: Gateway, sim: Sim, project: Project, chunked: bool, at_once: bool
) -> None:
    # What Java's own client sends with the first request of a connection.
    offer = b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    head, _, body = chat(project.key, "From Java").partition(b"\r\n\r\n")
    if chunked:
        head = head.replace(b"content-length: %d" % len(body), b"transfer-encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with RawConnection(gateway.port) as connection:
        if at_once:
            connection.send(head + offer + b"\r\n" + body)
        else:
            connection.send(head + offer + b"Expect: 100-continue\r\n\r\n")
            assert connection.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.send(body)
        answer = connection.response(b"POST")
        assert (answer.status, answer.header("Connection")) == (200, "close")
        assert connection.is_closed_by_peer()
    assert json.loads(sim.requests()[-1]["body"]) == ask("From Java")


@pytest.mark.parametrize("body", [b"", b"abc"])
def test_connect_is_refused_and_ends_its_connection(gateway: Gateway, sim: Sim, body: bytes) -> None:
    # What follows would be another protocol: nothing behind it may be left without a word.
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    with RawConnection(gateway.port) as connection:
        connection.send(b"CONNECT /v1/models HTTP/1.1\r\nHost: a\r\n" + length + b"\r\n" + body)
        answer = connection.response()
        assert 400 <= answer.status < 500
        assert answer.header("Connection") == "close"
        assert connection.is_closed_by_peer()


def test_pythons_own_client(gateway: Gateway, sim: Sim, project: Project) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    headers = {"Authorization": f"Bearer {project.key}", "Content-Type": "application/json"}
    for chunked in (False, True, False):
        body = json.dumps(ask("Python")).encode()
        connection.request("POST", CHAT, iter([body]) if chunked else body, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["choices"]
    connection.close()


def test_h11_as_a_client_over_one_connection(gateway: Gateway, sim: Sim, project: Project) -> None:
    peer = h11.Connection(h11.CLIENT)
    body = json.dumps(ask("h11", stream=True)).encode()
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as sock:
        for _ in range(3):
            headers = [("Host", "a"), ("Authorization", f"Bearer {project.key}"), ("Transfer-Encoding", "chunked")]
            for event in (h11.Request(method="POST", target=CHAT, headers=headers), h11.Data(body), h11.EndOfMessage()):
                sock.sendall(peer.send(event) or b"")
            received: list[object] = []
            while not received or type(received[-1]) is not h11.EndOfMessage:
                event = peer.next_event()
                if event is h11.NEED_DATA:
                    peer.receive_data(sock.recv(4096))
                else:
                    received.append(event)
            assert isinstance(received[0], h11.Response)
            assert received[0].status_code == 200
            assert peer.our_state is h11.DONE
            assert peer.their_state is h11.DONE
            peer.start_next_cycle()


@pytest.mark.parametrize("framing", ["Content-Length: 30000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings", "/v1/cache/invalidate"])
def test_nobody_unknown_takes_room_for_a_large_body(gateway: Gateway, path: str, framing: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer wrong\r\n{framing}\r\n\r\n"
    with RawConnection(gateway.port) as connection:
        connection.send(head.encode())
        assert error_of(connection.response(b"POST")) == (401, "invalid_api_key")
        assert connection.is_closed_by_peer()


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_tls(installation: Installation, sim: Sim, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    installation.environment |= upstream_environment(sim.base_url) | {
        "WATCHLLM_TLS_CERT": str(tmp_path / "cert.pem"),
        "WATCHLLM_TLS_KEY": str(tmp_path / "key.pem"),
    }
    project = installation.project("tls")
    proxy = installation.start_proxy(wait=False)
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def answer(stream: bool = False) -> tuple[int, str | None, bytes]:
        connection = http.client.HTTPSConnection("localhost", proxy.port, timeout=10, context=context)
        headers = {"Authorization": f"Bearer {project.key}", "Content-Type": "application/json"}
        connection.request("POST", CHAT, json.dumps(ask("Secret?", stream=stream)), headers)
        response = connection.getresponse()
        found = response.status, response.getheader("X-WatchLLM-Cache"), response.read()
        connection.close()
        return found

    def ready() -> bool:
        try:
            socket.create_connection(("127.0.0.1", proxy.port), 1).close()
        except OSError:
            return False
        return True

    proxy.process.wait_until(ready, "listening")
    first, second = answer(), answer()
    assert (first[:2], second[:2]) == ((200, "MISS"), (200, "HIT"))
    assert first[2] == second[2]
    assert b"[DONE]" in answer(stream=True)[2]
    # Clear text on the TLS port, and a client that hangs up in the handshake, harm nobody.
    with RawConnection(proxy.port) as clear:
        clear.send(request_bytes("/health"))
        with pytest.raises(ConnectionClosed):
            clear.response()
    socket.create_connection(("127.0.0.1", proxy.port)).close()
    assert answer()[1] == "HIT"
    assert proxy.stop() == 0


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(installation: Installation, sim: Sim) -> Gateway:
    """A proxy that waits for its clients no longer than a test can."""
    installation.environment |= upstream_environment(sim.base_url) | {
        "WATCHLLM_HEADER_TIMEOUT": "0.5",
        "WATCHLLM_IDLE_TIMEOUT": "1",
    }
    installation.project("impatient")
    return installation.start_proxy()


@pytest.fixture
def bounded(installation: Installation, sim: Sim) -> Gateway:
    """A proxy with bounds that a test can reach."""
    installation.environment |= upstream_environment(sim.base_url) | {
        "WATCHLLM_MAX_CONNECTIONS": "8",
        "WATCHLLM_MAX_BODY_BYTES": "4MiB",
        "WATCHLLM_MAX_INFLIGHT_BYTES": "8MiB",
    }
    installation.project("bounded")
    return installation.start_proxy()


def test_a_head_that_drips_is_refused(impatient: Gateway) -> None:
    for begun in (b"", b"GET /heal", b"GET /health HTTP/1.1\r\nHost: a\r\nX-A: b"):
        with RawConnection(impatient.port) as connection:
            connection.send(begun)
            if begun:
                assert error_of(connection.response()) == (408, "request_timeout")
            assert connection.is_closed_by_peer()


def test_an_idle_connection_is_closed(impatient: Gateway) -> None:
    with RawConnection(impatient.port) as connection:
        connection.send(request_bytes("/health"))
        assert connection.response().status == 200
        assert connection.is_closed_by_peer()


def test_one_connection_too_many_is_refused_and_others_go_on(bounded: Gateway) -> None:
    wait_for(lambda: status_of(bounded)["connections"] == 0, "no connection")
    held = [RawConnection(bounded.port) for _ in range(8)]
    with RawConnection(bounded.port) as connection:
        answer = connection.response()
        assert error_of(answer) == (503, "overloaded")
        assert answer.header("Retry-After")
        assert connection.is_closed_by_peer()
    held[0].send(request_bytes("/health"))
    assert held[0].response().status == 200
    for connection in held:
        connection.close()
    wait_for(lambda: status_of(bounded)["connections"] == 0, "the end of all connections")
    assert bounded.get("/health").status == 200


def test_the_bytes_of_all_requests_are_bounded(bounded: Gateway) -> None:
    project = bounded.installation.project("large")
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project.key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {4 * MIB}\r\n\r\n"
    ).encode()
    half_sent = [RawConnection(bounded.port) for _ in range(3)]
    try:
        for connection in half_sent[:2]:
            connection.send(head + bytes(4 * MIB - 1000))
        wait_for(lambda: status_of(bounded)["inflight_bytes"] > 7 * MIB, "the bytes' arrival")
        half_sent[2].send(head + bytes(100_000))
        answer = half_sent[2].response(b"POST")
        assert error_of(answer) == (503, "overloaded")
        assert answer.header("Retry-After")
        # Small requests are a matter of the bound too, but what is already there is served.
        assert bounded.get("/health").status == 200
    finally:
        for connection in half_sent:
            connection.close()
    wait_for(lambda: status_of(bounded)["inflight_bytes"] == 0, "the bytes' release")
    assert bounded.chat(project.key, "Again?").status == 200


def test_a_client_that_never_reads_stops_its_provider_and_no_other(
    gateway: Gateway, sim: Sim, project: Project
) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", gateway.port))
        # About 50 MB of stream, far more than all buffers between the provider and the client hold.
        sock.sendall(chat(project.key, "Everything", "gpt-4o-mini+tokens-200000", stream=True))
        wait_for(lambda: sim.stats()["open"] == 1, "the call upstream")
        memory = resident(gateway)
        for number in range(50):
            assert gateway.chat(project.key, f"Meanwhile {number}").status == 200
        assert sim.stats()["open"] == 1
        assert resident(gateway) - memory < 30 * MIB
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: sim.stats()["cancelled"] == 1, "the call's cancellation")


def resident(gateway: Gateway) -> int:
    """The proxy's resident memory in bytes; 0 where there is no /proc."""
    status = Path(f"/proc/{gateway.process.pid}/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
