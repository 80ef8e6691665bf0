"""A proxy's listener for operators: whoever had an answer from the proxy finds its socket, and waits there until what
answers on it is loaded. Import-light."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

from watchllm.configuration import Configuration
from watchllm.proxy.health import DEGRADED
from watchllm.stores import home
from watchllm.stores.sockets import socket_directory
from watchllm.wire.server import Server

# As many as the server takes.
_BACKLOG = 64


class OperatorsListener:
    """The Unix socket of this process in its home, or the configured address. Requests are served without operators,
    too: why they cannot reach this process is `problem`, which is for its health."""

    def __init__(self, configuration: Configuration) -> None:
        self._directory = configuration.directory
        self._address = configuration.admin_addr
        self._path = ""
        self._socket: socket.socket | None = None
        self._server: Server | None = None
        self.problem: str | None = None

    def bind(self) -> None:
        """Let connections to the Unix socket wait from here on."""
        if self._address is not None:
            return
        try:
            self._path = os.path.join(socket_directory(self._directory), f"proxy-{os.getpid()}.sock")
            self._socket = _listening(self._path)
        except (OSError, home.HomeUnusable) as error:
            self._failed(error)

    async def serve(self, make_server: Callable[[], Server]) -> None:
        """Answer, with a server that is made only where there is something to listen on."""
        try:
            if self._address is not None:
                self._server = make_server()
                host, _, port = self._address.rpartition(":")
                await self._server.listen_tcp(host or "127.0.0.1", int(port))
            elif self._socket is not None:
                self._server = make_server()
                await self._server.listen_unix(self._socket)
        except (OSError, ValueError, home.HomeUnusable) as error:
            self._failed(error)

    async def close(self) -> None:
        """End connections, and take the socket out of the home. To be called once."""
        if self._server is not None:
            await self._server.close()
        if self._socket is not None:
            self._socket.close()
            _unlink(self._path)

    def _failed(self, error: Exception) -> None:
        reason = f"the operators' listener cannot be opened: {error}"
        # Nobody can ask on it, and the public port tells no reasons.
        sys.stderr.write(f"watchllm proxy: {reason}\n")
        self.problem = DEGRADED + reason


def _listening(path: str) -> socket.socket:
    _unlink(path)  # Left by a process that had this one's number.
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        # Nobody can connect before it listens.
        os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
