"""What a decision says of itself."""

from tests.unit.cache.semantic.deciding import SIMILARITY
from watchllm.cache.semantic.decide import Candidate, Decision, Policy, decide
from watchllm.cache.semantic.features import features


def decided(stored: str, asked: str, least: float) -> Decision:
    return decide(features(asked), Candidate(SIMILARITY, features(stored)), Policy(least))


def test_a_hit_whose_differences_are_explained_says_so() -> None:
    hit = decided("How do I reset my password?", "How can I reset my password?", 0.8)
    assert (hit.hit, hit.reason) == (True, "every difference is explained")


def test_a_hit_by_confidence_does_not_claim_that_all_is_explained() -> None:
    hit = decided("How do I open the gate of the garden?", "How do I open the gate of the garden quickly?", 0.0)
    assert (hit.hit, hit.guard) == (True, None)
    assert hit.reason == f"confidence {hit.confidence:.2f} reaches 0.00: 1 and 0 words without explanation"


def test_what_only_the_stored_prompt_says_is_told_from_what_only_the_question_does() -> None:
    plain, longer = "How do I open the gate?", "How do I open the gate through the old console?"
    assert decided(longer, plain, 0.8).stored_says_more
    assert not decided(plain, longer, 0.8).stored_says_more
    assert not decided("How do I open the door?", "How do I open the gate?", 0.8).stored_says_more
