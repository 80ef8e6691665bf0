"""What providers say that they offer: `GET /models` of their base URL, asked with the key that calls would use.

A list belongs to the key that it was asked with: of two projects with keys of their own, neither sees the other's
models. It is remembered for some minutes, and asked for once however many want it. Where none can be had (a provider
that has no such list, is down or slow, or refuses the key) nothing is known, and that is remembered for a shorter time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from watchllm.domain.errors import GatewayError
from watchllm.providers.dialect import ANTHROPIC_VERSION, CHAT, MESSAGES
from watchllm.proxy.model_forms import created
from watchllm.routing.resolve import MAX_MODEL_LENGTH, Target
from watchllm.wire import types as wire
from watchllm.wire.types import Headers, Timeouts

if TYPE_CHECKING:
    from watchllm.proxy.upstream import Destinations
    from watchllm.wire.client import ClientPool

_FRESH_SECONDS = 300.0
_FAILED_SECONDS = 30.0
_TIMEOUTS = Timeouts(connect=2.0, first_byte=3.0, idle=2.0, total=4.0)
_MOST_LISTS = 256
_MOST_MODELS = 2_000
# OpenRouter's, the longest there is, has half a megabyte.
_MOST_BYTES = 2 * 1024 * 1024
# Reading it cannot be interrupted, and of the shortest objects so many bytes hold 200,000.
_MOST_OBJECTS = 20_000
# A project may have a key for any number of providers of its own.
_MOST_ASKED = 16
# Anthropic lists 20 models at a time, unless it is asked for more.
_ONE_PAGE = b"?limit=1000"
_LINES = b"accept: application/json\r\naccept-encoding: identity\r\nuser-agent: watchllm\r\n"


class OfferedModel(NamedTuple):
    """A model by its provider's name for it; `created` in epoch seconds, 0 = not told."""

    id: str
    created: int


class Offered:
    """What a provider said once. Others may know by its identity whether they have seen it."""

    __slots__ = ("__weakref__", "models")

    def __init__(self, models: tuple[OfferedModel, ...]) -> None:
        self.models = models


Offer = Offered | None
"""None: the provider does not say."""

_Key = tuple[str, str, bool, bytes | None]


class _Known:
    """A list that is asked for, then kept `until` a moment of the loop's time."""

    __slots__ = ("task", "until")

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Coroutine[Any, Any, Offer]) -> None:
        self.until = float("inf")
        self.task = loop.create_task(self._keep(loop, ask))

    async def _keep(self, loop: asyncio.AbstractEventLoop, ask: Coroutine[Any, Any, Offer]) -> Offer:
        offer = None
        try:
            offer = await ask
        finally:
            self.until = loop.time() + (_FAILED_SECONDS if offer is None else _FRESH_SECONDS)
        return offer


class ModelLists:
    """The lists of one proxy process, bounded in number and size."""

    def __init__(self, pool: ClientPool, destinations: Destinations, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._destinations = destinations
        self._loop = loop
        self._known: dict[_Key, _Known] = {}

    async def of(self, targets: Sequence[Target], may_ask: Callable[[Target], Awaitable[bool]]) -> list[Offer]:
        """What the provider of each of `targets` offers, in their order; takes 4 s at most. Who is not known is asked
        if `may_ask` says so."""
        tasks = [await self._asked(target, may_ask) for target in targets[:_MOST_ASKED]]
        # Shielded: who leaves does not take the answer away from the others.
        offers = [None if task is None else await asyncio.shield(task) for task in tasks]
        return offers + [None] * (len(targets) - len(offers))

    async def _asked(self, target: Target, may_ask: Callable[[Target], Awaitable[bool]]) -> asyncio.Task[Offer] | None:
        own = target.own_key
        key = (target.provider, target.base_url, target.trusted, None if own is None else own.sealed)
        task = self._kept(key)
        if task is None and await may_ask(target):
            task = self._kept(key)  # Somebody else may have begun meanwhile.
            if task is None:
                while len(self._known) >= _MOST_LISTS:
                    self._known.pop(next(iter(self._known)))
                known = self._known[key] = _Known(self._loop, self._ask(target))
                task = known.task
        return task

    def _kept(self, key: _Key) -> asyncio.Task[Offer] | None:
        """What is known or being asked for, unless it is too old."""
        known = self._known.get(key)
        if known is not None and known.until <= self._loop.time():
            del self._known[key]
            return None
        return None if known is None else known.task

    async def _ask(self, target: Target) -> Offer:
        sink = _ListSink(self._loop.create_future())
        try:
            destination = await self._destinations.of(target)
            head = destination.credential + _LINES
            path = destination.prefix + b"/models"
            if upstream_form(target) == MESSAGES:
                head += b"anthropic-version: %b\r\n" % ANTHROPIC_VERSION
                path += _ONE_PAGE
            sink.call = self._pool.send(destination.origin, b"GET", path, head, None, sink, _TIMEOUTS)
        except (GatewayError, wire.WireError):
            return None  # as calls to this provider will be told, and why
        body = await sink.done
        return None if body is None else _read(body, shared=target.own_key is None)


class _ListSink:
    """Collects a short answer with status 200; `done` is None for any other and for a failure."""

    def __init__(self, done: asyncio.Future[bytes | None]) -> None:
        self.done = done
        self.call: wire.Call | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    def on_response(self, status: int, headers: Headers) -> None:
        if status != 200:
            self._give_up()

    def on_data(self, data: bytes) -> None:
        self._size += len(data)
        self._pieces.append(data)
        if self._size > _MOST_BYTES:
            self._give_up()

    def on_complete(self) -> None:
        self._end(b"".join(self._pieces))

    def on_failure(self, error: wire.WireError) -> None:
        self._end(None)

    def _give_up(self) -> None:
        if self.call is not None:
            self.call.cancel()
        self._end(None)

    def _end(self, body: bytes | None) -> None:
        if not self.done.done():
            self.done.set_result(body)


def upstream_form(target: Target) -> str:
    """The dialect in which a provider tells of its models: Anthropic's own, or the form that all others share."""
    return MESSAGES if target.vendor.dialects[:1] == (MESSAGES,) else CHAT


class _Model(msgspec.Struct, gc=False):
    id: str
    created: int | float | str | None = 0
    created_at: int | float | str | None = None


class _List(msgspec.Struct):
    data: list[_Model]


_decode = msgspec.json.Decoder(_List).decode


def _read(body: bytes, *, shared: bool) -> Offer:
    if body.count(b"{") > _MOST_OBJECTS:
        return None
    try:
        models = _decode(body).data
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # no list of models
    return Offered(
        tuple(
            OfferedModel(model.id, created(model.created or model.created_at))
            for model in models[:_MOST_MODELS]
            if _is_nameable(model.id)
            # Names of fine-tuned models hold their owner's words, which are not for all who share the key.
            and not (shared and model.id.startswith("ft:"))
        )
    )


def _is_nameable(model: str) -> bool:
    return 0 < len(model) <= MAX_MODEL_LENGTH and model.isascii() and model.isprintable()
