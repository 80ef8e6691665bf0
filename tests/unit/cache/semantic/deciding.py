"""Decisions on two prompts as the cache takes them: both read, a similarity that alone decides nothing."""

from watchllm.cache.semantic.decide import Candidate, Decision, decide
from watchllm.cache.semantic.features import features

SIMILARITY = 0.9


def decision(stored: str, asked: str, similarity: float = SIMILARITY) -> Decision:
    """What is decided when `asked` comes and the answer to `stored` is there."""
    return decide(features(asked), Candidate(similarity, features(stored)))
