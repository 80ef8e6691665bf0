"""Paths of a provider that the proxy only passes on: uploads, other tenants' objects, administration, path tricks."""

import gzip
import hashlib
from pathlib import Path

import pytest

from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawConnection, RawResponse, exchange, request_bytes
from tests.support.scripted_upstream import Call, scripted_upstream
from tests.support.semantic import wait_until_warm
from tests.support.waiting import wait_for

MIB = 1 << 20
SECRET = "sk-own-secret-0123456789"


@pytest.fixture
def owner(open_gateway: Gateway, sim: Sim) -> Project:
    """A project of `open_gateway` with a provider key of its own."""
    project = open_gateway.installation.project("owner")
    with open_gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", SECRET, base_url=sim.base_url)
    return project


def error_of(answer: RawResponse) -> tuple[int, str]:
    return answer.status, answer.json()["error"]["code"]


def ask(gateway: Gateway, key: str, path: str, method: str = "GET", body: object = None) -> RawResponse:
    data = request_bytes(path, key=key, body=body, method=method)
    return exchange(gateway.port, data, method=method.encode())


# --- uploads ---------------------------------------------------------------------------------------------------------


def form(content: bytes, boundary: bytes = b"frontier") -> bytes:
    part = b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    return (
        part % (boundary, b"model", b"", b"whisper-1")
        + part % (boundary, b"file", b'; filename="a.wav"\r\nContent-Type: audio/wav', content)
        + b"--%b--\r\n" % boundary
    )


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 10, 100_000, 3 * MIB])
def test_uploads_arrive_byte_for_byte(gateway: Gateway, sim: Sim, project: Project, size: int, chunked: bool) -> None:
    content = hashlib.shake_128(b"%d" % size).digest(size)
    body = form(content)
    lines = [
        "POST /v1/audio/transcriptions HTTP/1.1",
        "Host: a",
        f"Authorization: Bearer {project.key}",
        "Content-Type: multipart/form-data; boundary=frontier",
    ]
    if chunked:
        head = [*lines, "Transfer-Encoding: chunked"]
        pieces = [body[at : at + 70_000] for at in range(0, len(body), 70_000)]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        head = [*lines, f"Content-Length: {len(body)}"]
        sent = body
    with RawConnection(gateway.port, timeout=30) as connection:
        connection.send("\r\n".join([*head, "", ""]).encode() + sent)
        answer = connection.response(b"POST")
        assert answer.status == 200, answer
        assert hashlib.sha256(content).hexdigest() in answer.json()["text"]
        assert answer.header("X-WatchLLM-Cache") == "BYPASS"
        # The connection goes on.
        connection.send(request_bytes("/health"))
        assert connection.response().status == 200


def test_a_large_upload_is_streamed_and_not_held(open_gateway: Gateway, sim: Sim) -> None:
    size = 50 * MIB
    with scripted_upstream(lambda call: call.reply(200, b'{"text":"%d"}' % len(call.body))) as upstream:
        project = open_gateway.installation.project("uploads")
        with open_gateway.installation.control_plane() as plane:
            plane.add_provider_key(project.id, "openai", SECRET, base_url=upstream.base_url)
        head = (
            f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {project.key}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
        )
        wait_until_warm(open_gateway)  # what the engine of like questions takes is not the upload's
        before = peak_memory(open_gateway)
        with RawConnection(open_gateway.port, timeout=60) as connection:
            connection.send(head.encode())
            # One after the other, faster than a connection upstream is made.
            for _ in range(size // MIB):
                connection.send(bytes(MIB))
            answer = connection.response(b"POST")
    assert (answer.status, answer.json()["text"]) == (200, str(size))
    assert peak_memory(open_gateway) - before < 25 * MIB


def test_the_connection_goes_on_after_an_upload_that_was_there_first(open_gateway: Gateway, sim: Sim) -> None:
    # A provider that was never called: the whole upload is there before the connection to it.
    with scripted_upstream(lambda call: call.reply(200, b"{}")) as upstream:
        project = open_gateway.installation.project("uploads")
        with open_gateway.installation.control_plane() as plane:
            plane.add_provider_key(project.id, "openai", SECRET, base_url=upstream.base_url)
        with RawConnection(open_gateway.port) as connection:
            connection.send(request_bytes("/v1/audio/translations", key=project.key, body=b"{}"))
            assert connection.response(b"POST").status == 200
            connection.send(request_bytes("/health"))
            assert connection.response().status == 200


def peak_memory(gateway: Gateway) -> int:
    """The proxy's highest resident memory so far, in bytes (Linux; elsewhere only the answer is tested)."""
    status = Path(f"/proc/{gateway.process.pid}/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_a_refused_upload_is_answered_before_it_is_sent(gateway: Gateway, sim: Sim, project: Project) -> None:
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer wrong\r\n"
        "Content-Type: multipart/form-data; boundary=a\r\nContent-Length: 1000000\r\n\r\n"
    )
    with RawConnection(gateway.port) as connection:
        connection.send(head.encode())
        assert error_of(connection.response(b"POST")) == (401, "invalid_api_key")
        assert connection.is_closed_by_peer()
    assert sim.calls() == 0


def test_an_encoded_upload_arrives_with_the_name_of_its_encoding(open_gateway: Gateway) -> None:
    def describe(call: Call) -> None:
        call.reply(200, b'{"coding":"%s","size":%d}' % (call.headers["content-encoding"].encode(), len(call.body)))

    body = gzip.compress(b'{"input":"x"}')
    with scripted_upstream(describe) as upstream:
        project = open_gateway.installation.project("encoded")
        with open_gateway.installation.control_plane() as plane:
            plane.add_provider_key(project.id, "openai", SECRET, base_url=upstream.base_url)
        data = request_bytes("/v1/moderations", key=project.key, body=body, headers={"Content-Encoding": "gzip"})
        assert exchange(open_gateway.port, data).json() == {"coding": "gzip", "size": len(body)}


def test_an_answer_without_content_leaves_the_connection_in_order(open_gateway: Gateway) -> None:
    def forget(call: Call) -> None:
        call.send_response_only(204)
        call.end_headers()

    with scripted_upstream(forget) as upstream:
        project = open_gateway.installation.project("deletes")
        with open_gateway.installation.control_plane() as plane:
            plane.add_provider_key(project.id, "openai", SECRET, base_url=upstream.base_url)
        with RawConnection(open_gateway.port) as connection:
            connection.send(request_bytes("/v1/files/file-1", key=project.key, method="DELETE"))
            connection.send(request_bytes("/health"))
            answer = connection.response(b"DELETE")
            assert (answer.status, answer.body) == (204, b"")
            assert answer.header("Transfer-Encoding") is None
            assert connection.response().status == 200


def test_answers_that_are_not_json_pass_unchanged(gateway: Gateway, sim: Sim, project: Project) -> None:
    body = {"model": "tts-1", "voice": "alloy", "input": "Hi", "response_format": "opus"}
    theirs = exchange(sim.port, request_bytes("/v1/audio/speech", key="any", body=body))
    ours = gateway.post("/v1/audio/speech", project.key, body)
    assert (ours.status, ours.body) == (200, theirs.body)
    assert ours.header("Content-Type") == "audio/opus"


# --- what tenants must not see of each other --------------------------------------------------------------------------

_STATEFUL = [
    ("GET", "/v1/files"), ("GET", "/v1/files/file-1"), ("DELETE", "/v1/files/file-1"), ("POST", "/v1/files"),
    ("GET", "/v1/batches"), ("POST", "/v1/batches"), ("GET", "/v1/responses/resp_1"), ("GET", "/v1/fine_tuning/jobs"),
    ("GET", "/v1/assistants"), ("POST", "/v1/threads"), ("GET", "/v1/vector_stores"), ("POST", "/v1/uploads"),
    ("GET", "/v1/chat/completions"), ("GET", "/v1/chat/completions/chatcmpl-1"), ("GET", "/v1/containers"),
    ("POST", "/v1/something/new"), ("DELETE", "/v1/models/ft:gpt-4o:mine"), ("GET", "/v1/audio/transcriptions/x"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), _STATEFUL)
def test_stateful_paths_need_a_provider_key_of_ones_own(
    gateway: Gateway, sim: Sim, project: Project, method: str, path: str
) -> None:
    answer = ask(gateway, project.key, path, method, {} if method == "POST" else None)
    assert error_of(answer) == (403, "own_provider_key_required")
    assert path in answer.json()["error"]["message"]
    assert sim.calls() == 0


def test_who_has_a_key_of_another_provider_is_told_where_the_path_leads(
    open_gateway: Gateway, sim: Sim, owner: Project
) -> None:
    open_gateway.installation.run("project", "set", owner.id, "default_provider=sim")
    answer = wait_for(
        lambda: (found := ask(open_gateway, owner.key, "/v1/files")).status != 200 and found,
        "the change to be published",
    )
    assert error_of(answer) == (403, "own_provider_key_required")
    said = answer.json()["error"]["message"]
    assert "It would go to sim, the project's default_provider." in said
    assert "set default_provider to a provider that the project has a key of" in said


@pytest.mark.parametrize(("method", "path"), [*_STATEFUL, ("GET", "/v1/nope")])
def test_test_keys_share_the_simulated_provider_and_see_no_objects_there(
    open_gateway: Gateway, sim: Sim, owner: Project, method: str, path: str
) -> None:
    for id_ in (owner.id, open_gateway.installation.project("without a provider key").id):
        key = open_gateway.installation.key(id_, test=True)
        answer = ask(open_gateway, key, path, method, {} if method == "POST" else None)
        assert error_of(answer) == (403, "own_provider_key_required")


@pytest.mark.parametrize("path", ["/v1/feedback"])
def test_what_this_version_does_not_serve_yet_never_passes(
    open_gateway: Gateway, sim: Sim, owner: Project, path: str
) -> None:
    answer = ask(open_gateway, owner.key, path, "POST", {"model": "gpt-4o", "input": "Hi"})
    assert error_of(answer) == (404, "not_found")
    assert "not in this version yet" in answer.json()["error"]["message"]
    assert sim.calls() == 0


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/embeddings", "POST"), ("DELETE", "/v1/completions", "POST"),
        ("PUT", "/v1/chat/completions", "GET, HEAD, POST"), ("POST", "/v1/models", "GET, HEAD"),
        ("GET", "/v1/cache/invalidate", "POST"),
    ],
)  # fmt: skip
def test_a_wrong_method_on_a_path_of_our_own(
    open_gateway: Gateway, sim: Sim, owner: Project, method: str, path: str, allow: str
) -> None:
    answer = ask(open_gateway, owner.key, path, method)
    assert error_of(answer) == (405, "method_not_allowed")
    assert answer.header("Allow") == allow
    assert sim.calls() == 0


def test_a_slash_at_the_end_is_named(gateway: Gateway, sim: Sim, project: Project) -> None:
    answer = gateway.post("/v1/chat/completions/", project.key, {"model": "gpt-4o", "messages": []})
    assert error_of(answer) == (400, "invalid_request")
    assert "slash at the end of the path /v1/chat/completions/" in answer.json()["error"]["message"]


def test_with_a_key_of_ones_own_they_pass(open_gateway: Gateway, sim: Sim, owner: Project) -> None:
    for method, path in _STATEFUL:
        ask(open_gateway, owner.key, path, method, {} if method == "POST" else None)
    assert [(call["method"], call["path"]) for call in sim.requests()] == _STATEFUL
    assert {call["headers"]["authorization"] for call in sim.requests()} == {f"Bearer {SECRET}"}
    assert ask(open_gateway, owner.key, "/v1/files").json()["data"] == []


def test_the_clients_organization_goes_along_with_its_own_key_only(
    open_gateway: Gateway, sim: Sim, owner: Project
) -> None:
    other = open_gateway.installation.project("on the instance's key")
    for key in (owner.key, other.key):
        open_gateway.chat(key, "Whose?", headers={"OpenAI-Organization": "org-mine", "OpenAI-Project": "proj-mine"})
    mine, theirs = sim.requests()
    assert (mine["headers"]["openai-organization"], mine["headers"]["openai-project"]) == ("org-mine", "proj-mine")
    assert "openai-organization" not in theirs["headers"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/organization/users", "/v1/organization/admin_api_keys", "/v1/organizations", "/v1/projects",
        "/v1/dashboard/billing/usage", "/v1/usage", "/v1/api_keys", "/v1/ORGANIZATION/users", "/v1/billing",
        "/v1/admin/x", "/v1/users",
    ],
)  # fmt: skip
def test_administration_never_passes(open_gateway: Gateway, sim: Sim, owner: Project, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert error_of(ask(open_gateway, owner.key, path, method)) == (404, "not_found")
    assert sim.calls() == 0


def test_escapes_that_have_to_be_pass(open_gateway: Gateway, sim: Sim, owner: Project) -> None:
    for path in ("/v1/files/file%20one", "/v1/files/ft:gpt-4o:mine", "/v1/files/a.b@c", "/v1/files/%E2%82%AC"):
        ask(open_gateway, owner.key, path)
        assert sim.requests()[-1]["path"] == path


@pytest.mark.parametrize(
    "path",
    [
        "/v1/moderations/../organization/users", "/v1/audio/speech/../../files", "/v1/./organization/users",
        "/v1//organization/users", "/v1/%6frganization/users", "/v1/%2e%2e/admin", "/v1/%2E%2e%2fadmin",
        "/v1/..%2forganization", "/v1/organization%2fusers", "/v1/organization;x/users", "/v1/x\\..\\organization",
        "/v1/x/%5c..%5corganization", "/v1/%252e%252e/organization", "/v1/x/..;/organization", "/v1/",
        "/v1/models/openai/../organization/users", "/v1/models/openai/..%2forganization%2fusers",
        "/v1/models/openai/%2e%2e/files", "/v1/models/gpt-x/../../organization", "/v1/models/gpt-x%2f..%2f..%2ffiles",
        "/v1/models//files", "/v1/models/gpt-x%5c..%5cfiles",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_leads_elsewhere(open_gateway: Gateway, sim: Sim, owner: Project, path: str) -> None:
    for method in ("GET", "POST"):
        answer = ask(open_gateway, owner.key, path, method)
        assert 400 <= answer.status < 500, answer
    for call in sim.requests():
        assert "%" not in call["path"]
        assert ".." not in call["path"]
        assert "organization" not in call["path"]


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/models", "/metrics", "/status", "/admin", "/sim/requests", "/health/x"]
)
def test_what_is_not_there_is_not_found(gateway: Gateway, sim: Sim, project: Project, path: str) -> None:
    assert error_of(ask(gateway, project.key, path)) == (404, "not_found")
    assert sim.calls() == 0


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PROPFIND"])
def test_methods_that_no_provider_has(gateway: Gateway, sim: Sim, project: Project, method: str) -> None:
    for path in ("/v1/chat/completions", "/v1/moderations", "/v1/models", "/health"):
        answer = ask(gateway, project.key, path, method)
        assert error_of(answer) == (405, "method_not_allowed")
        assert answer.header("Allow")
    assert sim.calls() == 0


def test_head(gateway: Gateway, sim: Sim, project: Project) -> None:
    for path in ("/health", "/v1/models", "/v1/models/gpt-4o-mini", "/v1/cache/stats"):
        whole, head = ask(gateway, project.key, path), ask(gateway, project.key, path, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.header("Content-Length") == whole.header("Content-Length") or path.endswith("stats")
