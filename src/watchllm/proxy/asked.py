"""What a request asks for, read from its body once: where it leads and which entry of the cache answers it.

Reading costs a parse, a canonical form and a keyed hash. What was read of a body is remembered under the body's own
keyed hash, so that a request which comes again word for word pays for that alone. Nothing of its content is kept.
"""

from __future__ import annotations

from typing import Any

import msgspec

from watchllm.cache.bypass import bypass_reason
from watchllm.cache.canonical import canonical_form, is_plain
from watchllm.cache.key import ANSWER_HEADERS, KeyHash, answer_headers
from watchllm.cache.key import Target as KeyTarget
from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest
from watchllm.providers.openai.asks import expected_answers, takes_usage
from watchllm.providers.openai.endpoints import Endpoint
from watchllm.proxy.tenant import Tenant
from watchllm.routing.resolve import Target

_MOST_REMEMBERED = 16_384


class Asked(msgspec.Struct, frozen=True):
    """`key` is the 32-byte key of the answer in the tenant's partition of the cache, None = BYPASS.

    The others are for a call upstream, which need not read the body once more for them: `bypass` names what in the body
    forbids caching, `expected` is how many choices or embeddings are asked for where that is plain, `renamed` says that
    the provider knows the model by another name, `takes_usage` that usage may be asked for in the client's place.
    """

    target: Target
    streamed: bool
    include_usage: bool
    key: bytes | None
    bypass: str | None
    expected: int | None
    renamed: bool
    takes_usage: bool


class Reader:
    """Reads requests under one version of the snapshot; what it remembers is bounded in number.

    `newest` is what the last body that had not come before asks for; who makes use of that sets it to None.
    """

    __slots__ = ("_key_hash", "_remembered", "newest")

    def __init__(self, key_hash: KeyHash) -> None:
        self._key_hash = key_hash
        self._remembered: dict[bytes, Asked] = {}
        self.newest: Asked | None = None

    def read(
        self,
        tenant: Tenant,
        endpoint: Endpoint,
        body: bytes,
        headers: dict[bytes, bytes],
        query: bytes,
        user: str | None,
        *,
        usual: bool = False,
    ) -> Asked:
        """What `body` asks for.

        `user` is part of the key where the cache's scope is the user; `usual`: it is known already that no header is
        part of it. Raises BadRequest, Forbidden or NotFound.
        """
        if query or user is not None or not (usual or ANSWER_HEADERS.isdisjoint(headers)):  # parts of the key
            self.newest = always_new = self._read(tenant, endpoint, body, headers, query, user)
            return always_new
        keyed = tenant.bodies.get(endpoint.name)
        if keyed is None:
            keyed = tenant.bodies[endpoint.name] = self._key_hash.bodies(tenant.partition, endpoint.name)
        hashed = keyed.copy()
        hashed.update(body)
        digest = hashed.digest()
        asked = self._remembered.get(digest)
        if asked is not None:
            return asked
        self.newest = asked = self._read(tenant, endpoint, body, headers, query, user)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = asked
        return asked

    def _read(
        self,
        tenant: Tenant,
        endpoint: Endpoint,
        body: bytes,
        headers: dict[bytes, bytes],
        query: bytes,
        user: str | None,
    ) -> Asked:
        document = json_body.parse(body)
        streamed = _wants_stream(document, endpoint)
        model = _model(document)
        target = tenant.target(model)
        key = None
        bypass = bypass_reason(document)
        if bypass is None:
            key = self._key_hash.key(
                tenant.project.id,
                user,
                endpoint.family,
                KeyTarget(target.provider, target.base_url, target.model),
                () if ANSWER_HEADERS.isdisjoint(headers) else answer_headers(list(headers.items())),
                query,
                canonical_form(
                    document, plain=is_plain(body), defaults=tenant.defaults(target.vendor, endpoint.family)
                ),
            )
        return Asked(
            target,
            streamed,
            _wants_usage(document),
            key,
            bypass,
            expected_answers(endpoint, document),
            model != target.model,
            takes_usage(document),
        )


def _model(document: dict[str, Any]) -> str:
    model = document.get("model")
    if model is None:
        raise BadRequest("Name a model in the field 'model', for example gpt-4o-mini.", param="model")
    if type(model) is not str:
        raise BadRequest("The field 'model' is a string, for example \"gpt-4o-mini\".", param="model")
    return model


def _wants_stream(document: dict[str, Any], endpoint: Endpoint) -> bool:
    stream = document.get("stream")
    if stream is None or stream is False:
        return False
    if stream is not True:
        raise BadRequest("The field 'stream' is true or false.", param="stream")
    if not endpoint.streams:
        raise BadRequest("This endpoint does not stream; leave the field 'stream' out.", param="stream")
    return True


def _wants_usage(document: dict[str, Any]) -> bool:
    options = document.get("stream_options")
    return type(options) is dict and options.get("include_usage") is True
