"""Looks for an answer by meaning, when there is none to the very same question."""

from __future__ import annotations

from collections.abc import Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from watchllm.cache.entry import Entry
from watchllm.cache.semantic import judge
from watchllm.cache.semantic.awaited import NotEmbedded
from watchllm.cache.semantic.decide import DEFAULT_MIN_CONFIDENCE, Decision, Policy
from watchllm.cache.semantic.engine import Engine, Judged, Question
from watchllm.cache.semantic.question import NotTried
from watchllm.cache.semantic.verdicts import Pair, digest_of
from watchllm.domain.settings import ON, ProjectSettings
from watchllm.providers.endpoints import Endpoint
from watchllm.proxy.directives import Directives
from watchllm.proxy.retelling import told_in
from watchllm.proxy.semantic import judging, looked
from watchllm.proxy.semantic.answer_text import answer_text
from watchllm.proxy.semantic.asks import TOO_LONG, Asks, asks_of
from watchllm.proxy.semantic.looked import Looked

if TYPE_CHECKING:
    from watchllm.proxy.asked import Asked
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services

# A vector may come to another process before its answer does: such a one is not lost.
_SETTLES_MS = 10_000


class Doubt(NamedTuple):
    """A stored prompt that a judge may be asked about."""

    judged: Judged
    pair: Pair


class Finding(NamedTuple):
    """What a partition has for a question; `entry` only where it is served, `doubt` only where it is none."""

    looked: Looked
    entry: Entry | None = None
    doubt: Doubt | None = None


def look_up(
    services: Services, request: Request, endpoint: Endpoint, asked: Asked, body: bytes
) -> Entry | Coroutine[Any, Any, Entry | None] | None:
    """The stored answer to a like question, if the project has it served, and notes on the request what came of it; or
    what goes on to find it, where the event loop would feel the question's reading, its vector has to be waited for, or
    a judge is asked.

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
    question = engine.read(asks.text)
    finding = _found(services, request, endpoint, body, engine, asks.partition, question)
    if finding.doubt is not None:
        reason = _asked(services, request, endpoint, body, engine, finding.doubt, question)
        if isinstance(reason, judging.Judgement):
            return _judged(services, request, endpoint, body, engine, finding, reason, began)
        finding.looked.reason = reason
    return _noted(services, request, began, finding.looked, finding.entry)


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
        question = await engine.read_slowly(asks.text, asks.partition)
        finding = _found(services, request, endpoint, body, engine, asks.partition, question)
        if finding.doubt is not None:
            reason = _asked(services, request, endpoint, body, engine, finding.doubt, question)
            if isinstance(reason, judging.Judgement):
                return await _judged(services, request, endpoint, body, engine, finding, reason, began)
            finding.looked.reason = reason
    except NotEmbedded as error:
        return _noted(services, request, began, Looked(looked.NOT_TRIED, error.reason))
    except Exception as error:  # noqa: BLE001  (as for quick ones)
        services.semantic.failed(services, request, error)
        return None
    return _noted(services, request, began, finding.looked, finding.entry)


def _asked(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    body: bytes,
    engine: Engine,
    doubt: Doubt,
    question: Question,
) -> judging.Judgement | str:
    """The judge's call about a pair, for who waits for it; the reason for a miss where none was made, or nobody waits:
    in shadow a request is not held up for what it is not served."""
    principal, wishes = request.principal, request.directives
    assert principal is not None
    assert wishes is not None
    settings = principal.tenant.settings
    is_on = settings.semantic == ON
    stored = engine.text_of(doubt.pair)
    if wishes.only_if_cached or not stored or not (is_on or settings.judge_in_shadow):
        return "confidence"
    entry = _entry(services, request, endpoint, body, engine, doubt.pair, request.wall_ms)
    if entry is None:
        return "gone"
    if services.judges is None:
        services.judges = judging.Judges(services)
    asked = services.judges.ask(request, doubt.pair, stored, question.text, answer_text(entry))
    return judging.SHADOW if isinstance(asked, judging.Judgement) and not is_on else asked


async def _judged(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    body: bytes,
    engine: Engine,
    finding: Finding,
    judgement: judging.Judgement,
    began: float,
) -> Entry | None:
    """Wait for what a judge says of a doubt, as long as the project and the request allow."""
    principal, wishes, doubt = request.principal, request.directives, finding.doubt
    assert principal is not None
    assert wishes is not None
    assert doubt is not None
    seconds = principal.tenant.settings.judge_timeout_ms / 1e3
    if wishes.timeout is not None:
        seconds = min(seconds, wishes.timeout)
    asked_at = perf_counter()
    try:
        reason = await judgement.outcome(services.loop, seconds)
        request.waited_for_judge = perf_counter() - asked_at
        found = finding.looked
        # What was stored may have been forgotten meanwhile.
        entry = None
        if reason is None and services.semantic.engine is engine:
            entry = _entry(services, request, endpoint, body, engine, doubt.pair, services.now_ms())
        if entry is None:
            found.reason = reason or "gone"
        else:
            assert found.partition is not None
            assert found.question is not None
            approved = doubt.judged._replace(decision=judge.approved(doubt.judged.decision))
            found = _about(approved, looked.HIT, looked.BY_JUDGE, found.partition, found.question)
    except Exception as error:  # noqa: BLE001  (as above)
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
) -> Finding:
    """What a partition has for a question."""
    if question.features.too_long:
        return Finding(Looked(looked.NOT_TRIED, TOO_LONG))
    wishes, principal = request.directives, request.principal
    assert wishes is not None
    assert principal is not None
    settings = principal.tenant.settings
    policy = _policy(settings, wishes)
    candidates = engine.candidates(partition, question, policy, request.wall_ms)
    if candidates is None:
        return Finding(Looked(looked.WARMING, "reading", None, partition, question))
    nearest: Judged | None = None
    doubt: Doubt | None = None
    reason = ""
    has_judge = settings.judge_model is not None and judge.can_be_shown(question.text)
    digest = digest_of(question.text) if has_judge else b""
    for judged in candidates:
        nearest = nearest or judged
        pair = Pair(partition, judged.key, judged.created_ms, digest)
        by = ""
        if has_judge and judge.is_asked_about(judged.decision, policy):
            known = engine.verdicts.get(pair)
            if known:
                judged, by = judged._replace(decision=judge.approved(judged.decision)), looked.BY_JUDGE
            elif known is None:
                doubt = _worthier(doubt, Doubt(judged, pair))
            else:
                reason = reason or judging.NO
        if judged.decision.hit:
            entry = _entry(services, request, endpoint, body, engine, pair, request.wall_ms)
            if entry is not None:
                is_on = settings.semantic == ON
                outcome = looked.HIT if is_on else looked.SHADOW_HIT
                return Finding(_about(judged, outcome, by, partition, question), entry if is_on else None)
            reason = "gone"
    if nearest is None:
        return Finding(Looked(looked.EMPTY, "", None, partition, question))
    about = nearest if doubt is None else doubt.judged
    reason = reason or about.decision.guard or _below(about.decision, settings)
    return Finding(_about(about, looked.MISS, reason, partition, question), doubt=doubt)


def _worthier(one: Doubt | None, other: Doubt) -> Doubt:
    """Which of two a judge is asked about."""
    return other if one is None or other.judged.decision.confidence > one.judged.decision.confidence else one


def _about(judged: Judged, outcome: str, reason: str, partition: bytes, question: Question) -> Looked:
    return Looked(outcome, reason, judged.decision, partition, question, key=judged.key, created_ms=judged.created_ms)


def _entry(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    body: bytes,
    engine: Engine,
    pair: Pair,
    now_ms: int,
) -> Entry | None:
    """The answer to a prompt that may be served, if it is still there and will do."""
    principal, wishes = request.principal, request.directives
    assert principal is not None
    assert wishes is not None
    if not engine.holds(pair, now_ms):
        return None
    entry = services.cache.get(principal.tenant.partition, pair.key)
    if entry is None or entry.created_ms != pair.created_ms:
        # Another answer may have taken its place, of which nobody knows whether it would have been kept.
        if now_ms - max(pair.created_ms, entry.created_ms if entry else 0) > _SETTLES_MS:
            engine.forget(pair.partition, pair.key)
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
