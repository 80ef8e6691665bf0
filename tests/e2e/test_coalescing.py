"""Contract, section 6, "Coalescing": who shares a call upstream, what each gets, who pays, and what ends it."""

import asyncio
import json
from typing import Any

import pytest

from tests.support.inside import Inside, Reader, inside, run, until
from tests.support.product import Installation, Project
from tests.support.raw_http import RawResponse


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("coalescing") / "home")


@pytest.fixture
def project(home: Installation) -> Project:
    return home.project("coalescing")


def events_of(answer: RawResponse) -> list[dict[str, Any]]:
    """The chunks of a streamed answer, which must end as OpenAI's do."""
    lines = [line[6:] for line in answer.body.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]", answer.body[-300:]
    return [json.loads(line) for line in lines[:-1]]


def text_of(answer: RawResponse) -> str:
    """What the model said, in either form."""
    assert answer.status == 200, answer
    if (answer.header("content-type") or "").startswith("text/event-stream"):
        chunks = events_of(answer)
        return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    return str(answer.json()["choices"][0]["message"]["content"])


def kinds(answers: list[RawResponse]) -> list[str]:
    return sorted(answer.header("x-watchllm-cache") or "" for answer in answers)


def error_code(answer: RawResponse) -> str:
    return str(answer.json()["error"]["code"])


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
            answers = await asyncio.gather(*[pair.ask("hello", model="sim/echo+slow-100ms") for _ in range(20)])
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


# --- who leaves, and whose time is over ------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_the_call_goes_on_without_its_leader_who_pays_for_it(
    home: Installation, project: Project, stream: bool
) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            leader = await pair.open("left", stream=stream)
            await pair.all_wait(1)
            followers = [pair.ask("left", stream=stream) for _ in range(5)]
            await pair.all_wait(6)
            if stream:
                await pair.steps.release(3)
                await leader.read_until(b'"delta"')
            leader.leave()
            await pair.all_wait(5)
            assert not pair.events
            pair.steps.release_all()
            answers = await asyncio.gather(*followers)
            assert all(text_of(answer) for answer in answers)
            assert kinds(answers) == ["HIT-COALESCED"] * 5
            assert (pair.calls, pair.sim.ledger.cancelled) == (1, 0)
            await pair.all_settled()
            (miss,) = pair.of("MISS")
            assert (miss.status, miss.ended, miss.error) == (499, "cancelled", "client_left")
            assert miss.cost
            assert {(event.cost, event.saved) for event in pair.of("HIT-COALESCED")} == {(0, miss.cost)}
            assert (await pair.ask("left", stream=stream)).header("x-watchllm-cache") == "HIT"

    run(test())


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_all_have_left_is_cancelled(home: Installation, project: Project, stream: bool) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            readers = [await pair.open("all left", stream=stream) for _ in range(10)]
            await pair.all_wait(10)
            if stream:
                await pair.steps.release(2)
            for reader in readers:
                reader.leave()
            await pair.all_settled()
            await cancelled(pair, 1)
            assert {(event.status, event.ended) for event in pair.events} == {(499, "cancelled")}
            assert len(pair.of("MISS")) == 1
            again = pair.ask("all left", stream=stream)
            await pair.all_wait(1)
            pair.steps.release_all()
            assert (await again).header("x-watchllm-cache") == "MISS"

    run(test())


def test_a_leader_that_leaves_after_the_end_of_the_call_is_settled_though_another_still_reads(
    home: Installation, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchllm.proxy.shared_stream.MAX_LAG_BYTES", 64 << 20)

    async def test() -> None:
        async with inside(home, project) as pair:
            fields: dict[str, Any] = {"stream": True, "model": "gpt-4o-mini+tokens-40000"}
            readers = [await pair.open("end", receive_buffer=4096, **fields) for _ in range(2)]
            quick = pair.ask("end", **fields)
            await pair.all_wait(3)
            pair.steps.release_all()
            assert (await quick).status == 200
            assert not pair.services.flights
            readers[0].leave()
            await until(lambda: [event.ended for event in pair.of("MISS")] == ["cancelled"], "the leader's event")
            assert (await readers[1].answer()).body == (await quick).body
            readers[1].leave()

    run(test())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_s_own_time_ends_its_own_waiting_only(home: Installation, project: Project, stream: bool) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            impatient = {"x-watchllm-timeout": "0.2"}
            leader = pair.ask("in time", headers=impatient, stream=stream)
            await pair.all_wait(1)
            follower = pair.ask("in time", stream=stream)
            other = pair.ask("in time", headers=impatient, stream=stream)
            ended = [await leader, await other]
            assert [(answer.status, error_code(answer)) for answer in ended] == [(504, "provider_timeout")] * 2
            assert pair.waiting == 1
            pair.steps.release_all()
            assert text_of(await follower)
            assert pair.calls == 1
            await pair.all_settled()
            (miss,) = pair.of("MISS")
            assert (miss.status, miss.ended, miss.error) == (504, "error", "provider_timeout")
            assert miss.cost
            assert (await pair.ask("in time", stream=stream)).header("x-watchllm-cache") == "HIT"

    run(test())


def test_time_that_is_over_within_a_stream_is_told_inside_it(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            leader = pair.ask("cut short", headers={"x-watchllm-timeout": "0.3"}, stream=True)
            follower = pair.ask("cut short", stream=True)
            await pair.all_wait(2)
            await pair.steps.release(3)
            answer = await leader
            assert json.loads(answer.body.decode().split("\n\n")[-2][6:])["error"]["code"] == "provider_timeout"
            assert b"[DONE]" not in answer.body
            pair.steps.release_all()
            assert text_of(await follower)
            await pair.all_settled()
            (miss,) = pair.of("MISS")
            assert (miss.status, miss.ended, miss.error) == (200, "cut", "provider_timeout")

    run(test())


def test_the_time_of_a_client_alone_ends_the_call(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            answer = await pair.ask("alone in time", headers={"x-watchllm-timeout": "0.05"})
            assert (answer.status, error_code(answer)) == (504, "provider_timeout")
            await cancelled(pair, 1)

    run(test())


async def cancelled(pair: Inside, count: int) -> None:
    await until(lambda: pair.sim.ledger.cancelled == count, "the end of the call", within=1)


async def read_exactly(reader: Reader, size: int) -> None:
    while len(reader.received) < size:
        assert await reader.read(size - len(reader.received)), "the stream ended"


def test_a_follower_may_leave_at_every_byte_of_a_stream(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            leader = pair.ask("every byte", stream=True)
            await pair.steps.release(2)
            probe = await pair.open("every byte", stream=True)
            await probe.read_until(b'"content":""')
            await probe.read_until(b"\n\n\r\n")
            size = len(probe.received) - 8  # The figures in the head may have a digit less.
            probe.leave()
            for position in range(size):
                follower = await pair.open("every byte", stream=True)
                await read_exactly(follower, position)
                follower.leave()
            await pair.all_wait(1)
            pair.steps.release_all()
            assert text_of(await leader)
            assert (pair.calls, pair.sim.ledger.cancelled) == (1, 0)
            await pair.all_settled()
            left = pair.of("HIT-COALESCED")
            assert len(left) == size + 1
            assert {(event.status, event.ended, event.cost) for event in left} == {(499, "cancelled", 0)}

    run(test())


def test_a_leader_may_leave_at_any_byte_of_a_stream(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            for number, position in enumerate(range(0, 1200, 23), 1):
                leader = await pair.open(f"byte {position}", stream=True)
                await pair.steps.release(3)
                await read_exactly(leader, position)
                leader.leave()
                await cancelled(pair, number)
            await pair.all_settled()
            assert {(event.cache, event.status, event.ended) for event in pair.events} == {("MISS", 499, "cancelled")}

    run(test())


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("knob", "status", "code"),
    [
        ("status-500+slow-1s", 500, None),
        ("status-429+retry-after-7+slow-1s", 429, None),
        ("reset+slow-1s", 502, "provider_error"),
        ("html+slow-1s", 502, "provider_error"),
    ],
)
def test_a_failure_is_told_to_all_and_nobody_tries_again(
    home: Installation, project: Project, knob: str, status: int, code: str | None, stream: bool
) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            model = f"gpt-4o-mini+{knob}"
            asked = [pair.ask("fails", model=model, stream=stream) for _ in range(100)]
            await pair.all_wait(100)
            await pair.steps.release()
            answers = await asyncio.gather(*asked)
            assert pair.calls == 1
            assert {answer.status for answer in answers} == {status}
            assert len({answer.body for answer in answers}) == 1
            if code is not None:
                assert error_code(answers[0]) == code
            if status == 429:
                assert {answer.header("retry-after") for answer in answers} == {"7"}
            await pair.all_settled()
            assert {(event.status, event.ended) for event in pair.events} == {(status, "error")}
            assert sum(len(event.attempts) for event in pair.events) == 1
            again = pair.ask("fails", model=model, stream=stream)
            await pair.all_wait(1)
            await pair.steps.release()
            assert (await again).status == status
            assert pair.calls == 2

    run(test())


def test_a_cut_answer_fails_for_all(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            asked = [pair.ask("cut", model="gpt-4o-mini+cut-1+slow-1s") for _ in range(20)]
            await pair.all_wait(20)
            pair.steps.release_all()
            answers = await asyncio.gather(*asked)
            assert {(answer.status, error_code(answer)) for answer in answers} == {(502, "provider_error")}
            assert pair.calls == 1

    run(test())


@pytest.mark.parametrize(("knob", "ended"), [("cut-3", "cut"), ("stream-error-3", "error")])
def test_a_stream_that_breaks_off_says_so_to_all(home: Installation, project: Project, knob: str, ended: str) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            model = f"gpt-4o-mini+{knob}+slow-1s"
            streams = [pair.ask("broken", model=model, stream=True) for _ in range(20)]
            await pair.all_wait(20)
            whole = pair.ask("broken", model=model)
            await pair.all_wait(21)
            pair.steps.release_all()
            answers = await asyncio.gather(*streams)
            assert pair.calls == 1
            assert len({answer.body for answer in answers}) == 1
            assert "error" in json.loads(answers[0].body.decode().split("\n\n")[-2][6:])
            assert b"[DONE]" not in answers[0].body
            assert (await whole).status == 502
            await pair.all_settled()
            assert {event.ended for event in pair.events if event.streamed} == {ended}
            assert {event.error for event in pair.events} == {"provider_error"}
            assert (await pair.ask("broken", model=model, stream=True)).header("x-watchllm-cache") == "MISS"

    run(test())


def test_a_provider_that_says_nothing_times_out_for_all(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project, upstream_first_byte_timeout=0.3) as pair:
            answers = await asyncio.gather(*[pair.ask("hangs", model="gpt-4o-mini+hang") for _ in range(50)])
            assert {(answer.status, error_code(answer)) for answer in answers} == {(504, "provider_timeout")}
            assert (pair.calls, pair.sim.ledger.cancelled) == (1, 1)

    run(test())


def test_a_provider_that_cannot_be_reached_fails_for_all(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project, base_url="http://127.0.0.1:1/v1") as pair:
            answers = await asyncio.gather(*[pair.ask("nobody there") for _ in range(50)])
            assert {(answer.status, error_code(answer)) for answer in answers} == {(502, "provider_unreachable")}
            assert pair.calls == 0

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
            assert pair.calls == 4
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
