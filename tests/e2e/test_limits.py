"""Limits through the socket: what is refused, what is told, and that stock clients understand both."""

import time
from concurrent.futures import ThreadPoolExecutor
from math import ceil

import openai
import pytest

from tests.support.product import Gateway, Project, Sim
from tests.support.raw_http import RawResponse
from tests.support.waiting import wait_for
from watchllm.domain.limits import parse_limits
from watchllm.domain.settings import parse_settings

SIMULATED = "sim/echo"


def limit(gateway: Gateway, project: Project, **limits: object) -> None:
    with gateway.installation.control_plane() as plane:
        plane.set_project(project.id, parse_settings({name: str(value) for name, value in limits.items()}))


def limited_key(gateway: Gateway, project: Project, **limits: object) -> str:
    with gateway.installation.control_plane() as plane:
        made = plane.create_key(project.id)
        plane.set_key(made.record.id, parse_limits({name: str(value) for name, value in limits.items()}))
        return made.secret


def ask(gateway: Gateway, key: str, text: str = "Why?", **fields: object) -> RawResponse:
    return gateway.chat(key, text, **{"model": SIMULATED, **fields})


def code_of(answer: RawResponse) -> str:
    return str(answer.json()["error"]["code"])


def test_requests_a_minute_are_told_on_every_answer_and_refused_beyond(gateway: Gateway, project: Project) -> None:
    limit(gateway, project, requests_per_minute=3)
    began = time.monotonic()
    answers = [ask(gateway, project.key) for _ in range(4)]  # the first is a miss, the next two are hits
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.header("x-ratelimit-remaining-requests") for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.header("x-ratelimit-limit-requests") for answer in answers} == {"3"}
    took = ceil(time.monotonic() - began)
    resets = {"1m0s", *(f"{60 - passed}s" for passed in range(1, took + 1))}
    assert {answer.header("x-ratelimit-reset-requests") for answer in answers} <= resets
    refused = answers[-1]
    assert code_of(refused) == "rate_limit_exceeded"
    assert "Server-Timing" not in refused.json()["error"]["message"]
    wait = int(refused.header("retry-after") or "0")
    assert ceil(60 - (time.monotonic() - began)) <= wait <= 60
    assert refused.header("x-watchllm-cache") is None


def test_a_project_without_limits_is_told_of_none(gateway: Gateway, project: Project) -> None:
    answer = ask(gateway, project.key)
    assert answer.header("x-ratelimit-limit-requests") is None
    assert answer.header("x-quota-limit") is None


def test_the_tightest_of_key_and_project_counts_and_is_told(gateway: Gateway, project: Project) -> None:
    limit(gateway, project, requests_per_minute=3)
    key = limited_key(gateway, project, requests_per_minute=2)
    assert ask(gateway, key).header("x-ratelimit-limit-requests") == "2"
    assert ask(gateway, key).header("x-ratelimit-remaining-requests") == "0"
    assert "This key" in ask(gateway, key).json()["error"]["message"]
    assert ask(gateway, project.key).header("x-ratelimit-remaining-requests") == "0"
    assert "This project" in ask(gateway, project.key).json()["error"]["message"]


def test_limits_of_projects_do_not_meet(gateway: Gateway, project: Project) -> None:
    limit(gateway, project, requests_per_minute=1)
    other = gateway.installation.project("other")
    limit(gateway, other, requests_per_minute=1)
    assert [ask(gateway, project.key).status for _ in range(2)] == [200, 429]
    assert ask(gateway, other.key).status == 200


def test_a_change_of_a_limit_holds_for_the_next_request(gateway: Gateway, project: Project) -> None:
    limit(gateway, project, requests_per_minute=1)
    assert [ask(gateway, project.key).status for _ in range(2)] == [200, 429]
    limit(gateway, project, requests_per_minute=2)
    assert [ask(gateway, project.key).status for _ in range(2)] == [200, 429]
    limit(gateway, project, requests_per_minute="")
    assert ask(gateway, project.key).header("x-ratelimit-limit-requests") is None


def test_requests_under_way_are_bounded_and_hits_need_no_place_for_long(
    gateway: Gateway, sim: Sim, project: Project
) -> None:
    limit(gateway, project, concurrent_requests=2)
    slow = "gpt-4o-mini+slow-2s"
    with ThreadPoolExecutor(2) as pool:
        under_way = [pool.submit(ask, gateway, project.key, f"slow {number}", model=slow) for number in range(2)]
        wait_for(lambda: sim.stats()["open"] == 2, "both to be under way")
        refused = [ask(gateway, project.key, f"one too many {number}") for number in range(4)]
        assert [future.result().status for future in under_way] == [200, 200]
    assert {(answer.status, code_of(answer)) for answer in refused} == {(429, "concurrency_exceeded")}
    assert refused[0].header("retry-after") == "1"
    assert ask(gateway, project.key, "afterwards").status == 200


def test_tokens_are_reserved_for_the_longest_answer_and_given_back(gateway: Gateway, project: Project) -> None:
    limit(gateway, project, tokens_per_minute=2000)
    first = ask(gateway, project.key, "one", max_tokens=1500)
    assert first.status == 200
    left = int(first.header("x-ratelimit-remaining-tokens") or "-1")
    usage = first.json()["usage"]["total_tokens"]
    assert left <= 500  # while the answer's head is made, all that it might use is still reserved
    second = ask(gateway, project.key, "one", max_tokens=1500)
    assert second.header("x-watchllm-cache") == "HIT"
    assert second.header("x-ratelimit-remaining-tokens") == str(2000 - usage)
    too_much = ask(gateway, project.key, "two", max_tokens=5000)
    assert (too_much.status, code_of(too_much)) == (429, "rate_limit_exceeded")
    assert too_much.header("retry-after") is None
    assert too_much.header("x-should-retry") == "false"
    assert "max_tokens" in too_much.json()["error"]["message"]
    inputs = {"model": "sim/embed", "input": ["too long " * 2000]}
    to_embed = gateway.post("/v1/embeddings", project.key, inputs)
    assert (to_embed.status, code_of(to_embed)) == (429, "rate_limit_exceeded")
    assert "max_tokens" not in to_embed.json()["error"]["message"]


def test_calls_upstream_are_bounded_and_hits_are_not(gateway: Gateway, project: Project) -> None:
    limit(gateway, project, upstream_per_minute=1)
    assert ask(gateway, project.key, "one").status == 200
    refused = ask(gateway, project.key, "two")
    assert (refused.status, code_of(refused)) == (429, "rate_limit_exceeded")
    assert ask(gateway, project.key, "one").header("x-watchllm-cache") == "HIT"
    embeddings = gateway.post("/v1/embeddings", project.key, {"model": "sim/embed", "input": ["a", "b"]})
    assert embeddings.status == 429


def test_requests_that_cannot_be_read_count_and_those_refused_do_not(gateway: Gateway, project: Project) -> None:
    limit(gateway, project, requests_per_minute=2)
    assert gateway.post("/v1/chat/completions", project.key, b"{").status == 400
    assert ask(gateway, project.key).status == 200
    for _ in range(3):
        assert ask(gateway, project.key).status == 429
    with gateway.installation.control_plane() as plane:
        plane.set_project(project.id, parse_settings({"requests_per_minute": "3"}))
    assert ask(gateway, project.key).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "sim/embed", "input": "x"}),
        ("/v1/messages", {"model": SIMULATED, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/responses", {"model": SIMULATED, "input": "x"}),
        ("/v1/completions", {"model": SIMULATED, "prompt": "x"}),
        ("/v1/moderations", {"model": "sim/moderate", "input": "x"}),
        ("/v1/messages/count_tokens", {"model": SIMULATED, "messages": [{"role": "user", "content": "x"}]}),
    ],
)
def test_every_endpoint_keeps_to_the_limits(
    gateway: Gateway, project: Project, path: str, body: dict[str, object]
) -> None:
    limit(gateway, project, requests_per_minute=1)
    first = gateway.post(path, project.key, body)
    assert first.header("x-ratelimit-remaining-requests") == "0"
    refused = gateway.post(path, project.key, body)
    assert refused.status == 429
    assert refused.header("retry-after") is not None


def test_lists_of_models_tell_the_limits_and_use_nothing(gateway: Gateway, project: Project) -> None:
    limit(gateway, project, requests_per_minute=2)
    for _ in range(3):
        answer = gateway.get("/v1/models", project.key)
        assert (answer.status, answer.header("x-ratelimit-remaining-requests")) == (200, "2")


def test_where_hits_are_hidden_no_header_tells_them_by_tokens(gateway: Gateway, project: Project) -> None:
    limit(gateway, project, hit_headers="off", tokens_per_minute=100_000, requests_per_minute=9)
    answers = [ask(gateway, project.key) for _ in range(2)]
    assert [answer.header("x-ratelimit-remaining-requests") for answer in answers] == ["8", "7"]
    assert {answer.header("x-ratelimit-remaining-tokens") for answer in answers} == {None}


def test_a_key_may_use_fewer_models_than_its_project(gateway: Gateway, project: Project) -> None:
    key = limited_key(gateway, project, allowed_models="sim/echo*")
    body = "the same words"
    assert ask(gateway, project.key, body, model="sim/gpt-4o").status == 200
    refused = ask(gateway, key, body, model="sim/gpt-4o")
    assert (refused.status, code_of(refused)) == (403, "model_not_allowed")
    assert "This key may not use" in refused.json()["error"]["message"]
    assert ask(gateway, key, body).status == 200
    assert {model["id"] for model in gateway.get("/v1/models", key).json()["data"]} <= {"sim/echo", "echo"}


def test_a_key_may_use_fewer_providers_than_its_project(gateway: Gateway, project: Project) -> None:
    key = limited_key(gateway, project, allowed_providers="sim")
    assert ask(gateway, key).status == 200
    refused = ask(gateway, key, model="gpt-4o-mini")
    assert (refused.status, code_of(refused)) == (403, "model_not_allowed")
    assert ask(gateway, project.key, model="gpt-4o-mini").status == 200


def test_a_key_is_bound_to_addresses(gateway: Gateway, project: Project) -> None:
    elsewhere = limited_key(gateway, project, allowed_ips="10.0.0.0/8, 2001:db8::/32")
    refused = ask(gateway, elsewhere)
    assert (refused.status, code_of(refused)) == (403, "ip_not_allowed")
    assert "127.0.0.1" in refused.json()["error"]["message"]
    forged = gateway.chat(elsewhere, "x", model=SIMULATED, headers={"X-Forwarded-For": "10.1.2.3"})
    assert forged.status == 403
    here = limited_key(gateway, project, allowed_ips="127.0.0.1")
    assert ask(gateway, here).status == 200


def test_a_model_without_a_price_is_refused_under_a_budget(open_gateway: Gateway) -> None:
    installation = open_gateway.installation
    project = installation.project("budgeted", settings={"budget_usd_total": "5"})
    refused = ask(open_gateway, project.key, model="openai/nobody-knows-its-price")
    assert (refused.status, code_of(refused)) == (403, "model_not_allowed")
    usual = installation.project("usual")
    key = limited_key(open_gateway, usual, budget_usd_day=1)
    assert ask(open_gateway, key, model="openai/nobody-knows-its-price").status == 403
    assert ask(open_gateway, usual.key, model="openai/nobody-knows-its-price").status == 200


def test_the_official_client_waits_as_it_is_told(gateway: Gateway, project: Project) -> None:
    limit(gateway, project, requests_per_minute=1)
    client = openai.OpenAI(base_url=gateway.base_url, api_key=project.key, max_retries=0)
    messages = [{"role": "user", "content": "x"}]
    raw = client.chat.completions.with_raw_response.create(model=SIMULATED, messages=messages)  # type: ignore[arg-type]
    assert raw.headers["x-ratelimit-limit-requests"] == "1"
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model=SIMULATED, messages=messages)  # type: ignore[arg-type]
    assert caught.value.code == "rate_limit_exceeded"
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 60
