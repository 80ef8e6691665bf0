"""Where a request comes from: the peer, or what a proxy that the operator trusts says of it."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_MOST = 4096
_MAPPED_BITS = 96


@lru_cache(256)
def networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks that these name, in CIDR form; those of IPv4 that are written as IPv6 (`::ffff:192.0.2.7`) are
    IPv4's, as addresses are."""
    return tuple(_unmapped(ip_network(text, strict=False)) for text in texts)


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


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        first = network.network_address.ipv4_mapped
        if first is not None:
            return IPv4Network((first, network.prefixlen - _MAPPED_BITS))
    return network


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Of an address as it is, in brackets, or with a port behind it, as some balancers write it."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
