"""Hard budgets and calls of which nobody hears the end: charged for the most that they may have cost."""

from collections.abc import Iterator

import pytest

from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.raw_http import RawConnection, RawResponse, request_bytes
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("one_day")

MODEL = "gpt-4o-mini"
OUTPUT = 1000
AT_MOST = OUTPUT * 0.6e-6
INPUT_ONLY = 1e-4
IMPATIENT = {"x-watchllm-timeout": "1"}


@pytest.fixture(scope="module")
def proxy(shared_sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = Installation(tmp_path_factory.mktemp("unheard") / "home", upstream_environment(shared_sim.base_url))
    home.home.mkdir()
    (home.home / "prices.toml").write_text('[openai."gpt-4o-mini*"]\ninput = 0.15\noutput = 0.6\n')
    home.project("first")
    recorder = home.start_recorder()
    proxy = home.start_proxy()
    yield proxy
    proxy.stop()
    recorder.stop()


def body_of(knobs: str, **fields: object) -> dict[str, object]:
    return {
        "model": MODEL + knobs,
        "messages": [{"role": "user", "content": "How long?"}],
        "max_tokens": OUTPUT,
        **fields,
    }


def project_with(proxy: Gateway, **settings: str) -> Project:
    return proxy.installation.project("unheard", settings={"semantic": "off", **settings})


def ask(proxy: Gateway, project: Project, knobs: str, **fields: object) -> RawResponse:
    return proxy.post("/v1/chat/completions", project.key, body_of(knobs, **fields), headers=IMPATIENT)


def spent(proxy: Gateway, project: Project) -> float:
    return float(proxy.installation.run_json("usage", "spent", project.id)["usd_total"])


def leave(proxy: Gateway, sim: Sim, project: Project, knobs: str, *, stream: bool = False, events: int = 0) -> None:
    """Ask, and go when the call is under way and so many events were read."""
    before = sim.calls()
    with RawConnection(proxy.port) as connection:
        connection.send(request_bytes("/v1/chat/completions", key=project.key, body=body_of(knobs, stream=stream)))
        received = b""
        while received.count(b"data: ") < events:
            received += connection.receive()
        wait_for(lambda: sim.calls() > before, "the call to be under way")


ENDS = ["+hang", "+reset", "+cut-3", "+half_json", "+stall-3+tokens-9"]


@pytest.mark.parametrize("knobs", ENDS)
def test_an_answer_that_does_not_come_whole_is_charged_for_at_most_what_it_may_cost(proxy: Gateway, knobs: str) -> None:
    project = project_with(proxy, budget_usd_total=f"{1.5 * AT_MOST:.6f}")
    assert ask(proxy, project, knobs).status >= 500
    refused = ask(proxy, project, knobs)
    assert (refused.status, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    wait_for(lambda: spent(proxy, project) >= AT_MOST, "what is counted to be told, too")


@pytest.mark.parametrize("knobs", ENDS)
def test_where_no_hard_budget_holds_it_is_charged_for_what_was_sent(proxy: Gateway, knobs: str) -> None:
    project = project_with(proxy, budget_usd_total=f"{AT_MOST:.6f}", budget_mode="alert")
    assert ask(proxy, project, knobs).status >= 500
    wait_for(lambda: spent(proxy, project) > 0, "what was sent to be charged")
    assert spent(proxy, project) < INPUT_ONLY


def test_whoever_leaves_early_again_and_again_spends_the_budget(proxy: Gateway, shared_sim: Sim) -> None:
    project = project_with(proxy, budget_usd_total=f"{3.5 * AT_MOST:.6f}")
    for _ in range(3):
        leave(proxy, shared_sim, project, "+slow-9s")
    wait_for(lambda: spent(proxy, project) >= 3 * AT_MOST, "three calls to be charged")
    refused = ask(proxy, project, "")
    assert (refused.status, refused.json()["error"]["code"]) == (429, "insufficient_quota")


def test_a_stream_that_is_left_is_charged_for_what_came_of_it(proxy: Gateway, shared_sim: Sim) -> None:
    project = project_with(proxy, budget_usd_total=f"{1.5 * AT_MOST:.6f}")
    leave(proxy, shared_sim, project, "+tokens-20+stall-9", stream=True, events=5)
    wait_for(lambda: spent(proxy, project) > 0, "what came to be charged")
    assert spent(proxy, project) < INPUT_ONLY
    leave(proxy, shared_sim, project, "+slow-9s", stream=True)
    wait_for(lambda: spent(proxy, project) >= AT_MOST, "the one that had not begun to be charged")


@pytest.mark.parametrize("knobs", ["+status-500", "+status-429", "+status-400"])
def test_what_the_provider_refuses_costs_nothing(proxy: Gateway, knobs: str) -> None:
    project = project_with(proxy, budget_usd_total=f"{1.5 * AT_MOST:.6f}")
    for _ in range(3):
        assert ask(proxy, project, knobs).status == int(knobs[-3:])
    assert ask(proxy, project, "").status == 200
    wait_for(lambda: spent(proxy, project) > 0, "the one that was answered to be charged")
    assert spent(proxy, project) < AT_MOST


@pytest.mark.parametrize("knobs", ["+hang", "+cut-3", "+half_json"])
def test_embeddings_that_do_not_come_whole_are_charged(proxy: Gateway, knobs: str) -> None:
    project = project_with(proxy, budget_usd_total="1")
    body = {"model": MODEL + knobs, "input": ["How long?", "How far?"]}
    assert proxy.post("/v1/embeddings", project.key, body, headers=IMPATIENT).status >= 500
    wait_for(lambda: spent(proxy, project) > 0, "them to be charged")
