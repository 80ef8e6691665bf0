"""What a request names by URL, before it goes to a provider.

For providers that take no URLs the gateway fetches images in their place, under the address check that holds for
everything a project names. A provider on the operator's own network fetches from there, and a project must not be able
to send it to its neighbours (server-side request forgery): it is handed no URL that leads to a private address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from watchllm.domain.errors import BadRequest
from watchllm.proxy.upstream import BUILTIN_SIMULATOR
from watchllm.wire.address import resolve
from watchllm.wire.types import AddressRefused, ConnectFailed

if TYPE_CHECKING:
    from watchllm.proxy.approach import Candidate
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services


async def inlined(services: Services, request: Request, document: dict[str, Any]) -> dict[str, Any]:
    """A chat document without images by URL, as `ImageFetches.inlined` makes it and with the errors that it raises."""
    assert request.principal is not None
    # A task of its own: what bounds and gathers fetches needs one, and a request is none (see `eager`).
    fetches = services.loop.create_task(
        services.images.inlined(request.exchange, request.principal.tenant.partition, document)
    )
    try:
        return await fetches
    finally:
        fetches.cancel()


async def is_on_own_network(services: Services, candidate: Candidate) -> bool:
    """Whether the operator named an address for the candidate that is not public: what it is told to fetch it would
    fetch from there. Looks its host up, so ask this only of a request that names URLs."""
    target, origin = candidate.target, candidate.destination.origin
    if not target.trusted or target.base_url.startswith(BUILTIN_SIMULATOR):
        # What a project named has a public address, or the operator's leave; the built-in simulator fetches nothing.
        return False
    try:
        await resolve(services.loop, origin.host, origin.port, public_only=True)
    except AddressRefused:
        return True
    except ConnectFailed:
        return False  # only a forward proxy knows the name, or nobody: nothing on this network has it
    return False


async def refuse_private(services: Services, url: str, field: str) -> None:
    """Raise BadRequest for a URL that leads to an address that is not public.

    One that does not resolve here passes: the provider will say what it thinks of it.
    """
    from watchllm.proxy.image_fetch import NoImage, place_of  # few requests name URLs

    try:
        # Strict, because who is sent there may read in another way what can be read in two.
        origin = place_of(url).origin
    except NoImage as error:
        raise BadRequest(f"{field} {error}; {_way_out(field, 'send an http(s) URL')}.", param=field) from None
    try:
        await resolve(services.loop, origin.host, origin.port, public_only=True)
    except AddressRefused:
        raise BadRequest(
            f"{field}: the URL leads to a private address, which a provider on the operator's network is not sent to; "
            f"{_way_out(field)}.",
            param=field,
        ) from None
    except ConnectFailed:
        return


def _way_out(field: str, other: str = "") -> str:
    """What a client can do about the URL in `field`: pictures and documents can be sent, servers of tools cannot."""
    if field.startswith(("tools", "mcp_servers")):
        return other or "name a server with a public address"
    return f"{other}, or the content itself as base64" if other else "send the content itself as base64"
