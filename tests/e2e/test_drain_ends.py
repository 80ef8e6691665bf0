"""What is not answered when the time to drain is over: every client is told in its own words that the gateway ends, and
the usage says so, too."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack

import h11
import pytest

from tests.support.journal import usage_in
from tests.support.product import UPSTREAM_KEY, Gateway, Installation, Project, Sim
from tests.support.raw_http import RawConnection, RawResponse, request_bytes
from tests.support.waiting import wait_for
from tests.support.workers import called

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
PATHS = (CHAT, MESSAGES, RESPONSES)
PROVIDERS = ("groq", "anthropic", "openai")
"""The first speaks chat completions only, the second messages only; with the third two of the dialects are direct."""
CODE = "shutting_down"


@pytest.fixture
def home(installation: Installation, sim: Sim) -> Installation:
    installation.environment |= {
        f"{name.upper()}_{variable}": value
        for name in PROVIDERS
        for variable, value in (("BASE_URL", sim.base_url), ("API_KEY", UPSTREAM_KEY))
    } | {"WATCHLLM_ALLOW_PRIVATE_URLS": "true", "WATCHLLM_DRAIN_SECONDS": "0.5"}
    return installation


@pytest.fixture
def project(home: Installation) -> Project:
    return home.project("endless", settings={"semantic": "off"})


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def asked(project: Project, path: str, model: str, text: str, *, stream: bool = True) -> bytes:
    body: dict[str, object] = {"model": model, "stream": stream}
    if path == RESPONSES:
        body |= {"input": text, "store": False}
    else:
        body |= {"messages": [{"role": "user", "content": text}], "max_tokens": 500}
    return request_bytes(path, key=project.key, body=body)


def send(connections: ExitStack, gateway: Gateway, data: bytes) -> RawConnection:
    connection = connections.enter_context(RawConnection(gateway.port, timeout=20))
    connection.send(data)
    return connection


def last_event(answer: RawResponse) -> tuple[str, dict[str, object]]:
    """Name and data of the event with which the stream ended; it is a whole one."""
    assert answer.body.endswith(b"\n\n")
    lines = answer.body.rstrip(b"\n").rpartition(b"\n\n")[2].decode().splitlines()
    fields = dict(line.split(": ", 1) for line in lines)
    return fields.get("event", ""), json.loads(fields["data"])


def is_told_in_stream(answer: RawResponse, path: str) -> None:
    assert answer.status == 200
    name, data = last_event(answer)
    if path == CHAT:
        assert name == ""
        assert data["error"]["code"] == CODE  # type: ignore[index]
    elif path == MESSAGES:
        assert (name, data["type"]) == ("error", "error")
        assert "shutting down" in data["error"]["message"]  # type: ignore[index]
    else:
        assert (name, data["type"], data["code"]) == ("error", "error", CODE)


def begun(connection: RawConnection, mark: bytes = b"data: ") -> RawConnection:
    """Once the client has had something of the answer."""
    received = b""
    while mark not in received:
        data = connection.receive()
        assert data, received
        received += data
    connection._received = received
    return connection


def outcomes(home: Installation) -> list[tuple[object, ...]]:
    with usage_in(home.home) as usage:
        usage.record()
        return usage.query("SELECT status, ended, error, streamed FROM usage_logs")


def test_every_stream_says_so_in_its_dialect(
    home: Installation, project: Project, sim: Sim, connections: ExitStack
) -> None:
    proxy = home.start_proxy()
    streams = []
    for path in PATHS:
        for provider in PROVIDERS:
            data = asked(project, path, f"{provider}/gpt-4o-mini+stall-6+tokens-50", f"Endless {path}?")
            # The second one joins the first one's call.
            for _ in range(2):
                streams.append((path, begun(send(connections, proxy, data))))
    assert sim.stats()["open"] == len(streams) // 2
    proxy.process.signal(signal.SIGTERM)
    for path, connection in streams:
        is_told_in_stream(connection.response(b"POST"), path)
        assert connection.is_closed_by_peer()
    assert proxy.process.wait() == 0
    assert outcomes(home) == [(200, "cut", CODE, 1)] * len(streams)
    with usage_in(home.home) as usage:
        bought = usage.query("SELECT input_tokens > 0 FROM usage_logs WHERE cache = 'MISS'")
        assert bought == [(1,)] * (len(streams) // 2)


def test_who_has_had_nothing_yet_gets_a_503(
    home: Installation, project: Project, sim: Sim, connections: ExitStack
) -> None:
    home.environment["WATCHLLM_MAX_UPSTREAM"] = "3"
    proxy = home.start_proxy()
    waiting = [
        (
            path,
            send(connections, proxy, asked(project, path, "openai/gpt-4o-mini+hang", f"Silent {path}?", stream=stream)),
        )
        for path in PATHS[:2]
        for stream in (False, True)
    ]
    embedding = {"model": "text-embedding-3-small+hang", "input": ["one", "two"]}
    waiting.append((CHAT, send(connections, proxy, request_bytes("/v1/embeddings", key=project.key, body=embedding))))
    wait_for(lambda: sim.stats()["open"] == 3, "the calls upstream, which the second of a path joins")
    # It waits for a slot, and the next one for the rest of itself.
    waiting.append((CHAT, send(connections, proxy, asked(project, CHAT, "openai/gpt-4o", "Queued?"))))
    half = send(connections, proxy, asked(project, CHAT, "openai/gpt-4o", "Half?")[:-10])
    proxy.process.signal(signal.SIGTERM)
    for path, connection in [*waiting, (CHAT, half)]:
        answer = connection.response(b"POST")
        assert (answer.status, answer.header("Connection")) == (503, "close")
        assert answer.header("Retry-After") == "1"
        error = answer.json()["error"]
        assert "shutting down" in error["message"] if path == MESSAGES else error["code"] == CODE
        assert connection.is_closed_by_peer()
    assert proxy.process.wait() == 0
    rows = outcomes(home)
    assert [row[:3] for row in rows] == [(503, "error", CODE)] * len(waiting)


def test_what_has_no_dialect_is_broken_off(
    home: Installation, project: Project, sim: Sim, connections: ExitStack
) -> None:
    proxy = home.start_proxy()
    body = {"model": "openai/omni-moderation+stall-1", "input": "half of it"}
    moderation = send(connections, proxy, request_bytes("/v1/moderations", key=project.key, body=body))
    begun(moderation, b"{")
    proxy.process.signal(signal.SIGTERM)
    with pytest.raises(h11.RemoteProtocolError, match="closed connection"):
        moderation.response(b"POST")
    assert proxy.process.wait() == 0
    assert outcomes(home) == [(200, "cut", CODE, 0)]


def test_it_is_the_same_where_all_are_replaced(
    home: Installation, project: Project, sim: Sim, connections: ExitStack
) -> None:
    gateway = home.start_up("--no-console")
    first = called(gateway.process, "proxy")
    stream = begun(send(connections, gateway, asked(project, CHAT, "openai/gpt-4o-mini+stall-6+tokens-50", "Endless?")))
    silent = send(connections, gateway, asked(project, CHAT, "openai/gpt-4o-mini+hang", "Silent?"))
    wait_for(lambda: sim.stats()["open"] == 2, "the calls upstream")
    gateway.process.signal(signal.SIGHUP)
    is_told_in_stream(stream.response(b"POST"), CHAT)
    assert silent.response(b"POST").json()["error"]["code"] == CODE
    wait_for(lambda: not set(first) & set(called(gateway.process, "proxy")), "the end of the first one")
    assert gateway.stop() == 0
    assert sorted(outcomes(home)) == [(200, "cut", CODE, 1), (503, "error", CODE, 1)]
