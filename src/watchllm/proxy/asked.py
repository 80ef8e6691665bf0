"""What a request asks for, read from its body once: where it leads and which entry of the cache answers it.

Reading costs a parse, a canonical form and a keyed hash. What was read of a body is remembered under the body's own
keyed hash, so that a request which comes again word for word pays for that alone. Nothing of its content is kept.
"""

from __future__ import annotations

from typing import Any

import msgspec

from watchllm.cache.bypass import bypass_reason
from watchllm.cache.canonical import canonical_form, is_plain
from watchllm.cache.key import KeyHash
from watchllm.cache.key import Target as KeyTarget
from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest
from watchllm.providers.dialect import CHAT, RESPONSES
from watchllm.providers.endpoints import Endpoint
from watchllm.providers.openai.asks import expected_answers, takes_usage
from watchllm.proxy.comparable import Comparable, comparable, lines_that_matter, plain_version
from watchllm.proxy.named_pictures import may_name_pictures
from watchllm.proxy.shared_objects import named_object
from watchllm.proxy.tenant import Tenant
from watchllm.routing.route import Route
from watchllm.routing.target import Target

_MOST_REMEMBERED = 16_384


class Asked(msgspec.Struct, frozen=True):
    """`targets` are those that may answer, in the order they are tried; `target` is the first of them. `key` is the
    32-byte key of its answer in the tenant's partition of the cache, None = BYPASS.

    The others are for a call upstream, which need not read the body once more for them: `named` is the model as the
    client named it, `bypass` names what in the body forbids caching, `expected` is how many choices or embeddings are
    asked for where that is plain, `takes_usage` that usage may be asked for in the client's place, `names_object` the
    field that names an object kept at the provider, `may_name_pictures` that images may be given by URL,
    `in_background` that the answer is to be made after what is answered.
    """

    route: Route
    targets: tuple[Target, ...]
    streamed: bool
    include_usage: bool
    key: bytes | None
    named: str
    bypass: str | None
    expected: int | None
    takes_usage: bool
    names_object: str | None
    may_name_pictures: bool
    in_background: bool

    @property
    def target(self) -> Target:
        return self.targets[0]


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
        version = b"" if usual else plain_version(headers)
        if query or user is not None or version is None:
            self.newest = always_new = self._read(tenant, endpoint, body, headers, query, user)
            return always_new
        spoken = endpoint.name if not version else f"{endpoint.name} {version.decode()}"
        if tenant.narrowing:
            spoken = f"{spoken} {tenant.narrowing.hex()}"
        keyed = tenant.bodies.get(spoken)
        if keyed is None:
            keyed = tenant.bodies[spoken] = self._key_hash.bodies(tenant.partition, spoken)
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
        route = tenant.route(model)
        form = comparable(endpoint, document, model)
        plain = is_plain(body)
        if route.is_plain:
            targets = route.choices[0].targets
        else:
            targets = route.candidates(
                self._key_hash.label(tenant.partition, canonical_form(form.document, plain=plain))
            )
        bypass = bypass_reason(document)
        key = None
        if bypass is None:
            key = self.key_of(tenant, form, targets[0], headers, query, user, plain=plain)
        return Asked(
            route,
            targets,
            streamed,
            _wants_usage(document),
            key,
            model,
            bypass,
            expected_answers(endpoint, document),
            takes_usage(document),
            named_object(document, body) if endpoint.dialect != CHAT else None,
            endpoint.family == "generate" and may_name_pictures(body),
            endpoint.dialect == RESPONSES and document.get("background") not in (None, False),
        )

    def key_at(
        self,
        tenant: Tenant,
        endpoint: Endpoint,
        body: bytes,
        headers: dict[bytes, bytes],
        query: bytes,
        user: str | None,
        target: Target,
    ) -> bytes:
        """The key of the answer of another target than the one that was looked for, to a request that was read."""
        document = json_body.parse(body)
        form = comparable(endpoint, document, _model(document))
        return self.key_of(tenant, form, target, headers, query, user, plain=is_plain(body))

    def key_of(
        self,
        tenant: Tenant,
        form: Comparable,
        target: Target,
        headers: dict[bytes, bytes],
        query: bytes,
        user: str | None,
        *,
        plain: bool,
        part: bytes | None = None,
    ) -> bytes:
        """The key of the answer of `target` to what is asked in `form`; of a `part` of it by that name."""
        vendor = target.vendor
        defaults = tenant.defaults(vendor, form.family)
        return self._key_hash.key(
            tenant.project.id,
            user,
            form.family,
            KeyTarget(target.provider, target.base_url, target.model),
            lines_that_matter(headers, form.document),
            query,
            canonical_form(form.for_vendor(vendor, target.model), plain=plain, defaults=defaults),
            part,
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
