"""Looks for an answer by meaning, when there is none to the very same question."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from watchllm.cache.canonical import is_plain
from watchllm.cache.entry import Entry
from watchllm.cache.semantic.decide import DEFAULT_MIN_CONFIDENCE, Decision, Policy
from watchllm.cache.semantic.engine import Engine, Judged, Question, is_too_long
from watchllm.cache.semantic.vectors import CONTEXT_LENGTH
from watchllm.domain import json_body
from watchllm.domain.settings import ON, ProjectSettings
from watchllm.providers.endpoints import Endpoint
from watchllm.proxy.comparable import comparable
from watchllm.proxy.directives import Directives
from watchllm.proxy.retelling import told_in
from watchllm.proxy.semantic import looked
from watchllm.proxy.semantic.looked import Looked
from watchllm.proxy.semantic.question import NotTried, parted

if TYPE_CHECKING:
    from watchllm.proxy.asked import Asked
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services
    from watchllm.routing.target import Target

MAX_BODY = 256 << 10
"""Bytes of a request that is looked for: it is read once more for that, at some 4 ms a megabyte."""
# A vector may come to another process before its answer does: such a one is not lost.
_SETTLES_MS = 10_000
_PART = b"context"


class Place(NamedTuple):
    """The partition where a request's question is compared, and the question."""

    partition: bytes
    question: Question


def look_up(services: Services, request: Request, endpoint: Endpoint, asked: Asked, body: bytes) -> Entry | None:
    """The stored answer to a like question, if the project has it served; else notes on the request what came of it.

    The entry is fresh, acceptable to the request, and told in its dialect.
    """
    began = perf_counter()
    found, entry = _look_up(services, request, endpoint, asked, body)
    services.semantic.count(found.outcome, found.reason)
    found.took = perf_counter() - began
    request.looked = found
    return entry


def _look_up(
    services: Services, request: Request, endpoint: Endpoint, asked: Asked, body: bytes
) -> tuple[Looked, Entry | None]:
    engine = services.semantic.engine
    if engine is None:
        services.semantic.start()
        return Looked(looked.WARMING), None
    place = place_of(services, request, endpoint, asked.target, body, engine)
    if isinstance(place, NotTried):
        return Looked(looked.NOT_TRIED, place.reason), None
    wishes, principal = request.directives, request.principal
    assert wishes is not None
    assert principal is not None
    settings = principal.tenant.settings
    candidates = engine.candidates(*place, _policy(settings, wishes), request.wall_ms)
    if candidates is None:
        return Looked(looked.WARMING, "reading", None, *place), None
    nearest: Judged | None = None
    is_gone = False
    for judged in candidates:
        nearest = nearest or judged
        if judged.decision.hit:
            entry = _entry(services, request, endpoint, body, engine, place.partition, judged)
            if entry is not None:
                outcome = looked.HIT if settings.semantic == ON else looked.SHADOW_HIT
                found = Looked(outcome, "", judged.decision, *place, key=judged.key, created_ms=judged.created_ms)
                return found, entry if settings.semantic == ON else None
            is_gone = True
    if nearest is None:
        return Looked(looked.EMPTY, "", None, *place), None
    decision = nearest.decision
    reason = "gone" if is_gone else decision.guard or _below(decision, settings)
    return Looked(looked.MISS, reason, decision, *place, key=nearest.key, created_ms=nearest.created_ms), None


def place_of(
    services: Services, request: Request, endpoint: Endpoint, target: Target, body: bytes, engine: Engine
) -> Place | NotTried:
    """Where the question of a request to `target` is looked for and kept."""
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
        return NotTried("too_long")
    question = engine.read(parts.text)
    if question.features.too_long:
        return NotTried("too_long")
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
    return Place(engine.partition(tenant.partition, context[:CONTEXT_LENGTH]), question)


def _entry(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    body: bytes,
    engine: Engine,
    partition: bytes,
    judged: Judged,
) -> Entry | None:
    """The answer to a prompt that may be served, if it is still there and will do."""
    principal, wishes = request.principal, request.directives
    assert principal is not None
    assert wishes is not None
    if not engine.holds(partition, judged, request.wall_ms):
        return None
    entry = services.cache.get(principal.tenant.partition, judged.key)
    if entry is None or entry.created_ms != judged.created_ms:
        # Another answer may have taken its place, of which nobody knows whether it would have been kept.
        if request.wall_ms - max(judged.created_ms, entry.created_ms if entry else 0) > _SETTLES_MS:
            engine.forget(partition, judged.key)
        return None
    return told_in(endpoint, entry, body) if wishes.accept(entry, request.wall_ms) else None


def _policy(settings: ProjectSettings, wishes: Directives) -> Policy:
    """The project's, with the request's threshold where that is the stricter one."""
    least = settings.min_confidence
    floor = settings.similarity_threshold
    if wishes.threshold is not None:
        floor = wishes.threshold if floor is None else max(floor, wishes.threshold)
    return Policy(DEFAULT_MIN_CONFIDENCE if least is None else least, floor)


def _below(decision: Decision, settings: ProjectSettings) -> str:
    least = settings.min_confidence
    return "confidence" if decision.confidence < (DEFAULT_MIN_CONFIDENCE if least is None else least) else "similarity"
