"""A streamed answer on its way through: relayed byte for byte, read along for usage and for the cache."""

from __future__ import annotations

import asyncio
from time import perf_counter

from watchllm.domain.errors import GatewayError, ProviderFailed
from watchllm.providers.openai.assemble import StreamAssembler
from watchllm.providers.openai.strip_usage import without_usage
from watchllm.proxy import egress
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.upstream import MAX_ANSWER_BYTES, Answer, upstream_error
from watchllm.wire import types as wire
from watchllm.wire.sse import EventScanner, event_data
from watchllm.wire.types import BadMessage, Headers


class StreamedAnswer:
    """A sink between the provider and the client.

    `done` resolves to None when a stream was relayed (`completion` then holds the whole answer, where it was complete),
    to the Answer when the provider sent something else, and raises the gateway's error when nothing was sent yet.

    With `strip_usage` the usage that only the gateway asked for is taken out again; without it, every chunk goes to
    the client's transport before it is even looked at.
    """

    __slots__ = (
        "_assembler",
        "_body",
        "_done",
        "_exchange",
        "_headers",
        "_relaying",
        "_request",
        "_scanner",
        "_services",
        "_size",
        "_status",
        "_strip",
        "call",
        "completion",
    )

    def __init__(
        self,
        services: Services,
        request: Request,
        assembler: StreamAssembler,
        done: asyncio.Future[Answer | None],
        *,
        strip_usage: bool,
    ) -> None:
        self._services = services
        self._request = request
        self._exchange = request.exchange
        self._done = done
        self._strip = strip_usage
        self._scanner = EventScanner()
        self._assembler = assembler
        self._relaying = False
        self._status = 0
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._size = 0
        self.call: wire.Call | None = None
        self.completion: bytes | None = None

    def on_response(self, status: int, headers: Headers) -> None:
        request = self._request
        request.upstream_ended = request.first_byte = perf_counter()
        egress.remember_upstream_id(request, headers)
        self._status = status
        self._headers = headers
        content_type = next((value for name, value in headers if name == b"content-type"), b"")
        if status == 200 and content_type.lower().startswith(b"text/event-stream"):
            self._relaying = True
            self._exchange.on_writable = self._resume
            self._exchange.start(200, egress.answer_head(request, content_type.decode("latin-1"), headers))

    def on_data(self, data: bytes) -> None:
        if not self._relaying:
            self._collect(data)
            return
        exchange = self._exchange
        if not self._strip:
            exchange.write(data)
        try:
            for event in self._scanner.feed(data):
                self._read(event)
        except BadMessage as error:
            self._break_off(ProviderFailed(f"The provider's stream cannot be read: {error}."))
            return
        if not exchange.writable and self.call is not None:
            self.call.pause()

    def on_complete(self) -> None:
        if not self._relaying:
            if not self._done.done():
                self._done.set_result(Answer(self._status, self._headers, b"".join(self._body)))
            return
        rest = self._scanner.rest()
        if rest:
            self._read(rest)
        assembler = self._assembler
        if assembler.error is None and not assembler.finish_reasons:
            self._break_off(ProviderFailed("The provider's stream ended before its answer was complete."))
            return
        self.completion = assembler.result()
        self._end("complete" if assembler.error is None else "error")

    def on_failure(self, error: wire.WireError) -> None:
        failure = upstream_error(error)
        if self._relaying:
            self._break_off(failure)
        elif not self._done.done():
            self._done.set_exception(failure)

    def _read(self, event: bytes) -> None:
        data = event_data(event)
        if data is not None:
            self._assembler.feed(data)
        if self._strip:
            shown = without_usage(event)
            if shown:
                self._exchange.write(shown)

    def _collect(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_ANSWER_BYTES:
            self._body.append(data)
            return
        if self.call is not None:
            self.call.cancel()
        if not self._done.done():
            self._done.set_exception(ProviderFailed(f"The provider's answer is longer than {MAX_ANSWER_BYTES} bytes."))

    def _break_off(self, error: GatewayError) -> None:
        """Something went wrong after the first byte: say so inside the stream, in the dialect's form, and end it."""
        if self.call is not None:
            self.call.cancel()
        self._request.error = error.code
        self._exchange.write(egress.error_event(error))
        self._end("cut")

    def _end(self, ended: str) -> None:
        request = self._request
        if request.settled:
            return
        assert request.target is not None
        request.usage = self._assembler.usage
        request.price = price = self._services.tenants.price(request.target.provider, request.target.model)
        if price is not None and request.usage is not None:
            request.cost = price.cost(request.usage)
        self._services.settlement.settle(request, 200, ended)
        self._exchange.finish()
        if not self._done.done():
            self._done.set_result(None)

    def _resume(self) -> None:
        if self.call is not None:
            self.call.resume()
