"""What a cross-encoder's numbers are worth, how that is found out, and how it is asked without being waited for."""

import asyncio
import math
import random
import threading
from collections.abc import Callable

import pytest

from watchllm.cache.semantic.calibrating import LEAST_OF_EACH, Reading, fitted, ranked_right
from watchllm.cache.semantic.cross_encoder import (
    AS_IT_COMES,
    Calibration,
    CrossEncoderUnavailable,
    approved,
    digest_of,
    lifted,
)
from watchllm.cache.semantic.cross_encoding import CrossEncoding
from watchllm.cache.semantic.decide import Decision
from watchllm.cache.semantic.verdicts import digest_of as judges_digest_of

PROJECT, OTHER = b"p" * 16, b"o" * 16


class Scripted:
    """Stands for the model where only its being asked matters; `gate` holds it up."""

    version = "scripted"

    def __init__(self, answer: Callable[[], float | None] = lambda: 1.0) -> None:
        self.answer = answer
        self.gate = threading.Event()
        self.gate.set()

    def logit(self, stored: str, asked: str) -> float | None:
        assert self.gate.wait(10)
        return self.answer()


def encoding_of(model: Scripted, *, seconds: float = 60.0, most: int = 16) -> CrossEncoding:
    encoding = CrossEncoding(lambda: model, seconds=seconds, most_under_way=most)
    encoding.start()
    return encoding


async def ready(encoding: CrossEncoding) -> None:
    async with asyncio.timeout(10):
        while encoding.is_loading:
            await asyncio.sleep(0.001)


def test_what_it_says_moves_the_confidence_by_bayes_rule() -> None:
    assert lifted(0.2, 0.0, AS_IT_COMES) == pytest.approx(0.2)
    assert lifted(0.2, math.log(4), AS_IT_COMES) == pytest.approx(0.5)
    assert lifted(0.2, 100.0, Calibration(0.5, math.log(4) - 50.0)) == pytest.approx(0.5)
    assert lifted(0.5, -3.0, AS_IT_COMES) == pytest.approx(1 / (1 + math.exp(3)))


@pytest.mark.parametrize(("confidence", "logit"), [(0.0, 1e308), (1.0, -1e308), (0.0, -1e308), (1.0, 1e308)])
def test_what_is_certain_stays_a_probability(confidence: float, logit: float) -> None:
    assert 0.0 <= lifted(confidence, logit, AS_IT_COMES) <= 1.0


def test_its_yes_is_told_with_its_confidence() -> None:
    decision = approved(Decision(0.9, 0.3, hit=False, guard=None, reason="confidence"), 0.93)
    assert (decision.hit, decision.confidence, decision.similarity) == (True, 0.93, 0.9)
    assert "cross-encoder" in decision.reason


def test_a_verdict_is_of_one_question_model_calibration_and_bound() -> None:
    digests = {
        digest_of("What is it?", "m", AS_IT_COMES, 0.8),
        digest_of("What is it ?", "m", AS_IT_COMES, 0.8),
        digest_of("What is it?", "n", AS_IT_COMES, 0.8),
        digest_of("What is it?", "m", Calibration(1.0, 0.1), 0.8),
        digest_of("What is it?", "m", AS_IT_COMES, 0.9),
        judges_digest_of("What is it?", "m"),
    }
    assert len(digests) == 6
    assert {len(digest) for digest in digests} == {16}
    assert digest_of("What is it?", "m", AS_IT_COMES, 0.8) in digests


def readings(slope: float, intercept: float, count: int = 4_000) -> list[Reading]:
    """Pairs of which those are equal that the calibration says are, as often as it says."""
    chance = random.Random(5)
    found = []
    for _ in range(count):
        confidence, logit = chance.uniform(0.05, 0.8), chance.uniform(-8, 8)
        equal = chance.random() < lifted(confidence, logit, Calibration(slope, intercept))
        found.append(Reading(confidence, logit, equal))
    return found


def test_the_calibration_is_found_from_labelled_pairs() -> None:
    found = fitted(readings(0.6, -1.5))
    assert found is not None
    assert found.slope == pytest.approx(0.6, abs=0.05)
    assert found.intercept == pytest.approx(-1.5, abs=0.15)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_the_numbers_does_not_matter(scale: float) -> None:
    plain = fitted(readings(0.6, -1.5))
    other = fitted([one._replace(logit=one.logit * scale) for one in readings(0.6, -1.5)])
    assert plain is not None
    assert other == (pytest.approx(plain.slope / scale), pytest.approx(plain.intercept))


def test_pairs_that_can_be_told_apart_without_fault_have_a_calibration_too() -> None:
    found = fitted([Reading(0.3, 5.0 if number % 2 else -5.0, bool(number % 2)) for number in range(60)])
    assert found is not None
    assert lifted(0.3, 5.0, found) == pytest.approx(31 / 32, abs=0.01)
    assert lifted(0.3, -5.0, found) == pytest.approx(1 / 32, abs=0.01)


def test_numbers_that_tell_nothing_or_the_opposite_have_none() -> None:
    assert fitted(readings(-0.6, 0.0)) is None
    assert fitted([Reading(0.3, 2.0, bool(number % 2)) for number in range(60)]) is None


def test_too_few_of_a_kind_are_not_fitted() -> None:
    few = [Reading(0.3, 3.0, True)] * (LEAST_OF_EACH - 1) + [Reading(0.3, -3.0, False)] * 100
    assert fitted(few) is None
    assert fitted([*few, Reading(0.3, 3.0, True)]) is not None


def test_how_often_an_equal_pair_is_ranked_first() -> None:
    pairs = [Reading(0.3, logit, equal) for logit, equal in ((3, True), (1, True), (2, False), (1, False))]
    assert ranked_right(pairs) == pytest.approx((2 + 0.5) / 4)
    assert ranked_right(pairs[:2]) is None


def test_it_is_of_no_use_before_it_is_loaded() -> None:
    loads = threading.Event()
    model = Scripted()

    def load() -> Scripted:
        assert loads.wait(10)
        return model

    async def ask() -> None:
        encoding = CrossEncoding(load, seconds=60.0)
        assert (encoding.version, encoding.is_loading, encoding.read("a", "b", PROJECT)) == (None, False, None)
        encoding.start()
        assert (encoding.version, encoding.is_loading, encoding.read("a", "b", PROJECT)) == (None, True, None)
        assert encoding.problem is None
        loads.set()
        await ready(encoding)
        assert (encoding.version, await encoding.read("a", "b", PROJECT)) == ("scripted", 1.0)
        encoding.close()

    asyncio.run(ask())


@pytest.mark.parametrize("error", [CrossEncoderUnavailable("no such folder"), OSError("no such folder")])
def test_one_that_cannot_be_loaded_is_told(error: Exception) -> None:
    def load() -> Scripted:
        raise error

    async def ask() -> None:
        encoding = CrossEncoding(load, seconds=60.0)
        encoding.start()
        await ready(encoding)
        assert (encoding.version, encoding.read("a", "b", PROJECT)) == (None, None)
        assert "no such folder" in (encoding.problem or "")
        encoding.close()

    asyncio.run(ask())


def test_the_loop_goes_on_while_it_reads_and_so_many_wait_at_most() -> None:
    async def ask() -> None:
        model = Scripted()
        encoding = encoding_of(model, most=4)
        await ready(encoding)
        model.gate.clear()
        one, two = encoding.read("a", "b", PROJECT), encoding.read("a", "c", PROJECT)
        assert one is not None
        assert two is not None
        assert encoding.read("a", "d", PROJECT) is None
        other = encoding.read("a", "d", OTHER)
        assert other is not None
        await asyncio.sleep(0)  # the loop turns, the model does not answer
        assert not one.done()
        model.gate.set()
        assert await asyncio.gather(one, two, other) == [1.0, 1.0, 1.0]
        third = encoding.read("a", "d", PROJECT)
        assert third is not None
        assert await third == 1.0
        assert encoding.counted == {"read": 4}
        encoding.close()

    asyncio.run(ask())


def test_what_fails_or_comes_late_is_told_until_one_is_in_time() -> None:
    async def ask() -> None:
        model = Scripted(lambda: 1 / 0)
        encoding = encoding_of(model)
        await ready(encoding)
        failed = encoding.read("a", "b", PROJECT)
        assert failed is not None
        with pytest.raises(ZeroDivisionError):
            await failed
        assert "ZeroDivisionError" in (encoding.problem or "")
        model.answer = lambda: None
        encoding.seconds = 0.0
        assert await (encoding.read("a", "b", PROJECT) or failed) is None
        assert "took longer than 0 ms" in (encoding.problem or "")
        encoding.seconds = 60.0
        assert await (encoding.read("a", "b", PROJECT) or failed) is None
        assert encoding.problem is None
        assert encoding.counted == {"failed": 1, "too_long": 2}
        encoding.close()

    asyncio.run(ask())
