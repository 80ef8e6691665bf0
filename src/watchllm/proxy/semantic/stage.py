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
from watchllm.domain.settings import LEAST_CONFIDENCE, ON, ProjectSettings
from watchllm.proxy.at_hand import bring
from watchllm.proxy.directives import Directives
from watchllm.proxy.retelling import told_in
from watchllm.proxy.semantic import looked
from watchllm.proxy.semantic.asks import TOO_LONG, asks_of
from watchllm.proxy.semantic.deciders import Decider, deciders_for
from watchllm.proxy.semantic.judgement import Judgement
from watchllm.proxy.semantic.looked import Looked

if TYPE_CHECKING:
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services
    from watchllm.proxy.unanswered import Unanswered

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


def look_up(services: Services, unanswered: Unanswered) -> Entry | Coroutine[Any, Any, Entry | None] | None:
    """The stored answer to a like question, if the project has it served, and notes on the request what came of it; or
    what goes on to find it, where the event loop would feel the question's reading, its vector has to be waited for, or
    somebody is asked.

    The entry is fresh, acceptable to the request, and told in its dialect.
    """
    began = perf_counter()
    engine = services.semantic.engine
    request, endpoint, target = unanswered.request, unanswered.endpoint, unanswered.asked.target
    if engine is None:  # The process is ending.
        return _noted(services, request, began, Looked(looked.WARMING))
    asks = asks_of(services, request, endpoint, target, unanswered.body, engine)
    if isinstance(asks, NotTried):
        return _noted(services, request, began, Looked(looked.NOT_TRIED, asks.reason))
    look = _LookUp(services, unanswered, engine, asks.partition, began)
    if not engine.is_quick(asks.text):
        return look.answer_slowly(asks.text)
    return look.answer_now(engine.read(asks.text))


class _LookUp:
    """One look-up in a `partition`."""

    __slots__ = (
        "_began",
        "_brought",
        "_engine",
        "_partition",
        "_policy",
        "_request",
        "_services",
        "_tenant",
        "_unanswered",
        "_wishes",
    )

    def __init__(
        self, services: Services, unanswered: Unanswered, engine: Engine, partition: bytes, began: float
    ) -> None:
        request = unanswered.request
        principal, wishes = request.principal, request.directives
        assert principal is not None
        assert wishes is not None
        self._services = services
        self._unanswered = unanswered
        self._request = request
        self._tenant = principal.tenant
        self._wishes = wishes
        self._policy = _policy(principal.tenant.settings, wishes)
        self._engine = engine
        self._partition = partition
        self._began = began
        self._brought: set[bytes] = set()

    def answer_now(self, question: Question) -> Entry | Coroutine[Any, Any, Entry | None] | None:
        """The answer to a like question, or what waits for it."""
        try:
            return self.answer(question)
        except NotAtHand as missing:
            return self._answer_from_elsewhere(question, missing)

    async def _answer_from_elsewhere(self, question: Question, missing: NotAtHand) -> Entry | None:
        try:
            await self._bring(missing)
            found = await self._bringing(partial(self.answer, question))
        except Exception as error:  # noqa: BLE001  (as for quick ones)
            self._services.semantic.failed(self._services, self._request, error)
            return None
        return found if found is None or isinstance(found, Entry) else await found

    async def _bringing(self, find: Callable[[], _T]) -> _T:
        """What `find` finds, once all that it looks for is at hand."""
        while True:
            try:
                return find()
            except NotAtHand as missing:
                wanted = missing
            await self._bring(wanted)

    async def _bring(self, missing: NotAtHand) -> None:
        self._brought.add(missing.key)
        brought = bring(self._services, self._tenant.partition, (missing.key,))
        if brought is not None:
            await brought

    def answer(self, question: Question) -> Entry | Coroutine[Any, Any, Entry | None] | None:
        """The answer to a like question, or what waits for who is asked to know it. Raises NotAtHand."""
        finding = self._found(question)
        if finding.doubt is not None:
            asking = self._asked(finding.doubt)
            if isinstance(asking, Asking):
                return self._judged(finding, asking)
            finding.looked.reason = asking
        return self._noted(finding.looked, finding.entry)

    async def answer_slowly(self, text: str) -> Entry | None:
        """The same for a question that has to be read first."""
        try:
            question = await self._engine.read_slowly(text, self._partition)
            found = await self._bringing(partial(self.answer, question))
        except NotEmbedded as error:
            return self._noted(Looked(looked.NOT_TRIED, error.reason))
        except Exception as error:  # noqa: BLE001  (as for quick ones)
            self._services.semantic.failed(self._services, self._request, error)
            return None
        return found if found is None or isinstance(found, Entry) else await found

    def _asked(self, doubt: Doubt, reason: str = "confidence") -> Asking | str:
        """The first who can be asked about a doubt, for who waits for the answer; the reason for a miss where nobody
        can, or nobody waits: in shadow a request is not held up for what it is not served."""
        wanted = [decider for decider in doubt.deciders if decider.may_be_asked]
        stored = self._engine.text_of(doubt.entry) if wanted else ""
        if not stored:
            return reason
        entry = self._entry(doubt.entry, self._request.wall_ms)
        if entry is None:
            return "gone"
        for number, decider in enumerate(wanted, start=1):
            asked = decider.ask(doubt.pair(decider.digest), doubt.judged.decision, stored, entry)
            if isinstance(asked, str):
                reason = asked
            elif self._tenant.settings.semantic == ON:
                return Asking(decider, asked, doubt._replace(deciders=tuple(wanted[number:])))
            else:
                return decider.in_shadow
        return reason

    async def _judged(self, finding: Finding, asking: Asking) -> Entry | None:
        """Wait for what is said of a doubt, by one after the other, as long as each is worth waiting for."""
        services, engine, found = self._services, self._engine, finding.looked
        assert found.question is not None
        entry = None
        try:
            while True:
                decider, judgement, doubt = asking
                reason = await self._waited(decider, judgement)
                if reason is None or services.semantic.engine is not engine:
                    break
                following = await self._bringing(partial(self._asked, doubt, reason))
                if isinstance(following, str):
                    reason = following
                    break
                asking = following
            # What was stored may have been forgotten meanwhile.
            if reason is None and services.semantic.engine is engine:
                self._brought.clear()
                entry = await self._bringing(lambda: self._entry(doubt.entry, services.now_ms()))
            if entry is None:
                found.reason = reason or "gone"
            else:
                decision = decider.approved(doubt.judged.decision, judgement.confidence)
                approved = doubt.judged._replace(decision=decision)
                found = self._about(approved, looked.HIT, decider.name, found.question)
        except Exception as error:  # noqa: BLE001  (as above)
            services.semantic.failed(services, self._request, error)
            return None
        return self._noted(found, entry)

    async def _waited(self, decider: Decider, judgement: Judgement) -> str | None:
        asked_at = perf_counter()
        reason = await judgement.outcome(self._services.loop, decider.seconds)
        if decider.elsewhere:
            self._request.waited_for_judge += perf_counter() - asked_at
        return reason

    def _found(self, question: Question) -> Finding:
        """What the partition has for a question."""
        if question.features.too_long:
            return Finding(Looked(looked.NOT_TRIED, TOO_LONG))
        settings, policy, engine, partition = self._tenant.settings, self._policy, self._engine, self._partition
        wall_ms = self._request.wall_ms
        candidates = engine.candidates(partition, question, policy, wall_ms)
        if candidates is None:
            return Finding(Looked(looked.WARMING, "reading", None, partition, question))
        nearest: Judged | None = None
        doubt: Doubt | None = None
        refused: Judged | None = None
        reason = ""
        deciders = deciders_for(self._services, self._request, engine, policy, question)
        for judged in candidates:
            nearest = nearest or judged
            by = ""
            if deciders and judge.is_asked_about(judged.decision, policy):
                judged, by, unheard = self._remembered(deciders, judged)
                if unheard:
                    doubt = _worthier(doubt, Doubt(judged, partition, unheard))
                elif not by and not reason:
                    refused, reason = judged, deciders[-1].name
            if judged.decision.hit:
                entry = self._entry(Pair(partition, judged.key, judged.created_ms, _NO_QUESTION), wall_ms)
                if entry is not None:
                    is_on = settings.semantic == ON
                    outcome = looked.HIT if is_on else looked.SHADOW_HIT
                    return Finding(self._about(judged, outcome, by, question), entry if is_on else None)
                refused, reason = judged, "gone"
        if nearest is None:
            return Finding(Looked(looked.EMPTY, "", None, partition, question))
        about = doubt.judged if doubt is not None else refused or nearest
        reason = reason or about.decision.guard or _below(about.decision, policy)
        return Finding(self._about(about, looked.MISS, reason, question), doubt=doubt)

    def _remembered(self, deciders: tuple[Decider, ...], judged: Judged) -> tuple[Judged, str, tuple[Decider, ...]]:
        """What was said of a pair in doubt before: the hit that a yes makes of it, and whose; else as it is, "" and
        those who have not said anything."""
        unheard = []
        for decider in deciders:
            pair = Pair(self._partition, judged.key, judged.created_ms, decider.digest)
            known = self._engine.verdicts.get(pair)
            if known:
                return judged._replace(decision=decider.approved(judged.decision, None)), decider.name, ()
            if known is None:
                unheard.append(decider)
        return judged, "", tuple(unheard)

    def _about(self, judged: Judged, outcome: str, reason: str, question: Question) -> Looked:
        return Looked(
            outcome,
            reason,
            judged.decision,
            self._partition,
            question,
            key=judged.key,
            created_ms=judged.created_ms,
        )

    def _entry(self, pair: Pair, now_ms: int) -> Entry | None:
        """The answer to a prompt that may be served, if it is still there and will do."""
        engine, unanswered = self._engine, self._unanswered
        if not engine.holds(pair, now_ms):
            return None
        cache = self._services.cache
        entry = cache.get(self._tenant.partition, pair.key)
        if entry is None and cache.is_remote:
            if pair.key not in self._brought:
                raise NotAtHand(pair.key)
            return None  # It may be there all the same, where Redis could not be asked.
        if entry is None or entry.created_ms != pair.created_ms:
            # Another answer may have taken its place, of which nobody knows whether it would have been kept.
            if now_ms - max(pair.created_ms, entry.created_ms if entry else 0) > _SETTLES_MS:
                engine.forget(pair.partition, pair.key)
            return None
        if not self._wishes.accept(entry, self._request.wall_ms):
            return None
        return told_in(unanswered.endpoint, entry, unanswered.body)

    def _noted(self, found: Looked, entry: Entry | None = None) -> Entry | None:
        return _noted(self._services, self._request, self._began, found, entry)


def _noted(
    services: Services, request: Request, began: float, found: Looked, entry: Entry | None = None
) -> Entry | None:
    services.semantic.count(found.outcome, found.reason)
    found.took = perf_counter() - began
    request.looked = found
    return entry


def _worthier(one: Doubt | None, other: Doubt) -> Doubt:
    """Which of two somebody is asked about."""
    return other if one is None or other.judged.decision.confidence > one.judged.decision.confidence else one


def _policy(settings: ProjectSettings, wishes: Directives) -> Policy:
    """The project's, with the request's threshold where that is the stricter one."""
    least = settings.min_confidence
    floor = settings.similarity_threshold
    if wishes.threshold is not None:
        floor = wishes.threshold if floor is None else max(floor, wishes.threshold)
    # A project may have been given less before there was a least.
    return Policy(DEFAULT_MIN_CONFIDENCE if least is None else max(least, LEAST_CONFIDENCE), floor)


def _below(decision: Decision, policy: Policy) -> str:
    return "confidence" if decision.confidence < policy.min_confidence else "similarity"
