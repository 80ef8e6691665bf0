"""All other `/v1/…` paths of a provider: passed through unchanged, uploads streamed, metered, never cached."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any, NamedTuple

import msgspec

from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest, Forbidden, GatewayError
from watchllm.domain.usage import TokenUsage
from watchllm.domain.usage_event import BYPASS
from watchllm.limits.limiter import Demand
from watchllm.providers.dialect import MESSAGES
from watchllm.providers.endpoints import dialect_at
from watchllm.proxy import egress, paths
from watchllm.proxy.admission import admit, require_known_cost, require_price
from watchllm.proxy.approach import Approach, Candidate, addressed, candidates_of
from watchllm.proxy.calls import account, send, status_refusal
from watchllm.proxy.demand import demand_of
from watchllm.proxy.directives import directives
from watchllm.proxy.intake import decoded, is_json
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services
from watchllm.proxy.single_call import calls_for
from watchllm.proxy.tenant import Tenant
from watchllm.proxy.upload import Upload
from watchllm.proxy.upstream import upstream_error, with_timeout
from watchllm.routing.resolve import MAX_MODEL_LENGTH, Target, restricts_models
from watchllm.routing.route import Choice, Route
from watchllm.wire import types as wire
from watchllm.wire.exchange import Exchange
from watchllm.wire.types import Headers

# Bytes of an upload in which a project that may use some models only has to name one.
_BEGINNING = 64 * 1024
# A longer answer is not read for its usage.
_MAX_METERED = 1024 * 1024


async def pass_through(services: Services, request: Request) -> None:
    """Relay a request to the provider of the model that it names, else to the one that the project uses by default.

    Raises GatewayError.
    """
    exchange = request.exchange
    upload = None if exchange.body_complete else Upload(exchange)
    principal = admit(services, request)
    path = exchange.path
    request.endpoint = paths.checked(path, exchange.method)
    request.cache = BYPASS
    tenant = principal.tenant
    sent = await _route(services, request, tenant, upload)
    targets, body, coding = sent.targets, sent.body, sent.coding
    request.target = target = targets[0]
    costs = paths.may_cost(path, exchange.method)
    if costs:
        if not paths.is_stateless(path) and (not target.model or paths.is_done_later(path)):
            require_known_cost(tenant, target, f"a call of {path.decode('ascii')[:200]}")
        require_price(services.tenants, tenant, target)
    if not paths.is_stateless(path):
        targets = tuple(one for one in targets if one.own_key is not None)
    if not targets:
        raise Forbidden(
            f"{path.decode('ascii')[:200]} is not a path on which projects may share a provider key: they could see "
            f"each other's objects there. {_way_to_own_key(tenant, target)}",
            code="own_provider_key_required",
            provider=target.provider,
        )
    if request.limiting is not None:
        if (waiting := services.limiting.enter(request)) is not None:
            await waiting
        reserving = services.limiting.reserve(
            request, lambda: demand_of(services, request, sent.text, targets) if costs else Demand()
        )
        if reserving is not None:
            await reserving
    request.directives = directives(exchange.headers, tenant.settings)
    relay = _Relay(services, request, costs=costs)
    if target.model:
        relay.at_most = request.at_most
    request.cancel_upstream = relay.cancel
    path_below = path[len(b"/v1") :].decode("ascii")
    if body is not None and coding is None and is_json(exchange.headers.get(b"content-type", b"")):
        await _call_with_each_key(services, request, tenant, targets, path_below, body, relay)
        return
    destination = await services.destinations.of(target)
    turn = await services.slots.turn(request)
    try:
        relay.call = call = send(
            services,
            request,
            destination,
            path_below,
            body,
            relay,
            exchange.method,
            upload=upload,
            timeouts=with_timeout(services.timeouts, request.time_left()),
            lines=b"" if coding is None else b"content-encoding: %b\r\n" % coding,
            dialect=dialect_at(path),
        )
        if upload is not None:
            upload.go_to(call, relay.fail)
        await relay.done
    finally:
        turn.release()


def _way_to_own_key(tenant: Tenant, target: Target) -> str:
    """What to do about a request that would go to `target` with a key that others use, too."""
    if tenant.test:
        # The simulated provider keeps objects too, and all test keys share it.
        return "Use a live key of a project with a provider key of its own."
    provider = target.provider
    add = f"Add the project's own key of {provider} with `watchllm provider-key add`"
    if target.model:
        return f"The model that it names is of {provider}. {add}."
    why = (
        "the project's default_provider" if tenant.settings.default_provider == provider else "where such a path leads"
    )
    return (
        f"It would go to {provider}, {why}. {add}, or set default_provider to a provider that the project has a key of."
    )


async def _call_with_each_key(
    services: Services,
    request: Request,
    tenant: Tenant,
    targets: tuple[Target, ...],
    path: str,
    body: bytes,
    relay: _Relay,
) -> None:
    """Send JSON that is held in memory with the first key that the provider takes: it may have to be sent again.

    Only what was refused is, for what these paths do may not be done twice. Raises GatewayError.
    """
    exchange = request.exchange
    dialect = dialect_at(exchange.path)
    candidates = await candidates_of(services, tenant, targets, remember=False)

    def approach(candidate: Candidate) -> Approach:
        url, head = addressed(services, request, candidate, path, dialect=dialect)
        return Approach(url, head, body, method=exchange.method)

    turn = await services.slots.turn(request)
    try:
        route = Route(request.model, (Choice(1, targets),), timeout=request.time_left())
        attempts = calls_for(services, request, route, candidates, approach, relay)
        relay.call = attempts
        attempts.begin()
        await relay.done
    finally:
        turn.release()


class _Sent(NamedTuple):
    """Where a request goes, with each key for that; its body for there (None = none, or an upload) and that body's
    content coding; and `text`, what it says, decoded, as far as that is known."""

    targets: tuple[Target, ...]
    body: bytes | None
    coding: bytes | None
    text: bytes


async def _route(services: Services, request: Request, tenant: Tenant, upload: Upload | None) -> _Sent:
    """What is sent where. Sets the request's model where it names one."""
    exchange = request.exchange
    text = b""
    body = None if upload is not None else exchange.body or None
    coding = exchange.header(b"content-encoding")
    content_type = exchange.headers.get(b"content-type", b"")
    if body is not None and is_json(content_type):
        text = body if coding is None else decoded(exchange, coding, services.limits.max_body_bytes)
        document = json_body.parse(text)
        model = document.get("model")
        if model is not None:
            if type(model) is not str:
                raise BadRequest("The field 'model' is the name of a model, a string.", param="model")
            targets = tenant.route(model).first_targets
            request.model = name = targets[0].model
            if name == model:
                return _Sent(targets, body, coding, text)
            from watchllm.providers.openai.answers import upstream_body  # the first to pass through may wait for it

            return _Sent(targets, upstream_body(text, name, include_usage=False), None, text)
    elif restricts_models(tenant.project) and (body is not None or upload is not None):
        target = await _form_target(tenant, exchange, content_type, upload)
        request.model = target.model
        return _Sent((target,), body, coding, body or b"")
    if restricts_models(tenant.project) and paths.may_cost(exchange.path, exchange.method):
        # The provider would take one of its own choice, or one that an object of the project's names.
        raise Forbidden(
            "This key may use some models only, and the request names none. Name one of them in the field 'model', at "
            "a path where the answer is that model's.",
            param="model",
        )
    # The body goes up as it came, so what it is encoded in does, too.
    spoken = "anthropic" if dialect_at(exchange.path) == MESSAGES else None
    targets = tenant.router.default(tenant.project, test_key=tenant.test, provider=spoken)
    return _Sent(targets, body, coding, text or body or b"")


async def _form_target(tenant: Tenant, exchange: Exchange, content_type: bytes, upload: Upload | None) -> Target:
    """The target of a project that may use some models only: a body that does not say which model is refused, and one
    that will name another one after its beginning is watched for that."""
    from watchllm.proxy.form_model import boundary_of, model_of_form  # few projects restrict models
    from watchllm.proxy.form_watch import FormWatch

    # What is encoded says one thing as it is and another when it is decoded.
    boundary = boundary_of(content_type) if exchange.header(b"content-encoding") is None else None
    beginning = exchange.body if upload is None else await upload.beginning(_BEGINNING)
    model = None if boundary is None else model_of_form(boundary, beginning[:_BEGINNING])
    if boundary is None or model is None:
        raise Forbidden(
            "This project may use some models only. Send JSON, or multipart/form-data with the field 'model' as its "
            f"first field: it has to be within the first {_BEGINNING} bytes.",
            param="model",
        )
    target = tenant.target(model)
    if target.model != model:
        # The form goes up as it came, and there the model has this name.
        raise BadRequest(f"In a form, name the model as its provider does: {target.model}.", param="model")
    watch = FormWatch(boundary)
    cleared = watch.feed(beginning)
    if upload is None:
        watch.end()
    else:
        upload.watch_with(watch, cleared)
    return target


class _Metered(msgspec.Struct):
    """What is read of an answer."""

    usage: Any = None
    model: Any = None


_read_metered = msgspec.json.Decoder(_Metered).decode


class _Relay:
    """A sink that hands the answer on as it arrives, and reads one that is short and JSON for its usage."""

    def __init__(self, services: Services, request: Request, *, costs: bool) -> None:
        self._services = services
        self._request = request
        # What is only told again, such as an answer that is retrieved, was charged when it was bought.
        self._costs = costs
        self._exchange = request.exchange
        self._status = 0
        self._kept: list[bytes] | None = None
        self._kept_size = 0
        self.call: wire.Call | None = None
        self.at_most: TokenUsage | None = None
        """What an answer is charged for that does not tell what it used; None = for nothing."""
        self.done: asyncio.Future[None] = services.loop.create_future()

    def on_response(self, status: int, headers: Headers) -> None:
        request = self._request
        request.upstream_ended = request.first_byte = perf_counter()
        request.upstream_status = status
        egress.remember_upstream_id(request, headers)
        self._status = status
        refusal = status_refusal(status)
        if refusal is not None:
            self.fail(refusal)
            return
        content_type = next((value for name, value in headers if name == b"content-type"), b"application/octet-stream")
        self._kept = [] if self._costs and status == 200 and is_json(content_type) else None
        self._exchange.on_writable = self._resume
        self._exchange.start(status, egress.answer_head(request, content_type.decode("latin-1"), headers))

    def on_data(self, data: bytes) -> None:
        if self.done.done():
            return
        if self._kept is not None:
            self._kept.append(data)
            self._kept_size += len(data)
            if self._kept_size > _MAX_METERED:
                self._kept = None
        self._exchange.write(data)
        if not self._exchange.writable and self.call is not None:
            self.call.pause()

    def on_complete(self) -> None:
        if self.done.done():
            return
        if self._kept:
            self._meter(b"".join(self._kept))
        if 200 <= self._status < 300:
            self._charge_at_most()
        self._services.settlement.settle(self._request, self._status, "complete" if self._status < 400 else "error")
        self._exchange.finish()
        self.done.set_result(None)

    def _meter(self, body: bytes) -> None:
        """Put on the request what the answer says was used, at the price of the model that it or the answer names."""
        try:
            answer = _read_metered(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # no JSON object, whatever its type says: it was passed on, and tells no usage
        request = self._request
        target = request.target
        assert target is not None
        if not request.model and type(answer.model) is str:
            request.model = "".join(filter(str.isprintable, answer.model[:MAX_MODEL_LENGTH]))
            target = msgspec.structs.replace(target, model=request.model)
        from watchllm.providers.openai.usage import media_usage  # as above

        usage = media_usage(answer.usage)
        if usage is not None:
            account(self._services, request, target, usage)

    def on_failure(self, error: wire.WireError) -> None:
        self.fail(upstream_error(error))

    def cancel(self) -> None:
        """The client left, or the answer broke off: end the call. What was sent up may be charged for all the same."""
        call, request = self.call, self._request
        if call is None:
            return
        if call.is_sent and request.calls > len(request.attempts) and (not self._status or 200 <= self._status < 300):
            self._charge_at_most()
        call.cancel()

    def _charge_at_most(self) -> None:
        """Where a budget holds, what nobody counts must not be free: images, speech, answers too long to be read."""
        request = self._request
        if self.at_most is not None and request.usage is None and request.target is not None:
            account(self._services, request, request.target, self.at_most)

    def fail(self, error: GatewayError) -> None:
        """Before the head was sent an error of our own answers; after it, the connection is cut (see ProxyApp)."""
        if not self.done.done():
            self.done.set_exception(error)

    def _resume(self) -> None:
        if self.call is not None:
            self.call.resume()
