"""A flight for tests: clients, a provider and a clock that do what they are told."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from watchllm.domain.errors import GatewayError
from watchllm.domain.usage import TokenUsage
from watchllm.providers.dialect import CHAT, Verdict
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.providers.openai.errors import error_event
from watchllm.providers.openai.storable import judge
from watchllm.proxy.directives import Directives
from watchllm.proxy.flight import Flight
from watchllm.proxy.request import Request
from watchllm.proxy.shared_stream import SharedStream
from watchllm.proxy.streamed_flight import StreamedFlight
from watchllm.proxy.waiter import Landed, Waiter
from watchllm.wire.exchange import Exchange

WHOLE = b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9}}'
FILTERED = WHOLE.replace(b'"stop"', b'"content_filter"')
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
COST = 7


def chunk(size: int = 1) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * size)


class Client:
    """The client's end of an exchange: takes what it is sent while `writable`."""

    began = 0.0

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.writable = True
        self.received = b""
        self.started = self.finished = self.aborted = False
        self.on_writable: Callable[[], None] | None = None

    def start(self, status: int, _head: bytes) -> None:
        assert not self.started
        assert status == 200
        self.started = True

    def write(self, data: bytes) -> None:
        assert data
        assert not self.finished
        self.received += data

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        self.finished = self.aborted = True

    def read_on(self) -> None:
        self.writable = True
        assert self.on_writable is not None
        self.on_writable()


class Provider:
    """The call: what was asked of it, and whether it is `reading` or paused."""

    is_sent = True
    is_spoiled = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pause(self) -> None:
        assert self.reading()
        self.asked.append("pause")

    def resume(self) -> None:
        assert not self.reading()
        self.asked.append("resume")

    def spoiled(self) -> None:
        self.is_spoiled = True

    def cancel(self) -> None:
        self.asked.append("cancel")

    def begin(self) -> None:
        pass

    def reading(self) -> bool:
        return self.asked[-1:] != ["pause"]


class Timer:
    def __init__(self, expire: Callable[[], None]) -> None:
        self.expire = expire
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Trip:
    """A flight and all around it: its plan, too. `settled` has (request, status, ended), `stored` the bodies."""

    dialect = CHAT

    def __init__(self, *, streamed: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.complaints.append(context))
        self.provider = Provider()
        self.timers: list[Timer] = []
        self.settled: list[tuple[Request, int, str]] = []
        self.stored: list[bytes] = []
        self.ends = 0
        self.leader = self.waiter(streamed=streamed)
        if streamed:
            stream = SharedStream(StreamAssembler("generate"), has_usage=False)
            self.flight: Flight = StreamedFlight(self.leader.request, self, stream)
        else:
            self.flight = Flight(self.leader.request, self)
        self.add(self.leader)
        self.flight.begin(cast(Any, self.provider))

    def settle(self, request: Request, status: int, ended: str) -> None:
        if request.settled:
            return
        if request.deferred:
            request.deferred_end = (status, ended)
            return
        request.settled = True
        self.settled.append((request, status, ended))

    def account(self, request: Request, usage: TokenUsage | None) -> None:
        request.usage, request.cost = usage, COST

    account_unfinished = account

    def judge(self, body: bytes) -> Verdict:
        return judge("generate", body)

    def store(self, body: bytes) -> None:
        self.stored.append(body)

    def error_event(self, error: GatewayError) -> bytes:
        return error_event(error)

    def told_to(self, _request: Request, dialect: str, landed: Landed) -> Landed:
        assert dialect == self.dialect
        return landed

    def ended(self, _flight: Flight) -> None:
        self.ends += 1

    def call_later(self, _delay: float, callback: Callable[..., None], *arguments: Any) -> Timer:
        self.timers.append(Timer(lambda: callback(*arguments)))
        return self.timers[-1]

    def waiter(self, *, streamed: bool, timeout: float | None = None) -> Waiter:
        request = Request(cast(Exchange, Client()), "chat.completions")
        request.streamed = streamed
        request.directives = Directives(True, True, 60, timeout=timeout)
        return Waiter(request, include_usage=False)

    def add(self, waiter: Waiter) -> Client:
        self.flight.add(waiter, cast(asyncio.AbstractEventLoop, self))
        return client_of(waiter)

    def join(self, *, streamed: bool, timeout: float | None = None) -> Waiter:
        waiter = self.waiter(streamed=streamed, timeout=timeout)
        self.add(waiter)
        return waiter

    def answers(self, status: int = 200, kind: bytes = b"text/event-stream") -> None:
        self.flight.on_response(status, [(b"content-type", kind)])

    def lands(self, body: bytes = WHOLE) -> None:
        self.answers(kind=b"application/json")
        self.flight.on_data(body)
        self.flight.on_complete()

    def streams(self, *events: bytes) -> None:
        self.answers()
        self.sends(*events)
        self.flight.on_complete()

    def sends(self, *events: bytes) -> None:
        for event in events:
            self.flight.on_data(event)

    def endings(self) -> list[tuple[int, str]]:
        return [(status, ended) for _, status, ended in self.settled]


def client_of(waiter: Waiter) -> Client:
    return cast(Client, waiter.request.exchange)


def landed(waiter: Waiter) -> Landed | None:
    return waiter.result()


def error_of(waiter: Waiter) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        waiter.result()
    return raised.value
