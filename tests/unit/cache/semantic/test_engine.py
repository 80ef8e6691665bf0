"""Embedder, vectors and decision together: what is kept is judged as `watchllm eval` would, as long as it lives."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest

from tests.support.exact_store import Clock, key
from tests.support.vector_store import open_lmdb_vectors
from watchllm.cache.entry import Entry
from watchllm.cache.semantic.awaited import NotEmbedded
from watchllm.cache.semantic.decide import DEFAULT_POLICY
from watchllm.cache.semantic.engine import MOST_COMPARED, MOST_READ, READER_BUSY, Engine, Judged
from watchllm.cache.semantic.partition import Prompt
from watchllm.cache.semantic.static import StaticEmbedder
from watchllm.cache.semantic.verdicts import Pair

PROJECT, CONTEXT = b"p" * 16, b"c" * 16
NOON = 1_700_049_600_000
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder.load()


@pytest.fixture
def engine(embedder: StaticEmbedder, tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(embedder, open_lmdb_vectors(tmp_path, Clock()), max_entries=100)
    yield engine
    engine.close()


def keep(engine: Engine, text: str, number: int = 0, *, at_ms: int = NOON, expires_ms: int = 0) -> None:
    entry = Entry(at_ms, expires_ms, "generate", "openai", "m", None, None, "key_1", b"{}")
    assert engine.keep(engine.partition(PROJECT, CONTEXT), key(number), engine.read(text), entry)


def judged(engine: Engine, text: str, *, at_ms: int = NOON) -> list[Judged]:
    found = engine.candidates(engine.partition(PROJECT, CONTEXT), engine.read(text), DEFAULT_POLICY, at_ms)
    assert found is not None
    return list(found)


def test_what_was_kept_is_judged(engine: Engine) -> None:
    keep(engine, "How do I reset my password?", 1)
    keep(engine, "How do I reset my username?", 2)
    found = judged(engine, "How can I reset my password?")
    assert [(one.key, one.created_ms, one.decision.hit) for one in found] == [
        (key(1), NOON, True),
        (key(2), NOON, False),
    ]
    assert judged(engine, "How can I reset my password?", at_ms=NOON - 1)


def test_only_the_nearest_are_compared(engine: Engine) -> None:
    for number in range(20):
        keep(engine, f"How do I reset password number {number}?", number)
    assert len(judged(engine, "How do I reset password number 7?")) == MOST_COMPARED


def test_what_expired_is_not_judged(engine: Engine) -> None:
    keep(engine, "How do I reset my password?", expires_ms=NOON + 10)
    assert judged(engine, "How can I reset my password?", at_ms=NOON + 9)
    assert not judged(engine, "How can I reset my password?", at_ms=NOON + 10)


def test_what_is_asked_of_today_is_answered_on_the_same_day_only(engine: Engine) -> None:
    keep(engine, "What is the weather today?", at_ms=NOON)
    for at_ms, hit in ((NOON + DAY_MS // 4, True), (NOON + DAY_MS, False), (NOON - DAY_MS, False)):
        (one,) = judged(engine, "what is the weather today", at_ms=at_ms)
        assert one.decision.hit is hit
        assert one.decision.guard == (None if hit else "relative_time")


def test_what_is_forgotten_is_gone_from_the_store_too(engine: Engine) -> None:
    keep(engine, "How do I reset my password?", 1)
    place = engine.partition(PROJECT, CONTEXT)
    (one,) = judged(engine, "How do I reset my password?")
    engine._store.flush()
    pair = Pair(place, one.key, one.created_ms, bytes(16))
    assert engine.holds(pair, NOON + DAY_MS)
    engine.forget(place, key(1))
    engine._store.flush()
    assert not judged(engine, "How do I reset my password?")
    assert not engine.holds(pair, NOON + DAY_MS)
    assert engine.holds(pair, NOON + 10)  # too young to be told from what is not written yet


def test_what_cannot_be_read_any_more_is_passed_over(engine: Engine) -> None:
    keep(engine, "How do I reset my password?", 1)
    keep(engine, "How do I reset my passwords?", 2)
    place = engine.partition(PROJECT, CONTEXT)
    for number, features in ((1, b"\xff\xff"), (3, b"")):
        question = engine.read("How do I reset my password?")
        engine.memory.put(place, key(number), question.vector, Prompt(NOON, 0, features))
    assert [one.key for one in judged(engine, "How can I reset my password?")] == [key(2)]


def test_features_of_other_words_are_not_compared(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = engine.partition(PROJECT, CONTEXT)
    monkeypatch.setattr("watchllm.cache.semantic.engine._in_order", lambda _folder, _ending: [])
    other = Engine(engine._embedder, engine._store, max_entries=10)
    assert other.partition(PROJECT, CONTEXT) != before
    assert before[:16] == PROJECT
    assert before[-16:] == CONTEXT


def test_after_a_restart_it_is_as_near_as_before(embedder: StaticEmbedder, tmp_path: Path) -> None:
    first = Engine(embedder, open_lmdb_vectors(tmp_path, Clock()), max_entries=100)
    keep(first, "How do I reset my password?")
    (before,) = judged(first, "How can I reset my password?")
    first.close()
    again = Engine(embedder, open_lmdb_vectors(tmp_path, Clock()), max_entries=100)
    (after,) = judged(again, "How can I reset my password?")
    assert abs(before.decision.similarity - after.decision.similarity) < 1e-3
    (same,) = judged(again, "How do I reset my password?")
    assert same.decision.similarity == pytest.approx(1.0, abs=1e-3)
    assert same.decision.similarity <= 1 + 1e-6
    again.close()


def test_a_short_prompt_is_read_on_the_loop_and_a_long_one_is_not(engine: Engine) -> None:
    assert engine.is_quick("What is it?")
    assert not engine.is_quick("word " * 300)
    assert numpy.isfinite(engine.read("word " * 300).vector).all()


def test_a_project_that_has_many_long_prompts_read_leaves_the_reader_to_others(engine: Engine) -> None:
    mine, others = engine.partition(PROJECT, CONTEXT), engine.partition(b"o" * 16, CONTEXT)
    long = "How do I reset it? " * 100

    async def test(held: threading.Event) -> None:
        engine.reader.submit(held.wait)
        asking = [asyncio.ensure_future(engine.read_slowly(long, mine)) for _ in range(99)]
        other = asyncio.ensure_future(engine.read_slowly(long, others))
        await asyncio.sleep(0)
        held.set()
        told = await asyncio.gather(*asking, return_exceptions=True)
        refused = [one.reason for one in told if isinstance(one, NotEmbedded)]
        assert refused == [READER_BUSY] * (99 - MOST_READ // 2)
        assert (await other).text == long
        assert (await engine.read_slowly(long, mine)).text == long

    held = threading.Event()
    try:
        asyncio.run(test(held))
    finally:
        held.set()
