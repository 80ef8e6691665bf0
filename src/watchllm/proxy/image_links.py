"""The images that a chat document names by URL: found, fetched within bounds, and put in their places."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakValueDictionary

from watchllm.domain.errors import BadRequest, Unavailable
from watchllm.proxy.image_fetch import Image, ImageLimits, NoImage, fetch_image

if TYPE_CHECKING:
    from watchllm.wire.client import ClientPool
    from watchllm.wire.exchange import Exchange

# What else a part may tell a provider to fetch (`video_url`, `file_data`…): found by its form, whatever it is called.
_URL: Final = re.compile(r"\s*(?!data:)[a-z][a-z0-9+.-]*:/", re.IGNORECASE)
_PROSE: Final = frozenset(("text", "refusal", "thinking", "reasoning"))
_DEEPEST: Final = 4


class Link(NamedTuple):
    """An image given by URL: `messages[message].content[part].image_url`."""

    message: int
    part: int
    url: str

    @property
    def param(self) -> str:
        return f"messages[{self.message}].content[{self.part}].image_url"


def links(document: Mapping[str, Any]) -> tuple[Link, ...]:
    """The images that a chat document gives by URL. Raises BadRequest for any other URL that a provider would fetch."""
    found = []
    for message, part, content in _parts(document):
        image = content.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str) and url[:5].lower() != "data:":
            found.append(Link(message, part, url))
        for name, value in content.items():
            if name != "image_url" and name not in _PROSE:
                _refuse_urls(value, f"messages[{message}].content[{part}].{name}")
    return tuple(found)


class ImageFetches:
    """Fetches on behalf of all projects of this process, of each only so many at once."""

    def __init__(self, pool: ClientPool, limits: ImageLimits | None = None) -> None:
        self._pool = pool
        self._limits = limits or ImageLimits()
        # A project's gate lives as long as somebody stands at it.
        self._gates: WeakValueDictionary[bytes, asyncio.Semaphore] = WeakValueDictionary()

    async def inlined(self, exchange: Exchange, project: bytes, document: dict[str, Any]) -> dict[str, Any]:
        """`document` without images by URL: itself where it has none, else one that shares the rest with it. What is
        fetched counts to the bytes in flight of `exchange`.

        Raises BadRequest, naming the field, for an image that cannot be had and for any other URL that a provider would
        fetch; Unavailable when the bound on all request bytes in flight is reached.
        """
        found = links(document)
        if not found:
            return document
        most = self._limits.images
        if len(found) > most:
            raise BadRequest(
                f"{found[most].param}: at most {most} images a request are fetched; send further ones as `data:` URLs.",
                param=found[most].param,
            )
        return _replaced(document, found, await self._fetched(exchange, project, found))

    async def _fetched(self, exchange: Exchange, project: bytes, found: Sequence[Link]) -> dict[str, str]:
        """`data:` URLs by URL; what is named several times is fetched once."""
        gate = self._gates.get(project)
        if gate is None:
            gate = self._gates[project] = asyncio.Semaphore(self._limits.at_once)
        budget = _Budget(exchange, self._limits.request_bytes)
        wanted: dict[str, list[Link]] = {}
        for link in found:
            wanted.setdefault(link.url, []).append(link)
        tasks: dict[str, asyncio.Task[str]] = {}
        try:
            async with asyncio.timeout(self._limits.seconds), asyncio.TaskGroup() as group:
                for url, places in wanted.items():
                    tasks[url] = group.create_task(self._fetch(places[0], len(places), gate, budget))
        except TimeoutError:
            for url, places in wanted.items():
                if tasks[url].cancelled():
                    late = f"was not there within {self._limits.seconds:g} seconds"
                    raise _unusable(places[0], late) from None
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return {url: task.result() for url, task in tasks.items()}

    async def _fetch(self, link: Link, times: int, gate: asyncio.Semaphore, budget: _Budget) -> str:
        async with gate:
            try:
                image = await fetch_image(
                    self._pool, link.url, self._limits, lambda size: budget.take(link, size * times)
                )
            except NoImage as error:
                raise _unusable(link, str(error)) from None
        return _data_url(image)


class _Budget:
    """The bytes that one request may still fetch."""

    def __init__(self, exchange: Exchange, most: int) -> None:
        self._exchange = exchange
        self._most = self._left = most

    def take(self, link: Link, size: int) -> None:
        """Raises BadRequest or Unavailable where that is too much."""
        self._left -= size
        if self._left < 0:
            raise _unusable(link, f"brings the images of this request to more than {self._most} bytes")
        if not self._exchange.hold((size * 4 + 2) // 3):  # what it takes as base64
            raise Unavailable("Too many request bytes are in flight; try again in a moment.", retry_after=1)


def _parts(document: Mapping[str, Any]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The content parts of a document's messages. What has no such form is the provider's to refuse."""
    messages = document.get("messages")
    for at, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for place, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict):
                yield at, place, part


def _refuse_urls(value: object, param: str, depth: int = 0) -> None:
    if isinstance(value, str):
        if _URL.match(value):
            raise BadRequest(
                f"{param}: this provider is not made to fetch URLs, and the gateway fetches images only; send the "
                "content itself.",
                param=param,
            )
    elif isinstance(value, dict | list):
        if depth == _DEEPEST:
            raise BadRequest(f"{param}: a content part is not nested this deeply.", param=param)
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for name, member in inner:
            _refuse_urls(member, f"{param}.{name}" if isinstance(name, str) else f"{param}[{name}]", depth + 1)


def _replaced(document: dict[str, Any], found: Sequence[Link], fetched: Mapping[str, str]) -> dict[str, Any]:
    """`document` with the links' images in it; only what leads to them is copied."""
    messages = list(document["messages"])
    for at in dict.fromkeys(link.message for link in found):
        messages[at] = {**messages[at], "content": list(messages[at]["content"])}
    for link in found:
        content = messages[link.message]["content"]
        part = content[link.part]
        image, url = part["image_url"], fetched[link.url]
        content[link.part] = {**part, "image_url": {**image, "url": url} if isinstance(image, dict) else url}
    return {**document, "messages": messages}


def _data_url(image: Image) -> str:
    return f"data:{image.media_type};base64,{b64encode(image.content).decode('ascii')}"


def _unusable(link: Link, why: str) -> BadRequest:
    return BadRequest(f"{link.param} {why}. Correct the URL, or send the image as a `data:` URL.", param=link.param)
