"""All other `/v1/…` paths of a provider: passed through unchanged, uploads streamed, metered, never cached."""

from __future__ import annotations

import asyncio
from time import perf_counter

from watchllm.domain.errors import Forbidden, GatewayError, Unavailable
from watchllm.domain.usage_event import BYPASS
from watchllm.proxy import egress, paths
from watchllm.proxy.calls import send, status_refusal
from watchllm.proxy.directives import directives
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.upstream import upstream_error, with_timeout
from watchllm.wire import types as wire
from watchllm.wire.exchange import Exchange
from watchllm.wire.types import Headers


async def pass_through(services: Services, request: Request) -> None:
    """Relay a request to the provider that the project uses by default; raises GatewayError."""
    exchange = request.exchange
    upload = None if exchange.body_complete else _Upload(exchange)
    request.principal = principal = services.tenants.authenticate(exchange.headers, request.wall_ns / 1e9)
    request.authenticated = perf_counter()
    principal.require("inference")
    if services.settlement.journal.refusal is not None:
        raise Unavailable(services.settlement.journal.refusal, retry_after=1)
    path = exchange.path
    request.endpoint = paths.checked(path, exchange.method)
    request.cache = BYPASS
    tenant = principal.tenant
    target = request.target = tenant.router.default(tenant.project, test_key=tenant.test)
    if not paths.is_stateless(path) and target.own_key is None:
        # The simulated provider keeps objects too, and all test keys share it.
        way = (
            "Use a live key of a project with a provider key of its own."
            if tenant.test
            else "Add the project's own provider key with `watchllm provider-key add`."
        )
        raise Forbidden(
            f"{path.decode('ascii')[:200]} is not a path on which projects may share a provider key: they could see "
            f"each other's objects there. {way}",
            code="own_provider_key_required",
        )
    request.directives = directives(exchange.headers, tenant.settings)
    relay = _Relay(services, request)
    body = exchange.body or None if upload is None else None
    destination = await services.destinations.of(target)
    timeouts = with_timeout(services.timeouts, request.directives.timeout)
    path_below = path[len(b"/v1") :].decode("ascii")
    coding = exchange.header(b"content-encoding")
    relay.call = call = send(
        services,
        request,
        destination,
        path_below,
        body,
        relay,
        exchange.method,
        upload=upload,
        timeouts=timeouts,
        # The body goes up as it came, so what it is encoded in does, too.
        lines=b"" if coding is None else b"content-encoding: %b\r\n" % coding,
    )
    if upload is not None:
        upload.go_to(call)
    await relay.done


class _Upload:
    """The client's body as the source of the upstream request's; what arrives before the call exists is kept."""

    def __init__(self, exchange: Exchange) -> None:
        length = exchange.header(b"content-length")
        self.content_length = None if length is None else int(length)
        self.on_pause = exchange.pause_body
        self.on_resume = exchange.resume_body
        self._exchange = exchange
        self._early: list[bytes] = []
        self._ended = False
        exchange.on_data = self._early.append
        exchange.on_end = self._end_early
        exchange.pause_body()

    def go_to(self, call: wire.Call) -> None:
        """Send what has arrived, and from now on every piece as it comes."""
        exchange = self._exchange
        exchange.on_data = call.write
        exchange.on_end = call.end
        # Reading goes on when the connection is there (`on_resume`): what came before that would have to be kept.
        for piece in self._early:
            call.write(piece)
        if self._ended:
            call.end()

    def _end_early(self) -> None:
        self._ended = True


class _Relay:
    """A sink that hands the answer on as it arrives."""

    def __init__(self, services: Services, request: Request) -> None:
        self._services = services
        self._request = request
        self._exchange = request.exchange
        self._status = 0
        self.call: wire.Call | None = None
        self.done: asyncio.Future[None] = services.loop.create_future()

    def on_response(self, status: int, headers: Headers) -> None:
        request = self._request
        request.upstream_ended = request.first_byte = perf_counter()
        request.upstream_status = status
        egress.remember_upstream_id(request, headers)
        refusal = status_refusal(status)
        if refusal is not None:
            self._fail(refusal)
            return
        self._status = status
        content_type = next((value for name, value in headers if name == b"content-type"), b"application/octet-stream")
        self._exchange.on_writable = self._resume
        self._exchange.start(status, egress.answer_head(request, content_type.decode("latin-1"), headers))

    def on_data(self, data: bytes) -> None:
        if self.done.done():
            return
        self._exchange.write(data)
        if not self._exchange.writable and self.call is not None:
            self.call.pause()

    def on_complete(self) -> None:
        if self.done.done():
            return
        self._services.settlement.settle(self._request, self._status, "complete" if self._status < 400 else "error")
        self._exchange.finish()
        self.done.set_result(None)

    def on_failure(self, error: wire.WireError) -> None:
        self._fail(upstream_error(error))

    def _fail(self, error: GatewayError) -> None:
        """Before the head was sent an error of our own answers; after it, the connection is cut (see ProxyApp)."""
        if not self.done.done():
            self.done.set_exception(error)

    def _resume(self) -> None:
        if self.call is not None:
            self.call.resume()
