"""From a request to the place of its answer in the cache."""

from __future__ import annotations

from typing import Any, NamedTuple

from watchllm.cache.canonical import canonical_form, is_plain
from watchllm.cache.key import Target as KeyTarget
from watchllm.cache.key import answer_headers
from watchllm.providers.openai.endpoints import Endpoint
from watchllm.proxy.request import Request
from watchllm.proxy.services import Services

_ANSWER_HEADERS = frozenset((b"anthropic-version", b"anthropic-beta", b"openai-beta"))


class Lookup(NamedTuple):
    """Partition (16 bytes, from the API key alone) and key (32 bytes)."""

    partition: bytes
    key: bytes


def request_key(
    services: Services, request: Request, endpoint: Endpoint, document: dict[str, Any], body: bytes
) -> Lookup:
    """Where the answer to this request is kept. The request is authenticated, routed and has its directives."""
    principal, target, wishes = request.principal, request.target, request.directives
    assert principal is not None and target is not None and wishes is not None
    tenant = principal.tenant
    headers = request.exchange.headers
    relevant = () if _ANSWER_HEADERS.isdisjoint(headers) else answer_headers(list(headers.items()))
    canonical = canonical_form(document, plain=is_plain(body), defaults=tenant.defaults(target.vendor, endpoint.family))
    key = services.key_hash.key(
        tenant.project.id,
        wishes.user,
        endpoint.family,
        KeyTarget(target.provider, target.base_url, target.model),
        relevant,
        request.exchange.query,
        canonical,
    )
    return Lookup(tenant.partition, key)
