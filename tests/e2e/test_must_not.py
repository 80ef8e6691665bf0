"""What the proxy must never do: each of these is a failure that a gateway somewhere has had."""

import time

import pytest

from tests.support.product import UPSTREAM_KEY, Gateway, Project, Sim
from tests.support.raw_http import RawConnection, RawResponse, exchange, request_bytes
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"


def ask(text: str = "Why?", model: str = "gpt-4o-mini", **fields: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def cache_of(answer: RawResponse) -> str | None:
    return answer.header("X-WatchLLM-Cache")


# --- one tenant's answers ------------------------------------------------------------------------------------------


def test_two_projects_with_the_same_question_get_their_own_answers(gateway: Gateway, sim: Sim) -> None:
    ann, bob = gateway.installation.project("ann"), gateway.installation.project("bob")
    answers = [gateway.chat(project.key, "What is our secret?") for project in (ann, bob, ann, bob)]
    assert [cache_of(answer) for answer in answers] == ["MISS", "MISS", "HIT", "HIT"]
    ids = [answer.json()["id"] for answer in answers]
    assert (ids[0], ids[1]) == (ids[2], ids[3])
    assert ids[0] != ids[1]


def test_a_project_named_in_the_request_counts_for_nothing(gateway: Gateway, sim: Sim, project: Project) -> None:
    other = gateway.installation.project("other")
    gateway.chat(project.key, "Whose?")
    headers = {"X-WatchLLM-Project": project.id, "X-Project-Id": project.id}
    answer = gateway.chat(other.key, "Whose?", headers=headers, project=project.id, project_id=project.id)
    assert cache_of(answer) == "MISS"


def test_two_keys_of_a_project_share_its_answers(gateway: Gateway, sim: Sim, project: Project) -> None:
    second = gateway.installation.key(project.id)
    assert [cache_of(gateway.chat(key, "Ours?")) for key in (project.key, second)] == ["MISS", "HIT"]


# --- what is not stored --------------------------------------------------------------------------------------------


_SPOILT = (
    "cut-3", "short-3", "half-json", "empty", "html", "blank", "content-filter", "reset", "status-400", "status-429",
    "status-500", "status-503",
)  # fmt: skip


@pytest.mark.parametrize(
    ("how", "stream"), [*((how, stream) for how in _SPOILT for stream in (False, True)), ("stream-error-3", True)]
)
def test_cut_failed_filtered_and_empty_answers_are_not_stored(
    gateway: Gateway, sim: Sim, project: Project, how: str, stream: bool
) -> None:
    body = ask("Once more", f"gpt-4o-mini+{how}", stream=stream)
    for asked in (1, 2):
        assert cache_of(gateway.post(CHAT, project.key, body)) == "MISS"
        # A connection that is reset before an answer began may have been stale: that is tried once more.
        assert sim.calls() >= asked
    assert sim.calls() == 2 or how == "reset"
    assert gateway.get("/v1/cache/stats", project.key).json()["entries"] == 0


def test_a_cut_stream_is_not_mistaken_for_a_whole_one(gateway: Gateway, sim: Sim, project: Project) -> None:
    answer = gateway.post(CHAT, project.key, ask(model="gpt-4o-mini+cut-3", stream=True))
    events = answer.body.split(b"\n\n")
    assert events[-1] == b""
    assert b'"error"' in events[-2]
    assert b"provider_error" in events[-2]
    assert b"[DONE]" not in answer.body


def test_an_upstream_that_says_200_and_means_nothing_is_an_error(gateway: Gateway, sim: Sim, project: Project) -> None:
    for how in ("empty", "html", "half-json"):
        answer = gateway.post(CHAT, project.key, ask(model=f"gpt-4o-mini+{how}"))
        assert (answer.status, answer.json()["error"]["code"]) == (502, "provider_error"), how


@pytest.mark.parametrize("how", ["tokens-30", "no-usage", "late-usage", "gzip", "encoding-br", "encoding-zstd"])
@pytest.mark.parametrize("stream", [False, True])
def test_whole_answers_are_stored(gateway: Gateway, sim: Sim, project: Project, how: str, stream: bool) -> None:
    body = ask(model=f"gpt-4o-mini+{how}", stream=stream)
    answers = [gateway.post(CHAT, project.key, body) for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == ["MISS", "HIT"]
    assert {answer.header("content-encoding") for answer in answers} == {None}
    assert sim.calls() == 1


# --- what reaches the client of a failing provider -------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 429, 500, 502, 503, 504, 529])
def test_the_providers_status_body_and_retry_after_are_kept(
    gateway: Gateway, sim: Sim, project: Project, status: int, stream: bool
) -> None:
    body = ask(model=f"gpt-4o-mini+status-{status}+retry-after-7", stream=stream)
    theirs = exchange(sim.port, request_bytes(CHAT, key="any", body=body))
    ours = gateway.post(CHAT, project.key, body)
    assert theirs.status == status
    assert (ours.status, ours.body, ours.header("Retry-After")) == (status, theirs.body, "7")
    assert ours.header("Content-Type") == theirs.header("Content-Type")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_provider_key_is_our_failure_and_says_nothing_of_it(
    gateway: Gateway, sim: Sim, project: Project, status: int, stream: bool
) -> None:
    body = ask(model=f"gpt-4o-mini+status-{status}", stream=stream)
    theirs = exchange(sim.port, request_bytes(CHAT, key="any", body=body)).json()["error"]["message"]
    ours = gateway.post(CHAT, project.key, body)
    assert (ours.status, ours.json()["error"]["code"]) == (502, "provider_auth_failed")
    assert theirs not in ours.body.decode()
    assert UPSTREAM_KEY not in ours.body.decode()


# --- clients that leave, upstreams that hang -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "stream"),
    [("hang", False), ("hang", True), ("stall-3", True), ("chunk-20ms+tokens-5000", True), ("stall-1", False)],
)
def test_the_call_upstream_ends_when_the_client_leaves(
    gateway: Gateway, sim: Sim, project: Project, model: str, stream: bool
) -> None:
    with RawConnection(gateway.port) as connection:
        body = ask(model=f"gpt-4o-mini+{model}", stream=stream)
        connection.send(request_bytes(CHAT, key=project.key, body=body))
        wait_for(lambda: sim.stats()["open"] == 1, "the call upstream")
        if stream and model != "hang":
            assert b"200 OK" in connection.receive()
        assert sim.stats()["cancelled"] == 0
    wait_for(lambda: sim.stats()["cancelled"] == 1, "the call's cancellation")


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_that_hangs_is_given_up_in_the_time_asked_for(
    gateway: Gateway, sim: Sim, project: Project, stream: bool
) -> None:
    began = time.monotonic()
    answer = gateway.post(
        CHAT, project.key, ask(model="gpt-4o-mini+hang", stream=stream), headers={"X-WatchLLM-Timeout": "1"}
    )
    assert (answer.status, answer.json()["error"]["code"]) == (504, "provider_timeout")
    # Without it, far more time is allowed than this client waits for an answer.
    assert time.monotonic() - began >= 1
    wait_for(lambda: sim.stats()["cancelled"] == 1, "the call's cancellation")


def test_an_upstream_that_hangs_within_its_answer_is_given_up_too(gateway: Gateway, sim: Sim, project: Project) -> None:
    headers = {"X-WatchLLM-Timeout": "0.3"}
    answer = gateway.post(CHAT, project.key, ask(model="gpt-4o-mini+stall-0"), headers=headers)
    assert (answer.status, answer.json()["error"]["code"]) == (504, "provider_timeout")


def test_an_upstream_that_hangs_within_a_stream_ends_it_with_an_error(
    gateway: Gateway, sim: Sim, project: Project
) -> None:
    body = ask(model="gpt-4o-mini+stall-3", stream=True)
    answer = gateway.post(CHAT, project.key, body, headers={"X-WatchLLM-Timeout": "1"})
    assert answer.status == 200
    last = answer.body.rstrip().split(b"\n\n")[-1]
    assert b'"code":"provider_timeout"' in last
    assert cache_of(gateway.post(CHAT, project.key, body, headers={"X-WatchLLM-Timeout": "0.3"})) == "MISS"


# --- headers that must not pass --------------------------------------------------------------------------------------

_PRIVATE = {
    "Cookie": "session=client-cookie",
    "Proxy-Authorization": "Basic Y2xpZW50",
    "X-Forwarded-For": "203.0.113.9",
    "Forwarded": "for=203.0.113.9",
    "X-Real-IP": "203.0.113.9",
    "OpenAI-Organization": "org-of-the-client",
    "OpenAI-Project": "proj-of-the-client",
    "X-WatchLLM-User": "ann@example.com",
    "X-Internal-Token": "client-internal",
    "Referer": "https://intranet.example.com/secret",
    "Origin": "https://intranet.example.com",
}
_PATHS: list[tuple[str, dict[str, object]]] = [
    (CHAT, ask()),
    (CHAT, ask(stream=True)),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "x"}),
    ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "x"}),
    ("/v1/moderations", {"model": "omni-moderation-latest", "input": "x"}),
]


@pytest.mark.parametrize(("path", "body"), _PATHS)
def test_no_credential_cookie_or_address_of_the_client_goes_upstream(
    gateway: Gateway, sim: Sim, project: Project, path: str, body: dict[str, object]
) -> None:
    answer = gateway.post(path, project.key, body, headers={**_PRIVATE, "X-Api-Key": project.key})
    assert answer.status == 200, answer
    [received] = sim.requests()
    assert received["headers"]["authorization"] == f"Bearer {UPSTREAM_KEY}"
    sent = str(received)
    for secret in (project.key, *_PRIVATE.values()):
        assert secret not in sent
    assert set(received["headers"]) <= {
        "host", "authorization", "accept-encoding", "user-agent", "content-type", "content-length", "connection",
    }  # fmt: skip
    assert received["headers"]["accept-encoding"] == "identity"


_RETRIED = {"Idempotency-Key": "order-1", "Cache-Control": "no-cache"}


@pytest.mark.parametrize(("path", "body"), _PATHS)
def test_projects_that_share_a_provider_key_do_not_share_idempotency_keys(
    gateway: Gateway, sim: Sim, project: Project, path: str, body: dict[str, object]
) -> None:
    other = gateway.installation.project("other")
    for key in (project.key, project.key, other.key):
        assert gateway.post(path, key, body, headers=_RETRIED).status == 200
    first, again, others = [request["headers"]["idempotency-key"] for request in sim.requests()]
    assert first == again
    assert first != others
    assert "order-1" not in (first, others)
    assert len(first) == 32


def test_an_idempotency_key_goes_up_as_it_is_with_the_projects_own_provider_key(
    open_gateway: Gateway, sim: Sim
) -> None:
    home = open_gateway.installation
    project = home.project("own key")
    with home.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", "sk-own-secret-0123456789", base_url=sim.base_url)
    assert open_gateway.chat(project.key, "Why?", headers=_RETRIED).status == 200
    [received] = sim.requests()
    assert received["headers"]["idempotency-key"] == "order-1"


_ACCOUNT = {"OpenAI-Organization": "org-own", "OpenAI-Project": "proj_own"}


def test_the_clients_account_at_openai_is_told_to_openai_only(open_gateway: Gateway, sim: Sim) -> None:
    home = open_gateway.installation
    project = home.project("own keys")
    with home.control_plane() as plane:
        for provider in ("openai", "anthropic", "groq", "mine"):
            plane.add_provider_key(project.id, provider, "sk-own-secret-0123456789", base_url=sim.base_url)
    for model in ("openai/gpt-4o", "anthropic/claude-sonnet-4-5", "groq/echo", "mine/echo"):
        headers = {**_ACCOUNT, "Cache-Control": "no-cache"}
        assert open_gateway.chat(project.key, "Why?", model=model, headers=headers).status == 200
    ask = {"model": "anthropic/claude-sonnet-4-5", "messages": [{"role": "user", "content": "Why?"}]}
    assert open_gateway.post("/v1/messages/count_tokens", project.key, ask, headers=_ACCOUNT).status == 200
    told = [set(received["headers"]) & {"openai-organization", "openai-project"} for received in sim.requests()]
    assert told == [{"openai-organization", "openai-project"}, set(), set(), set(), set()]


def test_candidates_that_are_asked_differently_get_different_idempotency_keys(open_gateway: Gateway, sim: Sim) -> None:
    home = open_gateway.installation
    project = home.project("two keys")
    with home.control_plane() as plane:
        for secret in ("sk-own-secret-0123456789", "sk-own-secret-9876543210"):
            plane.add_provider_key(project.id, "openai", secret, base_url=sim.base_url)
    for _ in range(2):
        answer = open_gateway.chat(project.key, "Why?", model="openai/status-429", headers=_RETRIED)
        assert answer.status == 429, answer
    sent: dict[str, set[str]] = {}
    for received in sim.requests():
        headers = received["headers"]
        sent.setdefault(headers["authorization"], set()).add(headers["idempotency-key"])
    first, second = sent.values()
    assert len(first) == len(second) == 1
    assert first != second
    assert "order-1" not in first | second


@pytest.mark.parametrize(("path", "body"), _PATHS)
def test_no_cookie_account_or_limit_of_the_provider_comes_down(
    gateway: Gateway, sim: Sim, project: Project, path: str, body: dict[str, object]
) -> None:
    theirs = exchange(sim.port, request_bytes(path, key="any", body=body))
    assert theirs.header("set-cookie")
    assert theirs.header("openai-organization")
    for _ in range(2):
        ours = gateway.post(path, project.key, body)
        names = {name.decode() for name, _ in ours.headers}
        assert names.isdisjoint({"set-cookie", "openai-organization", "server", "cf-ray", "strict-transport-security"})
        assert not [name for name in names if name.startswith(("x-ratelimit", "x-sim"))]
        assert str(ours.header("X-Request-Id")).startswith("req_")
        assert not str(ours.header("X-Request-Id")).startswith("req_sim")


def test_errors_of_the_provider_bring_no_cookie_either(gateway: Gateway, sim: Sim, project: Project) -> None:
    answer = gateway.post(CHAT, project.key, ask(model="gpt-4o-mini+status-500"))
    assert answer.status == 500
    assert answer.header("set-cookie") is None
    assert answer.header("openai-organization") is None


# --- content that gateways have choked on -------------------------------------------------------------------------

_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PNG}"}}],
        [{"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}}],
        [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}],
        [{"type": "file", "file": {"file_id": "file-1"}}],
        [],
        "",
        "\u0000\u202e\U0001f9d1\u200d\U0001f680",
    ],
)
def test_multimodal_and_odd_content_is_answered_and_cached(
    gateway: Gateway, sim: Sim, project: Project, content: object
) -> None:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]}
    answers = [gateway.post(CHAT, project.key, body) for _ in range(2)]
    assert [(answer.status, cache_of(answer)) for answer in answers] == [(200, "MISS"), (200, "HIT")]


def test_every_field_reaches_the_provider_unchanged(gateway: Gateway, sim: Sim, project: Project) -> None:
    text = (
        b'{ "new_field" : {"b":1.50,"a":[1e3, 12345678901234567890]},"model":"gpt-4o-mini",\n '
        b'"messages":[{"role":"user","content":"caf\\u00e9"}]}'
    )
    assert gateway.post(CHAT, project.key, text).status == 200
    assert sim.requests()[0]["body"] == text.decode()
