"""Errors of the gateway's own, as a client of Responses expects them."""

import msgspec

from watchllm.domain.errors import GatewayError

_encode = msgspec.json.Encoder().encode


def error_body(error: GatewayError, request_id: str) -> bytes:
    """The error instead of an answer: OpenAI's one form for all its endpoints, which has no place for `request_id`."""
    return _encode({"error": _error(error)})


def error_event(error: GatewayError, request_id: str, *, sequence_number: int = 0) -> bytes:
    """The error inside a stream, as a whole event."""
    return stream_error(_error(error), sequence_number=sequence_number)


def stream_error(error: dict[str, str | None], *, sequence_number: int) -> bytes:
    """An `error` event for an error `{"message", "type", "param", "code"}`.

    The reference documents code, message and param beside the type; what OpenAI sends has them in an `error` object,
    and it is by that object that its clients know that they must raise. Both are told.
    """
    documented = {"code": error["code"], "message": error["message"], "param": error["param"]}
    event = {"type": "error", "sequence_number": sequence_number} | documented | {"error": error}
    return b"event: error\ndata: " + _encode(event) + b"\n\n"


def _error(error: GatewayError) -> dict[str, str | None]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
