"""Asks judges: about each pair once, whoever waits for the verdict, and within what its project allows.

A request waits as long as its project's time-out says; the call goes on after that, because it is paid for, and its
verdict is remembered. Nothing here keeps a request's texts beyond the call.

A judge that is too late again and again, or that fails, is left alone for a while: a circuit breaker of its own, which
is not its provider's, has it that requests wait in vain a few times and not each of them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from watchllm.cache.semantic import judge
from watchllm.cache.semantic.shares import Shares
from watchllm.cache.semantic.vectors import PROJECT_LENGTH
from watchllm.cache.semantic.verdicts import Pair
from watchllm.domain.errors import GatewayError, LimitExceeded, TimedOut, Unavailable
from watchllm.domain.money import Nanos
from watchllm.domain.settings import ON
from watchllm.proxy import eager
from watchllm.proxy.semantic.judge_call import ENDPOINT, JudgeCall
from watchllm.proxy.semantic.judgement import Judgement
from watchllm.proxy.semantic.looked import BY_JUDGE
from watchllm.routing.outcome import Health

if TYPE_CHECKING:
    from watchllm.domain.settings import ProjectSettings
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services
    from watchllm.proxy.tenant import Tenant
    from watchllm.routing.breaker import BreakerKey, Ticket

MOST_UNDER_WAY: Final = 64
"""Judgements of one process at a time, which projects share: beyond, a look-up is a miss."""
_MOST_PROJECTS: Final = 4_096
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000

NO, UNCLEAR, FAILED = BY_JUDGE, "judge_unclear", "judge_failed"
TIMED_OUT, BUDGET, BUSY, SHADOW = "judge_timeout", "judge_budget", "judge_busy", "judge_asked"
RESTING, UNUSABLE, TOO_LONG = "judge_resting", "judge_unusable", "judge_long"
"""Why a look-up that a judge was, or was to be, asked about is a miss."""


class Allowance:
    """What a project has asked judges for in this minute, by this process, and spent on this day of UTC.

    `spent_before` tells what was spent on a day (since 1970) by who is no more: a restart is no new day.
    """

    __slots__ = ("_calls", "_day", "_minute", "_spent", "_spent_before")

    def __init__(self, spent_before: Callable[[int], Nanos]) -> None:
        self._spent_before = spent_before
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

    def spend(self, cost: Nanos, now_ms: int) -> int:
        """Count what a call did cost; the day on which it counts."""
        self._turn(now_ms)
        self._spent += cost
        return self._day

    def _turn(self, now_ms: int) -> None:
        if now_ms // _MINUTE_MS != self._minute:
            self._minute, self._calls = now_ms // _MINUTE_MS, 0
        if now_ms // _DAY_MS != self._day:
            self._day = now_ms // _DAY_MS
            self._spent = self._spent_before(self._day)


class _Call(Judgement):
    """A call to a judge. `is_late`: the time of who asked is over, and nobody else begins to wait."""

    __slots__ = ("is_late", "run")

    def __init__(self) -> None:
        super().__init__(TIMED_OUT)
        self.is_late = False
        self.run: eager.EagerRun | None = None


class Judges:
    """Those of one process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._under_way: dict[Pair, _Call] = {}
        self._places = Shares(MOST_UNDER_WAY)
        self._allowances: OrderedDict[bytes, Allowance] = OrderedDict()

    def ask(self, client: Request, pair: Pair, stored: str, asked: str, answer: str) -> Judgement | str:
        """Ask the judge of the client's project whether the `answer` to the question `stored` will do for `asked`, or
        join who asks already; the reason where that cannot be."""
        judgement = self._under_way.get(pair)
        if judgement is not None:
            return TIMED_OUT if judgement.is_late else judgement
        assert client.principal is not None
        tenant = client.principal.tenant
        settings = tenant.settings
        assert settings.judge_model is not None
        if not self._places.take(_project(pair)):
            return BUSY
        ticket = self._services.breakers.admit(_breaker(tenant, settings.judge_model))
        if ticket is None:
            self._places.give_back(_project(pair))
            return RESTING
        if not self._allowance(tenant.partition).take(settings, self._services.now_ms()):
            self._places.give_back(_project(pair))
            ticket.give_back(Health.NOTHING)
            return BUDGET
        document = judge.request_for(settings.judge_model, stored, asked, answer)
        judgement = self._under_way[pair] = _Call()
        carried_out = self._carry_out(judgement, pair, client, ticket, document)
        judgement.run = eager.run(carried_out, self._services.loop, partial(self._broke, client, pair, judgement))
        return judgement

    def close(self) -> None:
        """End what is under way; what was sent is settled with what it may cost."""
        for judgement in list(self._under_way.values()):
            if judgement.run is not None:
                judgement.run.cancel()

    async def _carry_out(
        self, judgement: _Call, pair: Pair, client: Request, ticket: Ticket, document: dict[str, Any]
    ) -> None:
        call = JudgeCall(self._services, client)
        reason: str | None = FAILED
        health = Health.NOTHING
        assert client.principal is not None
        tenant = client.principal.tenant
        too_late = None
        if tenant.settings.semantic == ON:
            # In shadow nobody waits, so that nothing is too late.
            patience = tenant.settings.judge_timeout_ms / 1e3
            too_late = self._services.loop.call_later(patience, _too_late, judgement, ticket)
        try:
            # Not in the same turn: who asks has to be able to wait for it.
            await asyncio.sleep(0)
            verdict = await call.verdict(document)
            health = Health.WORKED
            reason = UNCLEAR if verdict is None else None if verdict else NO
            engine = self._services.semantic.engine
            if verdict is not None and engine is not None:
                engine.verdicts.put(pair, equal=verdict)
        except GatewayError as error:
            if call.request.calls:  # Its row says what it was.
                health = Health.TIMED_OUT if isinstance(error, TimedOut) else Health.FAILED
            else:
                reason = _why_not_called(error)
        finally:
            if too_late is not None:
                too_late.cancel()
            ticket.give_back(health)
            self._spend(tenant.partition, call.request.cost or call.request.lost_cost)
            self._end(pair, judgement, reason)

    def _spend(self, partition: bytes, cost: Nanos) -> None:
        if cost:
            day = self._allowance(partition).spend(cost, self._services.now_ms())
            engine = self._services.semantic.engine
            if engine is not None:
                engine.spend_on_judge(partition, day, cost)

    def _spent_before(self, partition: bytes, day: int) -> Nanos:
        engine = self._services.semantic.engine
        return 0 if engine is None else engine.spent_on_judges(partition, day)

    def _broke(self, client: Request, pair: Pair, judgement: _Call, error: BaseException) -> None:
        services = self._services
        services.counters.internal_errors += 1
        message = f"asking a judge for {client.id} failed"
        services.loop.call_exception_handler({"message": message, "exception": error})
        self._end(pair, judgement, FAILED)

    def _end(self, pair: Pair, judgement: _Call, reason: str | None) -> None:
        if self._under_way.get(pair) is judgement:
            del self._under_way[pair]
            self._places.give_back(_project(pair))
        judgement.end(reason)

    def _allowance(self, partition: bytes) -> Allowance:
        found = self._allowances.get(partition)
        if found is None:
            found = self._allowances[partition] = Allowance(partial(self._spent_before, partition))
            if len(self._allowances) > _MOST_PROJECTS:
                self._allowances.popitem(last=False)
        self._allowances.move_to_end(partition)
        return found


def _project(pair: Pair) -> bytes:
    return pair.partition[:PROJECT_LENGTH]


def _breaker(tenant: Tenant, model: str) -> BreakerKey:
    """A judge's own: what is too late for a look-up may be in time for everybody else. Test keys have another judge
    under its name, the simulated one."""
    return tenant.project.id, ENDPOINT, "", f"{model} (test keys)" if tenant.test else model


def _too_late(judgement: _Call, ticket: Ticket) -> None:
    judgement.is_late = True
    ticket.give_back(Health.TIMED_OUT)


def _why_not_called(error: GatewayError) -> str:
    if isinstance(error, Unavailable):
        return RESTING  # Its provider's breakers are open.
    if isinstance(error, LimitExceeded):
        return BUDGET
    return UNUSABLE if error.status < 500 else FAILED
