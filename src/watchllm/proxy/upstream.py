"""Calls to providers: from a target to an origin with credentials, and the sinks that receive what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from watchllm.domain.errors import Forbidden, GatewayError, ProviderFailed, TimedOut, Unavailable
from watchllm.domain.sealing import Keyring, SealBroken
from watchllm.domain.snapshot import Vendor
from watchllm.routing.resolve import Target
from watchllm.wire import types as wire
from watchllm.wire.pieces import FOLD_EVERY, fold
from watchllm.wire.types import Headers, Origin, Timeouts

MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MAX_REMEMBERED = 1024
BUILTIN_SIMULATOR = "sim://"
# The vendors at which `OpenAI-Organization` and `OpenAI-Project` mean something.
_OPENAI = ("openai", "azure")


class Destination(NamedTuple):
    """A target in the wire's terms: `prefix` is the base URL's path, `credential` the header line that opens it, and
    `own_key` says whether that is the project's own; `openai`: it is OpenAI's, or a cloud's that offers the same."""

    origin: Origin
    prefix: bytes
    credential: bytes
    own_key: bool = False
    openai: bool = False

    def __repr__(self) -> str:
        # A repr ends in tracebacks and logs, and a base URL's path may be a secret, too.
        return f"Destination(host={self.origin.host!r}, port={self.origin.port}, own_key={self.own_key})"


class Answer(Struct, frozen=True):
    """A provider's whole answer."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes:
        for known, value in self.headers:
            if known == name:
                return value
        return b""


class Destinations:
    """Turns targets into destinations, decrypting each provider key once.

    `builtin_simulator` starts the simulated provider of this process and gives its origin.
    """

    def __init__(
        self, keyring: Keyring, builtin_simulator: Callable[[], Awaitable[Origin]], *, allow_private: bool
    ) -> None:
        self._keyring = keyring
        self._builtin_simulator = builtin_simulator
        self.allow_private = allow_private
        self._credentials: dict[tuple[bytes, str, str], bytes] = {}
        self._known: dict[int, tuple[Target, Destination]] = {}
        self._bases: dict[tuple[str, bool], tuple[Origin, bytes]] = {}
        self._simulator: Origin | None = None

    def known(self, target: Target) -> Destination | None:
        """Where and how to reach a target that was reached before; it is known by its identity, which is kept."""
        found = self._known.get(id(target))
        return found[1] if found is not None and found[0] is target else None

    async def of(self, target: Target) -> Destination:
        """Where and how to reach `target`; waits only when the built-in simulator has to start.

        Raises Forbidden when the project's provider key cannot be opened, ProviderFailed for an unusable base URL.
        """
        if target.base_url.startswith(BUILTIN_SIMULATOR):
            if self._simulator is None:
                self._simulator = await self._builtin_simulator()
            return Destination(self._simulator, b"/v1", b"")
        origin, prefix = self._base(target.base_url, target.trusted or self.allow_private)
        destination = Destination(
            origin, prefix, self._credential(target), target.own_key is not None, target.vendor.name in _OPENAI
        )
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        self._known[id(target)] = target, destination
        return destination

    def _base(self, base_url: str, trusted: bool) -> tuple[Origin, bytes]:
        known = self._bases.get((base_url, trusted))
        if known is None:
            if len(self._bases) >= _MAX_REMEMBERED:
                self._bases.clear()
            known = self._bases[(base_url, trusted)] = parse_base_url(base_url, trusted=trusted)
        return known

    def _credential(self, target: Target) -> bytes:
        own = target.own_key
        if own is None:
            return _credential_line(target.vendor, target.instance_key) if target.instance_key else b""
        # A sealed key stays what it is while the table of vendors, which says how it is sent, may change.
        known_by = own.sealed, target.vendor.auth_header, target.vendor.auth_scheme
        line = self._credentials.get(known_by)
        if line is None:
            try:
                secret = self._keyring.open(own.sealed, own.id).decode("latin-1")
            except SealBroken:
                raise _cannot_open(target) from None
            if len(self._credentials) >= _MAX_REMEMBERED:
                self._credentials.clear()
            line = self._credentials[known_by] = _credential_line(target.vendor, secret)
        return line


class WholeAnswer:
    """A sink that collects an answer; `done` resolves to it or raises the gateway's error."""

    __slots__ = ("_body", "_headers", "_size", "call", "done", "on_head", "status")

    def __init__(self, done: asyncio.Future[Answer], on_head: Callable[[], None]) -> None:
        self.done = done
        self.on_head = on_head
        self.call: wire.Call | None = None
        self.status = 0
        """Of its head, 0 = that has not come."""
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._size = 0

    def on_response(self, status: int, headers: Headers) -> None:
        self.status = status
        self._headers = headers
        self.on_head()

    def on_data(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_ANSWER_BYTES:
            if self.call is not None:
                self.call.cancel()
            self.fail(ProviderFailed(f"The provider's answer is longer than {MAX_ANSWER_BYTES} bytes."))
            return
        self._body.append(data)
        if len(self._body) % FOLD_EVERY == 0:
            fold(self._body)

    def on_complete(self) -> None:
        self.call = None  # which refers to this
        if not self.done.done():
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self.done.set_result(Answer(self.status, self._headers, body))

    def on_failure(self, error: wire.WireError) -> None:
        self.fail(upstream_error(error))

    def fail(self, error: GatewayError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


def parse_base_url(base_url: str, *, trusted: bool) -> tuple[Origin, bytes]:
    """Origin and path prefix of a base URL; raises ProviderFailed where it is not an http(s) URL."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ProviderFailed(f"The provider's base URL {base_url!r} is not an http(s) URL; correct the provider key.")
    default = 443 if parts.scheme == "https" else 80
    origin = Origin(parts.scheme, parts.hostname, port or default, trusted)
    return origin, parts.path.rstrip("/").encode("ascii", "ignore")


def upstream_error(error: wire.WireError) -> GatewayError:
    """The gateway's error for what went wrong on the way to a provider."""
    if isinstance(error, wire.AddressRefused):
        return ProviderFailed(
            "The provider's base URL leads to a private address, which this gateway does not call. The operator can "
            "allow that with WATCHLLM_ALLOW_PRIVATE_URLS.",
            code="provider_unreachable",
        )
    if isinstance(error, wire.ConnectFailed):
        return ProviderFailed(
            "The provider cannot be reached; check its base URL and try again.", code="provider_unreachable"
        )
    if isinstance(error, wire.TimedOut):
        return TimedOut(f"The provider did not answer in time ({error}); try again or allow more time.")
    if isinstance(error, wire.PoolFull):
        return Unavailable("Too many calls to this provider are under way; try again in a moment.", retry_after=1)
    if isinstance(error, wire.PeerClosed):
        return ProviderFailed("The provider closed the connection before its answer was complete; try again.")
    return ProviderFailed("The provider's answer is not valid HTTP; try again or check its base URL.")


def with_timeout(timeouts: Timeouts, seconds: float | None) -> Timeouts:
    """`timeouts` with the total a client asked for, which it can only shorten."""
    if seconds is None:
        return timeouts
    return replace(timeouts, total=min(seconds, timeouts.total))


def _credential_line(vendor: Vendor, secret: str) -> bytes:
    if not secret:
        return b""
    scheme = f"{vendor.auth_scheme} " if vendor.auth_scheme else ""
    return f"{vendor.auth_header}: {scheme}{secret}\r\n".encode("latin-1")


def _cannot_open(target: Target) -> GatewayError:
    return Forbidden(
        f"The stored key of {target.provider} cannot be opened with this proxy's WATCHLLM_SECRET_KEY; add the key "
        "again or restore the secret.",
        code="provider_key_missing",
    )
