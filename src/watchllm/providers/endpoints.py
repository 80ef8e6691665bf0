"""The endpoints whose answers are cached, as data."""

import msgspec

from watchllm.providers.dialect import CHAT, MESSAGES, RESPONSES


class Endpoint(msgspec.Struct, frozen=True):
    """`path` is below the base URL; `family` is the part of the cache that its answers share; `dialect` the wire form
    that clients speak there (`chat` stands for OpenAI's own form of every family)."""

    name: str
    path: str
    family: str
    streams: bool
    dialect: str = CHAT


ENDPOINTS = (
    Endpoint("chat.completions", "/chat/completions", "generate", True),
    Endpoint("completions", "/completions", "completions", True),
    Endpoint("embeddings", "/embeddings", "embeddings", False),
    Endpoint("messages", "/messages", "generate", True, MESSAGES),
    Endpoint("responses", "/responses", "generate", True, RESPONSES),
)


def dialect_at(path: bytes) -> str:
    """The dialect in which errors are told at a path of the gateway's, `/v1` included."""
    return MESSAGES if path == b"/v1/messages" or path.startswith(b"/v1/messages/") else CHAT
