"""What the stages of a request work with; one object a process, put together by the composition root."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from watchllm.providers.dialect import ANTHROPIC_VERSION, CHAT, MESSAGES

if TYPE_CHECKING:
    from watchllm.cache.entry import Answers
    from watchllm.cache.leases import Leases
    from watchllm.proxy.approach import Candidate
    from watchllm.proxy.flight import Flight
    from watchllm.proxy.history import History
    from watchllm.proxy.image_links import ImageFetches
    from watchllm.proxy.limiting import Limiting
    from watchllm.proxy.model_listing import ModelListings
    from watchllm.proxy.model_lists import ModelLists
    from watchllm.proxy.semantic.cross_encoding import CrossReadings
    from watchllm.proxy.semantic.judging import Judges
    from watchllm.proxy.semantic.warming import Semantic
    from watchllm.proxy.settle import Counters, Settlement
    from watchllm.proxy.slots import Slots
    from watchllm.proxy.tenants import Tenants
    from watchllm.proxy.upstream import Destination, Destinations
    from watchllm.routing.breaker import Breakers
    from watchllm.routing.target import Target
    from watchllm.wire.client import ClientPool
    from watchllm.wire.server import ServerLimits
    from watchllm.wire.types import Timeouts

# Of a client's request only these lines go upstream: its credentials, cookies and addresses never do.
_PASSED_UP = (b"accept", b"content-type", b"openai-beta")
_PASSED_UP_OF_MESSAGES = (b"accept", b"content-type", b"anthropic-version", b"anthropic-beta")
# These name the client's own account at OpenAI: they fit a key of the project's own there, and concern nobody else.
_ACCOUNT = (b"openai-organization", b"openai-project")
_IDEMPOTENCY_KEY = b"idempotency-key"
_COMMON_LINES = b"accept-encoding: identity\r\nuser-agent: watchllm\r\n"
_UNUSUAL = frozenset((*_PASSED_UP, *_ACCOUNT, _IDEMPOTENCY_KEY)) - {b"accept", b"content-type"}
USUAL_LINES = b"accept: application/json\r\ncontent-type: application/json\r\n" + _COMMON_LINES


class Outbound(msgspec.Struct, frozen=True):
    """Connections to providers, and how targets become places to connect to.

    `visits` is for the hosts that requests name at will, whose number has no bound: it keeps no connection open.
    """

    pool: ClientPool
    destinations: Destinations
    visits: ClientPool


class Services(msgspec.Struct):
    """Stores, pools, clocks and bounds of one proxy process."""

    loop: asyncio.AbstractEventLoop
    tenants: Tenants
    cache: Answers
    settlement: Settlement
    counters: Counters
    limits: ServerLimits
    timeouts: Timeouts
    history: History
    flights: dict[bytes, Flight]
    """Calls under way that may be joined, by partition and key."""
    semantic: Semantic
    limiting: Limiting
    make_outbound: Callable[[], Outbound]
    """Builds what calls upstream need, at the first of them: an answer from the cache waits for none of it."""
    dependencies: Callable[[], dict[str, str]]
    """The state of each dependency by name: `ok`, or what is wrong with it."""
    make_slots: Callable[[], Slots]
    """As `make_outbound`, what says how many of them there may be."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose word on where a request comes from counts, in CIDR form."""
    recorder_lag: Callable[[], float | None] = lambda: None
    """Seconds by which usage is late in the database; None = nobody brings it there."""

    store_counters: Callable[[], dict[str, int]] = dict
    """What happened at a shared cache since the start, by name; nothing where there is none."""

    leases: Leases | None = None
    """Which process makes a call, where there are several; None = this is the only one."""

    candidates: dict[int, tuple[tuple[Target, ...], tuple[Candidate, ...]]] = msgspec.field(default_factory=dict)
    """Where targets are, by the identity of their tuple, which is kept."""

    judges: Judges | None = None
    cross_readings: CrossReadings | None = None
    """Each made by the first look-up by meaning that needs it."""

    slots_made: Slots | None = None
    """`slots`, once they are needed."""

    _outbound: Outbound | None = None
    _breakers: Breakers | None = None
    _model_lists: ModelLists | None = None
    _model_listings: ModelListings | None = None
    _images: ImageFetches | None = None

    @property
    def outbound(self) -> Outbound:
        if self._outbound is None:
            self._outbound = self.make_outbound()
        return self._outbound

    @property
    def slots(self) -> Slots:
        """Made, and its code loaded, when first needed."""
        if self.slots_made is None:
            self.slots_made = self.make_slots()
        return self.slots_made

    @property
    def destinations(self) -> Destinations:
        return self.outbound.destinations

    @property
    def breakers(self) -> Breakers:
        """Made, and its code loaded, when first needed."""
        if self._breakers is None:
            from watchllm.routing.breaker import Breakers

            self._breakers = Breakers(time.monotonic)
        return self._breakers

    @property
    def model_lists(self) -> ModelLists:
        """Made, and its code loaded, when first needed."""
        if self._model_lists is None:
            from watchllm.proxy.model_lists import ModelLists

            self._model_lists = ModelLists(self.outbound.pool, self.destinations, self.loop)
        return self._model_lists

    @property
    def model_listings(self) -> ModelListings:
        """As `model_lists`."""
        if self._model_listings is None:
            from watchllm.proxy.model_listing import ModelListings

            self._model_listings = ModelListings(self.tenants)
        return self._model_listings

    @property
    def images(self) -> ImageFetches:
        """Made, and its code loaded, when first needed."""
        if self._images is None:
            from watchllm.proxy.image_links import ImageFetches

            self._images = ImageFetches(self.outbound.visits)
        return self._images

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def is_usual(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a client's request goes up to OpenAI's endpoints with `USUAL_LINES`."""
        usual = headers.get(b"content-type") == headers.get(b"accept") == b"application/json"
        return usual and _UNUSUAL.isdisjoint(headers)

    def forwarded(
        self,
        headers: dict[bytes, bytes],
        partition: bytes,
        destination: Destination,
        *,
        dialect: str = CHAT,
        same_dialect: bool = True,
        candidate: bytes = b"",
    ) -> bytes:
        """The header lines of a client's request that go upstream, in the words of `dialect`, and our own.

        Where that is not the client's dialect, what is peculiar to its own stays behind.

        At a provider key that projects share they share one space of idempotency keys, too: theirs go up under a name
        that is the `partition`'s own, the same one whenever the client tries again. So it is where the request may go
        to several candidates, which are not asked the same: the name is that `candidate`'s then (empty = it is alone).
        """
        if dialect == MESSAGES:
            lines = _named(_PASSED_UP_OF_MESSAGES if same_dialect else _PASSED_UP[:2], headers)
            if not same_dialect or b"anthropic-version" not in headers:
                lines.append(b"anthropic-version: %b\r\n" % ANTHROPIC_VERSION)
        else:
            if self.is_usual(headers):
                return USUAL_LINES
            lines = _named(_PASSED_UP if same_dialect else _PASSED_UP[:2], headers)
        if destination.own_key and destination.openai:
            lines += _named(_ACCOUNT, headers)
        value = headers.get(_IDEMPOTENCY_KEY)
        if value is not None:
            if candidate or not destination.own_key:
                label = self.tenants.key_hash.label(partition, value + b"\0" + candidate if candidate else value)
                value = label.hex().encode()
            lines.append(b"%b: %b\r\n" % (_IDEMPOTENCY_KEY, value))
        return b"".join(lines) + _COMMON_LINES


def _named(names: tuple[bytes, ...], headers: dict[bytes, bytes]) -> list[bytes]:
    return [b"%b: %b\r\n" % (name, headers[name]) for name in names if name in headers]
