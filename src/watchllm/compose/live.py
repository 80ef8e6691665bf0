"""Live requests of this host's proxies, read from their admin listeners, those that start later included."""

import queue
import threading
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec

from watchllm.compose.admin_client import connect, listeners
from watchllm.configuration import Configuration
from watchllm.stores.home import HomeUnusable

_LOOK_SECONDS = 0.5
_QUEUE = 10_000


class LiveEvent(msgspec.Struct, frozen=True):
    """`kind` is `request` (`data` has the columns of usage_logs), `missed` (`missed`: how many went by unseen), or
    `listening` and `ended` (a proxy's listener was reached, or left)."""

    kind: str
    proxy: str
    data: dict[str, Any]


class LiveRequests:
    """Listens to every proxy that there is. Iterate over `events`; `close` from another thread ends that.

    Raises HomeUnusable, here or from `events`, when nobody could tell which proxies there are.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        # Bounded: a terminal that is slower than the traffic slows the proxies' writes to us, and they drop.
        self._events: queue.Queue[LiveEvent] = queue.Queue(_QUEUE)
        self._connected: set[str] = set()
        self._closed = threading.Event()
        self._unusable: HomeUnusable | None = None
        listeners(configuration)
        threading.Thread(target=self._look, name="live", daemon=True).start()

    def events(self) -> Iterator[LiveEvent]:
        while not self._closed.is_set():
            try:
                yield self._events.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if self._unusable is not None:
                    raise self._unusable from None

    def close(self) -> None:
        self._closed.set()

    def _look(self) -> None:
        """Connect to listeners as they appear."""
        while not self._closed.is_set():
            try:
                names = listeners(self._configuration)
            except HomeUnusable as error:
                self._unusable = error
                return
            for name in names:
                if name not in self._connected:
                    self._connected.add(name)
                    threading.Thread(target=self._listen, args=(name,), name="live", daemon=True).start()
            self._closed.wait(_LOOK_SECONDS)

    def _listen(self, name: str) -> None:
        proxy = Path(name).stem.removeprefix("proxy-")
        heard = False
        try:
            for kind, data in self._stream(name):
                if not heard:
                    heard = True
                    self._events.put(LiveEvent("listening", proxy, {}))
                if kind:
                    self._events.put(LiveEvent(kind, proxy, data))
        except (OSError, HTTPException, msgspec.DecodeError):
            pass  # The process has ended, or has not begun to listen: looked for again in a moment.
        finally:
            if heard:
                self._events.put(LiveEvent("ended", proxy, {}))
            self._closed.wait(_LOOK_SECONDS)
            self._connected.discard(name)

    def _stream(self, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of one listener; at its begin one without a name. Raises OSError and HTTPException."""
        connection, headers = connect(self._configuration, name)
        try:
            connection.request("GET", "/events", headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise HTTPException(f"status {answer.status}")
            if connection.sock is not None:
                connection.sock.settimeout(None)
            yield "", {}
            kind = ""
            while line := answer.readline():
                field, _, value = line.rstrip(b"\n").partition(b": ")
                if field == b"event":
                    kind = value.decode()
                elif field == b"data":
                    yield kind, msgspec.json.decode(value, type=dict[str, Any])
        finally:
            connection.close()
