"""Hard budgets and what costs nobody knows how much: refused, or charged for the most that it may cost."""

import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import RawConnection, RawResponse, exchange, request_bytes
from tests.support.scripted_upstream import Call, ScriptedUpstream, scripted_upstream
from tests.support.waiting import wait_for
from watchllm.domain.limits import parse_limits
from watchllm.domain.settings import parse_settings
from watchllm.domain.snapshot import RouteRecord

pytestmark = pytest.mark.usefixtures("one_day")

MODEL = "gpt-4o-mini"  # 0.60 US dollars for a million tokens of output.


@dataclass
class Owner:
    """A project with a provider key of its own, whose provider is `upstream`."""

    gateway: Gateway
    project: Project
    upstream: ScriptedUpstream

    def set(self, **settings: object) -> None:
        with self.gateway.installation.control_plane() as plane:
            plane.set_project(self.project.id, parse_settings({name: str(value) for name, value in settings.items()}))

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> RawResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = request_bytes(path, key=self.project.key, body=body, method=method, headers=named)
        return exchange(self.gateway.port, data, method=method.encode())

    def spent(self) -> float:
        return float(self.gateway.installation.run_json("usage", "spent", self.project.id)["usd_total"])


@pytest.fixture(scope="module")
def proxy(shared_sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    environment = {**upstream_environment(shared_sim.base_url), "WATCHLLM_ALLOW_PRIVATE_URLS": "true"}
    home = Installation(tmp_path_factory.mktemp("budgets") / "home", environment)
    home.project("first")
    recorder = home.start_recorder()
    proxy = home.start_proxy()
    yield proxy
    proxy.stop()
    recorder.stop()


@pytest.fixture
def owner(proxy: Gateway) -> Iterator[Owner]:
    with scripted_upstream(lambda call: call.reply(200, b"{}")) as upstream:
        project = proxy.installation.project("owner", settings={"semantic": "off"})
        with proxy.installation.control_plane() as plane:
            plane.add_provider_key(project.id, "openai", "sk-own-0123456789-abcdef", base_url=upstream.base_url)
        yield Owner(proxy, project, upstream)


def error_of(answer: RawResponse) -> tuple[int, str]:
    return answer.status, answer.json()["error"]["code"]


COSTLY = [
    ("POST", "/v1/batches", {"input_file_id": "file-1", "endpoint": "/v1/chat/completions"}),
    ("POST", "/v1/threads/thread_1/runs", {"assistant_id": "asst_1"}),
    ("POST", "/v1/threads/runs", {"assistant_id": "asst_1", "model": MODEL}),
    ("POST", "/v1/fine_tuning/jobs", {"training_file": "file-1", "model": MODEL}),
    ("PUT", "/v1/batches", {"input_file_id": "file-1"}),
    ("POST", "/v1/videos", {"model": MODEL, "prompt": "x"}),
    ("POST", "/v1/something/new", {"prompt": "x"}),
]
FREE = [
    ("GET", "/v1/files", None),
    ("POST", "/v1/files", {"purpose": "batch"}),
    ("GET", "/v1/files/file-1/content", None),
    ("DELETE", "/v1/files/file-1", None),
    ("GET", "/v1/batches/batch_1", None),
    ("POST", "/v1/batches/batch_1/cancel", None),
    ("POST", "/v1/fine_tuning/jobs/job_1/cancel", None),
    ("GET", "/v1/responses/resp_1", None),
    ("DELETE", "/v1/responses/resp_1", None),
    ("POST", "/v1/responses/resp_1/cancel", None),
    ("GET", "/v1/chat/completions/chatcmpl-1", None),
]


@pytest.mark.parametrize(("method", "path", "body"), COSTLY)
def test_what_costs_nobody_knows_how_much_is_refused_under_a_hard_budget(
    owner: Owner, method: str, path: str, body: object
) -> None:
    owner.set(budget_usd_total=5)
    refused = owner.ask(method, path, body)
    assert error_of(refused) == (403, "model_not_allowed")
    assert "unpriced=allow" in refused.json()["error"]["message"]
    assert owner.upstream.calls == []
    owner.set(unpriced="allow")
    assert owner.ask(method, path, body).status == 200
    owner.set(unpriced="", budget_mode="alert")
    assert owner.ask(method, path, body).status == 200


def test_a_key_with_a_budget_is_refused_as_its_project_would_be(owner: Owner) -> None:
    with owner.gateway.installation.control_plane() as plane:
        made = plane.create_key(owner.project.id)
        plane.set_key(made.record.id, parse_limits({"budget_usd_day": "5"}))
    method, path, body = COSTLY[0]
    assert owner.ask(method, path, body).status == 200
    data = request_bytes(path, key=made.secret, body=body, method=method)
    assert error_of(exchange(owner.gateway.port, data, method=b"POST")) == (403, "model_not_allowed")


@pytest.mark.parametrize(("method", "path", "body"), FREE)
def test_what_costs_nothing_is_allowed_and_takes_nothing(owner: Owner, method: str, path: str, body: object) -> None:
    owner.set(budget_usd_total="0.000000001", tokens_per_minute=1)
    assert owner.ask(method, path, body).status == 200
    assert len(owner.upstream.calls) == 1


def test_an_encoded_body_is_taken_for_what_it_says(owner: Owner) -> None:
    words = json.dumps({"model": MODEL, "voice": "alloy", "input": "many words " * 40_000}).encode()
    owner.set(tokens_per_minute=50_000)
    encoded = {"content_type": "application/json", "content_encoding": "gzip"}
    refused = owner.ask("POST", "/v1/audio/speech", gzip.compress(words), **encoded)
    assert error_of(refused) == (429, "rate_limit_exceeded")
    owner.set(tokens_per_minute=500_000)
    assert owner.ask("POST", "/v1/audio/speech", gzip.compress(words), **encoded).status == 200
    # What it is charged for at most, where a budget holds, is that of the words, too.
    owner.set(tokens_per_minute="", budget_usd_total="0.01")
    assert error_of(owner.ask("POST", "/v1/audio/speech", gzip.compress(words), **encoded))[0] == 429


# --- responses --------------------------------------------------------------------------------------------------------


def queued(call: Call) -> None:
    body: dict[str, object] = {"id": "resp_1", "object": "response", "status": "queued", "model": MODEL}
    body |= {"output": [], "usage": None}
    call.reply(200, json.dumps(body).encode())


def test_a_response_in_the_background_is_refused_under_a_hard_budget(owner: Owner) -> None:
    owner.upstream.script = queued
    owner.set(budget_usd_total=5)
    asked: dict[str, object] = {"model": MODEL, "input": "x", "background": True, "max_output_tokens": 1000}
    refused = owner.ask("POST", "/v1/responses", asked)
    assert error_of(refused) == (403, "model_not_allowed")
    escaped = json.dumps(asked).replace("background", "b\\u0061ckground").encode()
    assert owner.ask("POST", "/v1/responses", escaped).status == 403
    assert owner.upstream.calls == []
    assert owner.ask("POST", "/v1/responses", asked | {"background": False}).status == 200


def test_where_it_is_allowed_a_response_in_the_background_is_charged_for_at_most_what_it_may_cost(owner: Owner) -> None:
    owner.upstream.script = queued
    asked = {"model": MODEL, "input": "x", "background": True, "max_output_tokens": 1000}
    owner.set(budget_usd_total="0.001", unpriced="allow")
    assert owner.ask("POST", "/v1/responses", asked).status == 200
    assert error_of(owner.ask("POST", "/v1/responses", asked)) == (429, "insufficient_quota")


def test_a_response_that_is_looked_at_again_is_neither_billed_nor_charged_again(owner: Owner) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 1000, "total_tokens": 2000}
    kept = {"id": "resp_1", "object": "response", "status": "completed", "model": MODEL, "output": [], "usage": usage}
    owner.upstream.script = lambda call: call.reply(200, json.dumps(kept).encode())
    owner.set(monthly_requests=2, budget_usd_total=5)
    first = owner.ask("POST", "/v1/responses", {"model": MODEL, "input": "x"})
    assert (first.status, first.header("x-quota-remaining")) == (200, "1")
    for method, path in [("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")]:
        answer = owner.ask(method, f"/v1/responses/resp_1{path}")
        assert answer.status == 200
    # While its head is made, a request holds its place in the month.
    assert owner.ask("POST", "/v1/responses", {"model": MODEL, "input": "y"}).status == 200
    assert error_of(owner.ask("POST", "/v1/responses", {"model": MODEL, "input": "z"})) == (429, "quota_exceeded")
    assert owner.ask("GET", "/v1/responses/resp_1").status == 200
    wait_for(lambda: owner.spent() > 0.0014, "both answers to be written down")
    assert owner.spent() < 0.0016


def test_an_answer_whose_client_leaves_is_charged_for_at_most_what_it_may_cost(owner: Owner) -> None:
    begun = threading.Event()

    def speaks(call: Call) -> None:
        call.send_response_only(200)
        call.send_header("content-type", "audio/mpeg")
        call.send_header("content-length", "1000000")
        call.end_headers()
        call.wfile.write(bytes(1000))
        call.wfile.flush()
        begun.set()
        owner.upstream.hang(call)

    owner.upstream.script = speaks
    owner.set(budget_usd_total=5)
    with RawConnection(owner.gateway.port) as connection:
        speech = {"model": MODEL, "voice": "alloy", "input": "x"}
        connection.send(request_bytes("/v1/audio/speech", key=owner.project.key, body=speech))
        assert begun.wait(10)
    wait_for(lambda: owner.spent() > 0, "the speech to be charged")


# --- quotas -----------------------------------------------------------------------------------------------------------


def test_a_route_that_begins_at_the_simulator_counts_where_it_leads_elsewhere(owner: Owner) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    choice = {"index": 0, "message": {"role": "assistant", "content": "real"}, "finish_reason": "stop"}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": usage}
    owner.upstream.script = lambda call: call.reply(200, json.dumps(body).encode())
    with owner.gateway.installation.control_plane() as plane:
        plane.set_route(owner.project.id, RouteRecord("fast", (("sim/status-500", 1),), (f"openai/{MODEL}",)))
        plane.set_route(owner.project.id, RouteRecord("safe", (("sim/echo", 1),), (f"openai/{MODEL}",)))
    owner.set(monthly_requests=2)

    def ask(text: str, model: str) -> RawResponse:
        return owner.gateway.chat(owner.project.key, text, model=model)

    assert [ask(text, "safe").status for text in ("one", "two", "three")] == [200, 200, 200]  # the simulator's
    served = [ask(text, "fast") for text in ("one", "two", "three")]
    assert [answer.status for answer in served] == [200, 200, 429]
    assert served[0].header("x-watchllm-provider") == "openai"
    assert error_of(served[2]) == (429, "quota_exceeded")
    assert ask("four", "sim/echo").status == 200
