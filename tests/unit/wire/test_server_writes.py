"""Long answers to slow clients: who reads on gets all of it, who stops is cut off."""

import asyncio
import socket

import uvloop

from watchllm.domain.errors import GatewayError
from watchllm.wire.server import BodyMode, Exchange, Server, ServerLimits, serve

BODY = bytes(12 << 20)
WRITE_TIMEOUT = 0.6


class Large:
    """Answers every request with BODY, and ends the connection where the client asked for that."""

    def body_mode(self, exchange: Exchange) -> BodyMode:
        return BodyMode.BUFFER

    def on_request(self, exchange: Exchange) -> None:
        exchange.respond(200, b"", BODY)

    def on_refusal(self, exchange: Exchange | None, error: GatewayError) -> tuple[bytes, bytes]:
        return b"", b""


async def ask(server: Server, lines: bytes) -> socket.socket:
    client = socket.socket()
    # Small buffers in the kernel, so that the answer waits in the server.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", server.port))
    await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
    return client


async def read_slowly(client: socket.socket, seconds: float) -> int:
    """Bytes read when all of it, or the end, has come; paced so that BODY takes about `seconds`."""
    loop = asyncio.get_running_loop()
    began, received = loop.time(), 0
    while received < len(BODY):
        data = await loop.sock_recv(client, 65_536)
        if not data:
            break
        received += len(data)
        await asyncio.sleep(max(0.0, began + seconds * received / len(BODY) - loop.time()))
    return received


def served(lines: bytes, seconds: float) -> int:
    async def talk() -> int:
        server = await serve(Large(), limits=ServerLimits(write_timeout=WRITE_TIMEOUT))
        client = await ask(server, lines)
        try:
            return await asyncio.wait_for(read_slowly(client, seconds), 30)
        finally:
            client.close()
            await server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(talk())


def test_a_client_that_reads_slowly_but_steadily_gets_all() -> None:
    assert served(b"", 2.0) >= len(BODY)


def test_so_it_does_when_the_connection_ends_behind_the_answer() -> None:
    assert served(b"Connection: close\r\n", 2.0) >= len(BODY)


def test_a_client_that_stops_reading_is_cut_off() -> None:
    async def talk() -> None:
        server = await serve(Large(), limits=ServerLimits(write_timeout=WRITE_TIMEOUT))
        client = await ask(server, b"")
        async with asyncio.timeout(10):
            while not server.connections:
                await asyncio.sleep(0.01)
            while server.connections:
                await asyncio.sleep(0.01)
        client.close()
        await server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(talk())
