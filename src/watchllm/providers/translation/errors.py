"""A provider's error bodies in the other dialect's form. Any garbage is accepted: what cannot be read gets words of
ours. Status codes stay as they are."""

from typing import Any

import msgspec

from watchllm.providers.anthropic.errors import error_type

MAX_MESSAGE = 4096
"""Characters of a provider's message that are passed on."""


def openai_to_anthropic(status: int, body: bytes, request_id: str) -> bytes:
    """The error `body` of a chat provider that answered `status`, in Anthropic's form."""
    message, code = _openai_error(_read(body))
    return _encode(
        {
            "type": "error",
            "error": {"type": error_type(status), "message": _told(message, code, status)},
            "request_id": request_id,
        }
    )


def openai_event_to_anthropic(error: Any, request_id: str) -> bytes:
    """The event that ends an Anthropic stream in which a chat provider sent `error` (the member, or a text)."""
    message, code = _openai_error({"error": error})
    status = _status_of(error)
    said = {"type": error_type(status), "message": _told(message, code, status)}
    told = {"type": "error", "error": said} | ({"request_id": request_id} if request_id else {})
    return b"event: error\ndata: " + _encode(told) + b"\n\n"


def anthropic_to_openai(status: int, body: bytes) -> bytes:
    """The error `body` of a Messages provider that answered `status`, in OpenAI's form."""
    answer = _read(body)
    return _encode({"error": _openai_form(answer.get("error") if type(answer) is dict else None, status)})


def anthropic_event_to_openai(error: Any) -> bytes:
    """The event that ends a chat stream in which a Messages provider sent `error`."""
    return b"data: " + _encode({"error": _openai_form(error, 500)}) + b"\n\n"


def _openai_form(error: Any, status: int) -> dict[str, str | None]:
    told = error if type(error) is dict else {}
    kind = told.get("type")
    if type(kind) is not str or kind not in _OPENAI:
        kind = error_type(status)
    message = _short(told.get("message")) or _told("", None, status)
    type_, code = _OPENAI[kind]
    if kind == "invalid_request_error" and message.startswith(_TOO_LONG):
        code = _CONTEXT_LENGTH
    return {"message": message, "type": type_, "param": None, "code": code}


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

# The type and code of OpenAI's form for each of Anthropic's types.
_OPENAI: dict[str, tuple[str, str | None]] = {
    "invalid_request_error": ("invalid_request_error", None),
    "authentication_error": ("authentication_error", "invalid_api_key"),
    "billing_error": ("insufficient_quota", "insufficient_quota"),
    "permission_error": ("permission_error", None),
    "not_found_error": ("invalid_request_error", "not_found"),
    "request_too_large": ("invalid_request_error", "request_too_large"),
    "rate_limit_error": ("rate_limit_error", "rate_limit_exceeded"),
    "timeout_error": ("api_error", "provider_timeout"),
    "overloaded_error": ("api_error", "overloaded"),
    "api_error": ("api_error", None),
}

# Clients of each dialect know an overlong prompt by these.
_CONTEXT_LENGTH = "context_length_exceeded"
_TOO_LONG = "prompt is too long"


def _read(body: bytes) -> Any:
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # Google's compatible endpoint wraps its error in an array.
    return answer[0] if type(answer) is list and answer else answer


def _openai_error(answer: Any) -> tuple[str, str | None]:
    """The message and code of an error in OpenAI's form or one that vendors use in its place; "" = no message."""
    if type(answer) is not dict:
        return "", None
    error = answer.get("error")
    if type(error) is dict:
        code = error.get("code")
        return _short(error.get("message")), code if type(code) is str else None
    for told in (error, answer.get("message"), answer.get("detail")):
        if type(told) is str and told:
            return _short(told), None
    return "", None


def _told(message: str, code: str | None, status: int) -> str:
    if not message:
        return f"The provider answered with status {status} and no message that could be read."
    if code == _CONTEXT_LENGTH and not message.startswith(_TOO_LONG):
        return f"{_TOO_LONG}: {message}"
    return message


def _short(message: Any) -> str:
    return message[:MAX_MESSAGE] if type(message) is str else ""


def _status_of(error: Any) -> int:
    """The status that an error inside a stream would have had; 500 when it does not say."""
    if type(error) is not dict:
        return 500
    for field in ("code", "status"):
        status = error.get(field)
        if type(status) is int and 400 <= status <= 599:
            return status
    for field in ("code", "type"):
        name = error.get(field)
        if type(name) is str and name in _STATUS:
            return _STATUS[name]
    return 500


_STATUS = {
    "invalid_request_error": 400,
    _CONTEXT_LENGTH: 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "insufficient_quota": 429,
    "permission_error": 403,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "overloaded": 503,
    "overloaded_error": 503,
    "timeout": 504,
}
