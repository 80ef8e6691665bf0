"""A short memory of each project's requests, for `watchllm explain`: what made two requests differ.

Kept are digests of canonical fields, never contents: Python's own keyed hash of each, meaningless outside this process.
Bounded in projects, in requests a project and in fields a request; the memory ends with the process.

Digests are made a moment after the request, in batches: under load, most requests have been displaced by newer ones
until then and need none. For that moment the body of the request is at hand: a tenth of a second, or under load as long
as the batches before its own take, which is less than a second, because all such bodies together are bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from watchllm.cache.entry import Entry
from watchllm.cache.key import ANSWER_HEADERS, entry_id
from watchllm.domain.usage_event import BYPASS, HIT, MISS
from watchllm.proxy.digests import LARGE, field_digests
from watchllm.proxy.directives import Directives
from watchllm.proxy.request import Request
from watchllm.proxy.semantic.looked import because
from watchllm.proxy.tenant import Tenant
from watchllm.routing.resolve import Target

if TYPE_CHECKING:
    from watchllm.proxy.semantic.looked import Looked

_REQUESTS_A_PROJECT = 128
_PROJECTS = 64
# What all bodies that are not digested yet may take together; one that finds no room is digested at once.
_UNREAD_BYTES = 1 << 20
# Bytes of bodies that are digested before others on the loop have their turn: about a millisecond.
_TURN_BYTES = LARGE
_READ_AFTER_SECONDS = 0.1
# Sixteen batches make up for all that may wait.
_READ_ON_AFTER_SECONDS = 0.05
_HEADERS_IN_ORDER = tuple(sorted(ANSWER_HEADERS))


NOT_ASKED = "only-if-cached forbids to ask upstream"


class _Unread(msgspec.Struct, frozen=True):
    """What the digests of a request are made of. `headers` are the values of _HEADERS_IN_ORDER, () = there are none."""

    body: bytes
    tenant: Tenant
    family: str
    target: Target
    query: bytes
    user: str | None
    headers: tuple[bytes | None, ...]


class Remembered(msgspec.Struct):
    """A request whose fields later ones are compared with: one that the cache did not answer, or the first that it
    answered to a body that this process had not seen.

    `named` is the model as the client named it, `outcome` is HIT, MISS or BYPASS, `reason` says why the cache did not
    answer, `stores` that the answer may be kept, `fields` is digest by field's name: empty while `unread` is still to
    be digested. `looked`: what came of looking for an answer by meaning, without the question.
    """

    request_id: str
    at_ms: int
    outcome: str
    reason: str
    model: str
    named: str
    key: bytes | None
    stores: bool
    unread: _Unread | None
    fields: dict[str, int] = {}
    looked: Looked | None = None


class Hit(msgspec.Struct, frozen=True, gc=False):
    """A request that the cache answered, from the entry at `key` which was stored at `stored_ms`. `named` is the model
    as the client named it."""

    request_id: str
    at_ms: int
    model: str
    named: str
    key: bytes
    stored_ms: int
    looked: Looked | None = None


def miss_reason(entry: Entry | None, wishes: Directives, bypass: str | None, now_ms: int) -> str:
    """Why the cache did not answer, and nobody else where nobody was to be asked. `bypass` names what in the body
    forbids caching."""
    reason = _not_answered(entry, wishes, bypass, now_ms)
    return f"{reason}; {NOT_ASKED}" if wishes.only_if_cached else reason


def _not_answered(entry: Entry | None, wishes: Directives, bypass: str | None, now_ms: int) -> str:
    if bypass is not None:
        return f"a request with {bypass} is neither read from the cache nor stored"
    if wishes.bypass:
        return "the project's settings or the request's headers left the cache out"
    if not wishes.read:
        return "the request's headers asked not to read from the cache"
    if entry is None:
        return "no answer to this request was stored, or it was evicted or invalidated"
    if not entry.is_fresh(now_ms):
        return f"the stored answer expired {(now_ms - entry.expires_ms) / 1000:.0f} s before"
    return f"the stored answer was {(now_ms - entry.created_ms) / 1000:.0f} s old, more than max-age allows"


class _Project:
    __slots__ = ("hits", "remembered")

    def __init__(self) -> None:
        self.remembered: deque[Remembered] = deque()
        self.hits: deque[Hit] = deque(maxlen=_REQUESTS_A_PROJECT)


class History:
    """The memory of one process. `later(seconds, work)` calls `work` so long from now; None = digest at once."""

    def __init__(self, later: Callable[[float, Callable[[], None]], object] | None = None) -> None:
        self._later = later
        self._projects: OrderedDict[bytes, _Project] = OrderedDict()
        self._unread: deque[Remembered] = deque()
        self._unread_bytes = 0
        self._will_read = False

    def missed(
        self, request: Request, target: Target, named: str, key: bytes | None, body: bytes, family: str, reason: str
    ) -> None:
        """Remember a request that the cache did not answer; its `body` was read before. About 1 µs, the digests come
        later."""
        wishes = request.directives
        outcome = BYPASS if request.cache == BYPASS else MISS
        stores = outcome == MISS and wishes is not None and wishes.store and not wishes.only_if_cached
        self._remember(request, target, named, key, body, family, outcome, reason, stores=stores)

    def first_seen(self, request: Request, target: Target, key: bytes, body: bytes, family: str) -> None:
        """Remember a request that the cache answers and whose `body` had not come before: its answer is of another
        process, of one before a restart. The cost is a miss's, and that of a look whether it is remembered already."""
        principal = request.principal
        assert principal is not None
        known = self._projects.get(principal.tenant.partition)
        if known is None or all(record.key != key for record in known.remembered):
            self._remember(request, target, "", key, body, family, HIT, "", stores=False)

    def _remember(
        self,
        request: Request,
        target: Target,
        named: str,
        key: bytes | None,
        body: bytes,
        family: str,
        outcome: str,
        reason: str,
        *,
        stores: bool,
    ) -> None:
        principal = request.principal
        assert principal is not None
        tenant = principal.tenant
        wishes, exchange = request.directives, request.exchange
        headers = exchange.headers
        unread = _Unread(
            body,
            tenant,
            family,
            target,
            exchange.query,
            None if wishes is None else wishes.user,
            () if ANSWER_HEADERS.isdisjoint(headers) else tuple(headers.get(name) for name in _HEADERS_IN_ORDER),
        )
        record = Remembered(request.id, request.wall_ms, outcome, reason, request.model, named, key, stores, unread)
        if request.looked is not None:
            record.looked = request.looked.without_question()
        self._unread_bytes += len(body)
        remembered = self._project(tenant.partition).remembered
        if len(remembered) == _REQUESTS_A_PROJECT:
            self._release(remembered.popleft())
        remembered.append(record)
        if self._later is None or self._unread_bytes > _UNREAD_BYTES:
            self._read(record)
            return
        self._unread.append(record)
        if not self._will_read:
            self._will_read = True
            self._later(_READ_AFTER_SECONDS, self._read_on)

    def like(self, request: Request, named: str, looked: Looked, entry: Entry) -> None:
        """Remember a request that was given the answer to another question."""
        principal, key = request.principal, looked.key
        assert principal is not None
        assert key is not None
        self._project(principal.tenant.partition).hits.append(
            Hit(request.id, request.wall_ms, request.model, named, key, entry.created_ms, looked.without_question())
        )

    def hit(self, request: Request, named: str, key: bytes, entry: Entry) -> None:
        """Remember a request that the cache answered; about 0.5 µs."""
        principal = request.principal
        assert principal is not None
        self._project(principal.tenant.partition).hits.append(
            Hit(request.id, request.wall_ms, request.model, named, key, entry.created_ms)
        )

    def stored_elsewhere(self, request: Request, key: bytes) -> None:
        """The answer to a remembered request was stored under `key`: another than the one asked for gave it."""
        principal = request.principal
        assert principal is not None
        for record in reversed(self._project(principal.tenant.partition).remembered):
            if record.request_id == request.id:
                record.key = key
                return

    def entry_of(self, partition: bytes, request_id: str) -> bytes | None:
        """The key of the entry whose answer that request of a project was given, or was to store; None where it is not
        remembered, or there is none."""
        project = self._projects.get(partition)
        if project is None:
            return None
        given = (hit.key for hit in project.hits if hit.request_id == request_id)
        stored = (one.key for one in project.remembered if one.request_id == request_id and one.stores)
        return next(chain(given, stored), None)

    def explain(self, request_id: str) -> dict[str, Any] | None:
        """Why that request was a hit or a miss; None when it is not remembered."""
        self._read_bodies(_UNREAD_BYTES)
        for project in self._projects.values():
            for hit in project.hits:
                if hit.request_id == request_id:
                    return _explain_hit(hit, project)
            for record in project.remembered:
                if record.request_id == request_id and record.outcome != HIT:
                    return _explain_call(record, project)
        return None

    def _read_on(self) -> None:
        """Digest a turn's worth; requests that were displaced cost nothing any more."""
        self._read_bodies(_TURN_BYTES)
        self._will_read = bool(self._unread)
        if self._will_read and self._later is not None:
            self._later(_READ_ON_AFTER_SECONDS, self._read_on)

    def _read_bodies(self, most_bytes: int) -> None:
        stop_at = self._unread_bytes - most_bytes
        while self._unread and self._unread_bytes > stop_at:
            self._read(self._unread.popleft())

    def _read(self, record: Remembered) -> None:
        unread = record.unread
        if unread is not None:
            self._release(record)
            record.fields = _fields(unread)

    def _release(self, record: Remembered) -> None:
        """The body is not at hand any more."""
        if record.unread is not None:
            self._unread_bytes -= len(record.unread.body)
            record.unread = None

    def _project(self, partition: bytes) -> _Project:
        project = self._projects.get(partition)
        if project is None:
            project = self._projects[partition] = _Project()
            if len(self._projects) > _PROJECTS:
                _, displaced = self._projects.popitem(last=False)
                for record in displaced.remembered:
                    self._release(record)
        return project


def _fields(unread: _Unread) -> dict[str, int]:
    target = unread.target
    fields = field_digests(unread.body, unread.tenant.defaults(target.vendor, unread.family))
    fields["provider"] = hash((target.provider, target.base_url))
    fields["query string"] = hash(unread.query)
    fields["X-WatchLLM-User"] = hash(unread.user)
    for name, value in zip(_HEADERS_IN_ORDER, unread.headers, strict=False):
        if value is not None:
            fields[name.decode()] = hash(value)
    return fields


def _explain_hit(hit: Hit, project: _Project) -> dict[str, Any]:
    same = "the cache held the answer to a request that is the same in every field that can change the answer"
    told = {
        "request_id": hit.request_id,
        "outcome": "hit",
        "model": hit.model,
        "alias": _alias(hit),
        "reason": same if hit.looked is None else "the cache held the answer to a request that asks the same otherwise",
        "stored_ms": hit.stored_ms,
        "stored_by": _stored_by(hit.key, hit.stored_ms, project),
        "entry": entry_id(hit.key),
    }
    return told if hit.looked is None else told | {"semantic": _semantic(hit.looked, project)}


def _stored_by(key: bytes | None, stored_ms: int, project: _Project) -> str | None:
    """The id of the request whose answer was stored then, if it is remembered."""
    stored = (record for record in reversed(project.remembered) if record.stores and record.key == key)
    return next((record.request_id for record in stored if record.at_ms <= stored_ms), None)


def _semantic(looked: Looked, project: _Project) -> dict[str, Any]:
    """What came of looking for an answer by meaning; `nearest` is the request of the prompt that was compared, `entry`
    that of its answer."""
    decision = looked.decision
    return {
        "outcome": looked.outcome,
        "reason": looked.reason or None,
        "similarity": None if decision is None else round(decision.similarity, 4),
        "confidence": None if decision is None else round(decision.confidence, 4),
        "guard": None if decision is None else decision.guard,
        "because": None if decision is None else because(looked.outcome, looked.reason, decision.reason),
        "nearest": None if decision is None else _stored_by(looked.key, looked.created_ms, project),
        "entry": None if looked.key is None else entry_id(looked.key),
    }


def _explain_call(asked: Remembered, project: _Project) -> dict[str, Any]:
    nearest, differing = None, []
    for other in project.remembered:
        if other.request_id == asked.request_id:
            break
        if other.model == asked.model:
            names = _differing(asked.fields, other.fields)
            if nearest is None or len(names) <= len(differing):
                nearest, differing = other, names
    told = {
        "request_id": asked.request_id,
        "outcome": asked.outcome.lower(),
        "model": asked.model,
        "alias": _alias(asked),
        "reason": asked.reason,
        "nearest": None if nearest is None else nearest.request_id,
        "differs_in": differing,
        "entry": entry_id(asked.key) if asked.stores and asked.key is not None else None,
    }
    return told if asked.looked is None else told | {"semantic": _semantic(asked.looked, project)}


def _alias(asked: Hit | Remembered) -> str | None:
    """The name that a route led on to the model, None where the client named the model itself."""
    return None if asked.named == asked.model or asked.named.endswith(f"/{asked.model}") else asked.named


def _differing(fields: dict[str, int], others: dict[str, int]) -> list[str]:
    return sorted(name for name in fields.keys() | others.keys() if fields.get(name) != others.get(name))
