"""A request that the exact cache could not answer, as the stages behind that look-up hand it on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from watchllm.cache.entry import Entry
    from watchllm.providers.endpoints import Endpoint
    from watchllm.proxy.asked import Asked
    from watchllm.proxy.request import Request


class Unanswered(msgspec.Struct, frozen=True):
    """What the request asks, in `body`, and what was found out about it so far.

    Its answer is to be had, and stored, under `key`; None = nowhere. `entry` is what the cache had and could not give.
    """

    request: Request
    endpoint: Endpoint
    asked: Asked
    body: bytes
    key: bytes | None
    entry: Entry | None

    def __repr__(self) -> str:
        # A repr ends in tracebacks and logs: the body is the client's own.
        return f"Unanswered({self.request.id}, body of {len(self.body)} bytes)"
