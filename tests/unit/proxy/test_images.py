"""Images by URL become `data:` URLs, within bounds, and only for those who must not fetch them."""

import asyncio
from copy import deepcopy
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.images import (
    GIF,
    JPEG,
    PNG,
    URL,
    WEBP,
    Client,
    data_url,
    fetches,
    image,
    on_loop,
    part,
    saying,
    shown,
)
from tests.support.internet import Internet
from tests.support.wire_peers import answer, never, peer, read_request, until
from watchllm.domain.errors import BadRequest, GatewayError, Unavailable
from watchllm.domain.snapshot import Vendor
from watchllm.proxy.approach import Candidate
from watchllm.proxy.image_fetch import ImageLimits
from watchllm.proxy.images import inlined, is_on_own_network, refuse_private
from watchllm.proxy.services import Services
from watchllm.proxy.upstream import Destination
from watchllm.routing.target import Target
from watchllm.wire.types import Origin

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
            fetches(seconds=1.0) as fetcher,  # The other host must answer in time.
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
            services = SimpleNamespace(images=fetcher, loop=asyncio.get_running_loop())
            told = await inlined(cast(Any, services), cast(Any, request), saying(part(URL)))
            assert told == saying(part(data_url(PNG)))

    on_loop(main())
    assert client.held >= len(PNG) * 4 // 3


@pytest.mark.parametrize(
    ("base_url", "host", "trusted", "own"),
    [
        ("https://api.test/v1", "api.test", True, False),
        ("https://inner.test/v1", "inner.test", True, True),
        ("https://mixed.test/v1", "mixed.test", True, True),
        ("https://no..name/v1", "no..name", True, False),
        ("http://127.0.0.1:11434/v1", "127.0.0.1", True, True),
        ("http://127.0.0.1:11434/v1", "127.0.0.1", False, False),
        ("sim://", "127.0.0.1", True, False),
    ],
)
def test_who_is_on_the_operators_own_network(
    internet: Internet, base_url: str, host: str, trusted: bool, own: bool
) -> None:
    internet.name("api.test", ["8.8.8.8"])
    internet.name("inner.test", ["10.1.2.3"])
    internet.name("mixed.test", ["8.8.8.8", "10.1.2.3"])
    target = Target("v", Vendor("v", "https://v.test/v1"), base_url, "m", None, "key", trusted)
    candidate = Candidate(target, Destination(Origin("https", host, 443, trusted), b"/v1", b""))

    async def main() -> bool:
        services = cast(Services, SimpleNamespace(loop=asyncio.get_running_loop()))
        return await is_on_own_network(services, candidate)

    assert on_loop(main()) is own


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://api.test/a.png", False),
        ("https://unknown.test/a.png", False),
        ("https://inner.test/a.png", True),
        ("https://mixed.test/a.png", True),
        ("http://169.254.169.254/latest", True),
        ("http://2130706433/a.png", True),
        ("http://0x7f.1/a.png", True),
        ("http://[::ffff:127.0.0.1]/a.png", True),
        ("http://[::1/a.png", True),
        ("file:///etc/passwd", True),
        # What some take for one host and some for another.
        ("http://169.254.169.254\\@8.8.8.8/x", True),
        ("http:\\\\169.254.169.254/x", True),
        ("http:/169.254.169.254/x", True),
        ("http://user@8.8.8.8/x", True),
        (" http://8.8.8.8/x", True),
        ("http://8.8.8.8\t/x", True),
    ],
)
def test_whither_nobody_on_it_is_sent(internet: Internet, url: str, refused: bool) -> None:
    internet.name("api.test", ["8.8.8.8"])
    internet.name("inner.test", ["10.1.2.3"])
    internet.name("mixed.test", ["8.8.8.8", "10.1.2.3"])

    async def main() -> None:
        services = cast(Services, SimpleNamespace(loop=asyncio.get_running_loop()))
        await refuse_private(services, url, "messages[0].content[1].image_url.url")

    if not refused:
        on_loop(main())
        return
    with pytest.raises(BadRequest) as error:
        on_loop(main())
    assert error.value.param == "messages[0].content[1].image_url.url"
