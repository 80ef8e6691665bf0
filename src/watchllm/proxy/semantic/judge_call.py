"""One call to a judge: a request of the gateway's own, billed to the project of the request that gave rise to it.

It goes the way of all calls (route, keys, breakers, pool, fallbacks) and leaves a usage row of its own, of the endpoint
`semantic.judge`, whose tag `judge_for` names that request. So its cost is accounted for once, in the row of whom it is
asked for no part of it is, and a killed process's call is closed by recovery like any other.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import msgspec

from watchllm.cache.semantic import judge
from watchllm.domain.errors import GatewayError, TimedOut, Unavailable
from watchllm.domain.usage import TokenUsage
from watchllm.domain.usage_event import BYPASS, CANCELLED, COMPLETE, ERROR
from watchllm.providers import tokens
from watchllm.providers.endpoints import ENDPOINTS
from watchllm.proxy.approach import candidates_known, candidates_of
from watchllm.proxy.bad_answers import wrong_with
from watchllm.proxy.calls import account, status_refusal
from watchllm.proxy.demand import demand_of
from watchllm.proxy.plan import Plan
from watchllm.proxy.request import Request
from watchllm.proxy.single_call import calls_for
from watchllm.proxy.upstream import Answer, WholeAnswer
from watchllm.wire.exchange import Exchange

if TYPE_CHECKING:
    from watchllm.proxy.approach import Candidate
    from watchllm.proxy.asked import Asked
    from watchllm.proxy.services import Services
    from watchllm.wire.server_connection import ServerConnection

ENDPOINT = "semantic.judge"
GIVES_UP_SECONDS = 5.0
"""How long a call goes on when nobody waits for it any more: it is paid for, and its verdict is remembered."""
_CHAT = ENDPOINTS[0]
_PASSED_ON = (b"x-watchllm-user", b"x-watchllm-session", b"x-watchllm-tags")
_TAGS = b"x-watchllm-tags"
# Part of the key under which what was read would be remembered; with it, nothing is.
_NOBODY = ""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _OwnExchange(Exchange):
    """A request that no client sent, and that nobody answers."""

    __slots__ = ()

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        super().__init__(cast("ServerConnection", None), b"POST", b"/v1" + _CHAT.path.encode(), b"")
        self.headers = headers
        self.began = perf_counter()


class JudgeCall:
    """`request` has the books, once `verdict` has ended."""

    def __init__(self, services: Services, client: Request) -> None:
        self._services = services
        assert client.principal is not None
        self.request = request = Request(_OwnExchange(_headers_for(client)), ENDPOINT)
        request.principal = client.principal
        request.directives = client.principal.tenant.usual
        request.cache = BYPASS

    async def verdict(self, document: dict[str, Any]) -> bool | None:
        """What the judge says to the chat request `document`; None where it says neither yes nor no.

        Raises GatewayError when there is no answer. However it ends, a call that was made is settled.
        """
        request = self.request
        try:
            answer, verdict = await self._answer(document)
        except GatewayError as error:
            request.error = error.code
            self._close(error.status, ERROR)
            raise
        except asyncio.CancelledError:
            request.error = "shutting_down"
            self._close(0, CANCELLED)
            raise
        self._close(answer.status, COMPLETE)
        return verdict

    def _close(self, status: int, ended: str) -> None:
        """Settle a call that was made; else nothing is held for it any more."""
        services, request = self._services, self.request
        if request.calls:
            services.settlement.settle(request, status, ended)
        elif request.admission is not None:
            services.limiting.leave(request)

    async def _answer(self, document: dict[str, Any]) -> tuple[Answer, bool | None]:
        services, request = self._services, self.request
        assert request.principal is not None
        tenant = request.principal.tenant
        body = _encode(document)
        asked = services.tenants.reader.read(tenant, _CHAT, body, request.exchange.headers, b"", _NOBODY)
        request.target, request.model = asked.target, asked.target.model
        plan = Plan(services, request, _CHAT, asked, body, None, None)
        candidates = candidates_known(services, asked.targets) or await candidates_of(services, tenant, asked.targets)
        await self._reserve(body, asked)
        # Whatever had to be waited for was, so that no slot is taken for less than a call.
        if not services.slots.take():
            # The call that the verdict might save had better take its turn.
            raise Unavailable("Too many calls to providers are under way to ask a judge as well.")
        try:
            return await self._call(document, asked, plan, candidates)
        finally:
            services.slots.release()

    async def _call(
        self, document: dict[str, Any], asked: Asked, plan: Plan, candidates: tuple[Candidate, ...]
    ) -> tuple[Answer, bool | None]:
        services, request = self._services, self.request
        done: asyncio.Future[Answer] = services.loop.create_future()

        def head_arrived() -> None:
            request.first_byte = perf_counter()

        sink = WholeAnswer(done, head_arrived)
        call = calls_for(services, request, asked.route, candidates, plan.approach, sink, plan.standard)
        sink.call = call
        expiry = services.loop.call_later(GIVES_UP_SECONDS, _give_up, sink)
        try:
            call.begin()
            answer = await done
        except (_GivenUp, asyncio.CancelledError):
            if call.is_sent:
                self._charge(document)
            call.cancel()
            raise
        except GatewayError:
            if sink.status == 200 and request.calls > len(request.attempts):
                self._charge(document)  # The judge began to answer, and is paid for that.
            raise
        finally:
            expiry.cancel()
        request.upstream_ended = perf_counter()
        request.upstream_status = answer.status
        if answer.status != 200:
            raise status_refusal(answer.status) or _refused(answer.status)
        judged = plan.judge(answer.body)
        plan.account(request, judged.usage)
        wrong = wrong_with(answer, judged)
        if wrong is not None:
            call.spoiled()
            raise wrong
        return answer, judge.verdict_of(_decode(answer.body))

    async def _reserve(self, body: bytes, asked: Asked) -> None:
        """Take what the call may use: under a budget that is spent, no judge is asked. Raises LimitExceeded."""
        services, request = self._services, self.request
        services.limiting.enter_beside(request)
        if request.admission is not None:
            hedged = asked.route.hedge_after is not None
            reserving = services.limiting.reserve(
                request, lambda: demand_of(services, request, body, asked.targets, hedged=hedged)
            )
            if reserving is not None:
                await reserving

    def _charge(self, document: dict[str, Any]) -> None:
        """Put what a call that was sent and is given up may cost on the books."""
        request = self.request
        usage = request.at_most or TokenUsage(input=tokens.estimate_request(document), estimated=True)
        assert request.target is not None
        account(self._services, request, request.target, usage)


class _GivenUp(TimedOut):
    """We wait no longer."""


def _give_up(sink: WholeAnswer) -> None:
    sink.fail(_GivenUp(f"The judge did not answer within {GIVES_UP_SECONDS:g} s."))


def _refused(status: int) -> GatewayError:
    return GatewayError(
        f"The judge's provider answered with status {status}.",
        status=status,
        code="provider_error" if status >= 500 else "upstream_refused",
    )


def _headers_for(client: Request) -> dict[bytes, bytes]:
    """As of a client that says nothing in particular, with this one's labels: the rows are found by them."""
    given = client.exchange.headers
    headers = {b"accept": b"application/json", b"content-type": b"application/json"}
    headers.update({name: given[name] for name in _PASSED_ON if name in given})
    tag = b"judge_for=" + client.id.encode()
    headers[_TAGS] = tag + b"," + headers[_TAGS] if _TAGS in headers else tag
    return headers
