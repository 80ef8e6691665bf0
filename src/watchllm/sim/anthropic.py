"""The Anthropic dialect of the simulator: its paths, headers, models and errors."""

from collections.abc import Callable
from typing import Any

import msgspec

from watchllm.sim.anthropic_cache import PromptCache
from watchllm.sim.anthropic_messages import Messages
from watchllm.sim.anthropic_validation import check_version
from watchllm.sim.reply import Answer, Dialect, Endpoint, Refused, Reply, Request

_MODELS = ("echo", "claude-opus-5-5", "claude-sonnet-4-6", "claude-haiku-4-5")
_encode = msgspec.json.encode


def anthropic_dialect(prompts: PromptCache) -> Dialect:
    """The dialect over the prompts whose beginnings it has seen."""
    messages = Messages(prompts)
    return Dialect(
        paths={
            b"/messages": {b"POST": Endpoint(_versioned(messages.create))},
            b"/messages/count_tokens": {b"POST": Endpoint(_versioned(messages.count_tokens))},
            b"/models": {b"GET": Endpoint(_versioned(list_models), body="")},
            b"/models/": {b"GET": Endpoint(_versioned(one_model), body="")},
        },
        head=head,
        error_body=error_body,
        stream_error=lambda _number, _position: _STREAM_ERROR,
        asked_for=asked_for,
        unreadable="The request body is not valid JSON: expected an object.",
    )


def list_models(_request: Request) -> Answer:
    """The models worth naming, on one page; any other name is accepted too."""
    data = [_model(name) for name in _MODELS]
    return Reply(_encode({"data": data, "has_more": False, "first_id": _MODELS[0], "last_id": _MODELS[-1]}))


def one_model(request: Request) -> Answer:
    return Reply(_encode(_model(request.tail)))


def head(number: int) -> bytes:
    """The headers that an answer has beside its content."""
    return _HEAD % (number, number, number)


def error_body(refused: Refused, number: int) -> bytes:
    """`{"type": "error", "error": {"type", "message"}, "request_id"}`"""
    kind = refused.type
    if kind not in _OWN_TYPES:
        # Said by what all dialects share (the path, the key, the body), or asked for by a knob's name.
        kind = kind if refused.code == kind else _type_of(refused.status)
    error = {"type": kind, "message": refused.message}
    return _encode({"type": "error", "error": error, "request_id": f"req_sim{number:08d}"})


def asked_for(status: int, code: str) -> Refused:
    """The error that Anthropic would send with `status`; `code` replaces its usual type."""
    kind = code or _type_of(status)
    message = _MESSAGES.get(status, "The simulator was asked for this status.")
    return Refused(message, status=status, kind=kind, code=code or None)


def _versioned(answer: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    def checked(request: Request) -> Answer:
        check_version(request.headers)
        return answer(request)

    return checked


def _model(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": f"Simulated {name}",
        "created_at": "2025-01-01T00:00:00Z",
        "lifecycle": "active",
    }


def _type_of(status: int) -> str:
    return _TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")


_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# A plain "invalid_request_error" is what the shared code says of any status, so its type is read from the status.
_OWN_TYPES = frozenset(_TYPES.values())
_MESSAGES = {
    400: "The simulator was asked to refuse this request.",
    401: "invalid x-api-key",
    403: "Your API key does not have permission to use the specified resource.",
    404: "The requested resource could not be found.",
    413: "Request exceeds the maximum size.",
    429: "This request would exceed the rate limit of your organization. Please try again later.",
    500: "Internal server error",
    503: "Service temporarily unavailable",
    504: "The request timed out.",
    529: "Overloaded",
}
_STREAM_ERROR = (
    b"event: error\ndata: "
    + _encode({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    + b"\n\n"
)
_HEAD = (
    b"request-id: req_sim%08d\r\n"
    b"x-sim-call: %d\r\n"
    b"anthropic-organization-id: 00000000-0000-4000-8000-000000000000\r\n"
    b"anthropic-ratelimit-requests-limit: 4000\r\n"
    b"anthropic-ratelimit-requests-remaining: 3999\r\n"
    b"anthropic-ratelimit-requests-reset: 2030-01-01T00:00:00Z\r\n"
    b"anthropic-ratelimit-tokens-limit: 480000\r\n"
    b"anthropic-ratelimit-tokens-remaining: 479000\r\n"
    b"anthropic-ratelimit-tokens-reset: 2030-01-01T00:00:00Z\r\n"
    b"anthropic-ratelimit-input-tokens-limit: 400000\r\n"
    b"anthropic-ratelimit-input-tokens-remaining: 399000\r\n"
    b"anthropic-ratelimit-input-tokens-reset: 2030-01-01T00:00:00Z\r\n"
    b"anthropic-ratelimit-output-tokens-limit: 80000\r\n"
    b"anthropic-ratelimit-output-tokens-remaining: 80000\r\n"
    b"anthropic-ratelimit-output-tokens-reset: 2030-01-01T00:00:00Z\r\n"
    b"strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n"
    b"cf-ray: 0000000000000000-SIM\r\n"
    b"server: sim\r\n"
    b"set-cookie: __cf_bm=sim%d; path=/; HttpOnly; Secure\r\n"
)
