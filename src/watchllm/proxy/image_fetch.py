"""One image from a URL that a project named: where it may lead, how often it may lead on, and what has to come back.

Every hop is a new connection to an origin that is not trusted, so the address really connected to is judged each time
(see `wire.address`). Nothing of the client or of any provider is sent along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from watchllm.domain.errors import GatewayError, Unavailable
from watchllm.wire import types as wire
from watchllm.wire.pieces import FOLD_EVERY, fold
from watchllm.wire.types import Headers, Origin, Timeouts

if TYPE_CHECKING:
    from watchllm.wire.client import ClientPool


class ImageLimits(msgspec.Struct, frozen=True):
    """Bounds of what is fetched for one request: `images` in number, bytes each and in all, `redirects` each, and
    `seconds` until all are there. `at_once` is how many are under way for one project, over all its requests."""

    images: int = 16
    image_bytes: int = 10 * 1024 * 1024
    request_bytes: int = 32 * 1024 * 1024
    redirects: int = 3
    seconds: float = 10.0
    at_once: int = 16


class Image(NamedTuple):
    """`media_type` is what the content is, by its first bytes as well as by its sender's word."""

    media_type: str
    content: bytes


class NoImage(Exception):
    """The URL gives no image that can be used; the text says why, so that it can follow the name of the field."""


class Place(NamedTuple):
    """A URL in the wire's terms. `text` is what a redirect is relative to."""

    text: str
    origin: Origin
    target: bytes


_LONGEST_URL: Final = 8192
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_HEAD: Final = (
    b"accept: image/png, image/jpeg, image/gif, image/webp\r\naccept-encoding: identity\r\nuser-agent: watchllm\r\n"
)
# As RFC 3986 has them, and the percent sign: what is encoded already is left alone.
_NEED_NO_ENCODING: Final = "/:?[]@!$&'()*+,;=-._~%"
_ALIASES: Final = {"image/jpg": "image/jpeg"}
_SUPPORTED: Final = "PNG, JPEG, GIF or WebP"


async def fetch_image(pool: ClientPool, url: str, limits: ImageLimits, take: Callable[[int], None]) -> Image:
    """The image at `url`. `take(size)` is called before that many bytes are kept, and may raise GatewayError.

    Raises NoImage, Unavailable, and what `take` raises. How long it takes is bounded by the caller.
    """
    place = place_of(url)
    for _ in range(limits.redirects + 1):
        found = await _get(pool, place, limits, take)
        if isinstance(found, Image):
            return found
        place = _following(place, found)
    raise NoImage(f"redirects more than {limits.redirects} times")


def place_of(url: str) -> Place:
    """Raises NoImage for what is not a plain http(s) URL. The host may be spelt in any way: its address is judged."""
    # First: urlsplit drops tabs and line ends without a word, and a backslash is a slash to some and not to others.
    if len(url) > _LONGEST_URL or not url.isprintable() or " " in url or "\\" in url:
        raise NoImage(f"is not a URL of at most {_LONGEST_URL} characters without spaces and backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NoImage("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise NoImage("is not an http(s) URL")
    if "@" in parts.netloc:
        raise NoImage("has a user or password, which is not sent anywhere")
    target = quote(parts.path or "/", safe=_NEED_NO_ENCODING)
    if parts.query:
        target += "?" + quote(parts.query, safe=_NEED_NO_ENCODING)
    origin = Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), trusted=False)
    return Place(url, origin, target.encode("ascii"))


def media_type_of(content: bytes) -> str | None:
    """What kind of image begins like this; None = none of those that providers take."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    return None


def _following(place: Place, location: bytes) -> Place:
    """Where a redirect leads, under the same rules as the first URL."""
    try:
        following = place_of(urljoin(place.text, location.decode()))
    except (UnicodeDecodeError, ValueError):
        raise NoImage("redirects to something that is not a URL") from None
    except NoImage as error:
        raise NoImage(f"redirects to something that {error}") from None
    if place.origin.scheme == "https" and following.origin.scheme != "https":
        raise NoImage("redirects from https to http")
    return following


async def _get(pool: ClientPool, place: Place, limits: ImageLimits, take: Callable[[int], None]) -> Image | bytes:
    """One request: the image, or the place that the answer redirects to."""
    done: asyncio.Future[Image | bytes] = asyncio.get_running_loop().create_future()
    download = _Download(done, limits.image_bytes, take)
    within = limits.seconds
    timeouts = Timeouts(connect=within, first_byte=within, idle=within, total=within)
    call = download.call = pool.send(place.origin, b"GET", place.target, _HEAD, None, download, timeouts)
    try:
        return await done
    finally:
        call.cancel()


class _Download:
    """Implements `ResponseSink`; `done` resolves to an image or a redirect's location."""

    call: wire.Call

    def __init__(self, done: asyncio.Future[Image | bytes], max_bytes: int, take: Callable[[int], None]) -> None:
        self._done = done
        self._max_bytes = max_bytes
        self._take = take
        self._media_type = ""
        self._size = 0
        self._pieces: list[bytes] = []

    def on_response(self, status: int, headers: Headers) -> None:
        lines = dict(reversed(headers))  # of a name that is repeated, the first line counts
        if status in _REDIRECTS and b"location" in lines:
            self._end(lines[b"location"])
            return
        media_type = lines.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        self._media_type = _ALIASES.get(media_type, media_type)
        if status != 200:
            self._fail(NoImage(f"was answered with status {status}"))
        elif self._media_type not in ("image/png", "image/jpeg", "image/gif", "image/webp"):
            self._fail(NoImage(f"was answered with a content type that is not one of {_SUPPORTED}"))
        elif lines.get(b"content-encoding", b"identity").lower() != b"identity":
            self._fail(NoImage("was answered in a content encoding that was not asked for"))

    def on_data(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._max_bytes:
            self._fail(NoImage(f"is larger than {self._max_bytes} bytes"))
            return
        try:
            self._take(len(data))
        except GatewayError as error:
            self._fail(error)
            return
        self._pieces.append(data)
        if len(self._pieces) % FOLD_EVERY == 0:
            fold(self._pieces)

    def on_complete(self) -> None:
        content = b"".join(self._pieces)
        if media_type_of(content) != self._media_type:
            self._fail(NoImage("gives content that is not of the image type which its host says it is"))
        else:
            self._end(Image(self._media_type, content))

    def on_failure(self, error: wire.WireError) -> None:
        self._fail(_failure(error))

    def _end(self, found: Image | bytes) -> None:
        self.call.cancel()
        if not self._done.done():
            self._done.set_result(found)

    def _fail(self, error: Exception) -> None:
        self._pieces.clear()
        self.call.cancel()
        if not self._done.done():
            self._done.set_exception(error)


def _failure(error: wire.WireError) -> Exception:
    if isinstance(error, wire.AddressRefused):
        return NoImage(
            "leads to a private address, which this gateway does not call (the operator can allow that with "
            "WATCHLLM_ALLOW_PRIVATE_URLS)"
        )
    if isinstance(error, wire.PoolFull):
        return Unavailable("Too many images are fetched from this host; try again in a moment.", retry_after=1)
    if isinstance(error, wire.ConnectFailed):
        return NoImage("names a host that cannot be reached")
    if isinstance(error, wire.TimedOut):
        return NoImage("was not answered in time")
    return NoImage("was answered with something that is not whole, or not HTTP")
