"""Which addresses a request may be sent to. A host that a project names may resolve to anything (DNS rebinding, odd
spellings such as `0x7f.1`): what is judged is the resolved socket address, and the caller connects to exactly that."""

from __future__ import annotations

import socket
from asyncio import AbstractEventLoop
from typing import Any, Final, TypeAlias

from watchllm.wire.types import AddressRefused, ConnectFailed

SocketAddress: TypeAlias = tuple[Any, ...]
"""What `getaddrinfo` gives: (ip, port) for IPv4, (ip, port, flow, scope) for IPv6."""

Resolved: TypeAlias = tuple[int, SocketAddress]
"""Address family and socket address."""


async def resolve(loop: AbstractEventLoop, host: str, port: int, *, public_only: bool) -> list[Resolved]:
    """Every address of `host`, in the resolver's order. With `public_only`, one address that is not public refuses the
    host as a whole: a name with a public and a private address is the mark of rebinding, not of a provider.

    Raises AddressRefused, or ConnectFailed when the name does not resolve.
    """
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectFailed(f"cannot resolve {host}: {error}") from error
    addresses: list[Resolved] = [(family, sockaddr) for family, _, _, _, sockaddr in found]
    if not addresses:
        raise ConnectFailed(f"{host} has no address")
    if public_only:
        for family, sockaddr in addresses:
            if not is_public(family, sockaddr):
                raise AddressRefused(f"{host} has an address that is not public; only the operator may name such hosts")
    return addresses


def is_public(family: int, sockaddr: SocketAddress) -> bool:
    """Whether the address lies on the public internet: not loopback, private, link-local, shared, multicast, reserved,
    a cloud's metadata service, or an IPv6 form that carries such an IPv4 address."""
    if family == socket.AF_INET:
        return _public_v4(int.from_bytes(socket.inet_pton(socket.AF_INET, sockaddr[0]), "big"))
    if family != socket.AF_INET6 or (len(sockaddr) > 3 and sockaddr[3]):
        return False
    return _public_v6(int.from_bytes(socket.inet_pton(socket.AF_INET6, sockaddr[0].partition("%")[0]), "big"))


def _public_v4(address: int) -> bool:
    return not any(address >> shift == prefix for prefix, shift in _NOT_PUBLIC_V4)


def _public_v6(address: int) -> bool:
    if address >> 32 in _CARRIES_V4:
        return _public_v4(address & 0xFFFFFFFF)
    if address >> 125 != 0b001:  # only 2000::/3 is handed out; ::1, fc00::, fe80::, ff00::, ::a.b.c.d lie outside
        return False
    if any(address >> shift == prefix for prefix, shift in _NOT_PUBLIC_V6):
        return False
    isatap = (address >> 32) & 0xFDFFFFFF == 0x00005EFE
    return not isatap or _public_v4(address & 0xFFFFFFFF)


def _v4(network: str) -> tuple[int, int]:
    ip, _, bits = network.partition("/")
    shift = 32 - int(bits)
    return int.from_bytes(socket.inet_pton(socket.AF_INET, ip), "big") >> shift, shift


def _v6(network: str) -> tuple[int, int]:
    ip, _, bits = network.partition("/")
    shift = 128 - int(bits)
    return int.from_bytes(socket.inet_pton(socket.AF_INET6, ip), "big") >> shift, shift


# The IANA special-purpose registries, plus the one metadata address that is a public one (Azure's wire server).
_NOT_PUBLIC_V4: Final = tuple(
    _v4(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",
    )
)
# Of 2000::/3: protocol assignments with Teredo (2001::/23), documentation, 6to4. Teredo and 6to4 carry an IPv4 address
# and are retired: refused whole.
_NOT_PUBLIC_V6: Final = tuple(_v6(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
# IPv4-mapped and NAT64 (64:ff9b::/96): as public as the address in their last 32 bits. DNS64 hands out the latter for
# every IPv4-only provider, so they cannot be refused whole.
_CARRIES_V4: Final = frozenset(_v6(network)[0] for network in ("::ffff:0:0/96", "64:ff9b::/96"))
