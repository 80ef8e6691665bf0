"""The simulated provider as a handler of the wire server: finds the endpoint, reads the knobs, records, delivers.

A plain request is answered synchronously with one write: the simulator is also the upstream of the benchmarks.
"""

import hmac
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

import msgspec

from watchllm.domain.errors import GatewayError
from watchllm.sim.anthropic import anthropic_dialect
from watchllm.sim.anthropic_cache import PromptCache
from watchllm.sim.delivery import Delivery, Scheduler, loop_scheduler
from watchllm.sim.form import parse_form
from watchllm.sim.judge import Labels
from watchllm.sim.knobs import InvalidKnob, Knobs, ModelNames, from_header
from watchllm.sim.ledger import Ledger, Received
from watchllm.sim.openai import openai_dialect, responses_dialect
from watchllm.sim.openai_media import Files
from watchllm.sim.reply import Answer, Dialect, Endpoint, Refused, Reply, Request, StreamReply, Upload
from watchllm.sim.responses_store import StoredResponses
from watchllm.wire.exchange import BodyMode, Exchange

_FIRST_ERROR_STATUS = 400
_COUNTED_MODELS_BOUND = 4096
_NOT_FOUND = b"unknown"
_decode = msgspec.json.Decoder().decode


class SimOptions(msgspec.Struct, frozen=True):
    """What the process was started with. `record` is how many of the latest requests are kept for `/sim/requests`;
    `run` goes into every id, so that the ids of two processes differ; `require_key` is empty for "any key"; `labels`
    are the pairs that `sim/judge` knows."""

    knobs: Knobs = Knobs()
    seed: int = 0
    require_key: str = ""
    record: int = 1000
    run: str = "sim"
    labels: Labels = {}


class _Route(NamedTuple):
    name: bytes
    dialect: Dialect
    endpoints: Any


class SimApp:
    """Serves every dialect, with and without the `/v1` prefix, and `/sim/…` for tests.

    `scheduler` and `clock` (epoch seconds) are the loop's and the system's unless a test brings its own.
    """

    def __init__(
        self,
        options: SimOptions | None = None,
        *,
        scheduler: Scheduler = loop_scheduler,
        clock: Callable[[], float] = time.time,
    ) -> None:
        options = options or SimOptions()
        self._options = options
        self._scheduler = scheduler
        self._clock = clock
        self.ledger = Ledger(options.record)
        self._names = ModelNames(options.knobs)
        self._undisturbed = options.knobs == Knobs()
        self._key = options.require_key.encode()
        self._files = Files()
        self._responses = StoredResponses()
        self._prompts = PromptCache()
        self._dialect = openai_dialect(self._files)
        anthropic = anthropic_dialect(self._prompts)
        responses = responses_dialect(self._responses)
        # `/models` is both providers'; who names Anthropic's version means theirs.
        self._routes = _routes(anthropic, responses, self._dialect)
        self._versioned = _routes(self._dialect, responses, anthropic)
        self._number = 0
        self._start_over()

    def _start_over(self) -> None:
        self._random = random.Random(self._options.seed)
        self._failed: dict[str, int] = {}

    # --- the wire's side --------------------------------------------------------------------------------------------

    def body_mode(self, _exchange: Exchange) -> BodyMode:
        return BodyMode.BUFFER

    def on_refusal(self, exchange: Exchange | None, error: GatewayError) -> tuple[bytes, bytes]:
        refused = Refused(error.message, status=error.status, kind=error.type, param=error.param, code=error.code)
        route = self._find(exchange)[0] if exchange is not None else None
        dialect = route.dialect if route is not None else self._dialect
        return b"Content-Type: application/json\r\n", dialect.error_body(refused, self._number)

    def on_request(self, exchange: Exchange) -> None:
        path = exchange.path
        if path.startswith(b"/sim/"):
            self._control(exchange)
            return
        self._number += 1
        ledger = self.ledger
        ledger.calls += 1
        received = Received(self._number, exchange.method, path, exchange.query, exchange.headers, exchange.body)
        ledger.requests.append(received)
        route, tail = self._find(exchange)
        name = route.name if route is not None else _NOT_FOUND
        ledger.by_path[name] = ledger.by_path.get(name, 0) + 1
        dialect = route.dialect if route is not None else self._dialect
        knobs, answer = self._answer(exchange, dialect, route, tail)
        head = self._head(dialect, knobs)
        if self._undisturbed and knobs is self._options.knobs and isinstance(answer, Reply):
            received.status = answer.status
            received.outcome = "answered"
            exchange.respond(
                answer.status, b"Content-Type: %b\r\n%b%b" % (answer.content_type, head, answer.head), answer.body
            )
            return
        event = b""
        if knobs.stream_error >= 0 and isinstance(answer, StreamReply):
            event = dialect.stream_error(self._number, min(knobs.stream_error, len(answer.events)))
        Delivery(exchange, received, ledger, answer, knobs, head, event, self._scheduler).start()

    # --- the answer -------------------------------------------------------------------------------------------------

    def _find(self, exchange: Exchange) -> tuple[_Route | None, str]:
        path = exchange.path
        routes = self._routes if exchange.header(b"anthropic-version") is None else self._versioned
        route = routes.get(path)
        if route is not None and not path.endswith(b"/"):
            return route, ""
        # A path with an id behind it: the longest known beginning wins ("/v1/files/" before nothing).
        at = path.find(b"/", len(b"/v1/") if path.startswith(b"/v1/") else 1)
        tail = path[at + 1 :]
        route = routes.get(path[: at + 1]) if at > 0 and tail else None
        return route, unquote(tail.decode("latin-1"))

    def _answer(self, exchange: Exchange, dialect: Dialect, route: _Route | None, tail: str) -> tuple[Knobs, Answer]:
        knobs, name = self._options.knobs, ""
        try:
            self._authenticate(exchange, dialect)
            endpoint = self._endpoint(exchange, route)
            fields, files = self._body(exchange, dialect, endpoint)
            model = fields.get("model") if endpoint.body else tail
            if isinstance(model, str):
                knobs, name = self._names.read(model)
            asked = exchange.header(b"x-sim")
            if asked is not None:
                knobs = from_header(asked.decode("latin-1"), knobs)
            error = self._error_due(dialect, knobs, str(model))
            if error is not None:
                return knobs, error
            request = Request(
                exchange.method.decode("latin-1"),
                fields,
                files,
                tail,
                knobs,
                self._number,
                int(self._clock()),
                self._options.run,
                name,
                exchange.headers,
                self._options.labels,
            )
            answer = endpoint.answer(request)
        except InvalidKnob as unknown:
            return self._options.knobs, self._refusal(dialect, Refused(f"X-Sim: {unknown}", code="invalid_knob"))
        except Refused as refused:
            return knobs, self._refusal(dialect, refused)
        if 0 < knobs.status < _FIRST_ERROR_STATUS:
            answer.status = knobs.status
        return knobs, self._error_inside(dialect, answer) if knobs.error_200 else answer

    def _error_inside(self, dialect: Dialect, answer: Answer) -> Answer:
        """An error under a status that says there is none."""
        self.ledger.errors += 1
        if isinstance(answer, StreamReply):
            return StreamReply([dialect.stream_error(self._number, 0)], status=answer.status)
        return Reply(dialect.error_body(dialect.asked_for(500, ""), self._number), answer.status)

    def _authenticate(self, exchange: Exchange, dialect: Dialect) -> None:
        if not self._key:
            return
        scheme, _, bearer = (exchange.header(b"authorization") or b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else exchange.header(b"x-api-key") or b""
        if not given:
            raise Refused("You didn't provide an API key.", status=401)
        if not hmac.compare_digest(given, self._key):
            raise dialect.asked_for(401, "")

    def _endpoint(self, exchange: Exchange, route: _Route | None) -> Endpoint:
        method = exchange.method
        if route is None:
            where = f"{method.decode('latin-1')} {exchange.path.decode('latin-1')}"
            raise Refused(f"Invalid URL ({where})", status=404)
        endpoint: Endpoint | None = route.endpoints.get(method)
        if endpoint is None:
            raise Refused(
                f"Not allowed to {method.decode('latin-1')} on {exchange.path.decode('latin-1')}.",
                status=405,
                code="method_not_supported",
            )
        return endpoint

    def _body(self, exchange: Exchange, dialect: Dialect, endpoint: Endpoint) -> tuple[dict[str, Any], list[Upload]]:
        if not endpoint.body:
            return {}, []
        if endpoint.body == "form":
            fields, files = parse_form(exchange.header(b"content-type") or b"", exchange.body)
            return dict(fields), files
        try:
            parsed = _decode(exchange.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise Refused(dialect.unreadable)
        return parsed, []

    def _error_due(self, dialect: Dialect, knobs: Knobs, model: str) -> Reply | None:
        if knobs.fail:
            if len(self._failed) >= _COUNTED_MODELS_BOUND:
                self._failed.clear()
            failed = self._failed.get(model, 0)
            if failed >= knobs.fail:
                return None
            self._failed[model] = failed + 1
            return self._error(dialect, knobs, knobs.status or 503)
        if knobs.error_rate:
            return (
                self._error(dialect, knobs, knobs.status or 500) if self._random.random() < knobs.error_rate else None
            )
        return self._error(dialect, knobs, knobs.status) if knobs.status >= _FIRST_ERROR_STATUS else None

    def _error(self, dialect: Dialect, knobs: Knobs, status: int) -> Reply:
        return self._refusal(dialect, dialect.asked_for(status, knobs.code))

    def _refusal(self, dialect: Dialect, refused: Refused) -> Reply:
        self.ledger.errors += 1
        return Reply(dialect.error_body(refused, self._number), refused.status)

    def _head(self, dialect: Dialect, knobs: Knobs) -> bytes:
        head = dialect.head(self._number)
        if knobs.retry_after >= 0:
            head += b"Retry-After: %b\r\n" % f"{knobs.retry_after:g}".encode()
        if knobs.set_cookie:
            head += b"Set-Cookie: sim_session=%d; Path=/; HttpOnly\r\n" % self._number
        return head

    # --- for tests --------------------------------------------------------------------------------------------------

    def _control(self, exchange: Exchange) -> None:
        action = (exchange.method, exchange.path)
        status = 200
        shown: Any
        if action == (b"GET", b"/sim/stats"):
            shown = self.ledger.stats()
        elif action == (b"GET", b"/sim/requests"):
            last = parse_qs(exchange.query.decode("latin-1")).get("last", ["1000"])[0]
            wanted = list(self.ledger.requests)[-int(last) :] if last.isdecimal() and int(last) else []
            shown = {"requests": [received.described() for received in wanted]}
        elif action == (b"POST", b"/sim/reset"):
            self.ledger.clear()
            self._files.clear()
            self._responses.clear()
            self._prompts.clear()
            self._start_over()
            shown = {"reset": True}
        else:
            status = 404
            shown = {"error": {"message": "known here: GET /sim/stats, GET /sim/requests?last=N, POST /sim/reset"}}
        exchange.respond(status, b"Content-Type: application/json\r\n", msgspec.json.encode(shown))


def _routes(*dialects: Dialect) -> dict[bytes, _Route]:
    """Every path with and without `/v1`; where two dialects share one, the later has it."""
    routes: dict[bytes, _Route] = {}
    for dialect in dialects:
        for path, endpoints in dialect.paths.items():
            routes[path] = routes[b"/v1" + path] = _Route(b"/v1" + path, dialect, endpoints)
    return routes
