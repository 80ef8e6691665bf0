"""A project that refuses what has no known price: said before anything goes upstream, on every way there."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.processes import BackgroundProcess
from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawResponse

UNKNOWN = "openai/nobody-knows-its-price"


def chat(gateway: Gateway, key: str, model: str) -> RawResponse:
    return gateway.chat(key, "Hello", model=model)


def streamed(gateway: Gateway, key: str, model: str) -> RawResponse:
    return gateway.chat(key, "Hello", model=model, stream=True)


def uncached(gateway: Gateway, key: str, model: str) -> RawResponse:
    return gateway.chat(key, "Hello", model=model, headers={"X-WatchLLM-Cache": "off"})


def embeddings(gateway: Gateway, key: str, model: str, **fields: Any) -> RawResponse:
    return gateway.post("/v1/embeddings", key, {"model": model, "input": ["a", "b"], **fields})


def embeddings_as_a_whole(gateway: Gateway, key: str, model: str) -> RawResponse:
    return embeddings(gateway, key, model, encoding_format="unknown")


def moderation(gateway: Gateway, key: str, model: str) -> RawResponse:
    return gateway.post("/v1/moderations", key, {"model": model, "input": "x"})


WAYS = [chat, streamed, uncached, embeddings, embeddings_as_a_whole, moderation]


@pytest.fixture
def refusing(open_gateway: Gateway) -> Project:
    return open_gateway.installation.project("careful", settings={"unpriced": "refuse"})


@pytest.mark.parametrize("way", WAYS)
def test_an_unpriced_model_is_refused_before_a_call(
    open_gateway: Gateway, sim: Sim, refusing: Project, way: Callable[[Gateway, str, str], RawResponse]
) -> None:
    refused = way(open_gateway, refusing.key, UNKNOWN)
    assert refused.status == 403
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("model_not_allowed", "model")
    assert UNKNOWN in error["message"]
    assert "unpriced=allow" in error["message"]
    assert sim.calls() == 0
    other = open_gateway.installation.project("usual")
    assert way(open_gateway, other.key, UNKNOWN).status != 403


def test_what_has_a_price_or_costs_nothing_is_answered(open_gateway: Gateway, sim: Sim, refusing: Project) -> None:
    assert open_gateway.chat(refusing.key, "Hello").status == 200
    assert embeddings(open_gateway, refusing.key, "text-embedding-3-small").status == 200
    assert open_gateway.chat(refusing.key, "Hello", model="sim/echo").status == 200
    test_key = open_gateway.installation.key(refusing.id, test=True)
    for way in WAYS[:4]:
        assert way(open_gateway, test_key, UNKNOWN).status == 200


def test_passing_through_without_naming_a_model_is_refused_where_it_may_cost(
    open_gateway: Gateway, sim: Sim, refusing: Project
) -> None:
    assert open_gateway.post("/v1/images/generations", refusing.key, {"prompt": "x"}).status == 403
    assert sim.calls() == 0
    test_key = open_gateway.installation.key(refusing.id, test=True)
    assert open_gateway.post("/v1/images/generations", test_key, {"prompt": "x"}).status == 200


def test_the_refusal_is_recorded_for_the_model(open_gateway: Gateway, refusing: Project) -> None:
    home = open_gateway.installation
    tail = home._start("logs", "tail", "--project", refusing.id, "--json")
    try:
        _is_told(open_gateway, refusing, tail)
    finally:
        tail.stop()


def _is_told(open_gateway: Gateway, refusing: Project, tail: BackgroundProcess) -> None:
    tail.wait_until(lambda: "listening" in tail.log(), "listening")
    refused = open_gateway.chat(refusing.key, "Hello", model=UNKNOWN)
    request_id = refused.header("x-request-id") or "none"
    tail.wait_until(lambda: request_id in tail.log(), "the request")
    line = next(line for line in tail.log().splitlines() if request_id in line)
    assert '"model":"nobody-knows-its-price"' in line.replace(": ", ":")
    assert '"status":403' in line.replace(": ", ":")
