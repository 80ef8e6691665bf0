"""Where a request comes from: the peer, or what a proxy that the operator trusts says of it."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_MOST = 4096


@lru_cache(256)
def networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks that these name, in CIDR form."""
    return tuple(ip_network(text, strict=False) for text in texts)


@lru_cache(_MOST)
def is_within(address: str, texts: tuple[str, ...]) -> bool:
    """Whether an address is in one of these networks; what is no address is in none."""
    found = _address(address)
    return found is not None and any(found in network for network in networks(texts))


@lru_cache(_MOST)
def client_address(peer: str, forwarded: bytes | None, trusted: tuple[str, ...]) -> str:
    """The address of the client behind `peer`: of the addresses in `X-Forwarded-For`, read from its end, the first that
    is no trusted proxy's. Whoever is not trusted may have written what it likes."""
    address = peer
    if forwarded is not None:
        hops = [hop.strip() for hop in forwarded.decode("latin-1").split(",")]
        while hops and is_within(address, trusted):
            address = hops.pop()
    return address


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
