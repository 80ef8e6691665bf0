"""All that may say no before the work on a request starts, in one place, so that no stage forgets a part of it."""

from __future__ import annotations

from time import perf_counter

from watchllm.domain.errors import Unavailable
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.tenant import Principal


def admit(services: Services, request: Request, scope: str | None = "inference") -> Principal:
    """Authenticate, require `scope` where one is given, and refuse what could not be recorded.

    Raises Unauthorized, Forbidden (`scope_missing`) or Unavailable.
    """
    request.principal = principal = services.tenants.authenticate(request.exchange.headers, request.wall_ns / 1e9)
    request.authenticated = perf_counter()
    if scope is not None and scope not in principal.scopes:
        principal.require(scope)
    refusal = services.settlement.journal.refusal
    if refusal is not None:
        raise Unavailable(refusal, retry_after=1)
    return principal
