"""Looks for an answer by meaning, when there is none to the very same question."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from watchllm.cache.entry import Entry
from watchllm.cache.semantic import judge
from watchllm.cache.semantic.awaited import NotEmbedded
from watchllm.cache.semantic.decide import DEFAULT_MIN_CONFIDENCE, Decision, Policy
from watchllm.cache.semantic.engine import Engine, Judged, Question
from watchllm.cache.semantic.question import NotTried
from watchllm.cache.semantic.verdicts import Pair
from watchllm.domain.settings import ON, ProjectSettings
from watchllm.providers.endpoints import Endpoint
from watchllm.proxy.at_hand import bring
from watchllm.proxy.directives import Directives
from watchllm.proxy.retelling import told_in
from watchllm.proxy.semantic import looked
from watchllm.proxy.semantic.asks import TOO_LONG, Asks, asks_of
from watchllm.proxy.semantic.deciders import Decider, deciders_for
from watchllm.proxy.semantic.judgement import Judgement
from watchllm.proxy.semantic.looked import Looked

if TYPE_CHECKING:
    from watchllm.proxy.asked import Asked
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services

_T = TypeVar("_T")

# A vector may come to another process before its answer does: such a one is not lost.
_SETTLES_MS = 10_000
# Names the entry of a pair, whatever the question is.
_NO_QUESTION = b""


class Doubt(NamedTuple):
    """A stored prompt, and who has not said anything of it yet, in the order in which they are asked."""

    judged: Judged
    partition: bytes
    deciders: tuple[Decider, ...]

    @property
    def entry(self) -> Pair:
        return self.pair(_NO_QUESTION)

    def pair(self, question: bytes) -> Pair:
        return Pair(self.partition, self.judged.key, self.judged.created_ms, question)


class Asking(NamedTuple):
    """A decider's answer that is waited for; `doubt` has those who are asked next."""

    decider: Decider
    judgement: Judgement
    doubt: Doubt


class Finding(NamedTuple):
    """What a partition has for a question; `entry` only where it is served, `doubt` only where it is none."""

    looked: Looked
    entry: Entry | None = None
    doubt: Doubt | None = None


class NotAtHand(Exception):
    """An answer that is wanted has to be fetched from the shared cache first."""

    def __init__(self, key: bytes) -> None:
        self.key = key


def look_up(
    services: Services, request: Request, endpoint: Endpoint, asked: Asked, body: bytes
) -> Entry | Coroutine[Any, Any, Entry | None] | None:
    """The stored answer to a like question, if the project has it served, and notes on the request what came of it; or
    what goes on to find it, where the event loop would feel the question's reading, its vector has to be waited for, or
    somebody is asked.

    The entry is fresh, acceptable to the request, and told in its dialect.
    """
    try:
        return _look_up(services, request, endpoint, asked, body)
    except NotAtHand as missing:
        return _look_up_elsewhere(services, request, endpoint, asked, body, missing)


async def _look_up_elsewhere(
    services: Services, request: Request, endpoint: Endpoint, asked: Asked, body: bytes, missing: NotAtHand
) -> Entry | None:
    """As `look_up`, where the answer is not at hand yet. The question is read again: cheaper than the round trip."""
    await _bring(services, request, missing)
    found = await _bringing(services, request, lambda: _look_up(services, request, endpoint, asked, body))
    return await found if isinstance(found, Coroutine) else found


async def _bringing(services: Services, request: Request, find: Callable[[], _T]) -> _T:
    """What `find` finds, once all that it looks for is at hand."""
    while True:
        try:
            return find()
        except NotAtHand as missing:
            wanted = missing
        await _bring(services, request, wanted)


async def _bring(services: Services, request: Request, missing: NotAtHand) -> None:
    assert request.principal is not None
    request.brought = (*request.brought, missing.key)
    brought = bring(services, request.principal.tenant.partition, (missing.key,))
    if brought is not None:
        await brought


def _look_up(
    services: Services, request: Request, endpoint: Endpoint, asked: Asked, body: bytes
) -> Entry | Coroutine[Any, Any, Entry | None] | None:
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
        asking = _asked(services, request, endpoint, body, engine, finding.doubt, question)
        if isinstance(asking, Asking):
            return _judged(services, request, endpoint, body, engine, finding, asking, began)
        finding.looked.reason = asking
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
        finding = await _bringing(
            services,
            request,
            lambda: _found(services, request, endpoint, body, engine, asks.partition, question),
        )
        doubt = finding.doubt
        if doubt is not None:
            asking = await _bringing(
                services, request, lambda: _asked(services, request, endpoint, body, engine, doubt, question)
            )
            if isinstance(asking, Asking):
                return await _judged(services, request, endpoint, body, engine, finding, asking, began)
            finding.looked.reason = asking
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
    reason: str = "confidence",
) -> Asking | str:
    """The first who can be asked about a doubt, for who waits for the answer; the reason for a miss where nobody can,
    or nobody waits: in shadow a request is not held up for what it is not served."""
    assert request.principal is not None
    wanted = [decider for decider in doubt.deciders if decider.may_be_asked]
    stored = engine.text_of(doubt.entry) if wanted else ""
    if not stored:
        return reason
    entry = _entry(services, request, endpoint, body, engine, doubt.entry, request.wall_ms)
    if entry is None:
        return "gone"
    for number, decider in enumerate(wanted, start=1):
        asked = decider.ask(doubt.pair(decider.digest), doubt.judged.decision, stored, entry)
        if isinstance(asked, str):
            reason = asked
        elif request.principal.tenant.settings.semantic == ON:
            return Asking(decider, asked, doubt._replace(deciders=tuple(wanted[number:])))
        else:
            return decider.in_shadow
    return reason


async def _judged(
    services: Services,
    request: Request,
    endpoint: Endpoint,
    body: bytes,
    engine: Engine,
    finding: Finding,
    asking: Asking,
    began: float,
) -> Entry | None:
    """Wait for what is said of a doubt, by one after the other, as long as each is worth waiting for."""
    found = finding.looked
    partition, question = found.partition, found.question
    assert partition is not None
    assert question is not None
    entry = None
    try:
        while True:
            decider, judgement, doubt = asking
            reason = await _waited(services, request, decider, judgement)
            if reason is None or services.semantic.engine is not engine:
                break
            ask_next = partial(_asked, services, request, endpoint, body, engine, doubt, question, reason)
            following = await _bringing(services, request, ask_next)
            if isinstance(following, str):
                reason = following
                break
            asking = following
        # What was stored may have been forgotten meanwhile.
        if reason is None and services.semantic.engine is engine:
            request.brought = ()
            entry = await _bringing(
                services,
                request,
                lambda: _entry(services, request, endpoint, body, engine, doubt.entry, services.now_ms()),
            )
        if entry is None:
            found.reason = reason or "gone"
        else:
            decision = decider.approved(doubt.judged.decision, judgement.confidence)
            approved = doubt.judged._replace(decision=decision)
            found = _about(approved, looked.HIT, decider.name, partition, question)
    except Exception as error:  # noqa: BLE001  (as above)
        services.semantic.failed(services, request, error)
        return None
    return _noted(services, request, began, found, entry)


async def _waited(services: Services, request: Request, decider: Decider, judgement: Judgement) -> str | None:
    asked_at = perf_counter()
    reason = await judgement.outcome(services.loop, decider.seconds)
    if decider.elsewhere:
        request.waited_for_judge += perf_counter() - asked_at
    return reason


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
    deciders = deciders_for(services, request, engine, policy, question)
    for judged in candidates:
        nearest = nearest or judged
        by = ""
        if deciders and judge.is_asked_about(judged.decision, policy):
            judged, by, unheard = _remembered(engine, deciders, partition, judged)
            if unheard:
                doubt = _worthier(doubt, Doubt(judged, partition, unheard))
            elif not by:
                reason = reason or deciders[-1].name
        if judged.decision.hit:
            place = Pair(partition, judged.key, judged.created_ms, _NO_QUESTION)
            entry = _entry(services, request, endpoint, body, engine, place, request.wall_ms)
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


def _remembered(
    engine: Engine, deciders: tuple[Decider, ...], partition: bytes, judged: Judged
) -> tuple[Judged, str, tuple[Decider, ...]]:
    """What was said of a pair in doubt before: the hit that a yes makes of it, and whose; else as it is, "" and those
    who have not said anything."""
    unheard = []
    for decider in deciders:
        known = engine.verdicts.get(Pair(partition, judged.key, judged.created_ms, decider.digest))
        if known:
            return judged._replace(decision=decider.approved(judged.decision, None)), decider.name, ()
        if known is None:
            unheard.append(decider)
    return judged, "", tuple(unheard)


def _worthier(one: Doubt | None, other: Doubt) -> Doubt:
    """Which of two somebody is asked about."""
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
    cache = services.cache
    entry = cache.get(principal.tenant.partition, pair.key)
    if entry is None and cache.is_remote:
        if pair.key not in request.brought:
            raise NotAtHand(pair.key)
        return None  # It may be there all the same, where Redis could not be asked.
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
