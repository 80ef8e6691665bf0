"""An embeddings request, read: what its inputs are and where each one's vector is in the cache."""

from __future__ import annotations

from typing import Any, NamedTuple

from watchllm.cache.bypass import bypass_reason
from watchllm.cache.canonical import canonical_form, embedding_base, embedding_items, is_plain
from watchllm.cache.key import KeyHash, answer_headers
from watchllm.cache.key import Target as KeyTarget
from watchllm.domain import json_body
from watchllm.providers.endpoints import Endpoint
from watchllm.providers.openai.embeddings import DOCUMENTED
from watchllm.proxy.directives import Directives
from watchllm.proxy.tenant import Tenant
from watchllm.routing.route import Route
from watchllm.routing.target import Target


class Batch(NamedTuple):
    """A request's inputs. `places` has one place in the cache (partition and key) per input, `first` the position of
    the first input at each place, in order; `base64` is how vectors are to be written.

    Vectors of different models do not go together: of a route only the first choice answers, with any of its keys.
    """

    tenant: Tenant
    route: Route
    target: Target
    wishes: Directives
    family: str
    body: bytes
    document: dict[str, Any]
    places: list[bytes]
    first: dict[bytes, int]
    base64: bool

    @property
    def inputs(self) -> list[Any]:
        """What is to be embedded: texts and lists of tokens."""
        given = self.document["input"]
        return given if type(given) is list and type(given[0]) is not int else [given]


def read_batch(
    key_hash: KeyHash,
    tenant: Tenant,
    endpoint: Endpoint,
    body: bytes,
    headers: dict[bytes, bytes],
    query: bytes,
    wishes: Directives,
) -> Batch | None:
    """None for what cannot be looked at item by item: what is no documented form, or must bypass the cache.

    Raises BadRequest for a body that is not strict JSON, and what routing raises.
    """
    document = json_body.parse(body)
    encoding = document.get("encoding_format")
    if type(document.get("model")) is not str or document.get("stream") or bypass_reason(document) is not None:
        return None
    plain = is_plain(body)
    items = embedding_items(document, plain=plain)
    if items is None or encoding not in (None, "float", "base64"):
        return None
    route = tenant.route(document["model"])
    target = route.first
    defaults = tenant.defaults(target.vendor, endpoint.family)
    if document.keys() <= DOCUMENTED:
        base = embedding_base(document, plain=plain, defaults=defaults)
    else:
        # A field that OpenAI does not know may decide what the bytes in base64 are: nothing is converted then.
        shared = {field: value for field, value in document.items() if field != "input"}
        base = canonical_form(shared, plain=plain, defaults=defaults)
    common = (
        tenant.project.id,
        wishes.user,
        endpoint.family,
        KeyTarget(target.provider, target.base_url, target.model),
        answer_headers(list(headers.items())),
        query,
        base,
    )
    key, partition = key_hash.key, tenant.partition
    places = [partition + key(*common, item) for item in items]
    first: dict[bytes, int] = {}
    for position, place in enumerate(places):
        first.setdefault(place, position)
    return Batch(tenant, route, target, wishes, endpoint.family, body, document, places, first, encoding == "base64")
