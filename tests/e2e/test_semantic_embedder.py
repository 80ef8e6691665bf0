"""Vectors from an OpenAI-compatible endpoint: used in time, missed when late or failing, never mixed with others."""

import json
from pathlib import Path

import pytest

from tests.support.admin import admin_get
from tests.support.product import Gateway, Installation, Sim, upstream_environment
from tests.support.scripted_upstream import Call, scripted_upstream
from tests.support.semantic import LIKE, QUESTION, UNLIKE, outcome, reasons, serving, state_of, wait_until_warm
from tests.support.waiting import wait_for

_UNSTORED = {"Cache-Control": "no-store"}


def started(installation: Installation, sim: Sim, embedder: str, **settings: str) -> Gateway:
    installation.environment |= upstream_environment(sim.base_url) | {"WATCHLLM_EMBEDDER": embedder, **settings}
    installation.project("first")
    return installation.start_proxy()


def at(base_url: str, model: str = "text-embedding-3-small") -> str:
    return f"openai:{model}@{base_url}"


def vectors(call: Call) -> None:
    """One and the same for every text."""
    data = [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}]
    call.reply(200, json.dumps({"object": "list", "data": data, "usage": {"prompt_tokens": 7}}).encode())


def found_once_kept(gateway: Gateway, key: str) -> None:
    """What was asked is kept a moment after its answer: its vector has to come first."""
    wait_for(lambda: outcome(gateway.chat(key, LIKE, headers=_UNSTORED)) == "HIT-SEMANTIC", "it to be found")


def test_the_simulated_providers_vectors_find_what_is_like(installation: Installation, sim: Sim) -> None:
    gateway = wait_until_warm(started(installation, sim, at(sim.base_url)))
    project = serving(gateway)
    assert outcome(gateway.chat(project.key, QUESTION)) == "MISS"
    found_once_kept(gateway, project.key)
    assert outcome(gateway.chat(project.key, UNLIKE)) == "MISS"
    metrics = admin_get(gateway, "/metrics").body.decode()
    assert 'watchllm_embeddings_total{outcome="made"}' in metrics
    assert "watchllm_embedder_tokens_total 0\n" not in metrics


def test_the_key_is_sent_and_that_of_openai_to_nobody_else(installation: Installation, sim: Sim) -> None:
    sent: list[str | None] = []

    def script(call: Call) -> None:
        sent.append(call.headers["authorization"])
        vectors(call)

    with scripted_upstream(script) as endpoint:
        gateway = started(installation, sim, at(endpoint.base_url), OPENAI_API_KEY="sk-of-openai")
        wait_until_warm(gateway).stop()
        installation.environment |= {"WATCHLLM_EMBEDDER_API_KEY": "sk-of-embedder"}
        wait_until_warm(installation.start_proxy())
    assert sent == [None, "Bearer sk-of-embedder"]


def test_a_vector_that_is_late_costs_the_hit_and_is_used_later(installation: Installation, sim: Sim) -> None:
    with scripted_upstream(vectors) as endpoint:
        gateway = wait_until_warm(started(installation, sim, at(endpoint.base_url)))
        project = serving(gateway)
        gateway.chat(project.key, QUESTION)
        found_once_kept(gateway, project.key)
        endpoint.script = endpoint.hang
        late = gateway.chat(project.key, LIKE, headers=_UNSTORED)
        assert outcome(late) == "MISS"
        assert reasons(gateway, late) == ("not-tried", "embedder_slow")
        assert "took longer than 150 ms" in (state_of(gateway) or "")
        assert gateway.get("/health/ready").status == 200
        endpoint.script = vectors
        found_once_kept(gateway, project.key)
        wait_for(lambda: state_of(gateway) == "ok", "the trouble to be over")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"{}", "status 500"),
        (401, b"{}", "WATCHLLM_EMBEDDER_API_KEY"),
        (200, b'{"data": "nothing"}', "no list of one embedding"),
        (200, b'{"data": [{"embedding": [0, 0]}]}', "no direction"),
        (200, b'{"data": [{"embedding": [1, 2, 3]}]}', "3 numbers, not 2"),
    ],
)
def test_an_endpoint_that_fails_costs_the_hit_and_health_says_why(
    installation: Installation, sim: Sim, status: int, body: bytes, said: str
) -> None:
    with scripted_upstream(vectors) as endpoint:
        gateway = wait_until_warm(started(installation, sim, at(endpoint.base_url), WATCHLLM_EMBEDDER_TIMEOUT="5"))
        project = serving(gateway)
        endpoint.script = lambda call: call.reply(status, body)
        missed = gateway.chat(project.key, QUESTION)
        assert outcome(missed) == "MISS"
        assert reasons(gateway, missed) == ("not-tried", "embedder_failed")
        assert said in (state_of(gateway) or "")


def test_an_endpoint_that_keeps_failing_is_left_alone(installation: Installation, sim: Sim) -> None:
    with scripted_upstream(vectors) as endpoint:
        gateway = wait_until_warm(started(installation, sim, at(endpoint.base_url)))
        project = serving(gateway)
        endpoint.script = lambda call: call.reply(500, b"{}")

        def rests() -> bool:
            missed = gateway.chat(project.key, "What is it?", headers=_UNSTORED)
            return reasons(gateway, missed) == ("not-tried", "embedder_resting")

        wait_for(rests, "the breaker to open")
        asked = len(endpoint.calls)
        assert rests()
        assert len(endpoint.calls) == asked
        assert "status 500" in (state_of(gateway) or "")


def test_an_endpoint_that_is_down_at_the_start_is_asked_again(installation: Installation, sim: Sim) -> None:
    with scripted_upstream(lambda call: call.reply(503, b"{}")) as endpoint:
        gateway = started(installation, sim, at(endpoint.base_url))
        wait_for(lambda: "status 503" in (state_of(gateway) or ""), "the trouble to be told")
        endpoint.script = vectors
        wait_until_warm(gateway)


def test_vectors_of_another_model_are_not_mixed_with_these(installation: Installation, sim: Sim) -> None:
    gateway = wait_until_warm(started(installation, sim, at(sim.base_url)))
    project = serving(gateway)
    gateway.chat(project.key, QUESTION)
    found_once_kept(gateway, project.key)
    gateway.stop()
    installation.environment |= {"WATCHLLM_EMBEDDER": at(sim.base_url, "text-embedding-3-large")}
    other = wait_until_warm(installation.start_proxy())
    missed = other.chat(project.key, LIKE, headers=_UNSTORED)
    assert (outcome(missed), reasons(other, missed)) == ("MISS", ("empty", None))
    other.stop()
    installation.environment |= {"WATCHLLM_EMBEDDER": at(sim.base_url)}
    found_once_kept(wait_until_warm(installation.start_proxy()), project.key)


def test_the_length_of_the_vectors_can_be_asked_for(installation: Installation, sim: Sim) -> None:
    asked: list[object] = []

    def script(call: Call) -> None:
        asked.append(json.loads(call.body).get("dimensions"))
        vectors(call)

    with scripted_upstream(script) as endpoint:
        gateway = started(installation, sim, at(endpoint.base_url), WATCHLLM_EMBEDDER_DIMENSIONS="2")
        project = serving(wait_until_warm(gateway))
        gateway.chat(project.key, QUESTION)
        found_once_kept(gateway, project.key)
    assert set(asked) == {2}


def test_doctor_tells_what_is_wrong_with_it(installation: Installation, sim: Sim) -> None:
    with scripted_upstream(lambda call: call.reply(404, b"{}")) as endpoint:
        started(installation, sim, at(endpoint.base_url)).stop()
        told = installation.run("doctor", check=False)
    assert "no such model" in told.stdout


@pytest.mark.extra
def test_a_model_in_a_folder_finds_what_is_like(installation: Installation, sim: Sim, tmp_path: Path) -> None:
    from tests.support.onnx_model import make_model

    folder = make_model(tmp_path / "model")
    gateway = wait_until_warm(started(installation, sim, f"fastembed:{folder}", WATCHLLM_EMBEDDER_TIMEOUT="5"))
    project = serving(gateway)
    gateway.chat(project.key, QUESTION)
    found_once_kept(gateway, project.key)


def test_a_model_that_is_not_there_is_told_by_health_and_doctor(installation: Installation, sim: Sim) -> None:
    gateway = started(installation, sim, "fastembed:/nowhere/model")
    wait_for(lambda: "there is no folder /nowhere/model" in (state_of(gateway) or ""), "the trouble to be told")
    assert "fastembed" in installation.run("doctor", check=False).stdout
