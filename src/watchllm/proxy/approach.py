"""How a request goes to one of the targets that may answer it: where, in which words, and how its answer comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from watchllm.domain.errors import BadRequest, GatewayError
from watchllm.providers.dialect import CHAT
from watchllm.providers.endpoints import Endpoint
from watchllm.proxy.admission import require_price
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.tenant import Tenant
from watchllm.proxy.upstream import Destination
from watchllm.routing.target import Target
from watchllm.wire.types import Call, ResponseSink


class Candidate(NamedTuple):
    """A target that may answer, and where it is."""

    target: Target
    destination: Destination

    def serves_as(self, other: Candidate) -> bool:
        """Whether only the key differs: what troubles the provider would trouble this one, too."""
        return self.target.identity[:3] == other.target.identity[:3]


class AnswerSink(ResponseSink, Protocol):
    """Receives the answer that is passed on."""

    def fail(self, error: GatewayError) -> None:
        """There is no answer and no further candidate."""
        ...


class Approach(NamedTuple):
    """A request as it goes to one candidate. `translated(sink, call)` is what turns the answer into the client's
    dialect, None = it speaks it; `dropped` names the request fields that were left out."""

    url: bytes
    head: bytes
    body: bytes
    translated: Callable[[AnswerSink, Call], ResponseSink] | None = None
    dropped: tuple[str, ...] = ()
    method: bytes = b"POST"


async def candidates_of(services: Services, tenant: Tenant, targets: Iterable[Target]) -> tuple[Candidate, ...]:
    """Where each of `targets` is; left out are those that cannot be reached at all (the key does not open), and those
    that have no price where the tenant's project refuses that.

    Raises the first GatewayError when that leaves none. Waits only when the built-in simulator has to start.
    """
    destinations = services.outbound.destinations
    found = []
    first_error: GatewayError | None = None
    for target in targets:
        try:
            if target.model:
                require_price(services, tenant, target)
            found.append(Candidate(target, destinations.known(target) or await destinations.of(target)))
        except GatewayError as error:
            first_error = first_error or error
    if not found and first_error is not None:
        raise first_error
    return tuple(found)


def upstream_dialect(endpoint: Endpoint, target: Target) -> str:
    """The dialect in which a target is asked: the client's own where it speaks that.

    Raises BadRequest where the provider has nothing like the endpoint.
    """
    spoken = target.vendor.dialects
    if endpoint.dialect in spoken:
        return endpoint.dialect
    if endpoint.family != "generate":
        raise BadRequest(
            f"{target.provider} has no {endpoint.path}; name a model of another provider.",
            param="model",
            provider=target.provider,
        )
    return CHAT if CHAT in spoken else spoken[0]


def addressed(
    services: Services,
    request: Request,
    candidate: Candidate,
    path: str,
    *,
    dialect: str = CHAT,
    same_dialect: bool = True,
) -> tuple[bytes, bytes]:
    """URL and header lines of a call to `path`, below the base URL of `candidate`, in the words of `dialect`."""
    exchange = request.exchange
    assert request.principal is not None
    destination = candidate.destination
    url = destination.prefix + path.encode()
    if exchange.query and same_dialect:
        # What a query string means is known to its own dialect only.
        url += b"?" + exchange.query
    forwarded = services.forwarded(
        exchange.headers,
        request.principal.tenant.partition,
        own_key=destination.own_key,
        dialect=dialect,
        same_dialect=same_dialect,
    )
    return url, destination.credential + forwarded
