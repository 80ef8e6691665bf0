"""All that may say no before the work on a request starts, in one place, so that no stage forgets a part of it."""

from __future__ import annotations

from time import perf_counter

from watchllm.domain.billable import SIMULATOR
from watchllm.domain.errors import Forbidden, Unavailable
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.tenant import Principal, Tenant
from watchllm.proxy.tenants import Tenants
from watchllm.routing.resolve import Target

_LONGEST_FORWARDED = 1024


def admit(services: Services, request: Request, scope: str | None = "inference") -> Principal:
    """Authenticate, require `scope` where one is given, and refuse what could not be recorded.

    Raises Unauthorized, Forbidden (`scope_missing`, `ip_not_allowed`) or Unavailable.
    """
    request.principal = principal = services.tenants.authenticate(request.exchange.headers, request.wall_ns / 1e9)
    request.authenticated = perf_counter()
    if principal.tenant.hides_hits:
        request.hides_hits = True
    if principal.subject is not None:
        request.limiting = services.limiting
    if principal.address_lists:
        _check_address(services, request, principal)
    if scope is not None and scope not in principal.scopes:
        principal.require(scope)
    refusal = services.settlement.journal.refusal
    if refusal is not None:
        raise Unavailable(refusal, retry_after=1)
    return principal


def _check_address(services: Services, request: Request, principal: Principal) -> None:
    """Raise Forbidden (`ip_not_allowed`) unless the request comes from within each list of the key."""
    from watchllm.proxy.client_address import client_address, is_within  # few keys are bound to addresses

    exchange = request.exchange
    peer, trusted = exchange.peer, services.trusted_proxies
    # What strangers write there is not even remembered.
    forwarded = exchange.headers.get(b"x-forwarded-for") if trusted and is_within(peer, trusted) else None
    address = client_address(peer, None if forwarded is None else forwarded[-_LONGEST_FORWARDED:], trusted)
    if not all(is_within(address, networks) for networks in principal.address_lists):
        raise Forbidden(
            f"Requests with this key may not come from {address[:64]}. Send them from an address in its allowed_ips, "
            "or have that list changed.",
            code="ip_not_allowed",
        )


def require_price(tenants: Tenants, tenant: Tenant, target: Target) -> None:
    """Raise Forbidden (`model_not_allowed`) where the project refuses what has no price and `target` has none."""
    if not tenants.lacks_price(tenant, target):
        return
    model = f"the model {target.provider}/{target.model}" if target.model else f"what {target.provider} uses by default"
    raise Forbidden(
        f"No price is known for {model}, and this key has a budget or refuses what has no price. Name a model that has "
        "a price, add this one's to prices.toml, or set unpriced=allow with `watchllm project set`.",
        param="model",
        provider=target.provider,
    )


def require_known_cost(tenant: Tenant, target: Target, what: str) -> None:
    """Raise Forbidden (`model_not_allowed`) where the project refuses what has no price: what `what` costs is known
    to nobody here, neither before nor after it. The simulated provider costs nothing."""
    if not tenant.refuses_unpriced or target.provider == SIMULATOR:
        return
    raise Forbidden(
        f"What {what} will cost cannot be known, and this key has a budget or refuses what has no price. Ask for the "
        "answer itself, at a path that names a model, or set unpriced=allow with `watchllm project set`.",
        param="model",
        provider=target.provider,
    )
