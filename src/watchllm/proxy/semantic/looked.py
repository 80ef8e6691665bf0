"""What came of looking for an answer by meaning: for headers, usage event, `watchllm explain`, and for keeping it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from watchllm.cache.semantic.decide import Decision
    from watchllm.cache.semantic.engine import Question

HIT, SHADOW_HIT, MISS, EMPTY, NOT_TRIED, WARMING = "hit", "shadow-hit", "miss", "empty", "not-tried", "warming"
"""Served; would have been served; the stored ones differ; none is stored in that context; not looked for; not yet."""

BY_JUDGE, BY_CROSS_ENCODER = "judge", "cross_encoder"
"""The reason of a hit that the yes of one of them made one; of a miss that its no did."""

_SAID = {
    BY_JUDGE: "the judge said that the stored answer will not do",
    "judge_timeout": "the judge did not answer in time",
    "judge_budget": "the project's allowance for judges, or a limit that it is under, is used up",
    "judge_busy": "too many judgements were under way",
    "judge_resting": "the judge, or its provider, is left alone for a while",
    "judge_unclear": "the judge said neither yes nor no",
    "judge_failed": "there was no answer from the judge; the row of its call says why",
    "judge_long": "the stored answer is longer than a judge is shown",
    "judge_unusable": "the project's judge may not or cannot be called",
    "judge_asked": "in shadow nobody waits for the judge, which was asked",
    BY_CROSS_ENCODER: "the cross-encoder did not take the two for equal",
    "cross_encoder_timeout": "the cross-encoder was not done in time",
    "cross_encoder_busy": "too many pairs were with the cross-encoder",
    "cross_encoder_long": "the two are longer than the cross-encoder reads",
    "cross_encoder_failed": "the cross-encoder failed; health says how",
    "cross_encoder_asked": "in shadow nobody waits for the cross-encoder, which was asked",
    "gone": "the stored answer is there no longer, or not for this request",
}


def because(outcome: str, reason: str, decided: str) -> str:
    """Why that came of it, in words: who said no last, and what was `decided` before anybody was asked."""
    said = _SAID.get(reason) if outcome == MISS else None
    return decided if said is None else f"{said}; before that: {decided}"


class Looked(msgspec.Struct):
    """`reason` says in a word what said no: the guard's name, `confidence`, `similarity`, `gone` (its answer is) or why
    it was not tried. `decision` is about the one that is served or, where none is, about the nearest; `key` and
    `created_ms` are its entry's.

    `partition` and `question` are what the answer is kept under later, None = nowhere. `took` in seconds.
    """

    outcome: str
    reason: str = ""
    decision: Decision | None = None
    partition: bytes | None = None
    question: Question | None = None
    took: float = 0.0
    key: bytes | None = None
    created_ms: int = 0

    def without_question(self) -> Looked:
        """A copy that may be kept: it holds nothing of what was asked."""
        return Looked(self.outcome, self.reason, self.decision, key=self.key, created_ms=self.created_ms)
