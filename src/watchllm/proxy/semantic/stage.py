"""Looks for an answer by meaning, when there is none to the very same question."""

from __future__ import annotations

from collections.abc import Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any

from watchllm.cache.entry import Entry
from watchllm.cache.semantic.awaited import NotEmbedded
from watchllm.cache.semantic.decide import DEFAULT_MIN_CONFIDENCE, Decision, Policy
from watchllm.cache.semantic.engine import Engine, Judged, Question
from watchllm.cache.semantic.question import NotTried
from watchllm.domain.settings import ON, ProjectSettings
from watchllm.providers.endpoints import Endpoint
from watchllm.proxy.directives import Directives
from watchllm.proxy.retelling import told_in
from watchllm.proxy.semantic import looked
from watchllm.proxy.semantic.asks import TOO_LONG, Asks, asks_of
from watchllm.proxy.semantic.looked import Looked

if TYPE_CHECKING:
    from watchllm.proxy.asked import Asked
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services

# A vector may come to another process before its answer does: such a one is not lost.
_SETTLES_MS = 10_000


def look_up(
    services: Services, request: Request, endpoint: Endpoint, asked: Asked, body: bytes
) -> Entry | Coroutine[Any, Any, Entry | None] | None:
    """The stored answer to a like question, if the project has it served, and notes on the request what came of it; or
    what goes on to find it, where the event loop would feel the question's reading, or its vector has to be waited for.

    The entry is fresh, acceptable to the request, and told in its dialect.
    """
    began = perf_counter()
    engine = services.semantic.engine
    if engine is None:  # The process is ending.
        return _noted(services, request, began, Looked(looked.WARMING))
    asks = asks_of(services, request, endpoint, asked.target, body, engine)
    if isinstance(asks, NotTried):
        return _noted(services, request, began, Looked(looked.NOT_TRIED, asks.reason))
    if not engine.is_quick(asks.text):
        return _look_up_slowly(services, request, endpoint, body, engine, asks, began)
    found, entry = _found(services, request, endpoint, body, engine, asks.partition, engine.read(asks.text))
    return _noted(services, request, began, found, entry)


async def _look_up_slowly(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    body: bytes,
    engine: Engine,
    asks: Asks,
    began: float,
) -> Entry | None:
    try:
        question = await engine.read_slowly(asks.text)
        found, entry = _found(services, request, endpoint, body, engine, asks.partition, question)
    except NotEmbedded as error:
        return _noted(services, request, began, Looked(looked.NOT_TRIED, error.reason))
    except Exception as error:  # noqa: BLE001  (as for quick ones)
        services.semantic.failed(services, request, error)
        return None
    return _noted(services, request, began, found, entry)


def _noted(
    services: Services, request: Request, began: float, found: Looked, entry: Entry | None = None
) -> Entry | None:
    services.semantic.count(found.outcome, found.reason)
    found.took = perf_counter() - began
    request.looked = found
    return entry


def _found(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    body: bytes,
    engine: Engine,
    partition: bytes,
    question: Question,
) -> tuple[Looked, Entry | None]:
    """What a partition has for a question; the entry only where it is served."""
    if question.features.too_long:
        return Looked(looked.NOT_TRIED, TOO_LONG), None
    wishes, principal = request.directives, request.principal
    assert wishes is not None
    assert principal is not None
    settings = principal.tenant.settings
    candidates = engine.candidates(partition, question, _policy(settings, wishes), request.wall_ms)
    if candidates is None:
        return Looked(looked.WARMING, "reading", None, partition, question), None
    nearest: Judged | None = None
    is_gone = False
    for judged in candidates:
        nearest = nearest or judged
        if judged.decision.hit:
            entry = _entry(services, request, endpoint, body, engine, partition, judged)
            if entry is not None:
                is_on = settings.semantic == ON
                outcome = looked.HIT if is_on else looked.SHADOW_HIT
                return _about(judged, outcome, "", partition, question), entry if is_on else None
            is_gone = True
    if nearest is None:
        return Looked(looked.EMPTY, "", None, partition, question), None
    reason = "gone" if is_gone else nearest.decision.guard or _below(nearest.decision, settings)
    return _about(nearest, looked.MISS, reason, partition, question), None


def _about(judged: Judged, outcome: str, reason: str, partition: bytes, question: Question) -> Looked:
    return Looked(outcome, reason, judged.decision, partition, question, key=judged.key, created_ms=judged.created_ms)


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
