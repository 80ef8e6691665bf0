"""Images that a request names by URL, put into it as `data:` URLs.

For providers that take no URLs, and for those on the operator's own network: what they are told to fetch they fetch
from there, and a project must not be able to send them to its neighbours (server-side request forgery). So the gateway
fetches in their place, under the address check that holds for everything a project names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from watchllm.proxy.upstream import BUILTIN_SIMULATOR
from watchllm.wire.address import resolve
from watchllm.wire.types import ConnectFailed

if TYPE_CHECKING:
    from watchllm.proxy.approach import Candidate
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services


async def inlined(services: Services, request: Request, document: dict[str, Any]) -> dict[str, Any]:
    """A chat document without images by URL, as `ImageFetches.inlined` makes it and with the errors that it raises."""
    assert request.principal is not None
    return await services.images.inlined(request.exchange, request.principal.tenant.partition, document)


async def must_be_inlined(services: Services, candidate: Candidate) -> bool:
    """Whether images by URL must not reach `candidate`: it takes none, or it may lie on the operator's own network.

    Looks its host up, so ask this only of a request with `links`.
    """
    target, origin = candidate.target, candidate.destination.origin
    if target.vendor.fetch_images:
        return True
    if not target.trusted or target.base_url.startswith(BUILTIN_SIMULATOR):
        # What a project named has a public address, or the operator's leave; the built-in simulator fetches nothing.
        return False
    try:
        await resolve(services.loop, origin.host, origin.port, public_only=True)
    except ConnectFailed:  # AddressRefused is one; a name that only a forward proxy knows may be anywhere
        return True
    return False
