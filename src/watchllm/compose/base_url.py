"""What is known of a project's base URL before any proxy calls it: whether its address is one that proxies refuse.

Proxies judge anew on every connection, for a name's address can change. This is for whoever types a URL in.
"""

import asyncio
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from watchllm.wire.address import is_public, resolve
from watchllm.wire.types import ConnectFailed

_RESOLVE_SECONDS = 2.0
# They resolve on the machines of a cloud only, and lead to the credentials of the machine itself.
_METADATA_NAMES = frozenset(("metadata.google.internal", "metadata.goog", "metadata", "instance-data"))
# Of AWS by IPv6, Alibaba, Azure and Oracle; all others are link-local.
_METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")))


class Verdict(Enum):
    """PRIVATE: not public, and yet a place where a provider may be, such as an Ollama on this machine. METADATA:
    link-local, or a cloud's metadata service, where none ever is. UNKNOWN: the name does not resolve here."""

    PUBLIC = "public"
    PRIVATE = "private"
    METADATA = "metadata"
    UNKNOWN = "unknown"


def judge(base_url: str) -> Verdict:
    """What the host of a well-formed `base_url` is, by its name and by where it leads now."""
    host = (urlsplit(base_url).hostname or "").rstrip(".").lower()
    if host in _METADATA_NAMES:
        return Verdict.METADATA

    async def look() -> Verdict:
        found = await asyncio.wait_for(
            resolve(asyncio.get_running_loop(), host, 443, public_only=False), _RESOLVE_SECONDS
        )
        if any(_is_metadata(address[0]) for _, address in found):
            return Verdict.METADATA
        return Verdict.PUBLIC if all(is_public(family, address) for family, address in found) else Verdict.PRIVATE

    try:
        return asyncio.run(look())
    except (ConnectFailed, TimeoutError):
        return Verdict.UNKNOWN


def _is_metadata(text: str) -> bool:
    address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_link_local or address in _METADATA
