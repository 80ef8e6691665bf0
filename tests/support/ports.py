"""Free TCP ports for servers that a test starts.

They are taken below the range from which the kernel hands out the ports of outgoing connections, because a port that is
free when asked for could otherwise be gone when the server binds it. Each process walks the range from a place of its
own, so that parallel test workers do not meet.
"""

import itertools
import os
import socket

_FIRST, _LAST = 12_000, 30_000
_offset = (os.getpid() * 7_919) % (_LAST - _FIRST)
_numbers = itertools.count()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, handed out once per process."""
    for number in _numbers:
        port = _FIRST + (_offset + number) % (_LAST - _FIRST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable: the counter never ends")
