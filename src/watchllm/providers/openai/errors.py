"""Errors of the gateway's own in OpenAI's form, which all of OpenAI's endpoints share."""

import msgspec

from watchllm.domain.errors import GatewayError


def error_body(error: GatewayError, _request_id: str = "") -> bytes:
    """The error as the body of an answer."""
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    )


def error_event(error: GatewayError, request_id: str = "") -> bytes:
    """The error as a server-sent event, as OpenAI sends one inside a stream."""
    return b"data: " + error_body(error, request_id) + b"\n\n"
