"""Asks every proxy of this host how it is and what it has done, over its admin listener.

Each proxy has a Unix socket `proxy-PID.sock` in one folder, or all are behind one address with a token. What a proxy
does not say in a second is reported as not known; a socket whose process is gone is left out.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec

OK, DEGRADED, NOT_READY, STARTING, SILENT = "ok", "degraded", "not ready", "starting", "not answering"
# How a proxy begins the state of a dependency without which it answers requests as ever (see /health/ready).
_ONLY_DEGRADED = "degraded: "
_WELL = ("ok", "warming")
_TIMEOUT_SECONDS = 1.0
_MOST_BYTES = 1 << 20
_MOST_PROXIES = 64


class ProxyState(msgspec.Struct, frozen=True, kw_only=True):
    """One proxy as it described itself. `state` is ok, degraded (something is for the operator,
    requests are answered), not ready, starting or not answering; `detail` says why.

    `requests` since that proxy started, by cache state, and those of them that were `answered` with 2xx; amounts in
    USD.
    """

    name: str
    state: str
    detail: str = ""
    snapshot_version: int | None = None
    connections: int | None = None
    requests: dict[str, int] = {}
    answered: dict[str, int] = {}
    unauthenticated: int = 0
    saved_usd: float = 0.0
    cost_usd: float = 0.0

    @property
    def answers(self) -> bool:
        return self.state in (OK, DEGRADED, NOT_READY)


class Connect(msgspec.Struct, frozen=True):
    """How to reach one admin listener."""

    name: str
    open: Callable[[], HTTPConnection]
    is_gone: Callable[[], bool]
    headers: dict[str, str] = {}


class _Status(msgspec.Struct):
    pid: int
    snapshot_version: int
    dependencies: dict[str, str]
    connections: int


class ProxyStates:
    """Reads the proxies with a socket in `folder`, and the one at `address` (HOST:PORT, with its `token`) if any."""

    def __init__(self, folder: Callable[[], Path], address: str | None = None, token: str = "") -> None:
        self._folder = folder
        self._address = address
        self._token = token

    async def read(self) -> list[ProxyState]:
        """All at the same time, in order of their names."""
        known = await asyncio.to_thread(lambda: list(self._listeners()))
        states = await asyncio.gather(*(asyncio.to_thread(read_proxy, connect) for connect in known))
        return [state for state in states if state is not None]

    def _listeners(self) -> Iterator[Connect]:
        if self._address is not None:
            host, _, port = self._address.rpartition(":")
            host = "127.0.0.1" if host in ("0.0.0.0", "") else host.strip("[]")

            def over_tcp() -> HTTPConnection:
                return HTTPConnection(host, int(port), timeout=_TIMEOUT_SECONDS)

            yield Connect(self._address, over_tcp, lambda: True, {"Authorization": f"Bearer {self._token}"})
        for path in sorted(self._folder().glob("proxy-*.sock"))[:_MOST_PROXIES]:
            pid = path.stem.removeprefix("proxy-")
            if pid.isdecimal():
                yield _over_unix(path, int(pid))


def read_proxy(connect: Connect) -> ProxyState | None:
    """What one proxy says; None when nobody listens there and the process is gone."""
    try:
        status = msgspec.json.decode(_get(connect, "/status"), type=_Status)
        counted = read_metrics(_get(connect, "/metrics").decode("utf-8", "replace"))
    except (ConnectionRefusedError, FileNotFoundError):
        if connect.is_gone():
            return None
        return ProxyState(name=connect.name, state=STARTING)
    except (OSError, HTTPException, msgspec.DecodeError, ValueError) as error:
        return ProxyState(name=connect.name, state=SILENT, detail=str(error) or type(error).__name__)
    wrong = {name: state for name, state in sorted(status.dependencies.items()) if state not in _WELL}
    ready = all(state.startswith(_ONLY_DEGRADED) for state in wrong.values())
    return ProxyState(
        name=f"pid {status.pid}",
        state=NOT_READY if not ready else DEGRADED if wrong else OK,
        detail="; ".join(f"{name}: {state.removeprefix(_ONLY_DEGRADED)}" for name, state in wrong.items()),
        snapshot_version=status.snapshot_version,
        connections=status.connections,
        requests=counted.requests,
        answered=counted.answered,
        unauthenticated=int(counted.plain.get("watchllm_unauthenticated_total", 0)),
        saved_usd=counted.plain.get("watchllm_saved_usd_total", 0.0),
        cost_usd=counted.plain.get("watchllm_cost_usd_total", 0.0),
    )


class Counted(msgspec.Struct):
    """A proxy's counters: those without labels by name, and its requests by cache state: all, and those with 2xx."""

    plain: dict[str, float] = {}
    requests: dict[str, int] = {}
    answered: dict[str, int] = {}


def read_metrics(text: str) -> Counted:
    """Read Prometheus' text form. Raises ValueError where a value is not a number."""
    counted = Counted({}, {}, {})
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, _, value = line.rpartition(" ")
        if "{" not in name:
            if name:
                counted.plain[name] = float(value)
        elif name.startswith("watchllm_requests_total{"):
            labels = dict(
                label.split("=", 1) for label in name.partition("{")[2].rstrip("}").split(",") if "=" in label
            )
            cache = labels.get("cache", "").strip('"')
            counted.requests[cache] = counted.requests.get(cache, 0) + int(float(value))
            if labels.get("status", "").strip('"').startswith("2"):
                counted.answered[cache] = counted.answered.get(cache, 0) + int(float(value))
    return counted


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))


def _over_unix(path: Path, pid: int) -> Connect:
    def is_gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False

    return Connect(f"pid {pid}", lambda: _UnixConnection(path), is_gone)


def _get(connect: Connect, path: str) -> bytes:
    connection = connect.open()
    try:
        connection.request("GET", path, headers=connect.headers)
        answer = connection.getresponse()
        body = answer.read(_MOST_BYTES)
        if answer.status != 200:
            raise HTTPException(f"its admin listener answered {answer.status}")
        return body
    finally:
        connection.close()
