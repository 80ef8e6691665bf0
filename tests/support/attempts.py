"""Providers that a test answers for by hand: the world of the attempts of one question."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from watchllm.domain.errors import GatewayError
from watchllm.domain.snapshot import ProviderKeyRecord, Vendor
from watchllm.domain.usage import ModelPrice
from watchllm.proxy.approach import Candidate
from watchllm.proxy.request import Request
from watchllm.proxy.slots import SlotLimits, Slots
from watchllm.proxy.upstream import Destination
from watchllm.routing.breaker import Breakers
from watchllm.routing.target import Target
from watchllm.wire.types import Headers, Origin, Timeouts, WireError

BODY = b'{"model":"m","messages":[{"role":"user","content":"How are you this fine morning?"}]}'
PRICE = ModelPrice(input=1_000_000_000, output=1_000_000_000)


class Call:
    """A call that the pool was asked to make."""

    def __init__(self, host: str, sink: Any, timeouts: Timeouts) -> None:
        self.host = host
        self.sink = sink
        self.timeouts = timeouts
        self.asked: list[str] = []
        self.is_sent = True

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")

    def cancel(self) -> None:
        self.asked.append("cancel")

    def pass_to(self, sink: Any) -> None:
        self.sink = sink


class World:
    """The services of one process, as far as attempts need them, and what was done with them. One slot is free."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.opened: list[tuple[str, bool]] = []
        self.seconds = 0.0
        self.breakers = Breakers(lambda: self.seconds)
        self.timeouts = Timeouts()
        self.outbound = SimpleNamespace(pool=SimpleNamespace(send=self._send))
        self.settlement = SimpleNamespace(open_call=self._open)
        self.tenants = SimpleNamespace(price=lambda _provider, _model: PRICE)
        self.loop = SimpleNamespace(call_later=self._call_later)
        self.slots = Slots(cast(Any, self.loop), SlotLimits(calls=1))

    def now_ms(self) -> int:
        return 0

    def _send(
        self, origin: Origin, _method: bytes, _url: bytes, _head: bytes, _body: bytes, sink: Any, timeouts: Timeouts
    ) -> Call:
        self.calls.append(Call(origin.host, sink, timeouts))
        return self.calls[-1]

    def _open(self, request: Request, _size: int, *, hedged: bool = False) -> None:
        assert request.target is not None
        self.opened.append((request.target.provider, hedged))
        request.calls += 1

    def _call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> Any:
        entry = (delay, lambda: callback(*arguments))
        self.timers.append(entry)

        def cancel() -> None:
            if entry in self.timers:
                self.timers.remove(entry)

        return SimpleNamespace(cancel=cancel)

    def fire(self) -> float:
        delay, callback = self.timers.pop(0)
        callback()
        return delay


class Sink:
    """Who waits for the answer."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_response(self, status: int, _headers: Headers) -> None:
        self.told.append(status)

    def on_data(self, data: bytes) -> None:
        self.told.append(data)

    def on_complete(self) -> None:
        self.told.append("complete")

    def on_failure(self, error: WireError) -> None:
        self.told.append(error)

    def fail(self, error: GatewayError) -> None:
        self.told.append(error)


def candidate(provider: str, key: str | None = None) -> Candidate:
    own = None if key is None else ProviderKeyRecord(key, provider, b"sealed")
    target = Target(
        provider, Vendor(provider, f"https://{provider}"), f"https://{provider}", "m", own, "k", trusted=True
    )
    return Candidate(target, Destination(Origin("https", f"{provider}.{key}", 443), b"", b""))


def answer(call: Call, status: int, headers: Headers | None = None) -> None:
    call.sink.on_response(status, headers or [])
