"""The decision: may the answer to one prompt be served for another? The proxy and `watchllm eval` both ask here."""

from typing import Final, NamedTuple

from watchllm.cache.semantic.align import Alignment, align
from watchllm.cache.semantic.comparable import comparable
from watchllm.cache.semantic.confidence import confidence, evidence
from watchllm.cache.semantic.features import Features
from watchllm.cache.semantic.guards import before_alignment, guard
from watchllm.cache.semantic.lexicon import lexicon

DEFAULT_MIN_CONFIDENCE: Final = 0.8
_MISS: Final = False


class Policy(NamedTuple):
    """What a project asks for. `similarity_threshold` is a floor beside the confidence."""

    min_confidence: float = DEFAULT_MIN_CONFIDENCE
    similarity_threshold: float | None = None


class Candidate(NamedTuple):
    """A stored prompt that the index found: its cosine similarity, and its features."""

    similarity: float
    features: Features


class Decision(NamedTuple):
    """`guard` names what said no; `reason` says in words why it is a hit or a miss. `stored_says_more`: no guard said
    no and all that differs are words that only the stored prompt has."""

    similarity: float
    confidence: float
    hit: bool
    guard: str | None
    reason: str
    stored_says_more: bool = False


DEFAULT_POLICY: Final = Policy()


def decide(
    question: Features,
    candidate: Candidate,
    policy: Policy = DEFAULT_POLICY,
    *,
    same_day: bool = True,
) -> Decision:
    """Whether the candidate's answer is served.

    `same_day` = the candidate was stored on the day of the question: what is asked of today or the latest is not
    answered from another day.
    """
    similarity, features = candidate
    name = before_alignment(question, features)
    if name is not None:
        return Decision(similarity, 0.0, hit=False, guard=name, reason=f"guard {name}")
    if question.relative_time and not same_day:
        return Decision(similarity, 0.0, hit=False, guard="relative_time", reason="stored on another day")
    known = lexicon(question.language or features.language or "en")
    question, features = comparable(question, features)
    alignment = align(question, features, known)
    name = guard(question, features, alignment, known)
    if name is not None:
        return Decision(similarity, 0.0, hit=False, guard=name, reason=f"guard {name}: {_difference(alignment)}")
    probability = confidence(evidence(question, features, alignment, similarity))
    if probability < policy.min_confidence:
        reason = f"confidence {probability:.2f} is below {policy.min_confidence:.2f}: {_difference(alignment)}"
        says_more = bool(alignment.right) and not alignment.left and not alignment.moved
        return Decision(similarity, probability, _MISS, None, reason, says_more)
    if policy.similarity_threshold is not None and similarity < policy.similarity_threshold:
        reason = f"similarity {similarity:.2f} is below {policy.similarity_threshold:.2f}"
        return Decision(similarity, probability, hit=False, guard=None, reason=reason)
    reason = "every difference is explained"
    if not alignment.explained:
        reason = f"confidence {probability:.2f} reaches {policy.min_confidence:.2f}: {_difference(alignment)}"
    return Decision(similarity, probability, hit=True, guard=None, reason=reason)


def _difference(alignment: Alignment) -> str:
    """What differs, counted and not quoted: reasons are logged, prompts are not."""
    if alignment.left or alignment.right:
        return f"{len(alignment.left)} and {len(alignment.right)} words without explanation"
    return "words in another order" if alignment.moved else "small differences"
