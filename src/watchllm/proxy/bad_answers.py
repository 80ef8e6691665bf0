"""Answers with status 200 that are none: what is wrong with them, and the error that the client gets instead."""

from __future__ import annotations

from typing import Any

import msgspec

from watchllm.domain.errors import GatewayError, ProviderFailed
from watchllm.providers.dialect import Verdict
from watchllm.proxy.upstream import Answer

_MAX_TOLD = 1000
_MAX_KIND = 100
USUAL_TYPE = (b"content-type", b"application/json")
_ENDS_IN_FAILURE = ["error", "response.failed"]  # a list, because `in` must take any JSON value
_decode = msgspec.json.Decoder().decode


def wrong_with(answer: Answer, verdict: Verdict | None = None) -> GatewayError | None:
    """The error for a whole answer with status 200 that must not reach the client; None = it may.

    `verdict` is what the answer's dialect says of it, None = not known yet.
    """
    usual = USUAL_TYPE in answer.headers
    if usual and verdict is not None and verdict.storable:
        return None
    kind = answer.header(b"content-type")
    if not usual and kind and b"json" not in kind.lower():
        said = repr(kind[:_MAX_KIND].decode("latin-1"))
        return ProviderFailed(f"The provider answered with {said} in place of JSON; check its base URL, or try again.")
    if verdict is not None and verdict.storable:
        return None
    told = _error_told(answer.body)
    if told is not None:
        return told
    if verdict is not None and not verdict.readable:
        return ProviderFailed("The provider's answer is not JSON of the expected form; check its base URL.")
    return None


def no_stream(body: bytes) -> GatewayError:
    """The error for a whole answer with status 200 where a stream was asked for."""
    return _error_told(body) or ProviderFailed(
        "The provider did not answer with an event stream, though one was asked for."
    )


def wrong_beginning(data: bytes) -> GatewayError | None:
    """The error for a stream whose first event has this `data`; None = it begins as one."""
    try:
        event = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        event = None
    if type(event) is not dict:
        return ended_too_soon() if data.startswith(b"[DONE]") else ProviderFailed("The provider's stream is not JSON.")
    error = event.get("error")
    if error or event.get("type") in _ENDS_IN_FAILURE or event.get("object") == "error":
        return ProviderFailed(f"The provider answered with status 200 and an error: {_said(error or event)}")
    return None


def ended_too_soon() -> GatewayError:
    """The error for a stream that told nothing."""
    return ProviderFailed("The provider's stream ended before its answer had begun.")


def _error_told(body: bytes) -> GatewayError | None:
    """The error for one that came in place of an answer, in the form that all dialects share; None = it is none."""
    try:
        document = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # An answer may tell an error of its own: a response that failed, choices of which one did.
    if type(document) is not dict or document.get("object") == "response" or document.get("choices"):
        return None
    error = document.get("error")
    if not error:
        return None
    return ProviderFailed(f"The provider answered with status 200 and an error: {_said(error)}")


def _said(error: Any) -> str:
    message = error.get("message") if type(error) is dict else error
    return message[:_MAX_TOLD] if type(message) is str and message else "it gives no reason."
