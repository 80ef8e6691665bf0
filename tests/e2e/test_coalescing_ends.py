"""Coalescing: who leaves, whose time is over, and what fails for all."""

import asyncio
import gc
import json
from typing import Any

import pytest

from tests.support.coalescing import error_code, kinds, text_of
from tests.support.inside import Inside, Reader, in_memory, inside, run, until
from tests.support.product import Installation, Project
from watchllm.proxy.flight import Flight
from watchllm.proxy.request import Request
from watchllm.proxy.waiter import Waiter


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("coalescing") / "home")


@pytest.fixture
def project(home: Installation) -> Project:
    return home.project("coalescing")


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
            impatient = {"x-watchllm-timeout": "1"}
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
            leader = pair.ask("cut short", headers={"x-watchllm-timeout": "1"}, stream=True)
            await pair.all_wait(1)
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
            asked = pair.ask("alone in time", headers={"x-watchllm-timeout": "1"})
            await pair.all_wait(1)  # What is to be ended has to have begun.
            answer = await asked
            assert (answer.status, error_code(answer)) == (504, "provider_timeout")
            await cancelled(pair, 1)

    run(test())


async def cancelled(pair: Inside, count: int) -> None:
    await until(lambda: pair.sim.ledger.cancelled == count, "the end of the call")


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
        async with inside(home, project, upstream_first_byte_timeout=1.0) as pair:
            answers = await asyncio.gather(*[pair.ask("hangs", model="gpt-4o-mini+hang") for _ in range(50)])
            assert {(answer.status, error_code(answer)) for answer in answers} == {(504, "provider_timeout")}
            await cancelled(pair, 1)
            assert pair.calls == 1

    run(test())


def test_a_provider_that_cannot_be_reached_fails_for_all(home: Installation, project: Project) -> None:
    async def test() -> None:
        async with inside(home, project, base_url="http://127.0.0.1:1/v1") as pair:
            answers = await asyncio.gather(*[pair.ask("nobody there") for _ in range(50)])
            assert {(answer.status, error_code(answer)) for answer in answers} == {(502, "provider_unreachable")}
            assert pair.calls == 0

    run(test())


@pytest.mark.parametrize("stream", [False, True])
def test_a_finished_call_leaves_nothing_that_only_the_collector_frees(
    home: Installation, project: Project, stream: bool
) -> None:
    async def test() -> None:
        async with inside(home, project) as pair:
            pair.steps.release_all()
            assert text_of(await pair.ask("warm up", stream=stream))
            await pair.all_settled()
            await in_memory(pair.services)  # nothing else is made from now on
            gc.disable()
            try:
                for number in range(5):
                    assert text_of(await pair.ask(f"once {number}", stream=stream))
                await pair.all_settled()
                await asyncio.sleep(0)
                assert not [kept for kept in gc.get_objects() if type(kept) in (Flight, Waiter, Request)]
            finally:
                gc.enable()

    run(test())
