"""What leaves: the header lines of every kind of answer, and errors in the form of the dialect that was spoken."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from time import perf_counter

from watchllm.domain.errors import GatewayError, LimitExceeded
from watchllm.domain.money import Nanos, format_usd
from watchllm.domain.usage_event import BYPASS, HIT, HIT_PARTIAL, HIT_SEMANTIC, MISS, REFUSED
from watchllm.providers.dialect import CHAT
from watchllm.providers.openai import errors as openai_errors
from watchllm.proxy.request import Request
from watchllm.routing.target import Target
from watchllm.wire.types import Headers

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"

# Of a provider's answer only these lines reach the client: cookies, organization and account limits never do.
_PASSED_DOWN = frozenset(
    (
        b"content-disposition",
        b"content-language",
        b"openai-model",
        b"openai-processing-ms",
        b"openai-version",
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
    )
)
_NOT_BY_WAITING = ("insufficient_quota", "quota_exceeded")
"""Errors that last longer than a client should try."""
_CALLED = (MISS, BYPASS, HIT_PARTIAL)
_MOST_FIELDS = 32
_LONGEST_FIELD = 80
_MAY_STAND_IN_LINE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.[]").__contains__
# Durations as a hit's header lines give them, in milliseconds by microsecond: three each, and floats are slow to write.
_MOST_WRITTEN_US = 1000
_MILLISECONDS = tuple(f"0.{micros:03d}" for micros in range(_MOST_WRITTEN_US))
_UPSTREAM_REQUEST_IDS = (b"x-request-id", b"request-id")


def hit_head(request: Request, content_type: str = JSON) -> bytes:
    """Header lines of an answer from the cache; sets the request's `head_sent`."""
    request.head_sent = now = perf_counter()
    began = request.began
    authenticated = request.authenticated
    total_us = int((now - began) * 1e6)
    if total_us < _MOST_WRITTEN_US:
        # What is part of it is no longer, so these are written, too.
        total = _MILLISECONDS[total_us]
        auth = _MILLISECONDS[int((authenticated - began) * 1e6)]
        cache = _MILLISECONDS[int((request.looked_up - authenticated) * 1e6)]
    else:
        total = f"{(now - began) * 1000:.3f}"
        auth = f"{(authenticated - began) * 1000:.3f}"
        cache = f"{(request.looked_up - authenticated) * 1000:.3f}"
    overhead, lines, spans = total, "", ""
    if request.upstream_began or request.waited_for_judge:
        overhead = f"{(now - began - request.spent_upstream()) * 1000:.3f}"
        if request.queued:
            spans = f"queue;dur={_milliseconds(request.queued)}, "
    target = request.target
    usage = request.usage
    if request.hides_hits:
        return _discreet(request, content_type)
    if request.limiting is not None:
        lines = request.limiting.lines(request)
        spans += f"limits;dur={_milliseconds(request.limits_took)}, "
    if request.attempts and request.cache == HIT and target is not None:
        lines += _fallback(request, target)
    return (
        f"Content-Type: {content_type}\r\nX-Request-Id: {request.id}\r\nX-WatchLLM-Cache: {request.cache}\r\n"
        f"X-WatchLLM-Cache-Age: {request.entry_age}\r\nX-WatchLLM-Cost-USD: 0.000000\r\n"
        f"{_savings(request.saved, None if usage is None else usage.input + usage.output)}"
        f"X-WatchLLM-Provider: {target.provider if target else ''}\r\nX-WatchLLM-Model: {request.model}\r\n{lines}"
        f"X-WatchLLM-Latency-Ms: {total}\r\nX-WatchLLM-Overhead-Ms: {overhead}\r\n"
        f"Server-Timing: auth;dur={auth}, cache;dur={cache}, {spans}total;dur={total}\r\n"
    ).encode("latin-1")


def stored_head(request: Request, content_type: str = JSON) -> bytes:
    """Header lines of an answer from the cache, with how like its question was where that was another one; sets the
    request's `head_sent`."""
    head = hit_head(request, content_type)
    looked = request.looked
    if looked is None or looked.decision is None or request.cache != HIT_SEMANTIC or request.hides_hits:
        return head
    similarity, confidence = looked.decision.similarity, looked.decision.confidence
    told = f"X-WatchLLM-Cache-Similarity: {similarity:.4f}\r\nX-WatchLLM-Cache-Confidence: {confidence:.4f}\r\n"
    timed = f", embed;dur={_milliseconds(looked.took)}, total;dur="
    return told.encode("ascii") + head.replace(b", total;dur=", timed.encode("ascii"))


def _milliseconds(seconds: float) -> str:
    """A duration as the header lines give it."""
    micros = int(seconds * 1e6)
    return _MILLISECONDS[micros] if 0 <= micros < _MOST_WRITTEN_US else f"{seconds * 1000:.3f}"


@lru_cache(4096)
def _cost(nanos: Nanos | None) -> str:
    return "" if nanos is None else f"X-WatchLLM-Cost-USD: {format_usd(nanos)}\r\n"


@lru_cache(4096)
def _savings(saved: Nanos | None, tokens: int | None) -> str:
    money = "" if saved is None else f"X-WatchLLM-Saved-USD: {format_usd(saved)}\r\n"
    return money if tokens is None else f"{money}X-WatchLLM-Tokens-Saved: {tokens}\r\n"


def answer_head(request: Request, content_type: str, upstream_headers: Headers | None = None) -> bytes:
    """Header lines of any other answer, a provider's allowed ones included; sets the request's `head_sent`."""
    request.head_sent = now = perf_counter()
    began, authenticated, looked_up = request.began, request.authenticated, request.looked_up
    total = f"{(now - began) * 1000:.3f}"
    overhead, spans = total, ""
    if authenticated:
        spans = f"auth;dur={_milliseconds(authenticated - began)}, "
    if request.limits_took:
        spans += f"limits;dur={_milliseconds(request.limits_took)}, "
    if looked_up:
        spans += f"cache;dur={_milliseconds(looked_up - authenticated)}, "
    if request.looked is not None:
        spans += f"embed;dur={_milliseconds(request.looked.took)}, "
    if request.queued or request.queue_began:
        spans += f"queue;dur={_milliseconds(request.waited_for_slot(now))}, "
    if request.upstream_began:
        upstream = (request.upstream_ended or now) - request.upstream_began
        overhead = f"{(now - began - upstream - request.waited_for_judge) * 1000:.3f}"
        spans += f"upstream;dur={upstream * 1000:.3f}, "
    cache, target = request.cache, request.target
    outcome = "" if cache == REFUSED else f"X-WatchLLM-Cache: {cache}\r\n"
    cost = _cost(request.cost)
    called = ""
    if target is not None and cache in _CALLED:
        model = f"X-WatchLLM-Model: {request.model}\r\n" if request.model else ""
        called = f"X-WatchLLM-Provider: {target.provider}\r\n{model}"
        if request.attempts:
            called += _fallback(request, target)
        if request.dropped:
            called += f"X-WatchLLM-Dropped: {_listed(request.dropped)}\r\n"
    lines = _passed_down(request, upstream_headers) if upstream_headers else ""
    if request.hides_hits:
        return _discreet(request, content_type, lines if request.upstream_status >= 400 else "")
    if request.limiting is not None:
        lines += request.limiting.lines(request)
    return (
        f"Content-Type: {content_type}\r\nX-Request-Id: {request.id}\r\n"
        f"{outcome}{cost}{called}"
        f"X-WatchLLM-Latency-Ms: {total}\r\nX-WatchLLM-Overhead-Ms: {overhead}\r\n"
        f"Server-Timing: {spans}total;dur={total}\r\n{lines}"
    ).encode("latin-1")


def _discreet(request: Request, content_type: str, lines: str = "") -> bytes:
    """The header lines that an answer has whether it came from the cache or from upstream, and those of its own. None
    tells how long that took, which is how a hit is known."""
    target = request.target
    provider = "" if target is None else f"X-WatchLLM-Provider: {target.provider}\r\n"
    if request.limiting is not None:
        lines += request.limiting.lines(request)
    return (
        f"Content-Type: {content_type}\r\nX-Request-Id: {request.id}\r\n"
        f"{provider}X-WatchLLM-Model: {request.model}\r\n{lines}"
    ).encode("latin-1")


def _fallback(request: Request, last: Target) -> str:
    """The providers that were tried before the one that answered, or before the `last` where none did. Another key for
    the same model is no fallback, and a hedge that lost was not tried before."""
    began_us = int((request.try_began - request.began) * 1e6)
    tried = dict.fromkeys(
        attempt.provider
        for attempt in request.attempts
        if attempt.began_us < began_us and (attempt.provider, attempt.model) != (last.provider, request.model)
    )
    return f"X-WatchLLM-Fallback: {', '.join(tried)}\r\n" if tried else ""


def _listed(fields: tuple[str, ...]) -> str:
    """Names of fields, as the client wrote them, in a header line."""
    return ", ".join("".join(filter(_MAY_STAND_IN_LINE, name[:_LONGEST_FIELD])) for name in fields[:_MOST_FIELDS])


def error_head(request: Request, error: GatewayError) -> bytes:
    """Header lines of an error of our own."""
    head = answer_head(request, JSON)
    if error.retry_after is not None:
        head += b"Retry-After: %d\r\n" % max(1, ceil(error.retry_after))
    if error.allow is not None:
        head += f"Allow: {error.allow}\r\n".encode("ascii")
    if error.code in _NOT_BY_WAITING or (error.retry_after is None and isinstance(error, LimitExceeded)):
        head += b"x-should-retry: false\r\n"
    return head


def error_body(error: GatewayError, dialect: str = CHAT, request_id: str = "") -> bytes:
    """The error in the form of the dialect that was spoken."""
    if dialect == CHAT:
        return openai_errors.error_body(error)
    from watchllm.providers.dialects import dialect as spoken  # most clients speak OpenAI's

    return spoken(dialect).error_body(error, request_id)


def error_event(error: GatewayError, dialect: str = CHAT, request_id: str = "") -> bytes:
    """The error as the dialect tells one inside a stream."""
    if dialect == CHAT:
        return openai_errors.error_event(error)
    from watchllm.providers.dialects import dialect as spoken  # as above

    return spoken(dialect).error_event(error, request_id)


def remember_upstream_id(request: Request, headers: Headers) -> None:
    """Keep the provider's own request id for the log and the header."""
    for name, value in headers:
        if name in _UPSTREAM_REQUEST_IDS:
            request.upstream_request_id = value.decode("latin-1")[:200]
            return


def _passed_down(request: Request, headers: Headers) -> str:
    kept = ""
    for name, value in headers:
        if name in _PASSED_DOWN:
            kept += f"{name.decode('latin-1')}: {value.decode('latin-1')}\r\n"
    if request.upstream_request_id is not None:
        kept += f"X-WatchLLM-Upstream-Request-Id: {request.upstream_request_id}\r\n"
    return kept
