"""How signed reasoning survives a client of Responses.

Some models want their reasoning back, signed, before the results of the tools that they called. Chat completions carry
it in a message's `thinking_blocks`; a Responses client sends back reasoning items as it got them. So the blocks are
packed into an item's `encrypted_content`, which is opaque to clients. It is not secret: it holds what the provider gave
the client to keep.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec

_PREFIX = "watchllm-thinking-1."
_encode = msgspec.json.Encoder().encode
_decode_blocks = msgspec.json.Decoder(list[dict[str, Any]]).decode


def pack(blocks: list[dict[str, Any]]) -> str:
    """`encrypted_content` for the `thinking_blocks` of a chat message."""
    return _PREFIX + urlsafe_b64encode(_encode(blocks)).decode("ascii")


def unpack(encrypted_content: str) -> list[dict[str, Any]] | None:
    """The blocks that `pack` put in; None for what it did not write."""
    if not encrypted_content.startswith(_PREFIX):
        return None
    try:
        return _decode_blocks(urlsafe_b64decode(encrypted_content[len(_PREFIX) :].encode()))
    except (ValueError, msgspec.DecodeError, RecursionError):
        return None
