"""What tests of images by URL share: small images, answers with them, documents that show them."""

import asyncio
from base64 import b64encode
from collections.abc import Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from tests.support.wire_peers import answer, pool_of, run
from watchllm.proxy.image_fetch import ImageLimits
from watchllm.proxy.image_links import ImageFetches

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


@asynccontextmanager
async def fetches(**limits: Any) -> Any:
    async with pool_of(keepalive_seconds=0.0) as pool:
        yield ImageFetches(pool, ImageLimits(**limits))


async def shown(fetcher: ImageFetches, document: dict[str, Any], *, client: Client | None = None) -> dict[str, Any]:
    return await fetcher.inlined(cast(Any, client or Client()), b"project", document)


def on_loop(test: Coroutine[Any, Any, T]) -> T:
    return run(asyncio.new_event_loop, test)
