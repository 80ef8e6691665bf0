"""Sockets to listen on, bound before anybody serves them: by the server itself, or by a supervisor for its workers."""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack

BACKLOG = 4096


def bind(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """One bound socket for an address, one each for the addresses of a name; port 0 = any free one, the same for all.

    Raises OSError, which names the address that cannot be had.
    """
    with ExitStack() as unfinished:
        made: list[socket.socket] = []
        for family, address in _addresses(host):
            bound = _bound(family, address, port, reuse_port=reuse_port)
            unfinished.callback(bound.close)
            made.append(bound)
            port = made[0].getsockname()[1]
        unfinished.pop_all()
    return made


def bind_for_workers(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """Listening sockets for `count` processes, among which the kernel spreads connections; sockets for each of them.

    They listen from here on: whoever holds one keeps what waits in it from being lost while its worker is replaced.
    Raises OSError.
    """
    # With SO_REUSEPORT on both sides a second installation would get half of this one's connections, unasked: whether
    # the address is free is found out without it.
    alone = bind(host, port)
    port = alone[0].getsockname()[1]
    if count == 1:
        return [_listening(alone)]
    if sys.platform != "linux":
        # Elsewhere the kernel gives all connections to one of the sockets: they have one in common.
        _listening(alone)
        return [alone, *([known.dup() for known in alone] for _ in range(count - 1))]
    for probe in alone:
        probe.close()
    with ExitStack() as unfinished:
        made: list[list[socket.socket]] = []
        for _ in range(count):
            sockets = bind(host, port, reuse_port=True)
            for bound in sockets:
                unfinished.callback(bound.close)
            made.append(_listening(sockets))
        unfinished.pop_all()
    return made


def _listening(sockets: list[socket.socket]) -> list[socket.socket]:
    for bound in sockets:
        bound.listen(BACKLOG)
    return sockets


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    # The resolver would be asked about an address, too: a millisecond of a start.
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return [(family, host)]
    found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((known[0], str(known[4][0])) for known in found))


def _bound(family: socket.AddressFamily, address: str, port: int, *, reuse_port: bool) -> socket.socket:
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # `::` beside `0.0.0.0`, and never instead of it.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((address, port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"{address}:{port}: {error.strerror}") from None
    bound.setblocking(False)
    return bound
