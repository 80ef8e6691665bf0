"""Vectors from an OpenAI-compatible `/embeddings` endpoint that the operator named for the whole instance.

The instance's operator pays for them: they are in no project's usage, and counted in the metrics.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import numpy

from watchllm.cache.semantic.awaited import FAILED, RESTING, Awaited, Embedded, NotEmbedded
from watchllm.domain.errors import ProviderFailed
from watchllm.proxy.upstream import parse_base_url
from watchllm.routing.breaker import Breakers
from watchllm.routing.outcome import Health
from watchllm.wire.client import ClientPool, Response
from watchllm.wire.types import Timeouts, WireError

if TYPE_CHECKING:
    from watchllm.cache.semantic.embedder import Vectors

_LONGEST_SECONDS: Final = 5.0
_TIMEOUTS: Final = Timeouts(_LONGEST_SECONDS, _LONGEST_SECONDS, _LONGEST_SECONDS, _LONGEST_SECONDS)
_MAX_ANSWER: Final = 1 << 20
_PROBED_TEXT: Final = "What is it?"


class EmbeddingEndpoint(msgspec.Struct, frozen=True):
    """Where vectors are made. `api_key` "" = none is sent. `dimensions`, where given, is asked for; None = the model's
    own. Raises ValueError for a base URL or key that cannot be used."""

    base_url: str
    model: str
    api_key: str = ""
    dimensions: int | None = None

    def __post_init__(self) -> None:
        if not self.api_key.isascii() or not self.api_key.isprintable():
            raise ValueError("the embedder's API key has characters that no header line may have")
        try:
            parse_base_url(self.base_url, trusted=True)
        except ProviderFailed:
            raise ValueError("the embedder's base URL is not an http(s) URL without query") from None

    def __repr__(self) -> str:
        return f"EmbeddingEndpoint(model={self.model!r})"

    async def embed(self, pool: ClientPool, text: str) -> Embedded:
        """One call. Raises NotEmbedded."""
        origin, prefix = parse_base_url(self.base_url, trusted=True)
        head = b"content-type: application/json\r\naccept: application/json\r\naccept-encoding: identity\r\n"
        if self.api_key:
            head += f"authorization: Bearer {self.api_key}\r\n".encode("ascii")
        asked: dict[str, object] = {"model": self.model, "input": text}
        if self.dimensions is not None:
            asked["dimensions"] = self.dimensions
        body = msgspec.json.encode(asked)
        try:
            answer = await pool.fetch(
                origin, b"POST", prefix + b"/embeddings", head, body, _TIMEOUTS, max_bytes=_MAX_ANSWER
            )
        except WireError as error:
            raise NotEmbedded(FAILED, f"{origin.host} cannot be asked: {error}") from None
        return self._read(answer, origin.host)

    def _read(self, answer: Response, host: str) -> Embedded:
        if answer.status != 200:
            raise NotEmbedded(FAILED, f"{host} answered with status {answer.status}{_ADVICE.get(answer.status, '')}")
        try:
            document = _decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise NotEmbedded(FAILED, f"{host} answered with something that is no list of one embedding") from None
        vector = _of_length_one(numpy.array(document.data[0].embedding, numpy.float32))
        if vector is None:
            raise NotEmbedded(FAILED, f"{host} answered with a vector that has no direction")
        if self.dimensions not in (None, len(vector)):
            raise NotEmbedded(FAILED, f"{host} gave a vector of {len(vector)} numbers, not {self.dimensions}")
        return Embedded(vector, document.usage.prompt_tokens if document.usage else 0)


async def probed(endpoint: EmbeddingEndpoint, proxy_env: Mapping[str, str]) -> int:
    """How many numbers its vectors have: one call, over a connection of its own. Raises NotEmbedded."""
    pool = ClientPool(proxy_env=proxy_env)
    try:
        return len((await endpoint.embed(pool, _PROBED_TEXT)).vector)
    finally:
        await pool.close()


def awaited(endpoint: EmbeddingEndpoint, dimensions: int, pool: Callable[[], ClientPool], *, seconds: float) -> Awaited:
    """Embeds at `endpoint`, whose vectors have so many `dimensions`. `pool` gives the event loop's, when needed."""
    # Asked for or not: from here on every vector has to have as many.
    caller = _Caller(endpoint, dimensions, pool, seconds)
    version = f"{endpoint.base_url} {endpoint.model} {dimensions}"
    return Awaited(f"openai:{endpoint.model}", version, dimensions, caller.embed, seconds=seconds)


class _Caller:
    """Leaves an endpoint alone for a while that fails, or that is too slow for every look-up."""

    def __init__(
        self, endpoint: EmbeddingEndpoint, dimensions: int, pool: Callable[[], ClientPool], seconds: float
    ) -> None:
        self._endpoint = endpoint
        self._dimensions = dimensions
        self._pool = pool
        self._seconds = seconds
        self._breakers = Breakers(time.monotonic)
        self._breaker = ("", "embedder", endpoint.base_url, "instance")
        self._last = "vectors came too late"

    async def embed(self, text: str) -> Embedded:
        ticket = self._breakers.admit(self._breaker)
        if ticket is None:
            raise NotEmbedded(RESTING, f"not asked for a while: {self._last}")
        too_late = partial(ticket.give_back, Health.TIMED_OUT)
        timer = asyncio.get_running_loop().call_later(self._seconds, too_late)
        try:
            embedded = await self._endpoint.embed(self._pool(), text)
            if len(embedded.vector) != self._dimensions:
                raise NotEmbedded(FAILED, f"a vector has {len(embedded.vector)} numbers, not {self._dimensions}")
            ticket.give_back(Health.WORKED)
        except NotEmbedded as error:
            self._last = str(error)
            ticket.give_back(Health.FAILED)
            raise
        finally:
            timer.cancel()
            ticket.give_back(Health.NOTHING)  # Cancelled, unless something else was told before.
        return embedded


def _of_length_one(vector: Vectors) -> Vectors | None:
    length = float(numpy.dot(vector, vector)) ** 0.5
    return vector / numpy.float32(length) if length > 0 and math.isfinite(length) else None


class _Item(msgspec.Struct):
    embedding: Annotated[list[float], msgspec.Meta(min_length=1, max_length=16_384)]


class _Usage(msgspec.Struct):
    prompt_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0


class _Answer(msgspec.Struct):
    data: Annotated[list[_Item], msgspec.Meta(min_length=1, max_length=1)]
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Answer).decode
_ADVICE: Final = {
    401: ": set WATCHLLM_EMBEDDER_API_KEY to a key that it takes",
    403: ": its key may not use this model",
    404: ": it has no such model, or its base URL is another",
    429: ": its rate limit or credit is used up",
}
