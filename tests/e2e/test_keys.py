"""Keys as their owners know them: in force at once, out of force at once, never shown, never in the clear."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.product import UPSTREAM_KEY, Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import RawResponse, exchange, request_bytes
from tests.support.scripted_upstream import Call, scripted_upstream
from tests.support.waiting import wait_for
from watchllm.domain import keys

SECRET = "sk-own-secret-of-this-project-4711"
MODELS = "/v1/models"


def error_of(answer: RawResponse) -> tuple[int, str]:
    return answer.status, answer.json()["error"]["code"]


def refusal(answer: RawResponse) -> RawResponse | None:
    return None if answer.status == 200 else answer


def with_headers(gateway: Gateway, **headers: str) -> RawResponse:
    lines = {name.replace("_", "-"): value for name, value in headers.items()}
    return exchange(gateway.port, request_bytes(MODELS, headers=lines))


@contextmanager
def asking_all_the_time(gateway: Gateway, key: str) -> Iterator[list[tuple[float, int]]]:
    """The time at which each request of a steady flow was sent, and the status it got."""
    seen: list[tuple[float, int]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            sent = time.monotonic()
            seen.append((sent, gateway.chat(key, "Still?").status))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(10)


# --- project keys ----------------------------------------------------------------------------------------------------


def test_a_revoked_key_is_refused_when_the_command_returns(gateway: Gateway, sim: Sim, project: Project) -> None:
    home = gateway.installation
    made = home.run_json("key", "create", "--project", project.id)
    with asking_all_the_time(gateway, made["key"]) as seen:
        wait_for(lambda: len(seen) > 5, "some requests")
        home.run("key", "revoke", made["id"])
        returned = time.monotonic()
        assert error_of(gateway.chat(made["key"], "Still?")) == (401, "invalid_api_key")
        count = len(seen)
        wait_for(lambda: len(seen) > count + 5, "some more requests")
    before = [status for sent, status in seen if sent < returned]
    after = [status for sent, status in seen if sent >= returned]
    assert before[0] == 200
    assert set(after) == {401}
    assert set(before) <= {200, 401}
    assert gateway.chat(project.key, "Still?").status == 200


def test_a_new_key_is_in_force_when_the_command_returns(gateway: Gateway, sim: Sim, project: Project) -> None:
    made = gateway.installation.run_json("key", "create", "--project", project.id)
    assert gateway.chat(made["key"], "Already?").status == 200


def test_a_key_expires_without_anybody_doing_anything(gateway: Gateway, sim: Sim, project: Project) -> None:
    with gateway.installation.control_plane() as plane:
        expires_at = int(time.time()) + 2
        key = plane.create_key(project.id, expires_at=expires_at).secret
    answer = gateway.chat(key, "Yet?")
    # Not before its time: a machine that is busy enough may come to ask only after it.
    assert answer.status == 200 or time.time() >= expires_at
    refused = wait_for(lambda: refusal(gateway.chat(key, "Yet?")), "the key's expiry")
    assert time.time() >= expires_at
    assert error_of(refused) == (401, "invalid_api_key")


def test_wrong_keys_all_look_alike(gateway: Gateway, sim: Sim, project: Project) -> None:
    home = gateway.installation
    with home.control_plane() as plane:
        revoked = plane.create_key(project.id)
        plane.revoke_key(revoked.record.id)
    unknown = keys.generate()
    mistyped = project.key[:-1] + ("a" if project.key[-1] != "a" else "b")
    answers = [
        gateway.chat(key, "Who?")
        for key in (
            unknown, mistyped, revoked.secret, project.key[:-1], project.key + "0", "lgw_proj_", "sk-something",
            project.key.upper(), project.key.replace("proj", "test"), "", "\xe9", "a" * 5000,
        )
    ]  # fmt: skip
    assert {error_of(answer) for answer in answers} == {(401, "invalid_api_key")}
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1
    assert sim.calls() == 0


def test_where_a_key_may_stand(gateway: Gateway, sim: Sim, project: Project) -> None:
    key = project.key
    other = gateway.installation.key(project.id)
    assert with_headers(gateway, authorization=f"Bearer {key}").status == 200
    assert with_headers(gateway, authorization=f"bearer   {key} ").status == 200
    assert with_headers(gateway, x_api_key=key).status == 200
    assert with_headers(gateway, x_api_key=key, authorization=f"Bearer {key}").status == 200
    for refused in (
        {"x_api_key": key, "authorization": f"Bearer {other}"},
        {"x_api_key": other, "authorization": f"Bearer {key}"},
        {"x_api_key": key, "authorization": "Bearer nonsense"},
        {"x_api_key": key, "authorization": "Basic dTpw"},
        {"authorization": key},
        {"authorization": f"Basic {key}"},
        {"authorization": f"Bearer {key}, Bearer {key}"},
        {"x_api_key": ""},
    ):
        assert error_of(with_headers(gateway, **refused)) == (401, "invalid_api_key"), refused
    assert error_of(with_headers(gateway)) == (401, "missing_api_key")
    assert error_of(with_headers(gateway, cookie=f"key={key}", x_key=key)) == (401, "missing_api_key")
    assert error_of(gateway.get(f"{MODELS}?api_key={key}&key={key}")) == (401, "missing_api_key")


# --- what a key may do -----------------------------------------------------------------------------------------------


def test_a_policy_holds_for_stored_answers_too(gateway: Gateway, sim: Sim, project: Project) -> None:
    assert gateway.chat(project.key, "Allowed?").status == 200
    gateway.installation.run("project", "set", project.id, "allowed_models=gpt-4o,sim/*")
    assert error_of(gateway.chat(project.key, "Allowed?")) == (403, "model_not_allowed")
    assert gateway.chat(project.key, "Allowed?", model="gpt-4o").status == 200
    assert gateway.chat(project.key, "Allowed?", model="openai/gpt-4o").status == 200
    assert gateway.chat(project.key, "Allowed?", model="sim/echo").status == 200
    gateway.installation.run("project", "set", project.id, "allowed_models=")
    assert gateway.chat(project.key, "Allowed?").header("X-WatchLLM-Cache") == "HIT"


def test_allowed_providers(gateway: Gateway, sim: Sim) -> None:
    project = gateway.installation.project("only sim", settings={"allowed_providers": "sim"})
    assert error_of(gateway.chat(project.key, "Where?")) == (403, "model_not_allowed")
    assert gateway.chat(project.key, "Where?", model="sim/echo").status == 200
    moderation = gateway.post("/v1/moderations", project.key, {"input": "x"})
    assert error_of(moderation) == (403, "model_not_allowed")
    listed = gateway.get(MODELS, project.key).json()["data"]
    assert {model["owned_by"] for model in listed} == {"sim"}


def test_models_that_nobody_knows_and_providers_without_a_key(gateway: Gateway, sim: Sim, project: Project) -> None:
    assert error_of(gateway.chat(project.key, "Who?", model="mystery-1")) == (404, "model_not_found")
    assert error_of(gateway.chat(project.key, "Who?", model="llama-3.1-8b-instant")) == (403, "provider_key_missing")
    assert error_of(gateway.chat(project.key, "Who?", model="openrouter/x/y")) == (403, "provider_key_missing")
    assert sim.calls() == 0


# --- provider keys ---------------------------------------------------------------------------------------------------


def test_a_provider_key_is_in_force_and_out_of_force_when_the_command_returns(open_gateway: Gateway, sim: Sim) -> None:
    home = open_gateway.installation
    project = home.project("own key")
    ask = {"model": "llama-3.1-8b-instant", "messages": [{"role": "user", "content": "Own?"}]}
    chat = "/v1/chat/completions"
    assert error_of(open_gateway.post(chat, project.key, ask)) == (403, "provider_key_missing")
    added = home.run_json(
        "provider-key", "add", "groq", "--project", project.id, "--base-url", sim.base_url, stdin=SECRET
    )
    assert open_gateway.post(chat, project.key, ask).header("X-WatchLLM-Provider") == "groq"
    assert sim.requests()[-1]["headers"]["authorization"] == f"Bearer {SECRET}"
    home.run("provider-key", "remove", added["id"])
    assert error_of(open_gateway.post(chat, project.key, ask)) == (403, "provider_key_missing")


def test_a_projects_own_key_goes_before_the_instances(open_gateway: Gateway, sim: Sim) -> None:
    home = open_gateway.installation
    project, other = home.project("own"), home.project("without")
    with home.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", SECRET, base_url=sim.base_url)
    for key in (project.key, other.key):
        assert open_gateway.chat(key, "Whose?").status == 200
    assert [call["headers"]["authorization"] for call in sim.requests()] == [
        f"Bearer {SECRET}", f"Bearer {UPSTREAM_KEY}",
    ]  # fmt: skip


def test_a_provider_of_ones_own(open_gateway: Gateway, sim: Sim) -> None:
    home = open_gateway.installation
    project = home.project("ollama")
    with home.control_plane() as plane:
        plane.add_provider_key(project.id, "my-ollama", SECRET, base_url=sim.base_url)
    answer = open_gateway.chat(project.key, "Home?", model="my-ollama/qwen2.5:7b")
    assert (answer.status, answer.header("X-WatchLLM-Provider")) == (200, "my-ollama")
    assert '"model":"qwen2.5:7b"' in sim.requests()[-1]["body"]
    stranger = home.project("stranger")
    assert open_gateway.chat(stranger.key, "Home?", model="my-ollama/qwen2.5:7b").status in (403, 404)


@pytest.mark.parametrize("provider", ["ollama", "my-own"])
def test_a_server_without_a_key_is_sent_none(open_gateway: Gateway, provider: str) -> None:
    home = open_gateway.installation
    project = home.project("keyless")
    seen: list[tuple[str, set[str]]] = []

    def answer(call: Call) -> None:
        seen.append((call.path, {name.lower() for name in call.headers}))
        message = {"role": "assistant", "content": "Here."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        call.reply(200, json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]}).encode())

    with scripted_upstream(answer) as upstream:
        with home.control_plane() as plane:
            plane.add_provider_key(project.id, provider, "-", base_url=upstream.base_url)
        assert open_gateway.chat(project.key, "Home?", model=f"{provider}/qwen2.5:7b").status == 200
    ((path, names),) = seen
    assert path == "/v1/chat/completions"
    assert not names & {"authorization", "x-api-key", "api-key"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "0.0.0.0"])
def test_a_project_cannot_point_the_proxy_at_private_addresses(gateway: Gateway, sim: Sim, host: str) -> None:
    project = gateway.installation.project("private")
    with gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", SECRET, base_url=f"http://{host}:{sim.port}/v1")
    answer = gateway.chat(project.key, "Inside?")
    assert error_of(answer) == (502, "provider_unreachable")
    assert sim.calls() == 0


def test_the_secret_is_nowhere_in_the_clear(installation: Installation, sim: Sim) -> None:
    installation.environment |= upstream_environment(sim.base_url) | {"WATCHLLM_ALLOW_PRIVATE_URLS": "true"}
    project = installation.project("secret")
    added = installation.run("provider-key", "add", "openai", "--project", project.id, "--base-url", sim.base_url,
                             stdin=SECRET)  # fmt: skip
    proxy = installation.start_proxy()
    answers = [
        proxy.chat(project.key, "Secret?"),
        proxy.chat(project.key, "Secret?", model="gpt-4o-mini+status-401"),
        proxy.chat(project.key, "Secret?", model="gpt-4o-mini+reset"),
        proxy.get(MODELS, project.key),
        proxy.get("/health/ready"),
    ]
    printed = [
        added.stdout + added.stderr,
        *(installation.run(*command).stdout for command in (
            ("provider-key", "list"), ("provider-key", "list", "--json"), ("config", "show"), ("project", "show",
            project.id), ("key", "list", "--json"),
        )),
    ]  # fmt: skip
    assert sim.requests()[0]["headers"]["authorization"] == f"Bearer {SECRET}"
    assert proxy.stop() == 0
    told = "".join(printed) + str(answers) + proxy.process.log()
    kept = {file: file.read_bytes() for file in installation.home.rglob("*") if file.is_file()}
    assert len(kept) > 3
    for secret in (SECRET, UPSTREAM_KEY, project.key):
        assert secret not in told
        assert [file for file, content in kept.items() if secret.encode() in content] == []
