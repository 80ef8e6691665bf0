"""Contract, section 6, "Coalescing": who shares a call upstream, what each gets, who pays, and what ends it."""

import asyncio
from typing import Any

import pytest

from tests.support.coalescing import events_of, kinds, text_of
from tests.support.inside import Inside, inside, run, until
from tests.support.product import Installation, Project
from tests.support.raw_http import RawResponse


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("coalescing") / "home")


@pytest.fixture
def project(home: Installation) -> Project:
    return home.project("coalescing")


# --- one call for all ------------------------------------------------------------------------------------------------


def test_a_thousand_identical_requests_make_one_call(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            asked = [pair.ask("the same question") for _ in range(1000)]
            await pair.all_wait(1000)
            await pair.steps.release()
            answers = await asyncio.gather(*asked)
            assert pair.calls == 1
            assert {answer.status for answer in answers} == {200}
            assert len({answer.body for answer in answers}) == 1
            assert kinds(answers) == ["HIT-COALESCED"] * 999 + ["MISS"]
            paid = next(answer for answer in answers if answer.header("x-watchllm-cache") == "MISS")
            cost = paid.header("x-watchllm-cost-usd")
            assert cost is not None
            assert float(cost) > 0
            tokens = str(paid.json()["usage"]["total_tokens"])
            for answer in answers:
                if answer is not paid:
                    assert answer.header("x-watchllm-cost-usd") == "0.000000"
                    assert answer.header("x-watchllm-saved-usd") == cost
                    assert answer.header("x-watchllm-tokens-saved") == tokens
                    assert answer.header("x-watchllm-cache-age") == "0"
            await pair.all_settled()
            (miss,) = pair.of("MISS")
            assert len(miss.attempts) == 1
            assert {(event.cost, event.saved, event.attempts) for event in pair.of("HIT-COALESCED")} == {
                (0, miss.cost, ())
            }
            assert (await pair.ask("the same question")).header("x-watchllm-cache") == "HIT"

    run(test())


def test_a_thousand_identical_streams_make_one_call(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            asked = [pair.ask("the same stream", stream=True) for _ in range(1000)]
            await pair.all_wait(1000)
            pair.steps.release_all()
            answers = await asyncio.gather(*asked)
            assert pair.calls == 1
            assert len({answer.body for answer in answers}) == 1
            assert text_of(answers[0])
            assert kinds(answers) == ["HIT-COALESCED"] * 999 + ["MISS"]
            await pair.all_settled()
            (miss,) = pair.of("MISS")
            assert miss.cost
            assert {(event.cost, event.saved, event.ended) for event in pair.of("HIT-COALESCED")} == {
                (0, miss.cost, "complete")
            }
            stored = await pair.ask("the same stream")
            assert stored.header("x-watchllm-cache") == "HIT"
            assert text_of(stored) == text_of(answers[0])

    run(test())


@pytest.mark.parametrize("leader", ["whole", "stream", "stream with usage"])
def test_each_gets_the_form_that_it_asked_for(home: Installation, project: Project, leader: str) -> None:
    forms: dict[str, dict[str, Any]] = {
        "whole": {},
        "stream": {"stream": True},
        "stream with usage": {"stream": True, "stream_options": {"include_usage": True}},
    }

    async def test() -> None:
        async with inside(home, project) as pair:
            order = [leader, *(name for name in forms if name != leader), leader]
            asked = []
            for number, name in enumerate(order, 1):
                asked.append(pair.ask("any form", **forms[name]))
                await pair.all_wait(number)
            pair.steps.release_all()
            answers = await asyncio.gather(*asked)
            assert pair.calls == 1
            assert len({text_of(answer) for answer in answers}) == 1
            for name, answer in zip(order, answers, strict=True):
                if name == "whole":
                    assert answer.json()["object"] == "chat.completion"
                    assert answer.json()["usage"]["total_tokens"] > 0
                    continue
                chunks = events_of(answer)
                if name == "stream":
                    assert not any("usage" in chunk for chunk in chunks)
                else:
                    assert chunks[-1]["choices"] == []
                    assert chunks[-1]["usage"]["total_tokens"] > 0
            assert kinds(answers) == ["HIT-COALESCED"] * 3 + ["MISS"]
            await pair.all_settled()
            assert len({event.usage for event in pair.events}) == 1

    run(test())


def test_the_first_requests_to_the_built_in_simulator_share_a_call(home: Installation, project: Project) -> None:
    """It is started by the first of them, and the others come while it starts."""

    async def test() -> None:
        async with inside(home, project) as pair:
            answers = await asyncio.gather(*[pair.ask("hello", model="sim/echo+slow-1s") for _ in range(20)])
            assert kinds(answers) == ["HIT-COALESCED"] * 19 + ["MISS"]

    run(test())


def test_of_those_whom_the_answer_does_not_fit_one_asks_again_for_all(home: Installation, project: Project) -> None:
    """A filtered answer is no entry and cannot be told as a stream."""

    async def test() -> None:
        async with inside(home, project) as pair:
            model = "gpt-4o-mini+content-filter+slow-1s"
            asked = [pair.ask("filtered", model=model)]
            await pair.all_wait(1)
            asked += [pair.ask("filtered", model=model, stream=True) for _ in range(50)]
            await pair.all_wait(51)
            await pair.steps.release()
            first = await asked[0]
            await pair.all_wait(50)
            pair.steps.release_all()
            streams = await asyncio.gather(*asked[1:])
            assert pair.calls == 2
            assert len({text_of(answer) for answer in streams}) == 1
            assert kinds([first, *streams]) == ["HIT-COALESCED"] * 49 + ["MISS"] * 2
            await pair.all_settled()
            assert sum(len(event.attempts) for event in pair.events) == 2

    run(test())


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_late_follower_sees_the_stream_from_its_first_byte(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            first = await pair.open("late", stream=True)
            await pair.steps.release(3)
            await first.read_until(b'"delta"')
            late = await pair.open("late", stream=True)
            await pair.all_wait(2)
            await late.read_until(b'"role":"assistant"')  # before the provider goes on
            pair.steps.release_all()
            answers = [await first.answer(), await late.answer()]
            assert answers[0].body == answers[1].body
            assert kinds(answers) == ["HIT-COALESCED", "MISS"]
            assert pair.calls == 1
            first.leave()
            late.leave()

    run(test())


def test_a_reader_that_does_not_read_slows_no_other(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            fields: dict[str, Any] = {"stream": True, "model": "gpt-4o-mini+tokens-20000"}  # 5 MB
            slow = await pair.open("slow", receive_buffer=4096, **fields)
            await pair.all_wait(1)
            quick = [pair.ask("slow", **fields) for _ in range(3)]
            await pair.all_wait(4)
            pair.steps.release_all()
            answers = await asyncio.gather(*quick)
            assert not any(event.cache == "MISS" for event in pair.events)
            last = await slow.answer()
            assert {answer.body for answer in answers} == {last.body}
            assert pair.calls == 1
            slow.leave()

    run(test())


def test_with_one_reader_the_provider_is_read_no_faster_than_the_client_reads(
    home: Installation, project: Project
) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            slow = await pair.open("alone", receive_buffer=4096, stream=True, model="gpt-4o-mini+tokens-60000")
            await pair.all_wait(1)
            pair.steps.release_all()
            await until(lambda: pair.paused, "the pause")
            assert pair.sim.ledger.open
            answer = await slow.answer()
            assert text_of(answer)
            slow.leave()

    run(test())


def test_who_comes_while_upstream_is_paused_does_not_wait_for_the_slow_one(
    home: Installation, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchllm.proxy.shared_stream.JOINABLE_BYTES", 64 << 20)
    monkeypatch.setattr("watchllm.proxy.shared_stream.MAX_LAG_BYTES", 128 << 20)

    async def test() -> None:
        async with inside(home, project) as pair:
            fields: dict[str, Any] = {"stream": True, "model": "gpt-4o-mini+tokens-60000"}
            slow = await pair.open("paused", receive_buffer=4096, **fields)
            await pair.all_wait(1)
            pair.steps.release_all()
            await until(lambda: pair.paused, "the pause")
            quick = await pair.ask("paused", **fields)
            assert quick.header("x-watchllm-cache") == "HIT-COALESCED"
            assert (await slow.answer()).body == quick.body
            slow.leave()

    run(test())


# --- who neither leads nor joins -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"cache-control": "no-store"}, {}),
        ({"cache-control": "no-cache"}, {}),
        ({"x-watchllm-cache": "off"}, {}),
        ({"x-watchllm-cache": "refresh"}, {}),
        ({"x-watchllm-cache-ttl": "0"}, {}),
        ({"x-watchllm-cache-scope": "user"}, {}),
        ({}, {"store": True}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_who_must_not_read_or_store_neither_leads_nor_joins(
    home: Installation, project: Project, headers: dict[str, str], fields: dict[str, Any], stream: bool
) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            alone = [pair.ask("by itself", headers=headers, stream=stream, **fields) for _ in range(2)]
            await until(lambda: pair.calls == 2, "2 calls")
            assert pair.waiting == 0
            others = [pair.ask("by itself", stream=stream) for _ in range(2)]
            await pair.all_wait(2)
            alone.append(pair.ask("by itself", headers=headers, stream=stream, **fields))
            await until(lambda: pair.calls == 4, "4 calls")
            assert pair.waiting == 2
            pair.steps.release_all()
            answers = await asyncio.gather(*alone)
            assert not {"HIT-COALESCED", "HIT"} & set(kinds(answers))
            assert kinds(await asyncio.gather(*others)) == ["HIT-COALESCED", "MISS"]
            assert pair.calls == 4

    run(test())


def test_projects_users_and_test_keys_do_not_share_calls(home: Installation, project: Project) -> None:
    async def test() -> None:
        stranger = home.project("stranger")
        second = home.key(project.id)
        test_key = home.key(project.id, test=True)
        async with inside(home, project) as pair:
            users = [{"x-watchllm-cache-scope": "user", "x-watchllm-user": name} for name in ("ann", "bob")]
            asked = [
                pair.ask("mine"),
                pair.ask("mine", key=stranger.key),
                *(pair.ask("mine", headers=user) for user in users),
            ]
            await pair.all_wait(4)
            asked += [pair.ask("mine", key=second), pair.ask("mine", headers=users[0])]
            await pair.all_wait(6)
            assert len(pair.services.flights) == 4
            await until(lambda: pair.calls == 4, "all four calls are made")
            tested = await pair.ask("mine", key=test_key, model="sim/echo")  # the simulator's only
            assert tested.header("x-watchllm-cache") == "MISS"
            pair.steps.release_all()
            assert kinds(list(await asyncio.gather(*asked))) == ["HIT-COALESCED"] * 2 + ["MISS"] * 4

    run(test())


def test_a_test_key_does_not_join_the_same_call_of_the_project(home: Installation, project: Project) -> None:
    async def test() -> None:
        test_key = home.key(project.id, test=True)
        async with inside(home, project) as pair:
            model = "sim/echo+slow-500ms"
            asked = [pair.ask("same model", model=model), pair.ask("same model", model=model, key=test_key)]
            await pair.all_wait(2)
            assert len(pair.services.flights) == 2
            assert kinds(list(await asyncio.gather(*asked))) == ["MISS"] * 2

    run(test())


# --- invalidation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_begun_before_an_invalidation_is_neither_joined_nor_stored_after_it(
    home: Installation, project: Project, stream: bool
) -> None:
    async def test() -> None:
        key = home.key(project.id, scopes=("inference", "cache:write"))
        async with inside(home, project) as pair:
            before = [pair.ask("old", stream=stream) for _ in range(2)]
            await pair.all_wait(2)
            (old,) = pair.services.flights.values()
            assert (await invalidate(pair, key)).status == 200
            after = [pair.ask("old", stream=stream) for _ in range(2)]
            await until(lambda: pair.calls == 2, "2 calls")
            await pair.all_wait(2)
            assert list(pair.services.flights.values()) != [old]
            del old
            pair.steps.release_all()
            assert kinds(list(await asyncio.gather(*before))) == ["HIT-COALESCED", "MISS"]
            assert kinds(list(await asyncio.gather(*after))) == ["HIT-COALESCED", "MISS"]
            assert pair.calls == 2

    run(test())


def test_the_answer_of_a_call_begun_before_an_invalidation_is_not_stored(home: Installation, project: Project) -> None:
    async def test() -> None:
        key = home.key(project.id, scopes=("inference", "cache:write"))
        async with inside(home, project) as pair:
            before = pair.ask("forgotten")
            await pair.all_wait(1)
            assert (await invalidate(pair, key)).status == 200
            pair.steps.release_all()
            assert (await before).status == 200
            assert (await pair.ask("forgotten")).header("x-watchllm-cache") == "MISS"
            assert (await pair.ask("forgotten")).header("x-watchllm-cache") == "HIT"

    run(test())


async def invalidate(pair: Inside, key: str) -> RawResponse:
    return await pair.ask("", key=key, path="/v1/cache/invalidate", body={"all": True})
