"""Embeddings are answered item by item: what is known is not bought again, in whatever mixture it comes."""

import json
from pathlib import Path
from time import perf_counter
from typing import Any

import openai
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_openai import OpenAIEmbeddings

from tests.support.embeddings import MODEL, PATH, cache_of
from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawConnection, RawResponse, exchange, request_bytes
from tests.support.waiting import wait_for


def ask(given: Any, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": given, "dimensions": 4, **fields}


def inputs_of(sim: Sim) -> list[Any]:
    """What the provider was asked to embed, call by call."""
    return [json.loads(request["body"])["input"] for request in sim.requests()]


def uncached(sim: Sim, body: dict[str, Any]) -> RawResponse:
    return exchange(sim.port, request_bytes(PATH, key="any", body=body))


# --- what is bought, and what comes back ---------------------------------------------------------------------------


def test_only_the_unknown_items_are_bought(gateway: Gateway, sim: Sim, project: Project) -> None:
    first = gateway.post(PATH, project.key, ask(["one", "two"]))
    second = gateway.post(PATH, project.key, ask(["three", "two", [5, 6], "one"]))
    third = gateway.post(PATH, project.key, ask([[5, 6], "three", "one", "one"]))
    assert [cache_of(answer) for answer in (first, second, third)] == ["MISS", "HIT-PARTIAL", "HIT"]
    assert inputs_of(sim) == [["one", "two"], ["three", [5, 6]]]
    for answer, inputs in ((second, ["three", "two", [5, 6], "one"]), (third, [[5, 6], "three", "one", "one"])):
        expected = uncached(sim, ask(inputs)).json()
        assert answer.json() == expected | {"usage": answer.json()["usage"]}


def test_a_request_for_nothing_known_passes_through_byte_for_byte(gateway: Gateway, sim: Sim, project: Project) -> None:
    body = b'{"input" : ["caf\\u00e9", "b"],  "model":"%b", "dimensions":3.0, "user":"u"}' % MODEL.encode()
    answer = gateway.post(PATH, project.key, body)
    assert sim.requests()[-1]["body"].encode() == body
    theirs = exchange(sim.port, request_bytes(PATH, key="any", body=body))
    assert (answer.status, answer.body) == (theirs.status, theirs.body)


def test_usage_and_money_are_of_what_was_bought(gateway: Gateway, sim: Sim, project: Project) -> None:
    known, new = ["a" * 4_000, "b" * 40], ["c" * 400, "d" * 8_000]
    first = gateway.post(PATH, project.key, ask(known))
    second = gateway.post(PATH, project.key, ask(known + new))
    third = gateway.post(PATH, project.key, ask(known + new))
    bought = [answer.json()["usage"] for answer in (first, second, third)]
    assert bought == [{"prompt_tokens": count, "total_tokens": count} for count in (1_010, 2_100, 0)]
    assert [answer.header("X-WatchLLM-Cost-USD") for answer in (first, second, third)] == [
        "0.000020", "0.000042", "0.000000",
    ]  # fmt: skip
    assert [answer.header("X-WatchLLM-Saved-USD") for answer in (first, second, third)] == [
        None, "0.000020", "0.000062",
    ]  # fmt: skip
    assert [answer.header("X-WatchLLM-Tokens-Saved") for answer in (first, second, third)] == [None, "1010", "3110"]
    assert first.header("X-WatchLLM-Cache-Age") is None
    assert second.header("X-WatchLLM-Cache-Age") is not None
    assert second.header("X-WatchLLM-Provider") == "openai"


def test_tokens_of_a_batch_are_shared_out_and_none_is_lost(gateway: Gateway, sim: Sim, project: Project) -> None:
    texts = ["word " * length for length in range(1, 30)]
    total = gateway.post(PATH, project.key, ask(texts)).json()["usage"]["prompt_tokens"]
    single = [int(str(gateway.post(PATH, project.key, ask(text)).header("X-WatchLLM-Tokens-Saved"))) for text in texts]
    assert sum(single) == total
    assert single == sorted(single)


def test_the_same_text_twice_is_bought_once(gateway: Gateway, sim: Sim, project: Project) -> None:
    answer = gateway.post(PATH, project.key, ask(["x", "y", "x", [1], [1]]))
    assert inputs_of(sim) == [["x", "y", [1]]]
    assert cache_of(answer) == "MISS"
    data = answer.json()["data"]
    assert [item["index"] for item in data] == [0, 1, 2, 3, 4]
    assert data[0]["embedding"] == data[2]["embedding"] != data[1]["embedding"]
    assert data[3]["embedding"] == data[4]["embedding"]
    assert answer.json()["usage"]["prompt_tokens"] == 3


@pytest.mark.parametrize("given", ["text", ["text"], [7, 8, 9], [[7, 8, 9]]])
def test_one_input_alone_and_in_a_list_are_the_same(gateway: Gateway, sim: Sim, project: Project, given: Any) -> None:
    for form in ("text", [7, 8, 9]):
        gateway.post(PATH, project.key, ask(form))
    answer = gateway.post(PATH, project.key, ask(given))
    assert (cache_of(answer), sim.calls()) == ("HIT", 2)


@pytest.mark.parametrize("fields", [{"dimensions": 5}, {"model": "text-embedding-3-large"}, {"task": "query"}])
def test_what_changes_a_vector_is_another_vector(
    gateway: Gateway, sim: Sim, project: Project, fields: dict[str, Any]
) -> None:
    gateway.post(PATH, project.key, ask(["a", "b"]))
    assert cache_of(gateway.post(PATH, project.key, ask(["a", "b"]) | fields)) == "MISS"


def test_another_project_knows_nothing(gateway: Gateway, sim: Sim, project: Project) -> None:
    other = gateway.installation.project("other")
    gateway.post(PATH, project.key, ask(["a", "b"]))
    assert cache_of(gateway.post(PATH, other.key, ask(["a", "b"]))) == "MISS"


# --- encodings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bought", ["float", "base64", None])
@pytest.mark.parametrize("asked", ["float", "base64", None])
def test_a_vector_is_written_as_it_is_asked_for(
    gateway: Gateway, sim: Sim, project: Project, bought: str | None, asked: str | None
) -> None:
    fields = {"dimensions": 256}
    first = ask(["a", "b"], **fields) | ({"encoding_format": bought} if bought else {})
    second = ask(["b", "a"], **fields) | ({"encoding_format": asked} if asked else {})
    gateway.post(PATH, project.key, first)
    answer = gateway.post(PATH, project.key, second)
    assert cache_of(answer) == "HIT"
    assert answer.json()["data"] == uncached(sim, second).json()["data"]


def test_a_field_of_a_vendor_keeps_encodings_apart(gateway: Gateway, sim: Sim, project: Project) -> None:
    gateway.post(PATH, project.key, ask("a", output_dtype="int8", encoding_format="base64"))
    answer = gateway.post(PATH, project.key, ask("a", output_dtype="int8"))
    assert cache_of(answer) == "MISS"
    assert isinstance(answer.json()["data"][0]["embedding"], list)


_ITEMS = st.one_of(
    st.sampled_from(["a", "b", "c", "A", "é", "a\nb", " a", "0", "漢字", '"', "\\u0041"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=2),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.tuples(
            st.one_of(_ITEMS, st.lists(_ITEMS, min_size=1, max_size=6)), st.sampled_from([None, "float", "base64"])
        ),
        min_size=1,
        max_size=4,
    ),
    dimensions=st.integers(1, 6),
)
def test_any_mixture_is_answered_as_without_a_cache(
    gateway: Gateway, sim: Sim, project: Project, batches: list[tuple[Any, str | None]], dimensions: int
) -> None:
    for inputs, encoding in batches:
        body = ask(inputs, dimensions=dimensions, encoding_format=encoding)
        ours, theirs = gateway.post(PATH, project.key, body), uncached(sim, body)
        bought = ours.json()["usage"]
        assert ours.json() == theirs.json() | {"usage": bought}
        assert bought["prompt_tokens"] <= theirs.json()["usage"]["prompt_tokens"]
        assert (cache_of(ours) == "HIT") == (bought["total_tokens"] == 0)


# --- directives ----------------------------------------------------------------------------------------------------


def test_only_if_cached_needs_every_item(gateway: Gateway, sim: Sim, project: Project) -> None:
    gateway.post(PATH, project.key, ask(["a", "b"]))
    asking = {"Cache-Control": "only-if-cached"}
    assert cache_of(gateway.post(PATH, project.key, ask(["b", "a"]), headers=asking)) == "HIT"
    answer = gateway.post(PATH, project.key, ask(["a", "c"]), headers=asking)
    assert (answer.status, answer.json()["error"]["code"]) == (504, "not_in_cache")
    assert sim.calls() == 1


def test_no_store_buys_and_does_not_keep(gateway: Gateway, sim: Sim, project: Project) -> None:
    gateway.post(PATH, project.key, ask(["a"]))
    for _ in range(2):
        answer = gateway.post(PATH, project.key, ask(["a", "b"]), headers={"Cache-Control": "no-store"})
        assert cache_of(answer) == "HIT-PARTIAL"
    assert inputs_of(sim) == [["a"], ["b"], ["b"]]


@pytest.mark.parametrize("headers", [{"Cache-Control": "no-cache"}, {"X-WatchLLM-Cache": "refresh"}])
def test_refresh_buys_all_again_and_keeps_it(
    gateway: Gateway, sim: Sim, project: Project, headers: dict[str, str]
) -> None:
    gateway.post(PATH, project.key, ask(["a"]))
    answer = gateway.post(PATH, project.key, ask(["a", "b"]), headers=headers)
    assert (cache_of(answer), inputs_of(sim)) == ("MISS", [["a"], ["a", "b"]])
    assert cache_of(gateway.post(PATH, project.key, ask(["b", "a"]))) == "HIT"


def test_bypass_leaves_even_repeats_alone(gateway: Gateway, sim: Sim, project: Project) -> None:
    gateway.post(PATH, project.key, ask(["a"]))
    answer = gateway.post(PATH, project.key, ask(["a", "a"]), headers={"X-WatchLLM-Cache": "off"})
    assert (cache_of(answer), inputs_of(sim)) == ("BYPASS", [["a"], ["a", "a"]])


def test_an_age_holds_for_each_item(gateway: Gateway, sim: Sim, project: Project) -> None:
    gateway.post(PATH, project.key, ask(["old"]))
    wait_for(lambda: _age(gateway, project, "old") >= 1, "an item that is a second old")
    gateway.post(PATH, project.key, ask(["new"]))
    answer = gateway.post(PATH, project.key, ask(["old", "new"]), headers={"Cache-Control": "max-age=0"})
    assert cache_of(answer) in ("HIT-PARTIAL", "MISS")
    assert inputs_of(sim)[-1][0] == "old"


def _age(gateway: Gateway, project: Project, text: str) -> int:
    return int(str(gateway.post(PATH, project.key, ask([text])).header("X-WatchLLM-Cache-Age")))


def test_an_invalidation_forgets_items(gateway: Gateway, sim: Sim, project: Project) -> None:
    key = gateway.installation.key(project.id, scopes=("inference", "cache:write"))
    gateway.post(PATH, project.key, ask(["a", "b"]))
    forgotten = gateway.post("/v1/cache/invalidate", key, {"kind": "embeddings"})
    assert forgotten.status == 200
    assert cache_of(gateway.post(PATH, project.key, ask(["a", "b"]))) == "MISS"


# --- clients -------------------------------------------------------------------------------------------------------


def test_the_official_client(client: openai.OpenAI, sim: Sim) -> None:
    texts = ["one", "two", "three"]
    first = client.embeddings.create(model=MODEL, input=texts[:2], dimensions=8)
    second = client.embeddings.create(model=MODEL, input=texts, dimensions=8)
    floats = client.embeddings.create(model=MODEL, input=texts, dimensions=8, encoding_format="float")
    assert sim.calls() == 2
    assert [entry.embedding for entry in second.data[:2]] == [entry.embedding for entry in first.data]
    assert [entry.index for entry in second.data] == [0, 1, 2]
    for ours, theirs in zip(floats.data, second.data, strict=True):
        assert ours.embedding == pytest.approx(theirs.embedding, abs=0)
    assert (first.usage.prompt_tokens, second.usage.prompt_tokens, floats.usage.prompt_tokens) == (2, 2, 0)


def test_langchain(gateway: Gateway, sim: Sim, project: Project) -> None:
    embeddings = OpenAIEmbeddings(
        model=MODEL,
        dimensions=8,
        base_url=gateway.base_url,
        api_key=pydantic.SecretStr(project.key),
        check_embedding_ctx_length=False,
        max_retries=0,
    )
    first = embeddings.embed_documents(["one", "two"])
    assert embeddings.embed_documents(["two", "three", "one"])[0] == first[1]
    assert embeddings.embed_query("three") == embeddings.embed_documents(["three"])[0]
    assert inputs_of(sim) == [["one", "two"], ["three"]]


def test_the_largest_batch_does_not_hold_up_others(gateway: Gateway, sim: Sim, project: Project) -> None:
    texts = [f"{number} " + "lorem ipsum " * 20 for number in range(2048)]
    body = {"model": MODEL, "input": texts, "encoding_format": "base64"}
    first = gateway.post(PATH, project.key, body, timeout=60)
    again = gateway.post(PATH, project.key, body | {"input": texts[::-1]}, timeout=60)
    assert [cache_of(answer) for answer in (first, again)] == ["MISS", "HIT"]
    bought, known = first.json()["data"], again.json()["data"]
    assert [entry["index"] for entry in known] == list(range(2048))
    assert [entry["embedding"] for entry in known] == [entry["embedding"] for entry in bought][::-1]
    # As numbers it is 66 MB. A machine that others use may slow anybody down: the best of five counts.
    numbers = body | {"encoding_format": "float"}
    assert min(_longest_wait_during(gateway, project, numbers) for _ in range(5)) < 0.1


def _longest_wait_during(gateway: Gateway, project: Project, body: dict[str, Any]) -> float:
    """Seconds that the proxy worked while the slowest of the small requests waited that were sent, one after the other,
    beside a large one."""
    waits = [0.0]
    with RawConnection(gateway.port, timeout=60) as large, RawConnection(gateway.port, timeout=60) as small:
        large.send(request_bytes(PATH, key=project.key, body=body))
        remaining = b""
        while not remaining.endswith(b"0\r\n\r\n"):
            began = _worked(gateway)
            small.send(request_bytes("/health"))
            small.response()
            waits.append(_worked(gateway) - began)
            remaining = (remaining + large.receive(1 << 22))[-16:]
    return max(waits)


def _worked(gateway: Gateway) -> float:
    """Seconds that the proxy's event loop has had of a processor, whatever else the machine did meanwhile; where nobody
    tells that, by the clock."""
    pid = gateway.process.pid
    told = Path(f"/proc/{pid}/task/{pid}/schedstat")
    return int(told.read_text().split()[0]) / 1e9 if told.exists() else perf_counter()
