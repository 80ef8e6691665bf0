"""Where a request's question is looked for and kept: its text, and the partition of those asked in the same context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from watchllm.cache.canonical import is_plain
from watchllm.cache.semantic.engine import Engine, is_too_long
from watchllm.cache.semantic.question import NotTried, parted
from watchllm.cache.semantic.vectors import CONTEXT_LENGTH
from watchllm.domain import json_body
from watchllm.providers.endpoints import Endpoint
from watchllm.proxy.comparable import comparable

if TYPE_CHECKING:
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services
    from watchllm.routing.target import Target

MAX_BODY: Final = 256 << 10
"""Bytes of a request that is looked for: it is read once more for that, at some 4 ms a megabyte."""
TOO_LONG: Final = "too_long"
_PART: Final = b"context"


class Asks(NamedTuple):
    partition: bytes
    text: str


def asks_of(
    services: Services, request: Request, endpoint: Endpoint, target: Target, body: bytes, engine: Engine
) -> Asks | NotTried:
    """What a request to `target` asks, and where like questions are."""
    if len(body) > MAX_BODY:
        return NotTried("large")
    principal, wishes, exchange = request.principal, request.directives, request.exchange
    assert principal is not None
    assert wishes is not None
    document = json_body.parse(body)
    form = comparable(endpoint, document, document["model"])
    parts = parted(form.document)
    if isinstance(parts, NotTried):
        return parts
    if is_too_long(parts.text):
        return NotTried(TOO_LONG)
    tenant = principal.tenant
    context = services.tenants.reader.key_of(
        tenant,
        form.replaced(parts.context),
        target,
        exchange.headers,
        exchange.query,
        wishes.user,
        plain=is_plain(body),
        part=_PART,
    )
    return Asks(engine.partition(tenant.partition, context[:CONTEXT_LENGTH]), parts.text)
