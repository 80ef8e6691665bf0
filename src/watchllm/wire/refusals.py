"""What the wire refuses by itself, before a handler is asked, and in which words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

from watchllm.domain.errors import BadRequest, GatewayError, Unavailable, WireRefusal

if TYPE_CHECKING:
    from watchllm.wire.exchange import Exchange


def head_refusal(exchange: Exchange, version: str, max_upload_bytes: int, *, draining: bool) -> GatewayError | None:
    """Why a request is refused at its head, None where it is not. `version` is that of HTTP."""
    headers = exchange.headers
    if version not in ("1.1", "1.0"):
        return WireRefusal("Use HTTP/1.1.", status=505, code="http_version_not_supported")
    host = headers.get(b"host")
    if host is None:
        if version == "1.1":
            return BadRequest("The Host header is missing.")
    elif b"," in host:
        return BadRequest("There is more than one Host header.")
    if exchange.path[:1] != b"/":
        return BadRequest("The request target must be a path that begins with /, or an http URL.")
    codings = headers.get(b"transfer-encoding")
    if codings is not None and codings.strip().lower() != b"chunked":
        return WireRefusal(
            "Of the transfer codings only chunked is known here; send a compressed body with Content-Encoding.",
            status=501,
            code="transfer_coding_not_supported",
        )
    expect = headers.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        return WireRefusal("Only Expect: 100-continue is known.", status=417, code="expectation_failed")
    length = headers.get(b"content-length")
    if length is not None and int(length) > max_upload_bytes:
        return body_too_large(max_upload_bytes)
    return shutting_down() if draining else None


def shutting_down() -> GatewayError:
    return Unavailable("This proxy is shutting down; send the request again.", code="shutting_down", retry_after=1)


# The spaces and line ends of a request line, its protocol, and the line end behind the last header.
_AROUND = len(b"  HTTP/1.1\r\n\r\n")


def head_size(method: bytes, url: bytes, headers: dict[bytes, bytes]) -> int:
    """Bytes of a head as they are usually sent: with one space in each line, and no name in two."""
    return len(method) + len(url) + _AROUND + sum(len(name) + len(value) + 4 for name, value in headers.items())


def head_too_large() -> GatewayError:
    return WireRefusal(
        "The request's header lines are too long, or too many.", status=431, code="request_header_fields_too_large"
    )


def body_too_large(limit: int) -> GatewayError:
    return WireRefusal(f"The request's body is too large; the limit is {limit} bytes.")


def memory_full() -> GatewayError:
    return Unavailable("Too many request bytes are in flight; try again in a moment.", retry_after=1)


def too_slow(part: str) -> GatewayError:
    """`part` is head or body."""
    return WireRefusal(f"The request's {part} took too long to arrive.", status=408, code="request_timeout")


def refusal_of(error: httptools.HttpParserError) -> GatewayError:
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return WireRefusal("This HTTP method is not known here.", status=405, code="method_not_allowed")
    return BadRequest(f"The request is not valid HTTP/1.1: {error}.")
