"""Forgetting and counting: `/v1/cache/invalidate` and `/v1/cache/stats`."""

import threading
from datetime import UTC, datetime

import pytest

from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawResponse, exchange, request_bytes
from tests.support.waiting import wait_for

INVALIDATE = "/v1/cache/invalidate"


@pytest.fixture
def writer(gateway: Gateway, project: Project) -> str:
    """A key of the project that may forget."""
    return gateway.installation.key(project.id, scopes=("inference", "cache:write"))


def fill(gateway: Gateway, key: str) -> None:
    """Two generated answers by two models, a completion, an embedding."""
    gateway.chat(key, "One?")
    gateway.chat(key, "Two?", model="gpt-4o")
    gateway.post("/v1/completions", key, {"model": "gpt-3.5-turbo-instruct", "prompt": "Three?"})
    gateway.post("/v1/embeddings", key, {"model": "text-embedding-3-small", "input": "Four?"})


def left(gateway: Gateway, key: str) -> list[str]:
    """Which of them still answer, in that order."""
    only = {"Cache-Control": "only-if-cached"}
    answers = {
        "One": gateway.chat(key, "One?", headers=only),
        "Two": gateway.chat(key, "Two?", headers=only, model="gpt-4o"),
        "Three": gateway.post(
            "/v1/completions", key, {"model": "gpt-3.5-turbo-instruct", "prompt": "Three?"}, headers=only
        ),
        "Four": gateway.post(
            "/v1/embeddings", key, {"model": "text-embedding-3-small", "input": "Four?"}, headers=only
        ),
    }
    return [name for name, answer in answers.items() if answer.status == 200]


EARLIER = 1_000_000_000
LATER = 4_000_000_000


@pytest.mark.parametrize(
    ("what", "count", "remaining"),
    [
        ({"all": True}, 4, []),
        ({"model": "gpt-4o"}, 1, ["One", "Three", "Four"]),
        ({"model": "openai/gpt-4o"}, 1, ["One", "Three", "Four"]),
        ({"model": "gpt-4"}, 0, ["One", "Two", "Three", "Four"]),
        ({"kind": "generate"}, 2, ["Three", "Four"]),
        ({"kind": "completions"}, 1, ["One", "Two", "Four"]),
        ({"kind": "embeddings"}, 1, ["One", "Two", "Three"]),
        ({"kind": "generate", "model": "gpt-4o"}, 1, ["One", "Three", "Four"]),
        ({"kind": "embeddings", "model": "gpt-4o"}, 0, ["One", "Two", "Three", "Four"]),
        ({"before": LATER}, 4, []),
        ({"before": EARLIER}, 0, ["One", "Two", "Three", "Four"]),
        ({"after": EARLIER}, 4, []),
        ({"after": LATER}, 0, ["One", "Two", "Three", "Four"]),
        ({"before": datetime.fromtimestamp(LATER, UTC).isoformat()}, 4, []),
        ({"before": "2001-01-01T00:00:00Z"}, 0, ["One", "Two", "Three", "Four"]),
        ({"model": "gpt-4o", "before": LATER, "after": EARLIER}, 1, ["One", "Three", "Four"]),
    ],
)
def test_what_a_filter_names_is_forgotten_and_nothing_else(
    gateway: Gateway, sim: Sim, project: Project, writer: str, what: dict[str, object], count: int, remaining: list[str]
) -> None:
    fill(gateway, project.key)
    answer = gateway.post(INVALIDATE, writer, what)
    assert (answer.status, answer.json()["invalidated"]) == (200, count)
    assert left(gateway, project.key) == remaining
    assert gateway.get("/v1/cache/stats", project.key).json()["entries"] == len(remaining)


@pytest.mark.parametrize(
    ("field", "beside_ms", "count"),
    [("after", 0.9, 1), ("after", 0, 1), ("after", 1, 0), ("before", 0.1, 1), ("before", 1, 1), ("before", 0, 0)],
)
@pytest.mark.parametrize("iso", [False, True])
def test_the_millisecond_in_which_a_time_lies_is_forgotten_too(
    gateway: Gateway, project: Project, writer: str, field: str, beside_ms: float, count: int, iso: bool
) -> None:
    gateway.chat(project.key, "When?")
    hit = gateway.chat(project.key, "When?")
    stored_ms = gateway.explained(hit)["stored_ms"]
    moment = (stored_ms + beside_ms) / 1000
    named = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds") if iso else moment
    assert gateway.post(INVALIDATE, writer, {field: named}).json()["invalidated"] == count


def test_another_projects_entries_are_untouched_and_uncounted(
    gateway: Gateway, sim: Sim, project: Project, writer: str
) -> None:
    other = gateway.installation.project("other")
    fill(gateway, other.key)
    gateway.chat(project.key, "One?")
    assert gateway.get("/v1/cache/stats", project.key).json()["entries"] == 1
    assert gateway.post(INVALIDATE, writer, {"all": True}).json()["invalidated"] == 1
    assert len(left(gateway, other.key)) == 4


def test_test_keys_forget_only_what_test_keys_stored(gateway: Gateway, sim: Sim, project: Project) -> None:
    test_key = gateway.installation.key(project.id, test=True, scopes=("inference", "cache:write"))
    gateway.chat(project.key, "One?")
    gateway.chat(test_key, "One?")
    assert gateway.post(INVALIDATE, test_key, {"all": True}).json()["invalidated"] == 1
    assert left(gateway, project.key) == ["One"]


def test_a_key_needs_the_scope(gateway: Gateway, sim: Sim, project: Project) -> None:
    fill(gateway, project.key)
    answer = gateway.post(INVALIDATE, project.key, {"all": True})
    assert (answer.status, answer.json()["error"]["code"]) == (403, "scope_missing")
    assert len(left(gateway, project.key)) == 4


def test_the_scope_to_forget_is_not_one_to_ask(gateway: Gateway, sim: Sim, project: Project) -> None:
    key = gateway.installation.key(project.id, scopes=("cache:write",))
    answer = gateway.chat(key, "One?")
    assert (answer.status, answer.json()["error"]["code"]) == (403, "scope_missing")
    assert gateway.post(INVALIDATE, key, {"all": True}).status == 200
    assert sim.calls() == 0


@pytest.mark.parametrize(
    "what",
    [
        {}, {"all": False}, {"all": "yes"}, {"model": ""}, {"model": 5}, {"kind": "everything"}, {"before": "soon"},
        {"before": -1}, {"after": True}, {"before": []}, {"models": "gpt-4o"}, {"all": True, "project": "x"},
        {"before": 1e300}, {"entry": "ent_12"}, {"entry": 5}, {"entry": "e" * 68}, {"request_id": 5},
        {"request_id": f"req_{'0' * 32}", "entry": f"ent_{'0' * 64}"}, {"entry": None}, {"request_id": None},
    ],
)  # fmt: skip
def test_a_filter_that_is_none_forgets_nothing(
    gateway: Gateway, sim: Sim, project: Project, writer: str, what: dict[str, object]
) -> None:
    gateway.chat(project.key, "One?")
    answer = gateway.post(INVALIDATE, writer, what)
    assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert left(gateway, project.key) == ["One"]


def request_of(answer: RawResponse) -> str:
    return answer.header("X-Request-Id") or ""


def test_the_entry_of_a_request_is_forgotten_and_no_other(
    gateway: Gateway, sim: Sim, project: Project, writer: str
) -> None:
    fill(gateway, project.key)
    hit = gateway.chat(project.key, "One?")
    assert (
        gateway.post(INVALIDATE, writer, {"request_id": request_of(hit), "model": "gpt-4"}).json()["invalidated"] == 0
    )
    assert gateway.post(INVALIDATE, writer, {"request_id": request_of(hit)}).json()["invalidated"] == 1
    assert left(gateway, project.key) == ["Two", "Three", "Four"]
    missed = gateway.chat(project.key, "One?")
    entry = gateway.explained(missed)["entry"]
    assert gateway.post(INVALIDATE, writer, {"entry": entry}).json()["invalidated"] == 1
    assert left(gateway, project.key) == ["Two", "Three", "Four"]


def test_another_projects_entry_can_neither_be_named_nor_found_out(
    gateway: Gateway, sim: Sim, project: Project, writer: str
) -> None:
    other = gateway.installation.project("other")
    fill(gateway, other.key)
    theirs = gateway.chat(other.key, "One?")
    entry = gateway.explained(theirs)["entry"]
    assert gateway.post(INVALIDATE, writer, {"entry": entry}).json()["invalidated"] == 0
    unknown = gateway.post(INVALIDATE, writer, {"request_id": request_of(theirs)})
    never_was = gateway.post(INVALIDATE, writer, {"request_id": f"req_{'0' * 32}"})
    assert (unknown.status, unknown.json()["error"]["code"]) == (404, never_was.json()["error"]["code"])
    assert unknown.json()["error"]["message"] == never_was.json()["error"]["message"]
    assert len(left(gateway, other.key)) == 4


def test_a_call_begun_before_its_entry_was_forgotten_is_not_stored_after(
    gateway: Gateway, sim: Sim, project: Project, writer: str
) -> None:
    slow = "gpt-4o-mini+slow-1s"
    before = gateway.chat(project.key, "Slow?", model=slow)
    answers = []
    refresh = {"X-WatchLLM-Cache": "refresh"}
    thread = threading.Thread(
        target=lambda: answers.append(gateway.chat(project.key, "Slow?", model=slow, headers=refresh))
    )
    thread.start()
    wait_for(lambda: sim.stats()["open"] == 1, "the call upstream")
    assert gateway.post(INVALIDATE, writer, {"request_id": request_of(before)}).json()["invalidated"] == 1
    thread.join(10)
    assert answers[0].status == 200
    assert gateway.chat(project.key, "Slow?", model=slow).header("X-WatchLLM-Cache") == "MISS"


def test_a_call_begun_before_is_not_stored_after(gateway: Gateway, sim: Sim, project: Project, writer: str) -> None:
    slow = "gpt-4o-mini+slow-1s"
    answers = []
    thread = threading.Thread(target=lambda: answers.append(gateway.chat(project.key, "Slow?", model=slow)))
    thread.start()
    wait_for(lambda: sim.stats()["open"] == 1, "the call upstream")
    assert gateway.post(INVALIDATE, writer, {"all": True}).status == 200
    thread.join(10)
    assert answers[0].status == 200
    assert gateway.chat(project.key, "Slow?", model=slow).header("X-WatchLLM-Cache") == "MISS"


def test_stats_count_entries_and_bytes(gateway: Gateway, sim: Sim, project: Project) -> None:
    empty = gateway.get("/v1/cache/stats", project.key).json()
    assert (empty["object"], empty["entries"], empty["bytes"]) == ("cache.stats", 0, 0)
    fill(gateway, project.key)
    stats = wait_for(
        lambda: found if (found := gateway.get("/v1/cache/stats", project.key).json())["entries"] == 4 else None,
        "all entries",
    )
    assert stats["by_kind"] == {"generate": 2, "completions": 1, "embeddings": 1}
    assert 0 < stats["bytes"] < stats["max_bytes"]


@pytest.mark.parametrize(("method", "path"), [("GET", INVALIDATE), ("POST", "/v1/cache/stats"), ("DELETE", INVALIDATE)])
def test_wrong_methods(gateway: Gateway, sim: Sim, project: Project, method: str, path: str) -> None:
    answer = exchange(gateway.port, request_bytes(path, key=project.key, body={"all": True}, method=method))
    assert (answer.status, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.header("Allow") == ("GET, HEAD" if path.endswith("stats") else "POST")


@pytest.mark.parametrize("path", [INVALIDATE, "/v1/cache/stats"])
def test_nothing_without_a_key(gateway: Gateway, sim: Sim, path: str) -> None:
    answer = gateway.post(path, None, {"all": True}) if path == INVALIDATE else gateway.get(path)
    assert (answer.status, answer.json()["error"]["code"]) == (401, "missing_api_key")
