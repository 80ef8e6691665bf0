"""Connections to the admin listeners of this host's proxies: Unix sockets, or the one address with its token."""

import socket
from http.client import HTTPConnection

from watchllm.configuration import Configuration
from watchllm.domain.sealing import Sealer
from watchllm.stores import home
from watchllm.stores.sockets import socket_folder

# Longer than a process on a busy machine takes to load what answers operators.
_CONNECT_SECONDS = 5.0


def listeners(configuration: Configuration) -> list[str]:
    """Their names: paths of sockets, or HOST:PORT. Some may be left over from processes that have ended; a home that
    does not exist yet has none.

    Raises HomeUnusable.
    """
    if configuration.admin_addr is not None:
        return [configuration.admin_addr]
    try:
        folder = socket_folder(configuration.home)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return []
        raise home.HomeUnusable(
            f"{configuration.home} cannot be used: {error.strerror}. Set WATCHLLM_HOME to a folder of yours."
        ) from None
    return [str(path) for path in sorted(folder.glob("proxy-*.sock"))]


def connect(configuration: Configuration, name: str) -> tuple[HTTPConnection, dict[str, str]]:
    """A connection (made with its first request, which may raise OSError) and the headers that requests need."""
    if configuration.admin_addr is None:
        return _UnixConnection(name), {}
    secret = home.master_secret(configuration.home, configuration.secret_key)
    host, _, port = name.rpartition(":")
    host = "127.0.0.1" if host in ("0.0.0.0", "") else host.strip("[]")
    connection = HTTPConnection(host, int(port), timeout=_CONNECT_SECONDS)
    return connection, {"Authorization": f"Bearer {Sealer(secret).derive('admin-token').hex()}"}


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_CONNECT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_CONNECT_SECONDS)
        self.sock.connect(self._path)
