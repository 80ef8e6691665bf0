"""The data plane as a handler of the wire's server: finds the stage for a path, turns what it raises into answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import msgspec

from watchllm.domain.errors import GatewayError, InternalError, NotFound, WireRefusal
from watchllm.domain.ids import new_request_id
from watchllm.providers.dialect import CHAT
from watchllm.providers.endpoints import ENDPOINTS, dialect_at
from watchllm.proxy import eager, egress
from watchllm.proxy.generation import generate
from watchllm.proxy.intake import is_json
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.wire.exchange import BodyMode, Exchange
from watchllm.wire.refusals import shutting_down

if TYPE_CHECKING:
    from watchllm.proxy.embeddings import Embeddings

CLIENT_LEFT = 499
"""The status in the usage event of a request whose client left before the answer was complete."""

# Bytes of a body that are kept before it is known who sends it.
_KEPT_OF_ANYBODY = 64 * 1024
_DIGITS_OF_KEPT = len(str(_KEPT_OF_ANYBODY))
_STORED_COMPLETIONS = b"/v1/chat/completions"

Stage = Callable[[Services, Request], Coroutine[Any, Any, None]]


class ProxyApp:
    """Implements `wire.server.Handler`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._embeddings: Embeddings | None = None
        self._generation = {b"/v1" + endpoint.path.encode(): endpoint for endpoint in ENDPOINTS}

    def body_mode(self, exchange: Exchange) -> BodyMode:
        length = exchange.headers.get(b"content-length")
        if (
            length is not None
            and len(length) < _DIGITS_OF_KEPT
            and exchange.method == b"POST"
            and exchange.path in self._generation
        ):
            return BodyMode.BUFFER
        if self._is_passed_through(exchange) and (
            # JSON is read for the model that it names; whatever is too large to be kept goes up as it comes.
            not is_json(exchange.headers.get(b"content-type", b""))
            or (length is not None and int(length) > self._services.limits.max_body_bytes)
        ):
            return BodyMode.STREAM
        if (length is None or int(length) > _KEPT_OF_ANYBODY) and not self._is_known(exchange):
            # Refused at its head: kept, a few such bodies would take the room for everybody's.
            return BodyMode.STREAM
        return BodyMode.BUFFER

    def on_request(self, exchange: Exchange) -> None:
        endpoint = self._generation.get(exchange.path)
        if endpoint is not None and exchange.method == b"POST":
            request = Request(exchange, endpoint.name)
            if endpoint.family == "embeddings":
                self._run(request, self.embeddings.answer(request, endpoint))
                return
            try:
                going_on = generate(self._services, request, endpoint)
            except Exception as error:  # noqa: BLE001  (the request's edge, as in `eager.run`)
                self._failed(request, error)
                return
            if going_on is not None:
                self._run(request, going_on)
            return
        request = Request(exchange, "other")
        try:
            stage = self._stage(exchange)
        except GatewayError as error:
            self._refuse(request, error)
            return
        self._run(request, stage(self._services, request))

    def on_refusal(self, exchange: Exchange | None, error: GatewayError) -> tuple[bytes, bytes]:
        self._services.counters.refused_by_wire += 1
        retry = b"" if error.retry_after is None else b"Retry-After: %d\r\n" % max(1, round(error.retry_after))
        request_id = new_request_id()
        head = f"Content-Type: {egress.JSON}\r\nX-Request-Id: {request_id}\r\n".encode()
        dialect = CHAT if exchange is None else dialect_at(exchange.path)
        return head + retry, egress.error_body(error, dialect, request_id)

    def warm_up(self) -> None:
        """Load what the first request of each kind would have to wait for."""
        import watchllm.proxy.miss

        load_stages()
        _ = self.embeddings, self._services.outbound, watchllm.proxy.miss

    @property
    def embeddings(self) -> Embeddings:
        """Made, and its code loaded, when first needed."""
        if self._embeddings is None:
            from watchllm.proxy.embeddings import Embeddings

            self._embeddings = Embeddings(self._services)
        return self._embeddings

    def _stage(self, exchange: Exchange) -> Stage:
        path = exchange.path
        stages = load_stages()
        known = stages.own.get(path)
        if known is not None:
            method, stage = known
            if exchange.method != method and not (method == b"GET" and exchange.method == b"HEAD"):
                raise _wrong_method(exchange.method, path, *((b"GET", b"HEAD") if method == b"GET" else (method,)))
            return stage
        if path.startswith(b"/v1/models/") and exchange.method in (b"GET", b"HEAD"):
            return stages.model
        if self._is_passed_through(exchange):
            return stages.other
        if path in self._generation:
            others = (b"GET", b"HEAD") if path == _STORED_COMPLETIONS else ()
            raise _wrong_method(exchange.method, path, *others, b"POST")
        raise NotFound(f"There is nothing at {path.decode('latin-1')[:200]}; the API is under /v1/.")

    def _is_passed_through(self, exchange: Exchange) -> bool:
        path = exchange.path
        if path in self._generation:
            # Stored chat completions are listed where they are made.
            return path == _STORED_COMPLETIONS and exchange.method in (b"GET", b"HEAD")
        return path.startswith(b"/v1/") and path not in load_stages().own

    def _is_known(self, exchange: Exchange) -> bool:
        try:
            self._services.tenants.authenticate(exchange.headers, self._services.now_ms() / 1e3)
        except GatewayError:
            return False
        return True

    def _run(self, request: Request, stage: Coroutine[Any, Any, None]) -> None:
        going_on = eager.run(stage, self._services.loop, partial(self._failed, request))
        if going_on is not None:
            exchange = request.exchange
            exchange.on_disconnect = partial(self._client_left, request, going_on)
            exchange.on_shut_down = partial(self._shut_down, request, going_on)
            going_on.on_end = partial(_let_go, request)

    def _failed(self, request: Request, error: BaseException) -> None:
        if not isinstance(error, GatewayError):
            self._services.counters.internal_errors += 1
            self._services.loop.call_exception_handler({"message": f"{request.id} failed", "exception": error})
            error = InternalError(
                f"Something went wrong inside the gateway; report it with the request id {request.id}."
            )
        self._refuse(request, error)

    def _refuse(self, request: Request, error: GatewayError) -> None:
        exchange = request.exchange
        request.error = error.code
        if request.cancel_upstream is not None:
            request.cancel_upstream()
        if request.target is None:
            request.model, request.asked_provider = error.model, error.provider
        if exchange.started:
            self._break_off(request, error)
            return
        head = egress.error_head(request, error)
        self._services.settlement.settle(request, error.status, "error")
        exchange.respond(error.status, head, egress.error_body(error, dialect_at(exchange.path), request.id))

    def _break_off(self, request: Request, error: GatewayError) -> None:
        """After the first byte: a stream tells it as its dialect does, and ends; nothing else could tell it."""
        exchange = request.exchange
        endpoint = self._generation.get(exchange.path)
        if endpoint is None or not request.streamed:
            self._services.settlement.settle(request, exchange.status, "cut")
            exchange.abort()
            return
        exchange.write(egress.error_event(error, endpoint.dialect, request.id))
        self._services.settlement.settle(request, exchange.status, "cut")
        exchange.finish()

    def _shut_down(self, request: Request, run: eager.EagerRun) -> None:
        """This process ends before the answer does."""
        self._refuse(request, shutting_down())
        run.cancel()

    def _client_left(self, request: Request, run: eager.EagerRun) -> None:
        request.error = "client_left"
        if request.cancel_upstream is not None:
            request.cancel_upstream()
        self._services.settlement.settle(request, CLIENT_LEFT, "cancelled")
        run.cancel()


def _let_go(request: Request) -> None:
    """Take apart what refers to each other: memory that the collector would have to find is used again at once."""
    exchange = request.exchange
    exchange.on_disconnect = exchange.on_shut_down = exchange.on_writable = None
    request.cancel_upstream = None


class Stages(msgspec.Struct, frozen=True):
    """What answers the paths that are not answered from the cache: method and stage by path, one model, all others."""

    own: dict[bytes, tuple[bytes, Stage]]
    model: Stage
    other: Stage


@cache
def load_stages() -> Stages:
    """Their code is loaded when first needed: it is not on the way to the first cached answer."""
    from watchllm.proxy import cache_api, health, models
    from watchllm.proxy.count_tokens import count_tokens
    from watchllm.proxy.passthrough import pass_through

    own: dict[bytes, tuple[bytes, Stage]] = {
        b"/health": (b"GET", health.alive),
        b"/health/ready": (b"GET", health.ready),
        b"/v1/models": (b"GET", models.listing),
        b"/v1/cache/invalidate": (b"POST", cache_api.invalidate),
        b"/v1/cache/stats": (b"GET", cache_api.stats),
        b"/v1/messages/count_tokens": (b"POST", count_tokens),
    }
    return Stages(own, models.retrieve, pass_through)


def _wrong_method(method: bytes, path: bytes, *allowed: bytes) -> GatewayError:
    names = b", ".join(allowed).decode()
    return WireRefusal(
        f"{path.decode()} takes {names}, not {method.decode('latin-1')[:20]}.",
        status=405,
        code="method_not_allowed",
        allow=names,
    )
