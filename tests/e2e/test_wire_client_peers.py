"""The wire client against servers of others: nginx, h11, and TLS as asyncio speaks it."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import h11
import pytest
import trustme
import uvloop

from tests.support.nginx import Nginx
from tests.support.wire_peers import (
    PATIENT,
    LoopFactory,
    Recorder,
    Source,
    answer,
    answers,
    call,
    peer,
    pool_of,
    run,
    send,
)
from watchllm.wire.client import Response
from watchllm.wire.types import ConnectFailed, Origin, PeerClosed


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    factory: LoopFactory = request.param
    return factory


@pytest.fixture
def web(nginx: Callable[[str], Nginx], tmp_path: Path) -> Origin:
    """nginx with a small and a large file, compression that it applies when asked, and a place to upload to."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "small.json").write_bytes(b'{"ok":true}')
    (tmp_path / "www" / "large.json").write_bytes(LARGE)
    server = nginx(
        f"""server {{
            listen 127.0.0.1:PORT;
            root {tmp_path / "www"};
            gzip on; gzip_types application/json; gzip_min_length 1;
            client_max_body_size 20m;
            location /fixed {{ return 200 'fixed'; }}
            location /empty {{ return 204; }}
            location /tiny {{ client_max_body_size 1k; proxy_pass http://127.0.0.1:PORT/fixed; }}
            location /upload {{ proxy_pass http://127.0.0.1:PORT/fixed; }}
            location /closing {{ keepalive_timeout 0; return 200 'closing'; }}
        }}"""
    )
    return Origin("http", "127.0.0.1", server.port, trusted=True)


LARGE = b"".join(b'{"line":%d}\n' % number for number in range(500_000))


def test_nginx_on_one_connection(loop_factory: LoopFactory, web: Origin) -> None:
    async def main() -> None:
        async with pool_of() as pool:

            async def fetch(method: bytes, target: bytes, body: bytes | None = None, head: bytes = b"") -> Response:
                return await pool.fetch(web, method, target, head, body, PATIENT, max_bytes=len(LARGE))

            for _ in range(50):
                assert (await fetch(b"GET", b"/fixed")).body == b"fixed"
            assert (await fetch(b"GET", b"/large.json")).body == LARGE
            packed = await fetch(b"GET", b"/large.json", head=b"Accept-Encoding: gzip\r\n")
            assert packed.body == LARGE
            assert (b"transfer-encoding", b"chunked") in packed.headers  # nginx packs as it sends
            assert b"content-encoding" not in dict(packed.headers)
            assert (await fetch(b"GET", b"/empty")).status == 204
            assert (await fetch(b"GET", b"/missing")).status == 404
            assert (await fetch(b"POST", b"/upload", LARGE)).body == b"fixed"
            assert pool.stats()[web] == (1, 0, 0, 0)
            head = await fetch(b"HEAD", b"/small.json")
            assert (dict(head.headers)[b"content-length"], head.body) == (b"11", b"")
            assert (await fetch(b"GET", b"/closing")).body == b"closing"
            assert (await fetch(b"GET", b"/fixed")).body == b"fixed"

    run(loop_factory, main())


def test_many_calls_at_once_share_few_connections_to_nginx(loop_factory: LoopFactory, web: Origin) -> None:
    async def main() -> None:
        async with pool_of(max_connections=8) as pool:
            got = await asyncio.gather(
                *(pool.fetch(web, b"GET", b"/small.json", b"", None, PATIENT, max_bytes=99) for _ in range(500))
            )
            assert {(one.status, one.body) for one in got} == {(200, b'{"ok":true}')}
            assert pool.stats()[web] == (8, 0, 0, 0)

    run(loop_factory, main())


@pytest.mark.parametrize("length", [None, 10_000_000])
def test_a_streamed_upload_to_nginx(loop_factory: LoopFactory, web: Origin, length: int | None) -> None:
    async def main() -> None:
        async with pool_of() as pool:
            source, sink = Source(length), Recorder()
            upload = pool.send(web, b"POST", b"/upload", b"", None, sink, PATIENT, upload=source)
            for _ in range(100):
                await source.may_write.wait()
                upload.write(b"x" * 100_000)
            upload.end()
            await sink.ended.wait()
            assert (sink.status, sink.body, sink.error) == (200, b"fixed", None)

    run(loop_factory, main())


def test_nginx_refuses_an_upload_before_it_ends(loop_factory: LoopFactory, web: Origin) -> None:
    async def main() -> None:
        async with pool_of() as pool:
            sink = Recorder()
            upload = pool.send(web, b"POST", b"/tiny", b"", None, sink, PATIENT, upload=Source(5000))
            upload.write(b"x" * 100)
            await sink.ended.wait()
            assert (sink.status, sink.error) == (413, None)

    run(loop_factory, main())


def test_nginx_restarts_under_a_pooled_connection(loop_factory: LoopFactory, nginx: Callable[[str], Nginx]) -> None:
    server = nginx("server { listen 127.0.0.1:PORT; keepalive_requests 2; location / { return 200 'x'; } }")
    origin = Origin("http", "127.0.0.1", server.port, trusted=True)

    async def main() -> None:
        async with pool_of() as pool:
            for _ in range(20):
                assert (await pool.fetch(origin, b"POST", b"/", b"", b"{}", PATIENT, max_bytes=9)).body == b"x"

    run(loop_factory, main())


def test_h11_understands_every_request_and_is_understood(loop_factory: LoopFactory) -> None:
    """h11 checks both sides' framing strictly, so that a mistake of ours is an error of its."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)

        async def receive() -> h11.Event:
            while (event := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await reader.read(1000))
            assert isinstance(event, h11.Event)
            return event

        def put(event: h11.Event) -> None:
            writer.write(connection.send(event) or b"")

        while True:
            request = await receive()
            if isinstance(request, h11.ConnectionClosed):
                return
            assert isinstance(request, h11.Request)
            body = b""
            while isinstance(event := await receive(), h11.Data):
                body += event.data
            put(h11.InformationalResponse(status_code=103, headers=[("link", "</a>")]))
            put(h11.Response(status_code=200, headers=[("x-method", request.method)]))
            for start in range(0, len(body), 999):
                put(h11.Data(data=body[start : start + 999]))
            put(h11.EndOfMessage(headers=[("x-trailer", "1")] if request.method != b"HEAD" else []))
            await writer.drain()
            if connection.our_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()

    async def main() -> None:
        async with peer(talk) as server, pool_of() as pool:
            for body in (b"", b"x", b"y" * 70_000):
                heard = await call(pool, server.origin, body=body)
                assert (heard.error, heard.body) == (None, body)
            assert (await call(pool, server.origin, method=b"GET", body=None)).body == b""
            sink = Recorder()
            upload = send(pool, server.origin, sink, upload=Source(None))
            for _ in range(50):
                upload.write(b"z" * 1234)
            upload.end()
            await sink.ended.wait()
            assert sink.body == b"z" * (50 * 1234)
            assert server.connections == 1
            assert (await call(pool, server.origin, method=b"HEAD", body=None)).events == ["response", "complete"]

    run(loop_factory, main())


AUTHORITY = trustme.CA()


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def certified(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


def test_tls_is_verified_and_kept_alive(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        context = certified("localhost")
        names: list[str | None] = []
        context.sni_callback = lambda _, name, __: names.append(name)
        async with peer(answers(answer(b"x" * 300_000)), ssl=context) as server, pool_of(tls_context=trusting) as pool:
            origin = Origin("https", "localhost", server.port, trusted=True)
            for _ in range(3):
                assert len((await call(pool, origin)).body) == 300_000
            assert (server.connections, names) == (1, ["localhost"])

    run(loop_factory, main())


@pytest.mark.parametrize("fault", ["unknown authority", "another name", "no TLS"])
def test_a_peer_that_cannot_prove_its_name_gets_nothing(fault: str) -> None:
    async def main() -> None:
        context = None if fault == "no TLS" else certified("elsewhere.test" if fault == "another name" else "localhost")
        trust = None if fault == "unknown authority" else trusting

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        async with peer(talk, ssl=context) as server, pool_of(tls_context=trust) as pool:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's side of the handshake
            heard = await call(pool, Origin("https", "localhost", server.port, trusted=True))
            assert isinstance(heard.error, ConnectFailed)

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        run(factory, main())


@pytest.mark.parametrize("orderly", [True, False])
def test_a_tls_stream_without_its_end_is_cut_not_complete(loop_factory: LoopFactory, orderly: bool) -> None:
    """A close-delimited body is whole only when the peer says so: anybody on the way can close a TCP connection."""

    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"{}")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nsome")
            await writer.drain()
            if not orderly:
                await heard_some.wait()
                writer.transport.abort()

        heard_some = asyncio.Event()
        async with peer(talk, ssl=certified("localhost")) as server, pool_of(tls_context=trusting) as pool:
            sink = Recorder()
            sink.when_data = heard_some.set
            send(pool, Origin("https", "localhost", server.port, trusted=True), sink)
            await sink.ended.wait()
            assert sink.body == b"some"
            assert sink.error is None if orderly else isinstance(sink.error, PeerClosed)

    run(loop_factory, main())


def test_https_through_a_forward_proxy_is_a_tunnel_to_the_verified_name(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        asked: list[bytes] = []

        async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            there, back = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
            await back.wait_closed()

        async with peer(answers(answer(b"x" * 300_000)), ssl=certified("api.test")) as server, peer(tunnel) as proxy:
            environment = {"HTTPS_PROXY": f"http://me:secret@127.0.0.1:{proxy.port}"}
            async with pool_of(tls_context=trusting, proxy_env=environment) as pool:
                origin = Origin("https", "api.test", 443, trusted=True)
                for _ in range(2):
                    assert len((await call(pool, origin)).body) == 300_000
        assert asked == [
            b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
        ]

    run(loop_factory, main())


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()
