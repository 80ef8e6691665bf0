"""Images by URL become `data:` URLs: fetched from public addresses only, within bounds, and looked at."""

import asyncio
import gzip
import re
from base64 import b64encode
from collections.abc import Coroutine
from contextlib import asynccontextmanager
from copy import deepcopy
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from tests.support.internet import Internet
from tests.support.wire_peers import answer, answers, never, peer, pool_of, read_request, run, until
from watchllm.domain.errors import BadRequest, GatewayError, Unavailable
from watchllm.domain.snapshot import Vendor
from watchllm.proxy.approach import Candidate
from watchllm.proxy.image_fetch import ImageLimits
from watchllm.proxy.image_links import ImageFetches
from watchllm.proxy.images import inlined, must_be_inlined
from watchllm.proxy.services import Services
from watchllm.proxy.upstream import Destination
from watchllm.routing.target import Target
from watchllm.wire.types import Origin

T = TypeVar("T")

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 24
JPEG = b"\xff\xd8\xff\xe0" + b"x" * 28
GIF = b"GIF89a" + b"x" * 26
WEBP = b"RIFF\x18\x00\x00\x00WEBP" + b"x" * 20
URL = "http://images.test/a.png"
FIELD = "messages[0].content[1].image_url"


def data_url(content: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"


def image(content: bytes = PNG, media_type: bytes = b"image/png", *lines: bytes) -> bytes:
    return answer(content, b"Content-Type: " + media_type, *lines)


def moved(location: str, status: bytes = b"302 Found") -> bytes:
    return answer(b"", b"Location: " + location.encode(), status=status)


def part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def saying(*parts: dict[str, Any]) -> dict[str, Any]:
    """A chat document that shows these parts after a word."""
    return {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Look:"}, *parts]}]}


class Client:
    """The client's exchange, as far as it counts bytes."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.held = 0

    def hold(self, size: int) -> bool:
        if self.held + size > self.room:
            return False
        self.held += size
        return True


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    return Internet(monkeypatch)


@asynccontextmanager
async def fetches(**limits: Any) -> Any:
    async with pool_of(keepalive_seconds=0.0) as pool:
        yield ImageFetches(pool, ImageLimits(**limits))


async def shown(fetcher: ImageFetches, document: dict[str, Any], *, client: Client | None = None) -> dict[str, Any]:
    return await fetcher.inlined(cast(Any, client or Client()), b"project", document)


def on_loop(test: Coroutine[Any, Any, T]) -> T:
    return run(asyncio.new_event_loop, test)


def refused(internet: Internet, url: str, reply: bytes = image(), **limits: Any) -> str:
    """Why the image at `url` is refused, where a public server gives `reply` to everything."""

    async def main() -> str:
        async with internet.open(lambda _path: reply), fetches(**limits) as fetcher:
            with pytest.raises(BadRequest) as error:
                await shown(fetcher, saying(part(url)))
            assert error.value.param == FIELD
            assert error.value.message.startswith(f"{FIELD} ")
            assert "`data:` URL" in error.value.message
            return error.value.message

    return on_loop(main())


# --- what becomes of a document --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "media_type", "told"),
    [
        (PNG, b"image/png", "image/png"),
        (JPEG, b"image/jpeg", "image/jpeg"),
        (JPEG, b"image/jpg", "image/jpeg"),
        (GIF, b"image/gif", "image/gif"),
        (WEBP, b"IMAGE/WebP; q=1", "image/webp"),
    ],
)
def test_an_image_by_url_becomes_its_content(internet: Internet, content: bytes, media_type: bytes, told: str) -> None:
    async def main() -> None:
        async with internet.open(lambda _path: image(content, media_type)), fetches() as fetcher:
            assert await shown(fetcher, saying(part(URL))) == saying(part(data_url(content, told)))

    on_loop(main())


def test_only_what_leads_to_an_image_is_copied_and_nothing_is_changed(internet: Internet) -> None:
    document = saying(
        {"type": "image_url", "image_url": {"url": URL, "detail": "high"}},
        part(data_url(GIF, "image/gif")),
        {"image_url": "HTTP://images.test/b.png"},
    )
    document["messages"] += [{"role": "user", "content": "See http://127.0.0.1/?"}, None, {"content": [1, None]}]
    before = deepcopy(document)

    async def main() -> dict[str, Any]:
        async with internet.open(lambda _path: image()), fetches() as fetcher:
            return await shown(fetcher, document)

    told = on_loop(main())
    assert document == before
    content = told["messages"][0]["content"]
    assert content[1]["image_url"] == {"url": data_url(PNG), "detail": "high"}
    assert content[2] is document["messages"][0]["content"][2]
    assert content[3] == {"image_url": data_url(PNG)}
    assert told["messages"][1] is document["messages"][1]
    assert (told["model"], told["messages"][1:]) == ("m", before["messages"][1:])


@pytest.mark.parametrize(
    "document",
    [
        saying(),
        saying(part(data_url(PNG)), part("DATA:image/png;base64,AAAA")),
        saying({"type": "text", "text": "http://127.0.0.1/"}),
        saying({"type": "image_url", "image_url": None}, {"type": "image_url"}),
        {"messages": "http://127.0.0.1/"},
        {"input": "x"},
    ],
)
def test_a_document_without_urls_of_images_is_left_alone(internet: Internet, document: dict[str, Any]) -> None:
    async def main() -> None:
        async with fetches() as fetcher:
            assert await shown(fetcher, document) is document

    on_loop(main())
    assert internet.asked == []


def test_what_is_sent_tells_nothing_of_the_client(internet: Internet) -> None:
    async def main() -> None:
        async with internet.open(lambda _path: image()), fetches() as fetcher:
            await shown(fetcher, saying(part("http://images.test/ä b.png?x=%41&y=ß#there".replace(" ", "%20"))))

    on_loop(main())
    (sent,) = internet.requests
    assert sent == (
        b"GET /%C3%A4%20b.png?x=%41&y=%C3%9F HTTP/1.1\r\nHost: images.test\r\n"
        b"accept: image/png, image/jpeg, image/gif, image/webp\r\naccept-encoding: identity\r\n"
        b"user-agent: watchllm\r\n\r\n"
    )


def test_an_image_that_is_shown_twice_is_fetched_once_and_counted_twice(internet: Internet) -> None:
    client = Client()

    async def main() -> None:
        async with internet.open(lambda _path: image()):
            async with fetches() as fetcher:
                told = await shown(fetcher, saying(part(URL), part(URL)), client=client)
                assert told == saying(part(data_url(PNG)), part(data_url(PNG)))
            async with fetches(request_bytes=2 * len(PNG) - 1) as fetcher:
                with pytest.raises(BadRequest, match="more than 63 bytes"):
                    await shown(fetcher, saying(part(URL), part(URL)))

    on_loop(main())
    assert len(internet.requests) == 2
    assert client.held >= 2 * len(PNG) * 4 // 3


def test_no_connection_is_kept_to_a_host_that_a_request_named(internet: Internet) -> None:
    async def main() -> None:
        async with internet.open(lambda _path: image()) as server, fetches() as fetcher:
            await shown(fetcher, saying(part(URL)))
            await server.closed.wait()

    on_loop(main())


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"type": "video_url", "video_url": {"url": "http://10.0.0.1/"}}, "video_url.url"),
        ({"audio_url": " HTTPS://images.test/a.wav"}, "audio_url"),
        ({"type": "file", "file": {"file_data": "http://10.0.0.1/"}}, "file.file_data"),
        ({"type": "video", "video": ["data:video/mp4;base64,AA", "file:///etc/passwd"]}, "video[1]"),
        ({"type": "x", "x": {"a": {"b": {"c": {"d": "http://10.0.0.1/"}}}}}, "x.a.b.c.d"),
        ({"type": "x", "x": {"a": {"b": {"c": {"d": {"e": 1}}}}}}, "x.a.b.c.d"),
    ],
)
def test_no_other_url_reaches_a_provider_that_might_fetch_it(other: dict[str, Any], field: str) -> None:
    async def main() -> None:
        async with fetches() as fetcher:
            with pytest.raises(BadRequest) as error:
                await shown(fetcher, saying(other))
            assert error.value.param == f"messages[0].content[1].{field}"

    on_loop(main())


def test_other_content_passes() -> None:
    document = saying(
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"filename": "a: b.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
    )

    async def main() -> None:
        async with fetches() as fetcher:
            assert await shown(fetcher, document) is document

    on_loop(main())


# --- where it may lead -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "localhost.", "0.0.0.0", "0", "127.1", "2130706433", "0177.0.0.1", "0x7f.1"),
        *("0x7f000001", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "①27.⓪.⓪.①"),
        *("[64:ff9b::169.254.169.254]", "[fd12::1]", "[fe80::1]", "[fe80::1%25lo]", "[fe80::1%lo]", "[ff02::1]"),
        *("10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1", "169.254.169.254", "168.63.129.16"),
        *("rebound.test", "mixed.test", "inner.test"),
    ],
)
def test_no_address_that_is_not_public_is_connected_to(internet: Internet, host: str) -> None:
    internet.name("rebound.test", ["127.0.0.1"], ["8.8.8.8"])
    internet.name("mixed.test", ["8.8.8.8", "10.0.0.1"])
    internet.name("inner.test", ["2606:4700::1111", "fd00:ec2::254"])

    async def main() -> None:
        async with peer(answers(image())) as inner, fetches() as fetcher:
            for ip in ("127.0.0.1", "0.0.0.0", "::1", "8.8.8.8"):
                internet.lead(ip, inner.port)
            with pytest.raises(BadRequest, match=re.escape(FIELD)):
                await shown(fetcher, saying(part(f"http://{host}:{inner.port}/a.png")))
            assert inner.connections == 0

    on_loop(main())
    assert internet.connected == []


def test_the_address_that_was_judged_is_the_one_connected_to(internet: Internet) -> None:
    """A name server that answers otherwise the second time is not asked a second time."""

    async def main() -> None:
        async with internet.open(lambda _path: image()), fetches() as fetcher:
            internet.name("images.test", ["8.8.8.8"], ["127.0.0.1"])
            assert await shown(fetcher, saying(part(URL))) == saying(part(data_url(PNG)))

    on_loop(main())
    assert (internet.asked, internet.connected) == (["images.test"], ["8.8.8.8"])


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1/", "http://[::ffff:7f00:1]/", "//169.254.169.254/latest/meta-data/", "http://inner.test/x",
     "http://images.test/again"],
)  # fmt: skip
def test_every_redirect_is_judged_anew(internet: Internet, location: str) -> None:
    async def main() -> str:
        async with internet.open(lambda _path: moved(location)), fetches() as fetcher:
            internet.name("inner.test", ["192.168.1.1"])
            # To the very host that sent it, too: its connection is not used again, and its name leads elsewhere now.
            internet.name("images.test", ["8.8.8.8"], ["127.0.0.1"])
            with pytest.raises(BadRequest) as error:
                await shown(fetcher, saying(part(URL)))
            return error.value.message

    assert "leads to a private address" in on_loop(main())
    assert internet.connected == ["8.8.8.8"]


@pytest.mark.parametrize("status", [b"301 M", b"302 F", b"303 S", b"307 T", b"308 P"])
def test_three_redirects_are_followed_and_no_fourth(internet: Internet, status: bytes) -> None:
    chain = {"/a.png": "b.png", "/b.png": "//other.test/c", "/c": "http://images.test/d?e"}

    def site(path: str) -> bytes:
        return moved(chain[path], status) if path in chain else image()

    async def main() -> None:
        async with internet.open(site), internet.open(site, ip="9.9.9.9", host="other.test"), fetches() as fetcher:
            assert await shown(fetcher, saying(part(URL))) == saying(part(data_url(PNG)))
            chain["/d?e"] = "/f"
            with pytest.raises(BadRequest, match="redirects more than 3 times"):
                await shown(fetcher, saying(part(URL)))

    on_loop(main())
    assert len(internet.requests) == 8


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("file:///etc/passwd", "not an http"),
        ("ftp://images.test/a.png", "not an http"),
        ("data:image/png;base64,AAAA", "not an http"),
        ("http://me:secret@images.test/", "user or password"),
        ("http://images.test/\\@127.0.0.1/", "backslashes"),
        ("http://[::1/", "not a URL"),
    ],
)
def test_a_redirect_is_to_http_or_nowhere(internet: Internet, location: str, why: str) -> None:
    assert why in refused(internet, URL, moved(location))


@pytest.mark.parametrize(
    ("first", "then", "passes"),
    [("https", "http", False), ("https", "https", True), ("http", "https", True), ("http", "http", True)],
)
def test_a_redirect_never_gives_up_encryption(first: str, then: str, passes: bool) -> None:
    """Asked of a pool that answers by itself: no certificate is needed for that."""
    asked: list[str] = []

    class Pool:
        def send(self, origin: Origin, *rest: Any) -> Any:
            sink = rest[4]
            asked.append(origin.scheme)
            assert not origin.trusted

            def reply() -> None:
                if len(asked) == 1:
                    sink.on_response(302, [(b"location", f"{then}://images.test/b".encode())])
                else:
                    sink.on_response(200, [(b"content-type", b"image/png")])
                    sink.on_data(PNG)
                    sink.on_complete()

            asyncio.get_running_loop().call_soon(reply)
            return SimpleNamespace(cancel=lambda: None)

    async def main() -> None:
        fetcher = ImageFetches(cast(Any, Pool()))
        if passes:
            await shown(fetcher, saying(part(f"{first}://images.test/a")))
        else:
            with pytest.raises(BadRequest, match="redirects from https to http"):
                await shown(fetcher, saying(part(f"{first}://images.test/a")))

    on_loop(main())
    assert asked == ([first, then] if passes else [first])


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://images.test/a.png", "not an http"),
        ("file:///etc/passwd", "not an http"),
        ("//images.test/a.png", "not an http"),
        ("images.test/a.png", "not an http"),
        ("", "not an http"),
        ("http:///a.png", "not an http"),
        ("http://images.test:0/a.png", "not an http"),
        ("http://images.test:99999/a.png", "not a URL"),
        ("http://[::1/", "not a URL"),
        (" http://images.test/a.png", "spaces"),
        ("ht\ttp://images.test/a.png", "spaces"),
        ("http://images.test/a\r\nHost: inner", "spaces"),
        ("http://images.test/a b", "spaces"),
        ("http://images.test\\@127.0.0.1/", "backslashes"),
        ("http://images.test\\a.png", "backslashes"),
        ("http://me@images.test/a.png", "user or password"),
        ("http://me:secret@images.test/a.png", "user or password"),
        ("http://images.test/" + "a" * 8192, "at most 8192"),
        ("http://no..name/", "cannot be reached"),
        ("http://nobody.test/", "cannot be reached"),
    ],
)
def test_what_is_not_a_plain_url_is_not_fetched(internet: Internet, url: str, why: str) -> None:
    internet.name("nobody.test", ["9.9.9.9"])
    assert why in refused(internet, url)
    assert internet.requests == []


def test_the_operators_leave_opens_private_addresses() -> None:
    async def main() -> None:
        async with peer(answers(image())) as server, pool_of(allow_private=True) as pool:
            told = await shown(ImageFetches(pool), saying(part(f"http://127.0.0.1:{server.port}/")))
            assert told == saying(part(data_url(PNG)))

    on_loop(main())


# --- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (image(b"<svg/>", b"image/svg+xml"), "not one of PNG"),
        (image(b"<p>", b"text/html"), "not one of PNG"),
        (answer(PNG), "not one of PNG"),
        (image(PNG, b"image/jpeg"), "not of the image type"),
        (image(b"<script>", b"image/png"), "not of the image type"),
        (image(b"", b"image/png"), "not of the image type"),
        (image(b"RIFF\x18\x00\x00\x00WAVE", b"image/webp"), "not of the image type"),
        (image(PNG, b"image/png", b"Content-Encoding: aes128gcm"), "not asked for"),
        (image(PNG, b"image/png", b"Content-Encoding: gzip"), "not whole, or not HTTP"),
        (answer(b"{}", status=b"404 Not Found"), "status 404"),
        (answer(b"", status=b"302 Found"), "status 302"),
        (answer(PNG, b"Content-Type: image/png", status=b"206 Partial Content"), "status 206"),
        (b"SSH-2.0-OpenSSH\r\n", "not whole, or not HTTP"),
        (image(b"\x89PNG\r\n\x1a\n" + b"x" * 993), "larger than 1000 bytes"),
        (image(gzip.compress(PNG + bytes(1 << 20)), b"image/png", b"Content-Encoding: gzip"), "larger than 1000 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + bytes(1024),
            "larger than 1000 bytes",
        ),
    ],
)
def test_what_is_no_usable_image_is_refused(internet: Internet, reply: bytes, why: str) -> None:
    assert why in refused(internet, URL, reply, image_bytes=1000)


def test_an_unasked_coding_is_taken_off(internet: Internet) -> None:
    async def main() -> None:
        coded = image(gzip.compress(PNG), b"image/png", b"Content-Encoding: gzip")
        async with internet.open(lambda _path: coded), fetches() as fetcher:
            assert await shown(fetcher, saying(part(URL))) == saying(part(data_url(PNG)))

    on_loop(main())


def test_an_image_that_is_cut_short_is_refused(internet: Internet) -> None:
    async def main() -> None:
        async with peer(answers(image()[:-1], then_close=True)) as server, fetches() as fetcher:
            internet.name("images.test", ["8.8.8.8"])
            internet.lead("8.8.8.8", server.port)
            with pytest.raises(BadRequest, match="not whole"):
                await shown(fetcher, saying(part(URL)))

    on_loop(main())


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_the_bounds_that_are_promised() -> None:
    assert ImageLimits() == ImageLimits(16, 10 * 1024 * 1024, 32 * 1024 * 1024, 3, 10.0, 16)


def test_sixteen_images_and_no_more(internet: Internet) -> None:
    async def main() -> None:
        async with internet.open(lambda _path: image()), fetches() as fetcher:
            pictures = [part(f"{URL}?{number}") for number in range(17)]
            with pytest.raises(BadRequest) as error:
                await shown(fetcher, saying(*pictures))
            assert error.value.param == "messages[0].content[17].image_url"
            assert internet.requests == []
            assert await shown(fetcher, saying(*pictures[:16])) == saying(*[part(data_url(PNG))] * 16)

    on_loop(main())


def test_images_that_are_too_large_together_are_refused(internet: Internet) -> None:
    async def main() -> None:
        async with internet.open(lambda _path: image()), fetches(request_bytes=2 * len(PNG)) as fetcher:
            pictures = [part(f"{URL}?{number}") for number in range(3)]
            with pytest.raises(BadRequest, match="more than 64 bytes"):
                await shown(fetcher, saying(*pictures))
            assert await shown(fetcher, saying(*pictures[:2])) == saying(*[part(data_url(PNG))] * 2)

    on_loop(main())


def test_memory_that_is_taken_stops_a_fetch(internet: Internet) -> None:
    async def main() -> GatewayError:
        async with internet.open(lambda _path: image()), fetches() as fetcher:
            with pytest.raises(Unavailable) as error:
                await shown(fetcher, saying(part(URL)), client=Client(room=len(PNG)))
            return error.value

    assert on_loop(main()).retry_after == 1


def test_a_host_that_never_answers_is_left_in_time(internet: Internet) -> None:
    async def main() -> None:
        async with (
            internet.open(lambda _path: image()),
            peer(never) as silent,
            fetches(seconds=0.2) as fetcher,
        ):
            internet.name("silent.test", ["9.9.9.9"])
            internet.lead("9.9.9.9", silent.port)
            with pytest.raises(BadRequest, match=r"content\[2\].image_url was not") as error:
                await shown(fetcher, saying(part(URL), part("http://silent.test/")))
            assert error.value.param == "messages[0].content[2].image_url"
            await silent.closed.wait()

    on_loop(main())


def test_one_image_that_fails_ends_the_fetching_of_the_others(internet: Internet) -> None:
    async def main() -> None:
        async def fails(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            await until(lambda: silent.connections == 1)
            writer.write(answer(b"", status=b"404 Not Found"))

        async with peer(never) as silent, peer(fails) as failing, fetches() as fetcher:
            for name, ip, server in (("silent.test", "9.9.9.9", silent), ("failing.test", "8.8.8.8", failing)):
                internet.name(name, [ip])
                internet.lead(ip, server.port)
            with pytest.raises(BadRequest, match="status 404"):
                await shown(fetcher, saying(part("http://silent.test/"), part("http://failing.test/")))
            assert not any(lane.active or lane.opening for lane in fetcher._pool.stats().values())
            await silent.closed.wait()

    on_loop(main())


def test_a_project_fetches_only_so_many_at_once_and_others_do_not_wait_for_it(internet: Internet) -> None:
    async def main() -> None:
        async with internet.open(lambda _path: image()), peer(never) as silent, fetches(at_once=2) as fetcher:
            internet.name("silent.test", ["9.9.9.9"])
            internet.lead("9.9.9.9", silent.port)
            busy = [
                asyncio.create_task(shown(fetcher, saying(part(f"http://silent.test/{number}")))) for number in range(3)
            ]
            await until(lambda: silent.connections == 2)
            other = await fetcher.inlined(cast(Any, Client()), b"other project", saying(part(URL)))
            assert other == saying(part(data_url(PNG)))
            assert silent.connections == 2
            busy[0].cancel()
            await until(lambda: silent.connections == 3)
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)

    on_loop(main())


# --- for the proxy ---------------------------------------------------------------------------------------------------


def test_the_requests_own_exchange_pays_for_its_images(internet: Internet) -> None:
    client = Client()
    request = SimpleNamespace(
        exchange=client, principal=SimpleNamespace(tenant=SimpleNamespace(partition=b"partition"))
    )

    async def main() -> None:
        async with internet.open(lambda _path: image()), fetches() as fetcher:
            services = SimpleNamespace(images=fetcher)
            told = await inlined(cast(Any, services), cast(Any, request), saying(part(URL)))
            assert told == saying(part(data_url(PNG)))

    on_loop(main())
    assert client.held >= len(PNG) * 4 // 3


@pytest.mark.parametrize(
    ("base_url", "host", "trusted", "fetch_images", "needed"),
    [
        ("https://api.test/v1", "api.test", True, False, False),
        ("https://api.test/v1", "api.test", True, True, True),
        ("https://api.test/v1", "api.test", False, True, True),
        ("https://inner.test/v1", "inner.test", True, False, True),
        ("https://mixed.test/v1", "mixed.test", True, False, True),
        ("https://no..name/v1", "no..name", True, False, True),
        ("http://127.0.0.1:11434/v1", "127.0.0.1", True, False, True),
        ("http://127.0.0.1:11434/v1", "127.0.0.1", False, False, False),
        ("sim://", "127.0.0.1", True, False, False),
    ],
)
def test_for_whom_the_gateway_fetches(
    internet: Internet, base_url: str, host: str, trusted: bool, fetch_images: bool, needed: bool
) -> None:
    internet.name("api.test", ["8.8.8.8"])
    internet.name("inner.test", ["10.1.2.3"])
    internet.name("mixed.test", ["8.8.8.8", "10.1.2.3"])
    vendor = Vendor("v", "https://v.test/v1", fetch_images=fetch_images)
    target = Target("v", vendor, base_url, "m", None, "key", trusted)
    candidate = Candidate(target, Destination(Origin("https", host, 443, trusted), b"/v1", b""))

    async def main() -> bool:
        services = cast(Services, SimpleNamespace(loop=asyncio.get_running_loop()))
        return await must_be_inlined(services, candidate)

    assert on_loop(main()) is needed
