"""A proxy and its simulated provider inside the test's own process, so that a test decides the order of what happens.

Requests go through real sockets; the provider moves on only when it is told to (`steps`), and the proxy's calls under
way and usage events can be looked at. On the way out it is checked that nothing was left behind.
"""

import asyncio
import gc
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import h11
import msgspec
import uvloop

from tests.support.ports import free_port
from tests.support.product import UPSTREAM_KEY, Installation, Project
from tests.support.raw_http import RawResponse, request_bytes
from watchllm.compose.proxy import ProxyProcess
from watchllm.configuration import InstanceProvider
from watchllm.domain.usage_event import UsageEvent
from watchllm.limits.tiers import TIERS
from watchllm.proxy.flight import Flight
from watchllm.proxy.services import Services
from watchllm.proxy.streamed_flight import StreamedFlight
from watchllm.proxy.waiter import Waiter
from watchllm.sim.app import SimApp, SimOptions
from watchllm.sim.knobs import Knobs
from watchllm.wire.server import serve

CHAT = "/v1/chat/completions"


def run(test: Coroutine[Any, Any, None], *, within: float = 60.0) -> None:
    """Run a test's coroutine on the loop that the product uses."""

    async def bounded() -> None:
        async with asyncio.timeout(within):
            await test

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


async def until(condition: Callable[[], object], what: str, *, within: float = 10.0) -> None:
    """Let everything else run until `condition` is true. Raises AssertionError when `within` seconds have passed."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"waited {within:g} s in vain: {what}"
        await asyncio.sleep(0.001)


class Steps:
    """The simulator's scheduler: what it would do after a while happens when it is released."""

    def __init__(self) -> None:
        self._held: deque[Step] = deque()
        self.open = False

    def __call__(self, _delay: float, callback: Callable[[], None], /) -> "Step":
        step = Step(callback)
        if self.open:
            asyncio.get_running_loop().call_soon(step.run)
        else:
            self._held.append(step)
        return step

    @property
    def held(self) -> int:
        return sum(step.callback is not None for step in self._held)

    async def release(self, count: int = 1) -> None:
        """Let the next `count` steps happen, each as soon as it is there."""
        for _ in range(count):
            await until(lambda: self.held, "the provider's next step")
            while not self._held.popleft().run():
                pass

    def release_all(self) -> None:
        """From now on nothing is held."""
        self.open = True
        while self._held:
            self._held.popleft().run()


class Step:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def run(self) -> bool:
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()
        return callback is not None


class Inside:
    """The running pair. `events` are the usage events since the start, `asked` the number of requests sent."""

    def __init__(
        self, installation: Installation, project: Project, proxy: ProxyProcess, port: int, sim: SimApp, steps: Steps
    ) -> None:
        self.installation = installation
        self.project = project
        self.services: Services = proxy._services
        self._app = proxy._app
        self.port = port
        self.sim = sim
        self.steps = steps
        self.asked = 0
        self.events: list[UsageEvent] = []
        self.complaints: list[str] = []
        self.services.settlement.observers.append(self.events.append)

    def body(self, text: str, *, model: str = "gpt-4o-mini", **fields: object) -> dict[str, object]:
        return {"model": model, "messages": [{"role": "user", "content": text}], **fields}

    def ask(
        self,
        text: str,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        path: str = CHAT,
        **fields: Any,
    ) -> "asyncio.Task[RawResponse]":
        """Send a chat request on a connection of its own; the task gives the whole answer."""
        return asyncio.create_task(self._ask(text, key, headers, path, fields))

    async def _ask(
        self, text: str, key: str | None, headers: dict[str, str] | None, path: str, fields: dict[str, Any]
    ) -> RawResponse:
        reader = await self.open(text, key=key, headers=headers, path=path, **fields)
        try:
            return await reader.answer()
        finally:
            reader.leave()

    async def open(
        self,
        text: str,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        path: str = CHAT,
        body: object = None,
        receive_buffer: int | None = None,
        **fields: Any,
    ) -> "Reader":
        """Send a chat request, or `body` to another `path`; the connection, of which nothing was read yet."""
        self.asked += 1
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, ("127.0.0.1", self.port))
        data = request_bytes(
            path,
            key=key or self.project.key,
            body=body or self.body(text, **fields),
            headers={"connection": "close", **(headers or {})},
        )
        await loop.sock_sendall(connection, data)
        return Reader(connection)

    @property
    def calls(self) -> int:
        """Requests that the provider received."""
        return self.sim.ledger.calls

    @property
    def waiting(self) -> int:
        """Requests that wait for a call that can be joined."""
        return sum(len(flight._waiters) for flight in self.services.flights.values())

    @property
    def buying(self) -> int:
        """Requests that wait for a purchase of embeddings that can be joined."""
        return sum(len(purchase._waiters) for purchase in set(self._app.embeddings._calls._under_way.values()))

    @property
    def paused(self) -> bool:
        """Whether a call that can be joined is paused, because nobody reads on."""
        return any(isinstance(flight, StreamedFlight) and flight._paused for flight in self.services.flights.values())

    async def all_wait(self, count: int) -> None:
        await until(lambda: self.waiting == count, f"{count} waiting", within=30)

    async def all_settled(self) -> None:
        await until(lambda: len(self.events) >= self.asked, f"{self.asked} usage events", within=20)

    def of(self, cache: str) -> list[UsageEvent]:
        return [event for event in self.events if event.cache == cache]


class Reader:
    """The client's side of one request."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.received = bytearray()

    async def read(self, size: int = 65_536) -> bytes:
        """Some more bytes; b"" at the end."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self._connection, size)
        except ConnectionResetError:
            data = b""
        self.received += data
        return data

    async def read_until(self, text: bytes) -> None:
        """Read until `text` has come. Raises AssertionError when the answer ends before."""
        while text not in self.received:
            assert await self.read(), f"{text!r} did not come: {bytes(self.received[-500:])!r}"

    async def answer(self) -> RawResponse:
        """All of it. Raises h11.RemoteProtocolError when it was cut."""
        while await self.read():
            pass
        return parsed(bytes(self.received))

    def leave(self) -> None:
        self._connection.close()


async def in_memory(services: Services) -> list[object]:
    """All that the collector knows, once no other thread makes anything: a tuple that is referred to while another
    thread still puts it together cannot be finished by it (SystemError)."""
    thread = services.semantic._thread
    await until(lambda: thread is None or not thread.is_alive(), "the engine of like questions to be loaded")
    gc.collect()
    return list(gc.get_objects())


def parsed(received: bytes) -> RawResponse:
    """One whole answer."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="POST", target="/", headers=[("host", "unused")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(received)
    parser.receive_data(b"")
    head: h11.Response | None = None
    body = bytearray()
    while type(event := parser.next_event()) is not h11.EndOfMessage:
        if isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            raise AssertionError(f"no whole answer: {received[-500:]!r}")
    assert head is not None
    return RawResponse(head.status_code, list(head.headers), bytes(body))


@asynccontextmanager
async def inside(
    installation: Installation, project: Project, *, base_url: str | None = None, **configuration: Any
) -> AsyncIterator[Inside]:
    """A proxy over `installation` whose OpenAI is a simulator, or what is at `base_url`, all in this process.

    At the end every request must have left one usage event, and no call, waiter or complaint may be left.
    """
    loop = asyncio.get_running_loop()
    steps = Steps()
    sim = SimApp(SimOptions(knobs=Knobs(latency=1.0, chunk_time=1.0), record=100), scheduler=steps)
    async with AsyncExitStack() as stack:
        upstream = await serve(sim, host="127.0.0.1", port=0)
        stack.push_async_callback(upstream.close)
        provider = InstanceProvider(UPSTREAM_KEY, base_url or f"http://127.0.0.1:{upstream.port}/v1")
        settings = msgspec.structs.replace(
            installation.configuration(),
            proxy_port=free_port(),
            instance_providers={"openai": provider},
            **configuration,
        )
        proxy = ProxyProcess(settings, loop)
        stack.push_async_callback(proxy.close)
        port = await proxy.listen(())
        await until(lambda: hasattr(proxy, "_operators_task") and proxy._operators_task.done(), "the admin listener")
        pair = Inside(installation, project, proxy, port, sim, steps)
        loop.set_exception_handler(lambda _loop, context: pair.complaints.append(str(context)))
        yield pair
        steps.release_all()
        await pair.all_settled()
        await until(lambda: not pair.services.flights, "no call under way")
        await until(lambda: pair.services.slots.under_way == 0, "no slot taken")
        assert not any(map(pair.services.slots.waiting_in, TIERS))
        await until(lambda: proxy._server.connections == 0, "no connection")
        assert len({event.request_id for event in pair.events}) == len(pair.events) == pair.asked
        left = [thing for thing in await in_memory(pair.services) if isinstance(thing, Waiter | Flight)]
        assert not left, f"still in memory: {left}"
        assert not pair.complaints
        assert pair.services.counters.internal_errors == 0
