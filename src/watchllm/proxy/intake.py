"""A request's body: content type and codings checked, decoded within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchllm.domain.errors import BadRequest, GatewayError, Unavailable, WireRefusal

if TYPE_CHECKING:
    from watchllm.wire.exchange import Exchange

_JSON_TYPES = (b"application/json", b"text/json")


def json_bytes(exchange: Exchange, max_bytes: int) -> bytes:
    """The body of a request that must be JSON, content coding removed.

    Raises WireRefusal 411 for a request without a body, 415 for another content type or an unknown coding and 413 past
    `max_bytes`, BadRequest for a broken coding, Unavailable when the bound on all request bytes in flight is reached.
    """
    if not exchange.body and not (b"content-length" in exchange.headers or b"transfer-encoding" in exchange.headers):
        raise WireRefusal("Send a body, with its Content-Length.", status=411, code="length_required")
    content_type = exchange.headers.get(b"content-type")
    if content_type is not None and content_type != b"application/json" and not is_json(content_type):
        media_type = content_type.partition(b";")[0].strip().lower()
        raise _unsupported(
            f"Send the request as Content-Type: application/json; got {media_type.decode('latin-1')[:80]!r}."
        )
    coding = exchange.headers.get(b"content-encoding")
    if coding is None:
        return exchange.body
    return decoded(exchange, coding, max_bytes)


def is_json(content_type: bytes) -> bool:
    """Whether a `Content-Type` announces JSON."""
    media_type = content_type.partition(b";")[0].strip().lower()
    return media_type in _JSON_TYPES or media_type.endswith(b"+json")


def decoded(exchange: Exchange, coding: bytes, max_bytes: int) -> bytes:
    """The body with its content coding removed; raises as `json_bytes` does."""
    name = coding.strip().lower()
    if name in (b"", b"identity"):
        return exchange.body
    # Few requests have a coding, and the first cached answer need not wait for this.
    from watchllm.wire.decoding import decoder_for
    from watchllm.wire.types import BadMessage

    decoder = decoder_for(name)
    if decoder is None:
        raise _unsupported("Send the body with Content-Encoding gzip, deflate, br, zstd or none.")
    pieces = []
    size = 0
    try:
        decoder.feed(exchange.body)
        while piece := decoder.read():
            size += len(piece)
            if size > max_bytes:
                raise WireRefusal(f"The request's body is too large when decoded; the limit is {max_bytes} bytes.")
            if not exchange.hold(len(piece)):
                raise Unavailable("Too many request bytes are in flight; try again in a moment.", retry_after=1)
            pieces.append(piece)
        decoder.finish()
    except BadMessage as error:
        raise BadRequest(f"The body does not decode as {name.decode('latin-1')}: {error}.") from None
    return b"".join(pieces)


def _unsupported(message: str) -> GatewayError:
    return WireRefusal(message, status=415, code="unsupported_media_type")
