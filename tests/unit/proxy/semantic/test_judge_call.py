"""What a call to a judge holds while it waits, and where it is not made."""

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from watchllm.domain.errors import GatewayError, LimitExceeded, Unavailable
from watchllm.limits.limiter import Demand
from watchllm.proxy import eager
from watchllm.proxy.eager import Outcome
from watchllm.proxy.request import Request
from watchllm.proxy.semantic import judge_call
from watchllm.proxy.semantic.judge_call import JudgeCall
from watchllm.proxy.slots import SlotLimits, Slots


class Limits:
    """Says what may be used when the test does. `held` is what was entered and not left."""

    def __init__(self) -> None:
        self.says: Outcome[None] = Outcome()
        self.held = 0

    def enter_beside(self, request: Request) -> None:
        self.held += 1
        request.admission = cast(Any, object())

    def reserve(self, _request: Request, _demand: Callable[[], Demand]) -> Coroutine[Any, Any, None]:
        async def wait() -> None:
            await self.says

        return wait()

    def leave(self, request: Request) -> None:
        self.held -= 1
        request.admission = None


class Bench:
    """One judge that may be asked, one slot, and what came of it."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.slots = Slots(cast(asyncio.AbstractEventLoop, None), SlotLimits(calls=1))
        self.ended: list[bool | BaseException | None] = []
        self.asked = 0
        self._loop = asyncio.new_event_loop()

    def begin(self) -> None:
        target = SimpleNamespace(model="small")
        asked = SimpleNamespace(target=target, targets=(target,), route=SimpleNamespace(hedge_after=None))
        services = SimpleNamespace(
            loop=self._loop,
            slots=self.slots,
            limiting=self.limits,
            tenants=SimpleNamespace(reader=SimpleNamespace(read=lambda *_: asked)),
        )
        tenant = SimpleNamespace(usual=None)
        client = Request(cast(Any, SimpleNamespace(began=0.0, headers={})), "chat.completions")
        client.principal = cast(Any, SimpleNamespace(tenant=tenant))
        call = JudgeCall(cast(Any, services), client)

        async def ask() -> None:
            self.ended.append(await call.verdict({}))

        eager.run(ask(), self._loop, self.ended.append)

    def calls_for(self, *_what: Any) -> Any:
        """The call that would be made: it is not of interest here how that goes."""
        self.asked += 1
        assert self.slots.under_way == 1
        raise GatewayError("no call")

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    bench = Bench()
    monkeypatch.setattr(judge_call, "Plan", lambda *_: SimpleNamespace(approach=None, standard=None))
    monkeypatch.setattr(judge_call, "candidates_known", lambda *_: (object(),))
    monkeypatch.setattr(judge_call, "calls_for", bench.calls_for)
    yield bench
    bench.close()


def test_no_slot_is_taken_while_it_is_found_out_whether_a_limit_leaves_room(bench: Bench) -> None:
    bench.begin()
    assert not bench.ended
    assert bench.slots.under_way == 0
    bench.limits.says.resolve(None)
    assert bench.asked == 1
    assert bench.slots.under_way == bench.limits.held == 0


def test_where_a_limit_leaves_no_room_none_is_asked(bench: Bench) -> None:
    bench.begin()
    bench.limits.says.fail(LimitExceeded("no room"))
    assert [type(error) for error in bench.ended] == [LimitExceeded]
    assert bench.asked == bench.slots.under_way == bench.limits.held == 0


def test_where_no_slot_is_free_none_is_asked_and_nothing_is_held(bench: Bench) -> None:
    assert bench.slots.take()
    bench.begin()
    bench.limits.says.resolve(None)
    assert [type(error) for error in bench.ended] == [Unavailable]
    assert bench.asked == bench.limits.held == 0
    assert bench.slots.under_way == 1
