"""Coroutines that run at once, and go on from the callback of what they wait for."""

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any

import pytest

from watchllm.proxy import eager


def unexpected(error: BaseException) -> None:
    raise AssertionError("no error was expected") from error


async def settle_loop() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def start(coroutine: Coroutine[Any, Any, None]) -> tuple[eager.EagerRun | None, list[BaseException]]:
    errors: list[BaseException] = []
    return eager.run(coroutine, asyncio.get_running_loop(), errors.append), errors


def test_what_never_waits_is_over_when_run_returns() -> None:
    async def test() -> None:
        seen = []

        async def work() -> None:
            done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            done.set_result("already there")
            seen.append(await done)

        assert eager.run(work(), asyncio.get_running_loop(), unexpected) is None
        assert seen == ["already there"]

    asyncio.run(test())


def test_what_is_raised_before_the_first_wait_is_told() -> None:
    async def test() -> None:
        async def work() -> None:
            raise ValueError("at once")

        going_on, errors = start(work())
        assert going_on is None
        assert [str(error) for error in errors] == ["at once"]

    asyncio.run(test())


def test_it_goes_on_with_what_it_waited_for() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        first: asyncio.Future[int] = loop.create_future()
        second: asyncio.Future[int] = loop.create_future()
        seen: list[Any] = []

        async def work() -> None:
            seen.append(await first)
            await asyncio.sleep(0)
            try:
                await second
            except ValueError as error:
                seen.append(str(error))
            raise KeyError("the end")

        going_on, errors = start(work())
        assert going_on is not None
        first.set_result(1)
        await settle_loop()
        second.set_exception(ValueError("refused"))
        assert seen == [1]
        await settle_loop()
        assert seen == [1, "refused"]
        assert going_on.done
        assert [type(error) for error in errors] == [KeyError]

    asyncio.run(test())


@pytest.mark.parametrize("resolved", [False, True])
def test_cancelling_raises_where_it_waits_once(resolved: bool) -> None:
    """Also when what it waited for has come in the same turn of the loop."""

    async def test() -> None:
        awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        seen = []

        async def work() -> None:
            try:
                await awaited
                seen.append("went on")
            finally:
                seen.append("cleaned up")

        going_on, errors = start(work())
        assert going_on is not None
        if resolved:
            awaited.set_result(None)
        going_on.cancel()
        assert going_on.done
        going_on.cancel()
        await settle_loop()
        assert seen == ["cleaned up"]
        assert not errors

    asyncio.run(test())


def test_cancelling_within_a_bare_yield() -> None:
    async def test() -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            raise AssertionError("went on")

        going_on, errors = start(work())
        assert going_on is not None
        going_on.cancel()
        await settle_loop()
        assert going_on.done
        assert not errors

    asyncio.run(test())


def test_what_is_raised_while_it_cleans_up_is_told() -> None:
    async def test() -> None:
        awaited: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                await awaited
            finally:
                raise ValueError("while cleaning up")

        going_on, errors = start(work())
        assert going_on is not None
        going_on.cancel()
        assert [str(error) for error in errors] == ["while cleaning up"]
        assert going_on.done

    asyncio.run(test())


def test_what_it_waited_for_before_it_was_cancelled_does_not_wake_it_from_cleaning_up() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        awaited: asyncio.Future[None] = loop.create_future()
        cleaned: asyncio.Future[str] = loop.create_future()
        seen = []

        async def work() -> None:
            try:
                await awaited
            except asyncio.CancelledError:
                seen.append(await cleaned)

        going_on, errors = start(work())
        assert going_on is not None
        awaited.set_result(None)
        going_on.cancel()
        await settle_loop()
        assert not going_on.done
        cleaned.set_result("clean")
        await settle_loop()
        assert seen == ["clean"]
        assert not errors

    asyncio.run(test())


# --- outcomes --------------------------------------------------------------------------------------------------------


def test_who_waits_for_an_outcome_goes_on_inside_the_call_that_resolves_it() -> None:
    async def test() -> None:
        outcome: eager.Outcome[int] = eager.Outcome()
        seen = []

        async def work() -> None:
            seen.append(await outcome)
            seen.append(await outcome)

        going_on = eager.run(work(), asyncio.get_running_loop(), unexpected)
        assert going_on is not None
        assert not outcome.done()
        outcome.resolve(1)
        assert seen == [1, 1]
        assert going_on.done
        outcome.resolve(2)
        outcome.fail(ValueError("too late"))
        assert outcome.result() == 1

    asyncio.run(test())


def test_an_outcome_that_fails_raises_where_it_is_awaited_and_shows_each_only_its_own_frames() -> None:
    async def test() -> None:
        error = ValueError("refused")
        depths = []

        async def work(outcome: eager.Outcome[int]) -> None:
            try:
                await outcome
            except ValueError as raised:
                depths.append(len(traceback.extract_tb(raised.__traceback__)))
                raise

        for _ in range(3):
            outcome: eager.Outcome[int] = eager.Outcome()
            with pytest.raises(asyncio.InvalidStateError):
                outcome.result()
            going_on, errors = start(work(outcome))
            assert going_on is not None
            outcome.fail(error)
            assert errors == [error]
        assert len(set(depths)) == 1

    asyncio.run(test())


def test_who_was_cancelled_does_not_go_on_when_the_outcome_is_known() -> None:
    async def test() -> None:
        outcome: eager.Outcome[int] = eager.Outcome()

        async def work() -> None:
            await outcome
            raise AssertionError("went on")

        going_on, errors = start(work())
        assert going_on is not None
        going_on.cancel()
        outcome.resolve(1)
        assert not errors

    asyncio.run(test())


@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled"])
def test_the_end_is_told_once_however_it_ends(how: str) -> None:
    async def test() -> None:
        outcome: eager.Outcome[int] = eager.Outcome()
        told: list[bool] = []

        async def work() -> None:
            await outcome

        going_on, errors = start(work())
        assert going_on is not None
        going_on.on_end = lambda: told.append(bool(errors))
        if how == "returns":
            outcome.resolve(1)
        elif how == "raises":
            outcome.fail(ValueError("refused"))
        else:
            going_on.cancel()
        going_on.cancel()
        assert told == [how == "raises"], "after the error was told"

    asyncio.run(test())
