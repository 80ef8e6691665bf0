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
