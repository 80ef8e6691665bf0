"""Who may be asked about a pair in doubt, in which order: the instance's cross-encoder, which costs nothing but time;
then the project's judge. A yes of either will do; what one does not say yes to, the next is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from watchllm.cache.entry import Entry
from watchllm.cache.semantic import cross_encoder, judge, verdicts
from watchllm.cache.semantic.decide import Decision, Policy
from watchllm.cache.semantic.engine import Engine, Question
from watchllm.cache.semantic.verdicts import Pair
from watchllm.domain.settings import ON
from watchllm.proxy.semantic import cross_encoding, judging
from watchllm.proxy.semantic.answer_text import answer_text
from watchllm.proxy.semantic.judgement import Judgement
from watchllm.proxy.semantic.looked import BY_CROSS_ENCODER, BY_JUDGE

if TYPE_CHECKING:
    from watchllm.proxy.request import Request
    from watchllm.proxy.services import Services

_MAX_BODY: Final = 128 << 10
"""Bytes of an answer that is read for a judge, in well under a millisecond."""


class Decider(Protocol):
    """For one look-up. `name` is the reason of its yes and of its no, `in_shadow` of a miss where nobody waits for it;
    `digest` stands for the question beside its verdicts. `seconds`: how long is waited for one, of which nothing counts
    as the gateway's own time where it is `elsewhere`."""

    name: str
    in_shadow: str
    elsewhere: bool
    digest: bytes
    seconds: float

    @property
    def may_be_asked(self) -> bool:
        """Whether this request may give rise to a verdict; what is remembered always counts."""
        ...

    def ask(self, pair: Pair, decision: Decision, stored: str, entry: Entry) -> Judgement | str:
        """Find out whether the answer `entry` to the question `stored` will do; the reason where that cannot be."""
        ...

    def approved(self, decision: Decision, confidence: float | None) -> Decision:
        """The decision after a yes, whose confidence is known unless it is only remembered."""
        ...


def deciders_for(
    services: Services, request: Request, engine: Engine, policy: Policy, question: Question
) -> tuple[Decider, ...]:
    """Those of the request's project that can be shown the question."""
    assert request.principal is not None
    settings = request.principal.tenant.settings
    encoding = engine.cross_encoding if settings.cross_encoder else None
    version = None if encoding is None else encoding.version
    if (version is None and settings.judge_model is None) or not judge.can_be_shown(question.text):
        return ()
    found: list[Decider] = []
    if version is not None:
        found.append(_CrossEncoder(services, request, engine, policy, question, version))
    if settings.judge_model is not None:
        found.append(_Judge(services, request, question))
    return tuple(found)


class _CrossEncoder:
    name = BY_CROSS_ENCODER
    in_shadow = cross_encoding.SHADOW
    elsewhere = False
    may_be_asked = True

    def __init__(
        self,
        services: Services,
        request: Request,
        engine: Engine,
        policy: Policy,
        question: Question,
        version: str,
    ) -> None:
        encoding = engine.cross_encoding
        assert encoding is not None
        self._services = services
        self._engine = engine
        self._least = policy.min_confidence
        self._text = question.text
        self.digest = cross_encoder.digest_of(question.text, version, encoding.calibration, policy.min_confidence)
        self.seconds = _within(request, encoding.seconds)

    def ask(self, pair: Pair, decision: Decision, stored: str, entry: Entry) -> Judgement | str:
        readings = self._services.cross_readings
        if readings is None:
            readings = self._services.cross_readings = cross_encoding.CrossReadings(self._services)
        return readings.ask(self._engine, pair, stored, self._text, decision.confidence, self._least)

    def approved(self, decision: Decision, confidence: float | None) -> Decision:
        # What is remembered is the yes: the confidence was that high at least.
        return cross_encoder.approved(decision, self._least if confidence is None else confidence)


class _Judge:
    name = BY_JUDGE
    in_shadow = judging.SHADOW
    elsewhere = True

    def __init__(self, services: Services, request: Request, question: Question) -> None:
        self._services = services
        self._request = request
        self._text = question.text
        assert request.principal is not None
        settings = request.principal.tenant.settings
        assert settings.judge_model is not None
        self.digest = verdicts.digest_of(question.text, settings.judge_model)
        self._is_wanted = settings.semantic == ON or settings.judge_in_shadow
        self.seconds = _within(request, settings.judge_timeout_ms / 1e3)

    @property
    def may_be_asked(self) -> bool:
        assert self._request.directives is not None
        return self._is_wanted and not self._request.directives.only_if_cached

    def ask(self, pair: Pair, decision: Decision, stored: str, entry: Entry) -> Judgement | str:
        services = self._services
        answer = answer_text(entry) if len(entry.body) <= _MAX_BODY else None
        if answer is None or len(answer) > judge.MAX_ANSWER:
            return judging.TOO_LONG
        if services.judges is None:
            services.judges = judging.Judges(services)
        return services.judges.ask(self._request, pair, stored, self._text, answer)

    def approved(self, decision: Decision, confidence: float | None) -> Decision:
        return judge.approved(decision)


def _within(request: Request, seconds: float) -> float:
    """So long, unless the request has less time."""
    assert request.directives is not None
    given = request.directives.timeout
    return seconds if given is None else min(seconds, given)
