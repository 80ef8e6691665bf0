"""Bodies that drip: they hold memory for a bounded time, and for less while others need it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import pytest

from tests.support.wire_peers import LoopFactory
from watchllm.domain.errors import GatewayError
from watchllm.wire.server import BodyMode, Exchange, Server, ServerLimits, serve

KIB = 1024
MIB = KIB * KIB


class Counting:
    """Answers every request with the size of its body."""

    def __init__(self, mode: BodyMode = BodyMode.BUFFER) -> None:
        self._mode = mode
        self._sizes: dict[Exchange, int] = {}

    def body_mode(self, exchange: Exchange) -> BodyMode:
        return self._mode

    def on_request(self, exchange: Exchange) -> None:
        if exchange.body_complete:
            exchange.respond(200, b"", b"%d" % len(exchange.body))
            return
        self._sizes[exchange] = 0
        exchange.on_data = lambda data: self._sizes.update({exchange: self._sizes[exchange] + len(data)})
        exchange.on_end = lambda: exchange.respond(200, b"", b"%d" % self._sizes[exchange])

    def on_refusal(self, exchange: Exchange | None, error: GatewayError) -> tuple[bytes, bytes]:
        return b"", error.code.encode()


class Client:
    """Sends a body of `size` bytes as it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
        self._reader, self._writer, self._left = reader, writer, size
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)

    async def send(self, size: int) -> None:
        self._left -= size
        self._writer.write(bytes(size))
        await self._writer.drain()

    async def send_rest(self) -> None:
        await self.send(self._left)

    async def drip(self, size: int, every: float) -> None:
        """Send `size` bytes every `every` seconds until the server has had enough."""
        while self._left > size and not self._reader.at_eof():
            await self.send(size)
            await asyncio.sleep(every)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return int(head.split()[1]), await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def serving(limits: ServerLimits, mode: BodyMode = BodyMode.BUFFER) -> AsyncIterator[Server]:
    server = await serve(Counting(mode), limits=limits)
    try:
        yield server
    finally:
        await server.close()


async def client_of(server: Server, size: int) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", server.port), size)


async def dripped(client: Client, *, size: int = 1, every: float = 0.02) -> tuple[int, bytes]:
    """The answer to a client that drips until it has one."""
    dripping = asyncio.create_task(client.drip(size, every))
    try:
        return await client.answer()
    finally:
        dripping.cancel()
        client.close()


async def held(server: Server, size: int) -> None:
    while server.inflight_bytes < size:
        await asyncio.sleep(0.01)


def run(loop_factory: LoopFactory, talk: Coroutine[None, None, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await talk

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(bounded())


def test_megabytes_sent_at_once_earn_no_hours_to_drip_the_rest(loop_factory: LoopFactory) -> None:
    async def talk() -> None:
        async with serving(ServerLimits(body_grace=0.3, body_timeout=0.5)) as server:
            client = await client_of(server, 8 * MIB)
            await client.send(4 * MIB)
            await held(server, 4 * MIB)
            assert await dripped(client) == (408, b"request_timeout")
            assert server.inflight_bytes == 0

    run(loop_factory, talk())


def test_an_upload_that_is_not_kept_may_take_its_time(loop_factory: LoopFactory) -> None:
    async def talk() -> None:
        # Longer than a busy machine keeps this client, which runs on the server's loop, from its next byte.
        async with serving(ServerLimits(body_grace=1.0, body_timeout=0.0), BodyMode.STREAM) as server:
            client = await client_of(server, 5 * MIB)
            await client.send(4 * MIB)
            for _ in range(75):
                await client.send(1)
                await asyncio.sleep(0.02)
            await client.send_rest()
            assert await client.answer() == (200, b"%d" % (5 * MIB))
            client.close()

    run(loop_factory, talk())


@pytest.mark.parametrize("others", [0, 3])
def test_a_body_that_drips_gives_way_when_memory_is_short(loop_factory: LoopFactory, others: int) -> None:
    async def talk() -> None:
        async with serving(ServerLimits(max_inflight_bytes=8 * MIB, pressed_window=0.3)) as server:
            steady = [asyncio.create_task(steady_client(server)) for _ in range(others)]
            client = await client_of(server, 6 * MIB)
            await client.send(5 * MIB)
            assert await dripped(client) == (503, b"overloaded")
            assert [await task for task in steady] == [(200, b"%d" % MIB)] * others

    async def steady_client(server: Server) -> tuple[int, bytes]:
        """Sends a megabyte in two seconds."""
        client = await client_of(server, MIB)
        for _ in range(40):
            await client.send(MIB // 50)
            await asyncio.sleep(0.05)
        await client.send_rest()
        answer = await client.answer()
        client.close()
        return answer

    run(loop_factory, talk())


def test_the_slowest_give_way_first_and_no_more_than_must(loop_factory: LoopFactory) -> None:
    async def talk() -> None:
        async with serving(ServerLimits(max_inflight_bytes=8 * MIB, pressed_window=1.0)) as server:
            slow, slower = await client_of(server, 4 * MIB), await client_of(server, 4 * MIB)
            for client in (slow, slower):
                await client.send(3 * MIB)
            dripping = asyncio.create_task(slow.drip(KIB, 0.05))
            assert await dripped(slower) == (503, b"overloaded")
            dripping.cancel()
            await slow.send_rest()
            assert (await slow.answer())[0] == 200
            slow.close()

    run(loop_factory, talk())


def test_a_body_may_drip_while_there_is_memory(loop_factory: LoopFactory) -> None:
    async def talk() -> None:
        async with serving(ServerLimits(max_inflight_bytes=8 * MIB, pressed_window=0.1)) as server:
            client = await client_of(server, 4 * MIB)
            await client.send(3 * MIB)
            for _ in range(80):  # several sweeps
                await client.send(1)
                await asyncio.sleep(0.02)
            await client.send_rest()
            assert (await client.answer())[0] == 200
            client.close()

    run(loop_factory, talk())


class Keeping(Counting):
    """Never answers, and counts the bytes that a request goes on to take."""

    def __init__(self) -> None:
        super().__init__()
        self.exchange: Exchange | None = None

    def on_request(self, exchange: Exchange) -> None:
        self.exchange = exchange
        assert exchange.hold(MIB)


def test_a_request_that_is_over_takes_no_more_memory(loop_factory: LoopFactory) -> None:
    """Nobody would release it: memory that a call goes on to use after its client has left would be lost for good."""

    async def talk() -> None:
        handler = Keeping()
        server = await serve(handler, limits=ServerLimits())
        try:
            client = await client_of(server, KIB)
            await client.send_rest()
            await held(server, MIB + KIB)
            client.close()
            while server.inflight_bytes:
                await asyncio.sleep(0.01)
            assert handler.exchange is not None
            assert not handler.exchange.hold(1)
            assert server.inflight_bytes == 0
        finally:
            await server.close()

    run(loop_factory, talk())
