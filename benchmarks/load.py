"""Load on a server: many connections by wrk, or one connection by a small client that takes times."""

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httptools
import msgspec

from benchmarks.machine import Cores

CONNECTIONS = 32
_SCRIPT = Path(__file__).with_name("rotate.lua")
_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What wrk saw. Latencies in microseconds."""

    requests: int
    per_second: float
    p50: float
    p99: float


class LoadFailed(Exception):
    """Some answers were not what was measured for: other statuses, or broken connections."""


def wrk(
    cores: Cores,
    port: int,
    source: Path | int,
    key: str,
    *,
    seconds: int,
    header: str = "",
    connections: int = CONNECTIONS,
) -> LoadResult:
    """Load a server for some seconds. `source` is the file of bodies, or a number from which distinct ones are made.

    Raises LoadFailed when any answer failed: a figure over errors would be worth nothing.
    """
    program = shutil.which("wrk")
    if program is None:
        raise LoadFailed("wrk is not installed (apt-get install wrk)")
    arguments = [program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(_SCRIPT)]
    target = [f"http://127.0.0.1:{port}{_PATH}", "--", str(source), key, header]
    done = subprocess.run([*cores.load, *arguments, *target], capture_output=True, text=True, check=True)
    seen = msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=dict[str, int])
    if seen["bad_status"] or seen["broken"] or not seen["requests"]:
        raise LoadFailed(f"wrk on port {port}: {seen}")
    return LoadResult(seen["requests"], seen["requests"] * 1e6 / seen["microseconds"], seen["p50"], seen["p99"])


class Client:
    """One keep-alive connection, one request at a time."""

    def __init__(self, port: int, key: str, *, header: str = "") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        extra = f"{header}\r\n" if header else ""
        self._head = (
            f"POST {_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {key}\r\n{extra}Content-Length: "
        ).encode()

    def post(self, body: bytes) -> "Answer":
        """Send one request and read its answer to the end."""
        answer = Answer()
        parser = httptools.HttpResponseParser(answer)
        data = self._head + str(len(body)).encode() + b"\r\n\r\n" + body
        answer.sent = time.perf_counter()
        self._socket.sendall(data)
        while not answer.complete:
            received = self._socket.recv(262_144)
            if not received:
                raise LoadFailed("the server closed the connection")
            parser.feed_data(received)
        answer.ended = time.perf_counter()
        answer.status = parser.get_status_code()
        if answer.status != 200:
            raise LoadFailed(f"status {answer.status}: {bytes(answer.body[:300])!r}")
        return answer

    def close(self) -> None:
        self._socket.close()


class Answer:
    """An answer as it arrives; times as `time.perf_counter` gives them."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.complete = False
        self.sent = self.first_byte = self.ended = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, data: bytes) -> None:
        if not self.body:
            self.first_byte = time.perf_counter()
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


def added(ours: list[float], direct: list[float]) -> float:
    """By how much the median of `ours` exceeds that of `direct`."""
    return median(ours) - median(direct)
