"""Every kind of call takes a slot, waits for one where none is free, and gives it back however it ends."""

import asyncio

import pytest

from tests.support.admin import admin_get
from tests.support.coalescing import error_code
from tests.support.inside import inside, run, until
from tests.support.priority import CALLS, queued, saturated, timing, waiting
from tests.support.product import Gateway, Installation, Project, Sim, upstream_environment
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("priority") / "home")


@pytest.fixture
def project(home: Installation) -> Project:
    return home.project("own")


@pytest.mark.parametrize(("path", "body", "headers"), CALLS)
def test_the_requests_own_time_counts_in_the_queue_too(
    home: Installation, project: Project, path: str, body: object, headers: dict[str, str]
) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=1) as pair:
            first = await saturated(pair)
            asked = {**headers, "X-WatchLLM-Timeout": "0.05"}
            over = await pair.ask("", path=path, body=body, headers=asked)
            assert (over.status, error_code(over)) == (504, "provider_timeout")
            assert timing(over)["queue"] > 0
            assert waiting(pair) == 0
            pair.steps.release_all()
            assert (await first).status == 200
            assert pair.calls == 1

    run(test())


@pytest.mark.parametrize(("path", "body", "headers"), CALLS)
def test_every_kind_of_call_waits_its_turn_and_gives_its_slot_back(
    home: Installation, project: Project, path: str, body: object, headers: dict[str, str]
) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=1) as pair:
            first = await saturated(pair)
            asked = await queued(pair, "", path=path, body=body, headers=headers)
            behind = await queued(pair, "behind it")
            assert pair.calls == 1
            pair.steps.release_all()
            answers = await asyncio.gather(first, asked, behind)
            assert [answer.status for answer in answers] == [200, 200, 200]
            assert timing(answers[1])["queue"] > 0
            assert pair.sim.ledger.peak_open <= 1

    run(test())


@pytest.mark.parametrize(("path", "body", "headers"), CALLS)
def test_who_leaves_the_queue_is_not_called_for(
    home: Installation, project: Project, path: str, body: object, headers: dict[str, str]
) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=1) as pair:
            first = await saturated(pair)
            client = await pair.open("", path=path, body=body, headers=headers)
            await until(lambda: waiting(pair) == 1, "one waiting")
            behind = await queued(pair, "behind it")
            client.leave()
            await until(lambda: waiting(pair) == 1, "one less")
            pair.steps.release_all()
            assert {answer.status for answer in await asyncio.gather(first, behind)} == {200}
            assert pair.calls == 2
            await pair.all_settled()
            (left,) = [event for event in pair.events if event.error]
            assert (left.status, left.error, left.attempts, left.cost) == (499, "client_left", (), None)

    run(test())


@pytest.mark.parametrize(("path", "body", "headers"), CALLS)
def test_who_leaves_while_it_is_called_for_gives_its_slot_back(
    home: Installation, project: Project, path: str, body: object, headers: dict[str, str]
) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=1) as pair:
            client = await pair.open("", path=path, body=body, headers=headers)
            await until(lambda: pair.calls == 1, "the call")
            behind = await queued(pair, "behind it")
            client.leave()
            await until(lambda: pair.calls == 2, "the one behind it")
            pair.steps.release_all()
            assert (await behind).status == 200

    run(test())


def test_the_call_of_a_leader_that_left_the_queue_is_made_for_who_joined_it(
    home: Installation, project: Project
) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=1) as pair:
            first = await saturated(pair)
            leader = await pair.open("shared")
            await until(lambda: waiting(pair) == 1, "the leader waiting")
            follower = pair.ask("shared")
            await pair.all_wait(3)
            leader.leave()
            await pair.all_wait(2)
            assert waiting(pair) == 1
            pair.steps.release_all()
            answers = await asyncio.gather(first, follower)
            assert [answer.status for answer in answers] == [200, 200]
            assert pair.calls == 2

    run(test())


@pytest.mark.parametrize("model", ["gpt-4o-mini+status-500", "gpt-4o-mini+cut-1", "gpt-4o-mini+reset"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_fails_costs_no_slot(home: Installation, project: Project, model: str, stream: bool) -> None:
    async def test() -> None:
        async with inside(home, project, max_upstream=1) as pair:
            pair.steps.release_all()
            for number in range(3):
                with_fault = await pair.open(f"fails {number}", model=model, stream=stream)
                while await with_fault.read():
                    pass
                with_fault.leave()
            assert pair.services.slots.under_way == 0
            assert (await pair.ask("works")).status in (200, 503)

    run(test())


def test_a_process_with_one_slot_serves_one_call_after_the_other(installation: Installation, sim: Sim) -> None:
    installation.environment |= upstream_environment(sim.base_url) | {
        "ANTHROPIC_API_KEY": "sk-ant",
        "ANTHROPIC_BASE_URL": sim.base_url,
        "WATCHLLM_MAX_UPSTREAM": "1",
        "WATCHLLM_QUEUE_TIMEOUT": "1",
    }
    key = installation.project("first").key
    gateway = installation.start_proxy()
    messages = [{"role": "user", "content": "x"}]
    counting: tuple[str, object, dict[str, str]] = (
        "/v1/messages/count_tokens",
        {"model": "anthropic/claude-sonnet-4-5", "messages": messages},
        {},
    )
    for path, body, headers in (*CALLS, counting, *CALLS, counting):
        no_store = {"Cache-Control": "no-store", **headers}
        assert gateway.post(path, key, body, headers=no_store).status == 200, path
    lines = wait_for(
        lambda: lines if "watchllm_upstream_calls 0" in (lines := metrics_of(gateway)) else None, "no slot taken"
    )
    assert lines is not None
    assert "watchllm_upstream_slots 1" in lines


def metrics_of(gateway: Gateway) -> list[str]:
    return admin_get(gateway, "/metrics").body.decode().splitlines()
