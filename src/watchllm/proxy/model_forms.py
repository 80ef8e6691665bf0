"""Models as they are told: in OpenAI's form, or in Anthropic's to a client that names a version of Anthropic's API.

Anthropic's listing comes in pages of `limit`; here it is always one page, which says that there are no more.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from watchllm.providers.dialect import CHAT, MESSAGES
from watchllm.routing.target import Target


class Model(msgspec.Struct, kw_only=True):
    """A model in OpenAI's form. `created` in epoch seconds, 0 = not told."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str


class _Listing(msgspec.Struct):
    data: list[Model]


_decode_listing = msgspec.json.Decoder(_Listing).decode
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def form_of(headers: dict[bytes, bytes]) -> str:
    """The dialect whose form a client with these header lines expects."""
    return MESSAGES if b"anthropic-version" in headers else CHAT


def model_in(form: str, model: Model) -> bytes:
    """One model as a document."""
    return _encode(model if form == CHAT else _anthropic(model))


def listing_in(form: str, document: bytes) -> bytes:
    """The listing `document`, which is in OpenAI's form; 2 ms for 4000 models."""
    if form == CHAT:
        return document
    models = [_anthropic(model) for model in _decode_listing(document).data]
    return _encode(
        {
            "data": models,
            "has_more": False,
            "first_id": models[0]["id"] if models else None,
            "last_id": models[-1]["id"] if models else None,
        }
    )


def described(name: str, target: Target, body: bytes) -> Model | None:
    """What a provider says of one model, whichever form it uses; None = it says nothing that can be read."""
    try:
        said = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if type(said) is not dict or type(said.get("id")) is not str:
        return None
    return Model(id=name, created=created(said.get("created", said.get("created_at"))), owned_by=target.provider)


def created(told: Any) -> int:
    """Epoch seconds of a moment in OpenAI's form (a number) or in Anthropic's (RFC 3339); 0 = not told."""
    if type(told) is int:
        return told if 0 <= told <= _LATEST else 0
    if type(told) is not str:
        return 0
    try:
        return max(0, int(datetime.fromisoformat(told).timestamp()))
    except (ValueError, OverflowError):
        return 0


# 31 December 9999, the last day that can be told in Anthropic's form.
_LATEST = 253_402_214_400


def _anthropic(model: Model) -> dict[str, Any]:
    # "May be set to an epoch value if the release date is unknown": Anthropic's reference of `created_at`.
    moment = datetime.fromtimestamp(min(max(model.created, 0), _LATEST), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": model.id, "display_name": model.id, "created_at": moment}
