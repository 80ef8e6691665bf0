"""Asks judges: about each pair once, whoever waits for the verdict, and within what its project allows.

A request waits as long as its project's time-out says; the call goes on after that, because it is paid for, and its
verdict is remembered. Nothing here keeps a request's texts beyond the call.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from watchllm.cache.semantic import judge
from watchllm.cache.semantic.verdicts import Pair
from watchllm.domain.errors import GatewayError
from watchllm.domain.money import Nanos
from watchllm.proxy import eager
from watchllm.proxy.semantic.judge_call import JudgeCall
from watchllm.proxy.semantic.judgement import Judgement
from watchllm.proxy.semantic.looked import BY_JUDGE

if TYPE_CHECKING:
    from watchllm.domain.settings import ProjectSettings
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services

MOST_UNDER_WAY: Final = 64
"""Judgements of one process at a time: beyond, a look-up is a miss."""
_MOST_PROJECTS: Final = 4_096
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000

NO, UNCLEAR, FAILED = BY_JUDGE, "judge_unclear", "judge_failed"
TIMED_OUT, BUDGET, BUSY, SHADOW = "judge_timeout", "judge_budget", "judge_busy", "judge_asked"
"""Why a look-up that a judge was, or was to be, asked about is a miss."""


class Allowance:
    """What a project has asked judges for in this minute and this day of UTC, in this process."""

    __slots__ = ("_calls", "_day", "_minute", "_spent")

    def __init__(self) -> None:
        self._minute = self._day = -1
        self._calls = 0
        self._spent: Nanos = 0

    def take(self, settings: ProjectSettings, now_ms: int) -> bool:
        """Count one more call, if it is allowed."""
        self._turn(now_ms)
        if self._calls >= settings.judge_per_minute or self._spent >= settings.judge_usd_day * 1e9:
            return False
        self._calls += 1
        return True

    def spend(self, cost: Nanos, now_ms: int) -> None:
        self._turn(now_ms)
        self._spent += cost

    def _turn(self, now_ms: int) -> None:
        if now_ms // _MINUTE_MS != self._minute:
            self._minute, self._calls = now_ms // _MINUTE_MS, 0
        if now_ms // _DAY_MS != self._day:
            self._day, self._spent = now_ms // _DAY_MS, 0


class _Call(Judgement):
    """A call to a judge."""

    __slots__ = ("run",)

    def __init__(self) -> None:
        super().__init__(TIMED_OUT)
        self.run: eager.EagerRun | None = None


class Judges:
    """Those of one process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._under_way: dict[Pair, _Call] = {}
        self._allowances: OrderedDict[bytes, Allowance] = OrderedDict()

    def ask(self, client: Request, pair: Pair, stored: str, asked: str, answer: str) -> Judgement | str:
        """Ask the judge of the client's project whether the `answer` to the question `stored` will do for `asked`, or
        join who asks already; the reason where that cannot be."""
        judgement = self._under_way.get(pair)
        if judgement is not None:
            return judgement
        assert client.principal is not None
        tenant = client.principal.tenant
        settings = tenant.settings
        assert settings.judge_model is not None
        if len(self._under_way) >= MOST_UNDER_WAY:
            return BUSY
        allowance = self._allowance(tenant.partition)
        if not allowance.take(settings, self._services.now_ms()):
            return BUDGET
        document = judge.request_for(settings.judge_model, stored, asked, answer)
        judgement = self._under_way[pair] = _Call()
        carried_out = self._carry_out(judgement, pair, client, allowance, document)
        judgement.run = eager.run(carried_out, self._services.loop, partial(self._broke, client, pair, judgement))
        return judgement

    def close(self) -> None:
        """End what is under way; what was sent is settled with what it may cost."""
        for judgement in list(self._under_way.values()):
            if judgement.run is not None:
                judgement.run.cancel()

    async def _carry_out(
        self, judgement: _Call, pair: Pair, client: Request, allowance: Allowance, document: dict[str, Any]
    ) -> None:
        call = JudgeCall(self._services, client)
        reason: str | None = FAILED
        try:
            # Not in the same turn: who asks has to be able to wait for it.
            await asyncio.sleep(0)
            verdict = await call.verdict(document)
            reason = UNCLEAR if verdict is None else None if verdict else NO
            engine = self._services.semantic.engine
            if verdict is not None and engine is not None:
                engine.verdicts.put(pair, equal=verdict)
        except GatewayError:
            pass  # Its row says what it was: for the look-up it is a miss.
        finally:
            allowance.spend(call.request.cost or call.request.lost_cost, self._services.now_ms())
            self._end(pair, judgement, reason)

    def _broke(self, client: Request, pair: Pair, judgement: _Call, error: BaseException) -> None:
        services = self._services
        services.counters.internal_errors += 1
        message = f"asking a judge for {client.id} failed"
        services.loop.call_exception_handler({"message": message, "exception": error})
        self._end(pair, judgement, FAILED)

    def _end(self, pair: Pair, judgement: _Call, reason: str | None) -> None:
        if self._under_way.get(pair) is judgement:
            del self._under_way[pair]
        judgement.end(reason)

    def _allowance(self, partition: bytes) -> Allowance:
        found = self._allowances.get(partition)
        if found is None:
            found = self._allowances[partition] = Allowance()
            if len(self._allowances) > _MOST_PROJECTS:
                self._allowances.popitem(last=False)
        self._allowances.move_to_end(partition)
        return found
