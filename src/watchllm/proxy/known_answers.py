"""Answers that are known already, read for the cache: each is taken for what it would be had its request just been
answered, by the very functions that a request goes through. So the same request is a hit from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from watchllm.cache.entry import Entry
from watchllm.domain import json_body
from watchllm.domain.errors import BadRequest, NotFound
from watchllm.domain.settings import NEVER_STORE
from watchllm.providers.endpoints import ENDPOINTS, Endpoint
from watchllm.proxy import embedding_answer, keeping
from watchllm.proxy.admission import require_price
from watchllm.proxy.approach import upstream_dialect
from watchllm.proxy.cache_api import time_ms
from watchllm.proxy.directives import Directives
from watchllm.proxy.embedding_batch import Batch, read_batch
from watchllm.proxy.shared_objects import refuse_shared
from watchllm.proxy.tenant import PARTITION_LENGTH, Tenant
from watchllm.proxy.tenants import Tenants
from watchllm.routing.target import Target

_ENDPOINTS = {f"/v1{endpoint.path}": endpoint for endpoint in ENDPOINTS}
_OF_NO_KEY = ""


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    request: msgspec.Raw
    response: msgspec.Raw
    endpoint: str = "/v1/chat/completions"
    created: Any = None
    ttl: Any = None
    user: Any = None


_decode = msgspec.json.Decoder(_Line).decode


class KnownAnswer(NamedTuple):
    """What one line brings: an entry for each key in `partition`, one or, of embeddings, one an input. `target` is who
    is taken to have given them."""

    target: Target
    partition: bytes
    entries: dict[bytes, Entry]


class KnownAnswers:
    """Reads lines for the live keys of one project. `largest` is the longest body, in bytes, that the cache keeps."""

    def __init__(self, tenants: Tenants, project_id: str, *, largest: int, now_ms: Callable[[], int]) -> None:
        self._tenants = tenants
        self._project_id = project_id
        self._largest = largest
        self._now_ms = now_ms

    def check(self) -> None:
        """Raise GatewayError where nothing can be taken in: the project is unknown, or keeps no answers at all."""
        settings = self._tenant().settings
        if not settings.cache:
            raise BadRequest("The project keeps no answers: it has cache=off.")
        if settings.cache_ttl == settings.cache_ttl_embeddings == NEVER_STORE:
            raise BadRequest("The project keeps no answers: its cache_ttl and cache_ttl_embeddings are 0.")

    async def read(self, line: bytes) -> KnownAnswer:
        """The entries of one line. Raises GatewayError, whose message says why nothing of it can be kept."""
        tenant = self._tenant()
        known = _parsed(line)
        endpoint = _ENDPOINTS.get(known.endpoint)
        if endpoint is None:
            raise BadRequest(f"the field 'endpoint' is one of {', '.join(_ENDPOINTS)}")
        headers = _headers(known, tenant)
        wishes = tenant.wishes(headers, embeddings=endpoint.family == "embeddings")
        if not wishes.store:
            raise BadRequest(_why_not_kept(known, wishes))
        now = self._now_ms()
        created = _created(known, now)
        if wishes.ttl >= 0 and created + wishes.ttl * 1000 <= now:
            raise BadRequest(f"it has expired: its time to live is {wishes.ttl} s from 'created' on")
        request, response = bytes(known.request), bytes(known.response)
        batch = None
        if endpoint.family == "embeddings":
            batch = read_batch(self._tenants.key_hash, tenant, endpoint, request, headers, b"", wishes)
        if batch is None:
            found = self._whole(tenant, endpoint, request, response, headers, wishes, created)
        else:
            found = await self._items(batch, endpoint, response, created)
        longest = max(len(entry.body) for entry in found.entries.values())
        if longest > self._largest:
            raise BadRequest(f"the answer has {longest} bytes; the cache keeps up to {self._largest}")
        return found

    def _tenant(self) -> Tenant:
        # With every line: settings that change while a long file is read are in force from the next line on.
        tenant = self._tenants.live_tenant(self._project_id)
        if tenant is None:
            raise NotFound(f"The project {self._project_id} is not published; run `watchllm db upgrade`.")
        return tenant

    def _whole(
        self,
        tenant: Tenant,
        endpoint: Endpoint,
        request: bytes,
        response: bytes,
        headers: dict[bytes, bytes],
        wishes: Directives,
        created: int,
    ) -> KnownAnswer:
        asked = self._tenants.reader.read(tenant, endpoint, request, headers, b"", wishes.user)
        if asked.key is None:
            raise BadRequest(f"a request with {asked.bypass} is neither read from the cache nor stored")
        self._check_target(tenant, endpoint, asked.target, asked.names_object)
        verdict = keeping.verdict_on(endpoint, asked, request, lambda: json_body.parse(request), response)
        if verdict.refused is not None:
            raise BadRequest(f"the response is no complete, successful answer: {verdict.refused}")
        _, cost = keeping.price_and_cost(self._tenants, asked.target, verdict.usage)
        body = keeping.kept_form(endpoint, response)
        entry = keeping.entry_of(endpoint, asked.target, wishes.ttl, created, verdict.usage, cost, _OF_NO_KEY, body)
        return KnownAnswer(asked.target, tenant.partition, {asked.key: entry})

    async def _items(self, batch: Batch, endpoint: Endpoint, response: bytes, created: int) -> KnownAnswer:
        target = batch.target
        self._check_target(batch.tenant, endpoint, target, None)
        price = self._tenants.price(target.provider, target.model)
        answer = await embedding_answer.read_answer(batch, batch.places, response, price, lambda: created)
        if not answer.items:
            raise BadRequest("the response does not give each input one embedding of the right length")
        entries = {
            place[PARTITION_LENGTH:]: embedding_answer.entry_of(batch, item, _OF_NO_KEY)
            for place, item in answer.items.items()
        }
        return KnownAnswer(target, batch.tenant.partition, entries)

    def _check_target(self, tenant: Tenant, endpoint: Endpoint, target: Target, names_object: str | None) -> None:
        """Raise GatewayError where a request could not have been sent there."""
        require_price(self._tenants, tenant, target)
        refuse_shared(target, names_object, translated=upstream_dialect(endpoint, target) != endpoint.dialect)


def _parsed(line: bytes) -> _Line:
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f'it is no line of the form {{"request": {{…}}, "response": {{…}}}}: {error}') from None


def _headers(known: _Line, tenant: Tenant) -> dict[bytes, bytes]:
    """The request headers by which a client says what the line's fields say."""
    headers = {}
    if known.ttl is not None:
        if type(known.ttl) is not int:
            raise BadRequest("the field 'ttl' is whole seconds, -1 = never expires")
        headers[b"x-watchllm-cache-ttl"] = b"%d" % known.ttl
    if known.user is not None:
        if type(known.user) is not str:
            raise BadRequest("the field 'user' is a text")
        if tenant.settings.cache_scope != "user":
            # Left aside, it would give one user's answer to all.
            raise BadRequest("the field 'user' is for projects with cache_scope=user, which this one has not")
        headers[b"x-watchllm-user"] = known.user.encode()
    return headers


def _why_not_kept(known: _Line, wishes: Directives) -> str:
    if wishes.user == "":
        return "the project has cache_scope=user: name the 'user' whose answer it is"
    if known.ttl == NEVER_STORE:
        return "a 'ttl' of 0 means not to store it"
    return "the project keeps no such answers: cache=off, or a time to live of 0"


def _created(known: _Line, now_ms: int) -> int:
    created = time_ms({"created": known.created}, "created")
    if created is None:
        return now_ms
    if created > now_ms:
        raise BadRequest("the field 'created' lies in the future")
    return int(created)
