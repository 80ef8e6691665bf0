"""Free TCP ports for servers that a test starts.

They are taken below the range from which the kernel hands out the ports of outgoing connections, because a port that is
free when asked for could otherwise be gone when the server binds it. Each run of the tests walks the range from a place
of its own, and the workers of one run as far from each other as can be, so that none is given a port on which another
one is about to start a server.
"""

import itertools
import os
import socket
import zlib

_FIRST, _LAST = 12_000, 30_000


def _beginning() -> int:
    """How far into the range this process begins."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return zlib.crc32(run.encode()) + worker * (_LAST - _FIRST) // workers


_offset = _beginning()
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
