"""Providers of embeddings that fail or answer something else: nothing wrong is kept, merged or hidden."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.embeddings import MODEL, PATH, answered, cache_of, key_behind, post, vectors
from tests.support.product import Gateway, Sim
from tests.support.scripted_upstream import ScriptedUpstream, scripted_upstream
from tests.support.waiting import wait_for


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream(vectors) as server:
        yield server


@pytest.fixture
def behind(open_gateway: Gateway, upstream: ScriptedUpstream) -> str:
    return key_behind(open_gateway, upstream, cache_ttl_embeddings="1")


@pytest.fixture
def long_lived(open_gateway: Gateway, upstream: ScriptedUpstream) -> str:
    return key_behind(open_gateway, upstream)


def item(index: Any, embedding: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": embedding}


@pytest.mark.parametrize(
    "data",
    [
        [item(0, [1.0])],
        [item(0, [1.0]), item(1, [1.0]), item(2, [1.0])],
        [item(0, [1.0]), item(0, [1.0])],
        [item(1, [1.0]), item(2, [1.0])],
        [item(0, [1.0]), item(1, [1.0, 2.0])],
        [item(0, [1.0]), item(1, [])],
        [item(0, [1.0]), item(1, None)],
        [item(0, [1.0]), item(1, "%%%")],
        [],
    ],
    ids=["fewer", "more", "repeated", "shifted", "lengths", "empty", "null", "no base64", "none"],
)
def test_an_answer_of_another_form_passes_and_is_not_kept_and_is_an_error_where_it_must_be_merged(
    open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream, data: list[dict[str, Any]]
) -> None:
    post(open_gateway, long_lived, ["known"])
    upstream.script = lambda call: answered(call, data)
    for _ in range(2):
        answer = post(open_gateway, long_lived, ["a", "b"])
        assert (answer.status, cache_of(answer), answer.json()["data"]) == (200, "MISS", data)
    merged = post(open_gateway, long_lived, ["a", "known", "b"])
    assert (merged.status, merged.json()["error"]["code"]) == (502, "provider_error")
    assert len(upstream.calls) == 4
    upstream.script = vectors
    assert cache_of(post(open_gateway, long_lived, ["a", "known", "b"])) == "HIT-PARTIAL"


def test_items_in_another_order_are_put_right(
    open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream
) -> None:
    upstream.script = lambda call: answered(call, [item(1, [1.0]), item(0, [0.0])])
    post(open_gateway, long_lived, ["zero", "one"])
    answer = post(open_gateway, long_lived, ["one", "zero"])
    assert [entry["embedding"] for entry in answer.json()["data"]] == [[1.0], [0.0]]


def test_vectors_of_another_length_than_asked_for_are_not_kept(
    open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream
) -> None:
    for _ in range(2):
        answer = open_gateway.post(PATH, long_lived, {"model": MODEL, "input": ["a"], "dimensions": 7})
        assert (answer.status, cache_of(answer)) == (200, "MISS")


def test_vectors_of_another_length_than_the_known_replace_them(
    open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream
) -> None:
    post(open_gateway, long_lived, ["known"])
    upstream.script = lambda call: vectors(call, 5)
    answer = post(open_gateway, long_lived, ["known", "new"])
    assert (answer.status, answer.json()["error"]["code"]) == (502, "provider_error")
    again = post(open_gateway, long_lived, ["known", "new"])
    assert [len(entry["embedding"]) for entry in again.json()["data"]] == [5, 5]


@pytest.mark.parametrize("status", [500, 503])
def test_stale_items_answer_when_the_provider_fails(
    open_gateway: Gateway, sim: Sim, behind: str, upstream: ScriptedUpstream, status: int
) -> None:
    post(open_gateway, behind, ["a", "b"])
    upstream.script = lambda call: call.reply(status, b'{"error": {"message": "no"}}')
    wait_for(lambda: post(open_gateway, behind, ["a"]).status == status, "the items' end")
    stale = {"Cache-Control": "stale-if-error=60"}
    answer = post(open_gateway, behind, ["b", "a"], **stale)
    assert (answer.status, cache_of(answer)) == (200, "HIT-STALE")
    assert [entry["embedding"] for entry in answer.json()["data"]] == [[1.5] * 3] * 2
    # One that was never bought has nothing to be answered with.
    assert post(open_gateway, behind, ["b", "c"], **stale).status == status


def test_a_refused_batch_is_told_as_the_provider_told_it(
    open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream
) -> None:
    post(open_gateway, long_lived, ["a"])
    upstream.script = lambda call: call.reply(400, b'{"error": {"message": "too long"}}')
    answer = post(open_gateway, long_lived, ["a", "b"])
    assert (answer.status, answer.body) == (400, b'{"error": {"message": "too long"}}')


def test_an_answer_without_usage_is_estimated(
    open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream
) -> None:
    upstream.script = lambda call: call.reply(
        200, json.dumps({"object": "list", "data": [item(0, [1.0])], "model": "m"}).encode()
    )
    body = {"model": MODEL, "input": ["one two three " * 100]}
    assert float(str(open_gateway.post(PATH, long_lived, body).header("X-WatchLLM-Cost-USD"))) > 0
    saved = open_gateway.post(PATH, long_lived, body).header("X-WatchLLM-Tokens-Saved")
    assert 250 < int(str(saved)) < 400
