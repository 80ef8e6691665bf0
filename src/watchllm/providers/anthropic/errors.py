"""Errors of the gateway in Anthropic's form."""

import msgspec

from watchllm.domain.errors import GatewayError

_encode = msgspec.json.Encoder().encode

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_type(status: int) -> str:
    """The `type` that Anthropic gives errors of this HTTP status."""
    return _TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")


def error_body(error: GatewayError, request_id: str) -> bytes:
    """The error as the body of an answer."""
    said = {"type": error_type(error.status), "message": error.message}
    return _encode({"type": "error", "error": said, "request_id": request_id})


def error_event(error: GatewayError, request_id: str) -> bytes:
    """The error as a server-sent event, as Anthropic sends one inside a stream."""
    return b"event: error\ndata: " + error_body(error, request_id) + b"\n\n"
