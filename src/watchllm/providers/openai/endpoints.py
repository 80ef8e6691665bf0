"""OpenAI's endpoints whose answers are cached, as data."""

import msgspec


class Endpoint(msgspec.Struct, frozen=True):
    """`path` is below the base URL; `family` is the part of the cache that its answers share."""

    name: str
    path: str
    family: str
    streams: bool


ENDPOINTS = (
    Endpoint("chat.completions", "/chat/completions", "generate", True),
    Endpoint("completions", "/completions", "completions", True),
    Endpoint("embeddings", "/embeddings", "embeddings", False),
)
