"""A simulator without sockets: exchanges and timers that a test drives by hand."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from watchllm.sim.app import SimApp, SimOptions


class FakeTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """Timers that run when the test moves time on."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, Callable[[], None], FakeTimer]] = []

    def call_later(self, delay: float, callback: Callable[[], None], /) -> FakeTimer:
        timer = FakeTimer()
        self._timers.append((self.now + delay, callback, timer))
        return timer

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [one for one in self._timers if one[0] <= end + 1e-9 and not one[2].cancelled]:
            first = min(due, key=lambda one: one[0])
            self._timers.remove(first)
            self.now = first[0]
            first[1]()
        self.now = end


class FakeExchange:
    """What the wire hands to a handler, with what was sent back."""

    def __init__(self, method: bytes, target: str, headers: dict[bytes, bytes], body: bytes) -> None:
        path, _, query = target.partition("?")
        self.method, self.path, self.query = method, path.encode(), query.encode()
        self.headers, self.body = headers, body
        self.on_disconnect: Callable[[], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.writable = True
        self.status = 0
        self.head = b""
        self.writes: list[bytes] = []
        self.finished = self.aborted = False

    def header(self, name: bytes) -> bytes | None:
        return self.headers.get(name)

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        assert not self.status
        self.status, self.head, self.finished = status, head, True
        self.writes.append(body)

    def start(self, status: int, head: bytes) -> None:
        assert not self.status
        self.status, self.head = status, head

    def write(self, data: bytes) -> None:
        assert data
        assert self.status
        assert not self.finished
        self.writes.append(data)

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        self.aborted = True

    def leave(self) -> None:
        """The client closes its connection."""
        if self.on_disconnect is not None:
            self.on_disconnect()

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)

    @property
    def json(self) -> Any:
        return json.loads(self.sent)

    @property
    def events(self) -> list[Any]:
        """The stream's events, decoded; `[DONE]` as text."""
        pieces = [piece.removeprefix("data: ") for piece in self.sent.decode().split("\n\n") if piece]
        return [piece if piece == "[DONE]" else json.loads(piece) for piece in pieces]

    def head_lines(self, name: str) -> list[str]:
        lines = [line.partition(": ") for line in self.head.decode().split("\r\n")]
        return [value for found, _, value in lines if found.lower() == name]


class Sim:
    """A simulator and a clock; every call is given to the handler as the wire server would."""

    def __init__(self, options: SimOptions | None = None) -> None:
        self.clock = FakeClock()
        self.app = SimApp(options, scheduler=self.clock.call_later, clock=lambda: 1_800_000_000.5)

    def call(
        self,
        target: str,
        body: Any = None,
        *,
        method: str = "POST",
        knobs: str = "",
        headers: dict[bytes, bytes] | None = None,
    ) -> FakeExchange:
        sent = dict(headers or {})
        if knobs:
            sent[b"x-sim"] = knobs.encode()
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        exchange = FakeExchange(method.encode(), target, sent, raw)
        self.app.on_request(exchange)  # type: ignore[arg-type]  # the fake has what the handler uses
        return exchange

    def chat(
        self, text: str = "Hello there, simulator", *, model: str = "gpt-4o", knobs: str = "", **fields: Any
    ) -> FakeExchange:
        messages = fields.pop("messages", [{"role": "user", "content": text}])
        return self.call("/v1/chat/completions", {"model": model, "messages": messages, **fields}, knobs=knobs)

    def stats(self) -> Any:
        return self.call("/sim/stats", method="GET").json


@pytest.fixture
def make_sim() -> Callable[..., Sim]:
    def make(**options: Any) -> Sim:
        return Sim(SimOptions(**options))

    return make


@pytest.fixture
def sim() -> Sim:
    return Sim()
