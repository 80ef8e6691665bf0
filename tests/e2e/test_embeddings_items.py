"""Embeddings are answered item by item: what is known is not bought again, in whatever mixture it comes."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import openai
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_openai import OpenAIEmbeddings

from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawConnection, RawResponse, exchange, request_bytes
from tests.support.scripted_upstream import Call, ScriptedUpstream, scripted_upstream
from tests.support.waiting import wait_for

PATH = "/v1/embeddings"
MODEL = "text-embedding-3-small"  # 20 nano-dollars a token.


def ask(given: Any, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": given, "dimensions": 4, **fields}


def cache_of(answer: RawResponse) -> str | None:
    return answer.header("X-WatchLLM-Cache")


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


# --- providers that fail, or answer something else --------------------------------------------------------------------


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream(vectors) as server:
        yield server


@pytest.fixture
def behind(open_gateway: Gateway, upstream: ScriptedUpstream) -> str:
    """The key of a project whose OpenAI is `upstream`."""
    project = open_gateway.installation.project("embeddings", settings={"cache_ttl_embeddings": "1"})
    with open_gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", "sk-own-0123456789abcdef", base_url=upstream.base_url)
    return project.key


def answered(call: Call, data: list[dict[str, Any]], **more: Any) -> None:
    usage = {"prompt_tokens": len(data), "total_tokens": len(data)}
    call.reply(200, json.dumps({"object": "list", "data": data, "model": "m", "usage": usage} | more).encode())


def vectors(call: Call, length: int = 3) -> None:
    """As it should be: each text's vector says how long it is."""
    given = json.loads(call.body)["input"]
    items = [given] if isinstance(given, str) else given
    answered(
        call,
        [
            {"object": "embedding", "index": at, "embedding": [len(text) + 0.5] * length}
            for at, text in enumerate(items)
        ],
    )


def post(gateway: Gateway, key: str, given: Any, **headers: str) -> RawResponse:
    return gateway.post(PATH, key, {"model": MODEL, "input": given}, headers=headers)


@pytest.fixture
def long_lived(open_gateway: Gateway, upstream: ScriptedUpstream) -> str:
    project = open_gateway.installation.project("embeddings")
    with open_gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", "sk-own-0123456789abcdef", base_url=upstream.base_url)
    return project.key


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


# --- many at once --------------------------------------------------------------------------------------------------


class Gate:
    """A provider that answers when it is told to."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked: list[Any] = []

    def __call__(self, call: Call) -> None:
        self.asked.append(json.loads(call.body)["input"])
        self.open.wait(20)
        vectors(call)


def together(gateway: Gateway, key: str, upstream: ScriptedUpstream, batches: list[list[str]]) -> list[RawResponse]:
    """Ask for all batches, one begun after the other; the provider answers when all are under way."""
    upstream.script = gate = Gate()
    before = _waiting(gateway)
    with ThreadPoolExecutor(len(batches)) as threads:
        futures = []
        for number, batch in enumerate(batches):
            futures.append(threads.submit(post, gateway, key, batch))
            wait_for(lambda number=number: _waiting(gateway) > before + number, f"request {number} under way")
        gate.open.set()
        return [future.result() for future in futures]


def _waiting(gateway: Gateway) -> int:
    from tests.support.admin import status_of

    return int(status_of(gateway)["connections"])


def test_items_under_way_are_waited_for_and_not_bought_twice(
    open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream
) -> None:
    answers = together(open_gateway, long_lived, upstream, [["a", "bb"], ["bb", "ccc"], ["a", "bb"], ["ccc", "a"]])
    assert [cache_of(answer) for answer in answers] == ["MISS", "HIT-PARTIAL", "HIT-COALESCED", "HIT-COALESCED"]
    assert [[entry["embedding"][0] for entry in answer.json()["data"]] for answer in answers] == [
        [1.5, 2.5], [2.5, 3.5], [1.5, 2.5], [3.5, 1.5],
    ]  # fmt: skip
    assert sum(answer.json()["usage"]["total_tokens"] for answer in answers) == 3
    assert len(upstream.calls) == 2


def test_the_first_that_leaves_does_not_take_the_others_with_it(
    open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream
) -> None:
    upstream.script = gate = Gate()
    with RawConnection(open_gateway.port) as leaver, ThreadPoolExecutor(1) as threads:
        leaver.send(request_bytes(PATH, key=long_lived, body={"model": MODEL, "input": ["a"]}))
        wait_for(lambda: gate.asked, "the call upstream")
        before = _waiting(open_gateway)
        stayer = threads.submit(post, open_gateway, long_lived, ["a"])
        wait_for(lambda: _waiting(open_gateway) > before, "the second request")
        leaver.close()
        wait_for(lambda: _waiting(open_gateway) == before, "the first to be gone")
        gate.open.set()
        answer = stayer.result()
    # The call is kept, and who still waits for it pays for it.
    assert (answer.status, cache_of(answer), gate.asked) == (200, "MISS", [["a"]])
    assert answer.json()["usage"]["total_tokens"] == 1


def test_a_failure_is_everybodys(open_gateway: Gateway, sim: Sim, long_lived: str, upstream: ScriptedUpstream) -> None:
    released = threading.Event()

    def fail(call: Call) -> None:
        released.wait(20)
        call.reply(503, b'{"error": {"message": "overloaded"}}')

    upstream.script = fail
    before = _waiting(open_gateway)
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(post, open_gateway, long_lived, ["a"]) for _ in range(8)]
        wait_for(lambda: _waiting(open_gateway) >= before + 8, "all under way")
        released.set()
        assert {future.result().status for future in futures} == {503}
    assert len(upstream.calls) == 1


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
    # As numbers it is 66 MB. A machine that others use may hold anybody up: the best of five counts.
    numbers = body | {"encoding_format": "float"}
    assert min(_longest_wait_during(gateway, project, numbers) for _ in range(5)) < 0.1


def _longest_wait_during(gateway: Gateway, project: Project, body: dict[str, Any]) -> float:
    """Seconds that the slowest of the small requests took that were sent, one after the other, beside a large one."""
    waits = [0.0]
    with RawConnection(gateway.port, timeout=60) as large, RawConnection(gateway.port, timeout=60) as small:
        large.send(request_bytes(PATH, key=project.key, body=body))
        remaining = b""
        while not remaining.endswith(b"0\r\n\r\n"):
            began = perf_counter()
            small.send(request_bytes("/health"))
            small.response()
            waits.append(perf_counter() - began)
            remaining = (remaining + large.receive(1 << 22))[-16:]
    return max(waits)
