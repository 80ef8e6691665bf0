"""HTTP by hand: any bytes can be sent, and what comes back is judged by h11, a strict parser that is not ours."""

import socket
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import h11
import msgspec


@dataclass(frozen=True, slots=True)
class RawResponse:
    """One answer; header names in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of the first header called `name` (any case)."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key == wanted), None)

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class ConnectionClosed(AssertionError):
    """The peer closed (or reset) the connection before the answer was complete; `received` is what came."""

    def __init__(self, received: bytes) -> None:
        super().__init__(f"the connection was closed; received {received[-500:]!r}")
        self.received = received


class RawConnection:
    """A TCP connection to 127.0.0.1 with a time-out in seconds on every read. Use it as a context manager."""

    def __init__(self, port: int, *, timeout: float = 10.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def end_sending(self) -> None:
        """Half-close: the peer sees the end of what we send."""
        self._socket.shutdown(socket.SHUT_WR)

    def receive(self, size: int = 65_536) -> bytes:
        """The next bytes; b"" when the peer has closed. Bytes that `response` read too far come first."""
        if self._received:
            data, self._received = self._received[:size], self._received[size:]
            return data
        try:
            return self._socket.recv(size)
        except ConnectionResetError:
            return b""

    def response(self, method: bytes = b"GET") -> RawResponse:
        """The next final answer (1xx are skipped), to a request with `method`.

        Raises ConnectionClosed, TimeoutError, or h11.RemoteProtocolError when the answer is not proper HTTP.
        """
        parser = h11.Connection(h11.CLIENT)
        # The parser must believe that it sent the request; these bytes go nowhere.
        parser.send(h11.Request(method=method, target="/", headers=[("host", "unused")]))
        parser.send(h11.EndOfMessage())
        head: h11.Response | None = None
        body = bytearray()
        received = bytearray()
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                data = self.receive()
                received += data
                if not data and head is None:
                    raise ConnectionClosed(bytes(received))
                parser.receive_data(data)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
        assert head is not None
        self._received = bytes(parser.trailing_data[0]) + self._received
        return RawResponse(head.status_code, list(head.headers), bytes(body))

    def is_closed_by_peer(self) -> bool:
        """Wait (up to the time-out) for the end of the stream: True when it came without further bytes."""
        try:
            return self.receive() == b""
        except TimeoutError:
            return False

    def close(self) -> None:
        self._socket.close()


def exchange(port: int, data: bytes, *, method: bytes = b"GET", timeout: float = 10.0) -> RawResponse:
    """Send `data` on a connection of its own and read one answer."""
    with RawConnection(port, timeout=timeout) as connection:
        connection.send(data)
        return connection.response(method)


def request_bytes(
    path: str, *, key: str | None = None, body: object = None, headers: dict[str, str] | None = None, method: str = ""
) -> bytes:
    """A well-formed request: POST with `body` as JSON (bytes go as they are, and as what `headers` say), else GET."""
    content = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
    lines = [f"{method or ('GET' if body is None else 'POST')} {path} HTTP/1.1", "host: 127.0.0.1"]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if body is not None:
        if "content-type" not in map(str.lower, headers or {}):
            lines.append("content-type: application/json")
        lines.append(f"content-length: {len(content)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content
