"""How a request goes to one of the targets that may answer it: where, in which words, and how its answer comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from watchllm.domain.errors import BadRequest, GatewayError, Unavailable
from watchllm.providers.dialect import CHAT
from watchllm.providers.endpoints import Endpoint
from watchllm.proxy.admission import require_price
from watchllm.proxy.request import Request
from watchllm.proxy.services import USUAL_LINES, Services
from watchllm.proxy.tenant import Tenant
from watchllm.proxy.upstream import Destination
from watchllm.routing.breaker import breaker_key
from watchllm.routing.target import Target
from watchllm.wire.types import ResponseSink

_MOST_REMEMBERED = 1024


class Candidate:
    """A target that may answer, and where it is. Made once for many requests of one project.

    `breaker` is what its circuit breaker is known by, `usual_head` the header lines of a call on behalf of a client
    whose own say nothing in particular. `name` tells it from the others that a request may go to, empty = it is alone.
    """

    __slots__ = ("_urls", "breaker", "destination", "name", "target", "usual_head")

    def __init__(self, target: Target, destination: Destination, project_id: str = "", *, alone: bool = True) -> None:
        self.target = target
        self.destination = destination
        self.name = b"" if alone else "\0".join(target.identity).encode()
        self.breaker = breaker_key(project_id, target)
        self.usual_head = destination.credential + USUAL_LINES
        self._urls: dict[str, bytes] = {}

    def url(self, path: str) -> bytes:
        """The request target of an endpoint, of which there are few."""
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self.destination.prefix + path.encode()
        return url

    def serves_as(self, other: Candidate) -> bool:
        """Whether only the key differs: what troubles the provider would trouble this one, too."""
        return self.target.identity[:3] == other.target.identity[:3]


class AnswerSink(ResponseSink, Protocol):
    """Receives the answer that is passed on."""

    def fail(self, error: GatewayError) -> None:
        """There is no answer and no further candidate."""
        ...


class Endable(Protocol):
    """A call, for who can only end it."""

    def cancel(self) -> None: ...


class Approach(msgspec.Struct, frozen=True):
    """A request as it goes to one candidate. `translated(sink, call)` is what turns the answer into the client's
    dialect, None = it speaks it; `dropped` names the request fields that were left out."""

    url: bytes
    head: bytes
    body: bytes
    translated: Callable[[AnswerSink, Endable], ResponseSink] | None = None
    dropped: tuple[str, ...] = ()
    method: bytes = b"POST"

    def __repr__(self) -> str:
        # A repr ends in tracebacks and logs: the head holds the credential, the body is the client's own.
        return f"Approach(method={self.method!r}, body of {len(self.body)} bytes, dropped={self.dropped!r})"


FromCache = Callable[[Candidate], Callable[[], None] | None]
"""What gives the answer of a candidate that the cache holds, None = it holds none."""


def candidates_known(services: Services, targets: tuple[Target, ...]) -> tuple[Candidate, ...] | None:
    """What `candidates_of` found for these very targets, None = it has not been asked yet."""
    found = services.candidates.get(id(targets))
    return found[1] if found is not None and found[0] is targets else None


async def candidates_of(
    services: Services, tenant: Tenant, targets: tuple[Target, ...], *, remember: bool = True
) -> tuple[Candidate, ...]:
    """Where each of `targets` is; one that cannot be reached at all (its key does not open), or that has no price where
    the project wants to know it, is left out. `remember`: these very `targets` will be asked about again.

    Raises the first GatewayError when that leaves none. Waits only when the built-in simulator has to start.
    """
    destinations = services.outbound.destinations
    found = []
    first_error: GatewayError | None = None
    for target in targets:
        try:
            if target.model:
                require_price(services.tenants, tenant, target)
            destination = destinations.known(target) or await destinations.of(target)
            found.append(Candidate(target, destination, tenant.project.id, alone=len(targets) == 1))
        except GatewayError as error:
            first_error = first_error or error
    if not found and first_error is not None:
        raise first_error
    candidates = tuple(found)
    if remember and first_error is None:
        # What failed may work the next time, so only what is whole is remembered.
        if len(services.candidates) >= _MOST_REMEMBERED:
            services.candidates.clear()
        services.candidates[id(targets)] = targets, candidates
    return candidates


def unavailable(services: Services, candidates: tuple[Candidate, ...]) -> Unavailable:
    """The error where the breakers of all `candidates` are open."""
    waits = (services.breakers.retry_in(candidate.breaker) for candidate in candidates)
    names = ", ".join(dict.fromkeys(candidate.target.provider for candidate in candidates))
    return Unavailable(
        f"Calls to {names} have kept failing, so none is made for a moment; try again later.",
        retry_after=max(min(waits, default=0.0), 1.0),
    )


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
    url = candidate.url(path)
    if dialect == CHAT and not exchange.query and services.is_usual(exchange.headers):
        return url, candidate.usual_head
    if exchange.query and same_dialect:
        # What a query string means is known to its own dialect only.
        url += b"?" + exchange.query
    forwarded = services.forwarded(
        exchange.headers,
        request.principal.tenant.partition,
        destination,
        dialect=dialect,
        same_dialect=same_dialect,
        candidate=candidate.name,
    )
    return url, destination.credential + forwarded
