"""A proxy's admin listener as an operator reads it: over the Unix socket in its home folder."""

import socket
from typing import Any

from tests.support.product import Gateway
from tests.support.raw_http import RawConnection, RawResponse, request_bytes
from tests.support.waiting import wait_for
from watchllm.stores.sockets import socket_folder


class AdminConnection(RawConnection):
    """A raw connection to the admin socket of one proxy process."""

    def __init__(self, gateway: Gateway, *, timeout: float = 10.0, pid: int | None = None) -> None:
        address = socket_folder(gateway.installation.home) / f"proxy-{pid or gateway.process.pid}.sock"
        connection = wait_for(lambda: _connected(str(address)), f"the admin listener at {address}")
        assert connection is not None
        self._socket = connection
        self._socket.settimeout(timeout)
        self._received = b""


def _connected(address: str) -> socket.socket | None:
    """None as long as nobody listens: a process that takes another's place has yet to start."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(address)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


def admin_get(gateway: Gateway, path: str, *, pid: int | None = None) -> RawResponse:
    """GET `path` from the admin listener of the process that `gateway` is, or of the one called `pid`."""
    with AdminConnection(gateway, pid=pid) as connection:
        connection.send(request_bytes(path))
        return connection.response()


def dependency_of(gateway: Gateway, name: str) -> str | None:
    """The state of one of the things that a proxy depends on, with the reason, which the public port does not tell."""
    state = status_of(gateway)["dependencies"].get(name)
    return None if state is None else str(state)


def status_of(gateway: Gateway) -> dict[str, Any]:
    """`/status`: connections, inflight_bytes, internal_errors and more."""
    answer = admin_get(gateway, "/status")
    assert answer.status == 200, answer
    return dict(answer.json())
