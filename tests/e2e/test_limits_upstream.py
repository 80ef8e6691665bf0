"""`upstream_per_minute` through the socket: every call that really goes up is one, whoever keeps the count."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.embeddings import MODEL, answered, post, vectors
from tests.support.product import Gateway, Installation, Sim, upstream_environment
from tests.support.raw_http import RawResponse
from tests.support.redis_server import RedisServer
from tests.support.routing import LLAMA, MINI, Routed, by_key, fails, in_turn, routed, says, text_of
from tests.support.scripted_upstream import Call
from tests.support.waiting import wait_for
from watchllm.domain.settings import parse_settings


@pytest.fixture(scope="module", params=["process", "redis"])
def gateway(
    request: pytest.FixtureRequest, shared_sim: Sim, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A proxy that keeps limits by itself, and one that keeps them in Redis."""
    folder = tmp_path_factory.mktemp("upstream-limits")
    environment = {**upstream_environment(shared_sim.base_url), "WATCHLLM_ALLOW_PRIVATE_URLS": "true"}
    redis = RedisServer(folder / "redis") if request.param == "redis" else None
    if redis is not None:
        environment |= redis.environment
    installation = Installation(folder / "home", environment)
    installation.project("first")
    proxy = installation.start_proxy()
    yield proxy
    proxy.stop()
    if redis is not None:
        redis.stop()


@pytest.fixture
def project(gateway: Gateway) -> Iterator[Routed]:
    with routed(gateway, {"semantic": "off"}) as project:
        yield project


def limit(project: Routed, **limits: object) -> None:
    with project.installation.control_plane() as plane:
        plane.set_project(project.project.id, parse_settings({name: str(value) for name, value in limits.items()}))


def code_of(answer: RawResponse) -> tuple[int, str | None]:
    return answer.status, answer.json()["error"]["code"]


def chat(project: Routed) -> RawResponse:
    return project.ask(f"question {project.asked}")


def streamed(project: Routed) -> RawResponse:
    return project.ask(f"question {project.asked}", stream=True)


@pytest.mark.parametrize("ask", [chat, streamed])
def test_a_retry_is_a_call_and_is_not_made_where_there_is_no_room(
    project: Routed, ask: Callable[[Routed], RawResponse]
) -> None:
    project.route("fast", MINI, retries=1)
    project.openai.script = fails(500)
    limit(project, upstream_per_minute=1)
    assert ask(project).json()["error"]["message"] == "scripted 500"  # the provider's own failure, not a limit's
    assert project.calls() == (1, 0)
    assert code_of(ask(project)) == (429, "rate_limit_exceeded")
    limit(project, upstream_per_minute=3)
    assert ask(project).status == 500
    assert project.calls() == (3, 0)
    assert code_of(ask(project)) == (429, "rate_limit_exceeded")


def test_a_fallback_is_a_call_and_is_not_made_where_there_is_no_room(project: Routed) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script = fails(503)
    limit(project, upstream_per_minute=1)
    assert chat(project).status == 503
    assert project.calls() == (1, 0)
    limit(project, upstream_per_minute=3)
    assert text_of(chat(project)) == "groq"
    assert project.calls() == (2, 1)
    refused = chat(project)
    assert code_of(refused) == (429, "rate_limit_exceeded")
    assert 50 <= int(refused.header("retry-after") or "0") <= 61


def test_a_lost_connection_is_told_where_no_further_call_may_be_made(project: Routed) -> None:
    project.route("fast", MINI, fallbacks=(LLAMA,))
    project.openai.script = Call.hang_up
    limit(project, upstream_per_minute=1)
    assert code_of(chat(project)) == (502, "provider_error")
    assert project.calls() == (1, 0)


def test_a_further_key_is_a_call(project: Routed) -> None:
    project.add_key("openai", "two", priority=1)
    project.openai.script = by_key(one=fails(429), two=says("second"))
    limit(project, upstream_per_minute=3)
    assert text_of(project.ask("a", model=MINI)) == "second"
    assert project.ask("b", model=MINI).status == 429
    assert len(project.openai.calls) == 3


def test_a_hedge_is_a_call_and_is_not_made_where_there_is_no_room(gateway: Gateway, project: Routed) -> None:
    asked = threading.Semaphore(0)
    released = threading.Event()

    def slow(call: Call) -> None:
        asked.release()
        released.wait(30)
        says("slow")(call)

    project.openai.script = slow
    project.route("fast", MINI, fallbacks=(LLAMA,), hedge_after=0.1)
    limit(project, upstream_per_minute=1)
    with routed(gateway, {"semantic": "off", "upstream_per_minute": "2"}) as other, ThreadPoolExecutor(1) as pool:
        other.openai.script = slow
        other.route("fast", MINI, fallbacks=(LLAMA,), hedge_after=0.1)
        first = pool.submit(chat, project)
        assert asked.acquire(timeout=10)
        # Whoever asks later and is hedged shows that the time for the first one's hedge has passed.
        assert text_of(chat(other)) == "groq"
        released.set()
        assert text_of(first.result()) == "slow"
        assert project.calls() == (1, 0)
        assert code_of(chat(other)) == (429, "rate_limit_exceeded")
        assert other.calls() == (1, 1)


def test_a_hedge_that_may_be_made_answers(project: Routed) -> None:
    project.openai.script = project.openai.hang
    project.route("fast", MINI, fallbacks=(LLAMA,), hedge_after=0.05)
    limit(project, upstream_per_minute=4)
    assert [text_of(chat(project)) for _ in range(2)] == ["groq", "groq"]
    assert code_of(chat(project)) == (429, "rate_limit_exceeded")


def test_models_that_a_provider_is_asked_for_are_calls(project: Routed) -> None:
    key = project.project.key
    project.openai.script = lambda call: call.reply(200, b'{"id":"gpt-nobody-knows","object":"model","created":1}')
    limit(project, upstream_per_minute=1)
    path = "/v1/models/openai/gpt-nobody-knows"
    assert project.gateway.get(path, key).status == 200
    assert code_of(project.gateway.get(path, key)) == (429, "rate_limit_exceeded")
    assert project.openai.calls == ["GET /v1/models/gpt-nobody-knows"]


def test_a_list_of_models_is_made_without_asking_where_there_is_no_room(project: Routed) -> None:
    key = project.project.key
    for upstream in (project.openai, project.groq):
        upstream.script = lambda call: call.reply(200, b'{"data":[{"id":"its-own","created":1}]}')
    limit(project, upstream_per_minute=1)
    names = {model["id"] for model in project.gateway.get("/v1/models", key).json()["data"]}
    assert len(project.openai.calls) + len(project.groq.calls) == 1
    assert "gpt-4o-mini" in names or "llama-3.1-8b-instant" in {name.rpartition("/")[2] for name in names}
    limit(project, upstream_per_minute=2)
    again = {model["id"].rpartition("/")[2] for model in project.gateway.get("/v1/models", key).json()["data"]}
    assert project.calls() == (1, 1)  # what is known is not asked for again
    assert again == {"its-own", "echo"}


def test_a_count_of_tokens_that_a_provider_makes_is_a_call(project: Routed, sim: Sim) -> None:
    with project.installation.control_plane() as plane:
        base_url = sim.base_url
        plane.add_provider_key(project.project.id, "anthropic", "sk-ant-0123456789-abcdefgh", base_url=base_url)
    limit(project, upstream_per_minute=1)
    body = {"model": "anthropic/claude-sonnet-4-5", "messages": [{"role": "user", "content": "x"}]}
    answers = [project.gateway.post("/v1/messages/count_tokens", project.project.key, body) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert sim.calls() == 1


def test_what_is_passed_through_is_a_call(project: Routed) -> None:
    project.openai.script = lambda call: call.reply(200, b"{}")
    limit(project, upstream_per_minute=2, tokens_per_minute=1)
    # It reads and deletes: that takes no tokens of the minute.
    assert project.gateway.get("/v1/files", project.project.key).status == 200
    assert project.gateway.get("/v1/responses/resp_1", project.project.key).status == 200
    assert code_of(project.gateway.get("/v1/files", project.project.key)) == (429, "rate_limit_exceeded")


# --- embeddings -------------------------------------------------------------------------------------------------------


def test_what_embeddings_buy_after_others_failed_is_a_further_call(project: Routed) -> None:
    key = project.project.key
    bought = threading.Event()

    def script(call: Call) -> None:
        given = json.loads(call.body)["input"]
        if "bad" in given:
            bought.wait(30)
            fails(400)(call)
        else:
            vectors(call)
            bought.set()

    project.openai.script = script
    limit(project, upstream_per_minute=2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, project.gateway, key, ["shared", "bad"])
        wait_for(lambda: len(project.openai.calls) == 1, "the first call")
        second = pool.submit(post, project.gateway, key, ["shared", "good"])
        assert first.result().status == 400
        # It joined the call that failed for "shared", and may not make one of its own for it any more.
        assert code_of(second.result()) == (429, "rate_limit_exceeded")
    assert len(project.openai.calls) == 2
    assert post(project.gateway, key, ["good"]).header("x-watchllm-cache") == "HIT"


def test_embeddings_retried_are_calls(project: Routed) -> None:
    project.route("vectors", f"openai/{MODEL}", retries=2)
    project.openai.script = in_turn(fails(500), lambda call: answered(call, [{"index": 0, "embedding": [0.5]}]))
    limit(project, upstream_per_minute=2)
    body = {"model": "vectors", "input": ["one"]}
    assert project.gateway.post("/v1/embeddings", project.project.key, body).status == 200
    body["input"] = ["two"]
    assert project.gateway.post("/v1/embeddings", project.project.key, body).status == 429


def test_embeddings_that_may_be_asked_for_twice_reserve_twice(project: Routed) -> None:
    project.openai.script = vectors
    project.route("once", f"openai/{MODEL}")
    project.route("hedged", f"openai/{MODEL}", hedge_after=20)
    limit(project, tokens_per_minute=50)
    text = "one two three four"
    statuses = [
        project.gateway.post("/v1/embeddings", project.project.key, {"model": model, "input": [text + model]}).status
        for model in ("hedged", "once")
    ]
    assert statuses == [429, 200]
