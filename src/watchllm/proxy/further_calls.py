"""The calls upstream that a request makes beyond its first: retries, fallbacks, further keys, hedges.

Each counts as one of `upstream_per_minute` as it goes up. What the one before it may have cost is reserved beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from watchllm.domain.errors import GatewayError, InternalError
from watchllm.limits.limiter import NOTHING, Demand
from watchllm.proxy import eager
from watchllm.routing.outcome import Health

if TYPE_CHECKING:
    from watchllm.domain.usage import TokenUsage
    from watchllm.proxy.one_try import Try
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services


class FurtherCalls:
    """Those of one question; one at a time is asked for."""

    __slots__ = ("_lost", "_request", "_services", "_waits")

    def __init__(self, services: Services, request: Request) -> None:
        self._services = services
        self._request = request
        self._waits: Try | None = None
        self._lost = NOTHING

    @property
    def is_pending(self) -> bool:
        """Whether it has to be found out still if one may be made."""
        return self._waits is not None

    def after(self, failed: Try, usage: TokenUsage | None) -> None:
        """The next one is in place of a call that `failed`, and may be charged for `usage` all the same."""
        if usage is None:
            self._lost = NOTHING
            return
        target = failed.candidate.target
        price = self._services.tenants.price(target.provider, target.model)
        self._lost = Demand(usage.total, 0 if price is None else price.cost(usage))

    def take(self, one: Try, send: Callable[[Try], None], refused: Callable[[Try, GatewayError], None]) -> bool:
        """Take what `one` needs; whether it may be sent now. Else one of `send` and `refused` is called when that has
        been found out, unless `forget` is called before. Raises LimitExceeded."""
        request = self._request
        if request.admission is None:
            return True
        # What a call beside another may cost is reserved already.
        demand = NOTHING if one.hedged else self._lost
        taking = self._services.limiting.reserve(request, lambda: demand)
        if taking is None:
            self._lost = NOTHING
            return True
        self._waits = one
        eager.run(self._taken(taking, one, send, refused), self._services.loop, self._broke)
        return False

    def forget(self) -> None:
        """Nobody wants it any more. What is taken for it nevertheless counts as a call, unless its request has ended by
        then."""
        one, self._waits = self._waits, None
        if one is not None:
            one.forget()
            one.ticket.give_back(Health.NOTHING)

    async def _taken(
        self,
        taking: Coroutine[Any, Any, None],
        one: Try,
        send: Callable[[Try], None],
        refused: Callable[[Try, GatewayError], None],
    ) -> None:
        refusal: GatewayError | None = None
        try:
            await taking
        except GatewayError as error:
            refusal = error
        except Exception as error:  # noqa: BLE001  (whatever is wrong, nobody may wait for ever)
            self._broke(error)
            refusal = InternalError("Something went wrong inside the gateway between two calls of a provider.")
        if self._waits is not one:
            return
        if refusal is not None:
            self.forget()
            refused(one, refusal)
            return
        self._waits = None
        self._lost = NOTHING
        send(one)

    def _broke(self, error: BaseException) -> None:
        self._services.loop.call_exception_handler({"message": f"{self._request.id} failed", "exception": error})
