"""Where an image by URL may lead, and what has to come back: fetched from public addresses only, and looked at."""

import asyncio
import gzip
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.images import (
    FIELD,
    PNG,
    URL,
    data_url,
    fetches,
    image,
    moved,
    on_loop,
    part,
    saying,
    shown,
)
from tests.support.internet import Internet
from tests.support.wire_peers import answer, answers, peer, pool_of
from watchllm.domain.errors import BadRequest
from watchllm.proxy.image_links import ImageFetches
from watchllm.wire.types import Origin


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
