"""nginx from the distribution on either side: as the provider's server, and in front of the proxy."""

import json
from collections.abc import Callable

import pytest

from tests.support.nginx import Nginx
from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawConnection, exchange, request_bytes
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"
StartNginx = Callable[[str], Nginx]

_BEFORE_SIM = """
upstream sim {{ server 127.0.0.1:{port}; keepalive 8; }}
server {{
    listen 127.0.0.1:PORT;
    client_max_body_size 64m;
    location / {{
        proxy_pass http://sim; proxy_http_version 1.1; proxy_set_header Connection ""; {options}
    }}
}}
"""
_BEFORE_PROXY = """
upstream gateway {{ server 127.0.0.1:{port}; keepalive 8; }}
server {{
    listen 127.0.0.1:PORT;
    client_max_body_size 64m;
    location / {{
        proxy_pass http://gateway; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
        proxy_set_header X-Forwarded-For $remote_addr; {options}
    }}
}}
"""


def ask(text: str, model: str = "gpt-4o-mini", **fields: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def project_behind(gateway: Gateway, base_url: str) -> str:
    """The key of a project whose OpenAI is at `base_url`."""
    project = gateway.installation.project("behind nginx")
    with gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", "sk-own-0123456789abcdef", base_url=base_url)
    return project.key


@pytest.mark.parametrize(
    "options", ["", "proxy_buffering off;", "gzip on; gzip_types application/json; gzip_min_length 1;"]
)
def test_nginx_as_the_provider(open_gateway: Gateway, sim: Sim, nginx: StartNginx, options: str) -> None:
    server = nginx(_BEFORE_SIM.format(port=sim.port, options=options))
    key = project_behind(open_gateway, f"{server.url}/v1")
    for number in range(20):
        stream = bool(number % 2)
        miss, hit = (open_gateway.post(CHAT, key, ask(f"Question {number}", stream=stream)) for _ in range(2))
        assert (miss.status, miss.header("X-WatchLLM-Cache")) == (200, "MISS")
        assert (hit.status, hit.header("X-WatchLLM-Cache")) == (200, "HIT")
        if stream:
            assert miss.body.endswith(b"data: [DONE]\n\n")
    assert sim.calls() == 20


def test_an_nginx_that_closes_after_each_answer(open_gateway: Gateway, sim: Sim, nginx: StartNginx) -> None:
    server = nginx("keepalive_timeout 0;" + _BEFORE_SIM.format(port=sim.port, options=""))
    key = project_behind(open_gateway, f"{server.url}/v1")
    for number in range(10):
        assert open_gateway.post(CHAT, key, ask(f"Question {number}")).status == 200
    assert sim.calls() == 10


def test_nginxs_own_errors_pass_with_their_status(open_gateway: Gateway, sim: Sim, nginx: StartNginx) -> None:
    server = nginx(
        "server { listen 127.0.0.1:PORT; location /v1/ { return 503; } location /limited/ { "
        "add_header Retry-After 9 always; return 429; } location /moved/ { return 301 https://example.com/; } }"
    )
    answer = open_gateway.post(CHAT, project_behind(open_gateway, f"{server.url}/v1"), ask("Down?"))
    assert (answer.status, answer.header("Content-Type")) == (503, "text/html")
    assert b"nginx" in answer.body
    answer = open_gateway.post(CHAT, project_behind(open_gateway, f"{server.url}/limited"), ask("Down?", stream=True))
    assert (answer.status, answer.header("Retry-After")) == (429, "9")
    answer = open_gateway.post(CHAT, project_behind(open_gateway, f"{server.url}/moved"), ask("Down?"))
    assert (answer.status, answer.json()["error"]["code"]) == (502, "provider_error")
    assert sim.calls() == 0


def test_an_upload_through_nginx(open_gateway: Gateway, sim: Sim, nginx: StartNginx) -> None:
    server = nginx(_BEFORE_SIM.format(port=sim.port, options="proxy_request_buffering off;"))
    key = project_behind(open_gateway, f"{server.url}/v1")
    body = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b\r\n'
        b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + bytes(3_000_000) + b"\r\n--b--\r\n"
    )
    data = request_bytes("/v1/audio/transcriptions", key=key, body=body)
    data = data.replace(b"application/json", b"multipart/form-data; boundary=b", 1)
    answer = exchange(open_gateway.port, data, method=b"POST", timeout=30)
    assert answer.status == 200
    assert "3000000 bytes" in answer.json()["text"]


def test_nginx_in_front(gateway: Gateway, sim: Sim, project: Project, nginx: StartNginx) -> None:
    server = nginx(_BEFORE_PROXY.format(port=gateway.port, options=""))
    with RawConnection(server.port) as connection:
        for stream in (False, True):
            for cache in ("MISS", "HIT"):
                connection.send(
                    request_bytes(CHAT, key=project.key, body=ask("Front?", stream=stream, seed=int(stream)))
                )
                answer = connection.response(b"POST")
                assert (answer.status, answer.header("X-WatchLLM-Cache")) == (200, cache)
                assert json.loads(answer.body)["choices"] if not stream else answer.body.endswith(b"[DONE]\n\n")
    assert exchange(server.port, request_bytes("/v1/models")).status == 401
    assert sim.calls() == 2


def test_a_client_that_leaves_nginx_ends_the_call_upstream(
    gateway: Gateway, sim: Sim, project: Project, nginx: StartNginx
) -> None:
    server = nginx(_BEFORE_PROXY.format(port=gateway.port, options=""))
    with RawConnection(server.port) as connection:
        body = ask("Gone?", "gpt-4o-mini+chunk-20ms+tokens-5000", stream=True)
        connection.send(request_bytes(CHAT, key=project.key, body=body))
        assert b"200 OK" in connection.receive()
    wait_for(lambda: sim.stats()["cancelled"] == 1, "the call's cancellation")
