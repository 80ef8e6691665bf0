"""The cache as a client steers and sees it: Cache-Control, X-WatchLLM-Cache*, what the answer's headers say."""

import json
import time

import pytest

from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import RawResponse
from tests.support.scripted_upstream import Call, Script, ScriptedUpstream, scripted_upstream
from tests.support.waiting import wait_for

CHAT = "/v1/chat/completions"


def cache_of(answer: RawResponse) -> tuple[int, str | None]:
    return answer.status, answer.header("X-WatchLLM-Cache")


def twice(gateway: Gateway, key: str, first: dict[str, str], second: dict[str, str]) -> list[str | None]:
    return [gateway.chat(key, "Again?", headers=headers).header("X-WatchLLM-Cache") for headers in (first, second)]


# --- what a request may ask for --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "seen"),
    [
        ({}, {}, ["MISS", "HIT"]),
        ({"Cache-Control": "no-store"}, {}, ["MISS", "MISS"]),
        ({}, {"Cache-Control": "no-store"}, ["MISS", "HIT"]),
        ({}, {"Cache-Control": "no-cache"}, ["MISS", "MISS"]),
        ({"Cache-Control": "no-cache"}, {}, ["MISS", "HIT"]),
        ({}, {"Cache-Control": "no-cache, no-store"}, ["MISS", "BYPASS"]),
        ({}, {"Cache-Control": "NO-CACHE , x-future=1"}, ["MISS", "MISS"]),
        ({}, {"Cache-Control": "max-age=1000"}, ["MISS", "HIT"]),
        ({}, {"Cache-Control": "only-if-cached"}, ["MISS", "HIT"]),
        ({}, {"X-WatchLLM-Cache": "off"}, ["MISS", "BYPASS"]),
        ({"X-WatchLLM-Cache": "off"}, {}, ["BYPASS", "MISS"]),
        ({}, {"X-WatchLLM-Cache": "exact"}, ["MISS", "HIT"]),
        ({}, {"X-WatchLLM-Cache": "semantic"}, ["MISS", "HIT"]),
        ({}, {"X-WatchLLM-Cache": "refresh"}, ["MISS", "MISS"]),
        ({"X-WatchLLM-Cache": "refresh"}, {}, ["MISS", "HIT"]),
        ({"X-WatchLLM-Cache-TTL": "0"}, {}, ["MISS", "MISS"]),
        ({"X-WatchLLM-Cache-TTL": "100"}, {}, ["MISS", "HIT"]),
        ({"X-WatchLLM-Cache-TTL": "-1"}, {}, ["MISS", "HIT"]),
        ({"X-WatchLLM-Cache-Scope": "user"}, {}, ["BYPASS", "MISS"]),
        ({}, {"X-WatchLLM-Cache-Scope": "project"}, ["MISS", "HIT"]),
        ({"X-WatchLLM-User": "ann"}, {"X-WatchLLM-User": "bob"}, ["MISS", "HIT"]),
    ],
)
def test_what_a_request_asks_of_the_cache(
    gateway: Gateway, sim: Sim, project: Project, first: dict[str, str], second: dict[str, str], seen: list[str]
) -> None:
    assert twice(gateway, project.key, first, second) == seen
    assert sim.calls() == 2 - seen.count("HIT")


def test_refresh_replaces_the_stored_answer(gateway: Gateway, sim: Sim, project: Project) -> None:
    answers = [
        gateway.chat(project.key, "Fresh?", headers=headers) for headers in ({}, {"X-WatchLLM-Cache": "refresh"}, {})
    ]
    ids = [answer.json()["id"] for answer in answers]
    assert ids[0] != ids[1]
    assert ids[2] == ids[1]


def test_only_if_cached_never_calls_upstream(gateway: Gateway, sim: Sim, project: Project) -> None:
    answer = gateway.chat(project.key, "Known?", headers={"Cache-Control": "only-if-cached"})
    assert (answer.status, answer.json()["error"]["code"]) == (504, "not_in_cache")
    assert sim.calls() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Cache-Control", "max-age=soon"),
        ("Cache-Control", "stale-if-error"),
        ("Cache-Control", "max-age=-1"),
        ("X-WatchLLM-Cache", "maybe"),
        ("X-WatchLLM-Cache-TTL", "1.5"),
        ("X-WatchLLM-Cache-TTL", "-2"),
        ("X-WatchLLM-Cache-TTL", "9" * 50),
        ("X-WatchLLM-Cache-Scope", "world"),
        ("X-WatchLLM-Cache-Threshold", "0.49"),
        ("X-WatchLLM-Cache-Threshold", "1.01"),
        ("X-WatchLLM-Cache-Threshold", "nan"),
        ("X-WatchLLM-Cache-Threshold", "high"),
        ("X-WatchLLM-Timeout", "0"),
        ("X-WatchLLM-Timeout", "nan"),
        ("X-WatchLLM-Timeout", "inf"),
    ],
)
def test_a_header_that_means_nothing_is_refused_by_name(
    gateway: Gateway, sim: Sim, project: Project, name: str, value: str
) -> None:
    answer = gateway.chat(project.key, "Hm?", headers={name: value})
    assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert name in answer.json()["error"]["message"]
    assert sim.calls() == 0


def test_an_entry_older_than_max_age_does_not_answer(gateway: Gateway, sim: Sim, project: Project) -> None:
    gateway.chat(project.key, "Old?")
    refused = {"Cache-Control": "max-age=0, only-if-cached"}
    # Age is counted in milliseconds: as soon as one has passed, the entry is too old.
    wait_for(lambda: gateway.chat(project.key, "Old?", headers=refused).status == 504, "the entry's age")
    assert cache_of(gateway.chat(project.key, "Old?")) == (200, "HIT")


def test_entries_expire(gateway: Gateway, sim: Sim, project: Project) -> None:
    began = time.monotonic()
    gateway.chat(project.key, "Brief?", headers={"X-WatchLLM-Cache-TTL": "1"})
    only = {"Cache-Control": "only-if-cached"}
    kept = gateway.chat(project.key, "Brief?", headers=only)
    # On a machine that is busy enough its second is over before it is asked for.
    assert cache_of(kept) == (200, "HIT") or time.monotonic() - began >= 1
    wait_for(lambda: gateway.chat(project.key, "Brief?", headers=only).status == 504, "the entry's expiry")
    assert time.monotonic() - began >= 1


# --- when upstream fails ---------------------------------------------------------------------------------------------

_GOOD = json.dumps(
    {
        "id": "chatcmpl-kept",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Kept."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }
).encode()
_FAILURES: dict[str, Script] = {
    "500": lambda call: call.reply(500, b'{"error":{"message":"down"}}'),
    "503": lambda call: call.reply(503, b"{}", retry_after="5"),
    "401": lambda call: call.reply(401, b"{}"),
    "garbage": lambda call: call.reply(200, b"<html>"),
    "hanging up": Call.hang_up,
    "hanging": lambda call: call.server.hang(call),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", _FAILURES)
def test_an_expired_entry_answers_when_upstream_fails(open_gateway: Gateway, sim: Sim, how: str, stream: bool) -> None:
    ask = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Stale?"}], "stream": stream}
    timeout = {"X-WatchLLM-Timeout": "0.5"}
    with scripted_upstream(lambda call: call.reply(200, _GOOD)) as upstream:
        key = project_behind(open_gateway, upstream)
        made = {**ask, "stream": False}
        assert open_gateway.post(CHAT, key, made, headers={"X-WatchLLM-Cache-TTL": "1"}).status == 200
        only = {"Cache-Control": "only-if-cached"}
        wait_for(lambda: open_gateway.post(CHAT, key, ask, headers=only).status == 504, "the expiry")
        upstream.script = _FAILURES[how]
        answer = open_gateway.post(CHAT, key, ask, headers={"Cache-Control": "stale-if-error=60", **timeout})
        assert cache_of(answer) == (200, "HIT-STALE")
        assert b"Kept." in answer.body
        assert int(str(answer.header("X-WatchLLM-Cache-Age"))) >= 1
        for headers in ({}, {"Cache-Control": "stale-if-error=0"}):
            refused = open_gateway.post(CHAT, key, ask, headers={**headers, **timeout})
            assert (refused.status >= 500, refused.header("X-WatchLLM-Cache")) == (True, "MISS")


def test_a_refusal_of_the_request_is_no_failure(open_gateway: Gateway, sim: Sim) -> None:
    with scripted_upstream(lambda call: call.reply(200, _GOOD)) as upstream:
        key = project_behind(open_gateway, upstream)
        open_gateway.chat(key, "Stale?")
        upstream.script = lambda call: call.reply(422, b'{"error":{"message":"no"}}')
        headers = {"Cache-Control": "stale-if-error=60, max-age=0", "X-WatchLLM-Cache": "refresh"}
        assert open_gateway.chat(key, "Stale?", headers=headers).status == 422


def project_behind(gateway: Gateway, upstream: ScriptedUpstream, **settings: str) -> str:
    """The key of a new project whose OpenAI is `upstream`."""
    project = gateway.installation.project("scripted", settings=settings)
    with gateway.installation.control_plane() as plane:
        plane.add_provider_key(project.id, "openai", "sk-own-0123456789abcdef", base_url=upstream.base_url)
    return project.key


# --- what is left alone ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"store": True},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"web_search_options": {}},
        {"tools": [{"type": "web_search"}]},
    ],
)
def test_requests_that_depend_on_state_at_the_provider_bypass(
    gateway: Gateway, sim: Sim, project: Project, fields: dict[str, object]
) -> None:
    for _ in range(2):
        answer = gateway.chat(project.key, "State?", **fields)
        assert answer.header("X-WatchLLM-Cache") == "BYPASS"
    assert sim.calls() == 2


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"cache": "off"}, ["BYPASS", "BYPASS"]),
        ({"cache_ttl": "0"}, ["BYPASS", "BYPASS"]),
        ({"cache_ttl": "-1"}, ["MISS", "HIT"]),
        ({"cache_scope": "user"}, ["BYPASS", "BYPASS"]),
    ],
)
def test_the_projects_policy(gateway: Gateway, sim: Sim, settings: dict[str, str], seen: list[str]) -> None:
    project = gateway.installation.project("policy", settings=settings)
    assert twice(gateway, project.key, {}, {}) == seen


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"cache": "off"}, {"X-WatchLLM-Cache": "exact"}),
        ({"cache_ttl": "0"}, {"X-WatchLLM-Cache-TTL": "1000"}),
        ({"cache_ttl": "0"}, {"X-WatchLLM-Cache-TTL": "-1"}),
        ({"cache_scope": "user"}, {"X-WatchLLM-Cache-Scope": "project"}),
    ],
)
def test_a_request_cannot_be_looser_than_its_project(
    gateway: Gateway, sim: Sim, settings: dict[str, str], headers: dict[str, str]
) -> None:
    project = gateway.installation.project("strict", settings=settings)
    assert "HIT" not in twice(gateway, project.key, headers, headers)
    assert sim.calls() == 2


def test_what_was_stored_before_a_project_said_never_does_not_answer_any_more(gateway: Gateway, sim: Sim) -> None:
    project = gateway.installation.project("never")
    assert twice(gateway, project.key, {}, {}) == ["MISS", "HIT"]
    gateway.installation.run("project", "set", project.id, "cache_ttl=0")
    assert twice(gateway, project.key, {}, {}) == ["BYPASS", "BYPASS"]
    assert twice(gateway, project.key, {"X-WatchLLM-Cache": "exact"}, {}) == ["BYPASS", "BYPASS"]


@pytest.mark.parametrize("threshold", ["0.50", "0.9", "1.00"])
def test_exact_answers_satisfy_every_threshold(gateway: Gateway, sim: Sim, project: Project, threshold: str) -> None:
    headers = {"X-WatchLLM-Cache-Threshold": threshold}
    assert twice(gateway, project.key, headers, headers) == ["MISS", "HIT"]


def test_scope_user_keeps_users_apart(gateway: Gateway, sim: Sim) -> None:
    project = gateway.installation.project("users", settings={"cache_scope": "user"})
    seen = [
        gateway.chat(project.key, "Mine?", headers={"X-WatchLLM-User": name}).header("X-WatchLLM-Cache")
        for name in ("ann", "bob", "ann", "bob", "Ann")
    ]
    assert seen == ["MISS", "MISS", "HIT", "HIT", "MISS"]


# --- test keys -------------------------------------------------------------------------------------------------------


def test_a_test_key_reaches_only_the_simulator_and_shares_no_cache(
    gateway: Gateway, sim: Sim, project: Project
) -> None:
    test_key = gateway.installation.key(project.id, test=True)
    live = gateway.chat(project.key, "Really?")
    answers = [gateway.chat(test_key, "Really?") for _ in range(2)]
    assert [cache_of(answer) for answer in answers] == [(200, "MISS"), (200, "HIT")]
    assert {answer.header("X-WatchLLM-Provider") for answer in answers} == {"sim"}
    assert answers[0].json()["id"] != live.json()["id"]
    # The simulator behind `gateway` plays OpenAI; test keys get the proxy's own.
    assert sim.calls() == 1
    assert gateway.get("/v1/cache/stats", test_key).json()["entries"] == 1
    assert gateway.post(CHAT, test_key, {"model": "openai/gpt-4o", "messages": []}).status in (400, 403)
    assert sim.calls() == 1


# --- what outlives the process ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_cache_survives_restart_and_sigkill(installation: Installation, sim: Sim, end: str) -> None:
    installation.environment |= upstream_environment(sim.base_url)
    project = installation.project("lasting")
    proxy = installation.start_proxy()
    stored = proxy.chat(project.key, "Do you last?")
    # A commit follows within milliseconds: the count comes from what is committed.
    wait_for(lambda: proxy.get("/v1/cache/stats", project.key).json()["entries"] == 1, "the entry's commit")
    getattr(proxy.process, end)()
    again = installation.start_proxy()
    answer = again.chat(project.key, "Do you last?")
    assert (cache_of(answer), answer.body) == ((200, "HIT"), stored.body)
    assert again.get("/v1/cache/stats", project.key).json()["entries"] == 1
