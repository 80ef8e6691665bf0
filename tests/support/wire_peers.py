"""Hand-written peers for the wire client: servers that say exactly the given bytes, and a sink that notes what came."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from watchllm.wire.client import ClientPool, Upload
from watchllm.wire.types import Call, Headers, Origin, Timeouts, WireError

T = TypeVar("T")

PATIENT = Timeouts(connect=20, first_byte=20, idle=20, total=30)
"""Never reached unless a test fails."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(loop_factory: LoopFactory, main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a new loop; what the loop's exception handler was told fails the test."""
    told: list[dict[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        return await asyncio.wait_for(main, 60)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        result = runner.run(watched())
    assert not told, told
    return result


async def until(condition: Callable[[], bool]) -> None:
    """Wait for `condition` on the running loop; `run` bounds the wait."""
    while not condition():
        await asyncio.sleep(0.002)


class Recorder:
    """A sink that notes everything, and can be told what to do when something comes."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.pieces: list[bytes] = []
        self.error: WireError | None = None
        self.events: list[str] = []
        self.ended = asyncio.Event()
        self.when_response: Callable[[], None] | None = None
        self.when_data: Callable[[], None] | None = None
        self.when_complete: Callable[[], None] | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def on_response(self, status: int, headers: Headers) -> None:
        self._note("response")
        self.status, self.headers = status, headers
        if self.when_response is not None:
            self.when_response()

    def on_data(self, data: bytes) -> None:
        assert data
        self._note("data")
        self.pieces.append(data)
        if self.when_data is not None:
            self.when_data()

    def on_complete(self) -> None:
        self._note("complete")
        self.ended.set()
        if self.when_complete is not None:
            self.when_complete()

    def on_failure(self, error: WireError) -> None:
        self._note("failure")
        self.error = error
        self.ended.set()

    def _note(self, event: str) -> None:
        assert not self.ended.is_set(), f"{event} after the end"
        if not (event == "data" and self.events[-1:] == ["data"]):
            self.events.append(event)


class Source:
    """An upload that notes when it has to stop."""

    def __init__(self, content_length: int | None) -> None:
        self.content_length = content_length
        self.notes: list[str] = []
        self.may_write = asyncio.Event()
        self.may_write.set()

    def on_pause(self) -> None:
        self.notes.append("pause")
        self.may_write.clear()

    def on_resume(self) -> None:
        self.notes.append("resume")
        self.may_write.set()


def send(
    pool: ClientPool,
    origin: Origin,
    sink: Recorder,
    *,
    method: bytes = b"POST",
    body: bytes | None = b"{}",
    timeouts: Timeouts = PATIENT,
    upload: Upload | None = None,
) -> Call:
    return pool.send(
        origin, method, b"/v1/x", b"X-Test: 1\r\n", None if upload else body, sink, timeouts, upload=upload
    )


async def call(pool: ClientPool, origin: Origin, **options: Any) -> Recorder:
    """Send one request and wait for its end."""
    sink = Recorder()
    send(pool, origin, sink, **options)
    await sink.ended.wait()
    return sink


class Peer:
    """A listening server. `connections` and `requests` count; `closed` is set whenever a client's connection ended."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.connections = 0
        self.requests: list[bytes] = []
        self.closed = asyncio.Event()
        self.port = 0

    @property
    def origin(self) -> Origin:
        return Origin("http", "127.0.0.1", self.port, trusted=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left, as some tests make it
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.closed.set()


@contextlib.asynccontextmanager
async def peer(talk: Talk, **options: Any) -> AsyncIterator[Peer]:
    """A server on a free port that talks to each connection as `talk` says."""
    made = Peer(talk)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(made.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, **options)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def pool_of(**options: Any) -> AsyncIterator[ClientPool]:
    pool = ClientPool(**options)
    try:
        yield pool
    finally:
        await pool.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One whole request: head and body as they came. Raises IncompleteReadError at the connection's end."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    for line in lines:
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.split(b":")[1]))
        if line == b"transfer-encoding: chunked":
            body = b""
            while True:
                size = await reader.readuntil(b"\r\n")
                piece = await reader.readexactly(int(size, 16) + 2)
                body += size + piece
                if piece == b"\r\n":
                    return head + body
    return head


def answers(*replies: bytes, then_close: bool = False) -> Talk:
    """Answer the connection's requests with these bytes in turn, the last one again and again."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(replies)
        while True:
            await read_request(reader)
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()
            if then_close and len(left) == 1:
                return

    return talk


def answer(body: bytes, *lines: bytes, status: bytes = b"200 OK") -> bytes:
    """A length-delimited answer with these extra header lines."""
    head = b"".join(line + b"\r\n" for line in (*lines, b"Content-Length: %d" % len(body)))
    return b"HTTP/1.1 " + status + b"\r\n" + head + b"\r\n" + body


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything and say nothing."""
    while await reader.read(65536):
        pass
