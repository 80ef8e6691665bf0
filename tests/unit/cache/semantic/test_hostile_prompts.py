"""Prompts nobody expects: no crash, no wrong hit, bounded work."""

from random import Random

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit.cache.semantic.deciding import decision
from watchllm.cache.semantic.align import align
from watchllm.cache.semantic.decide import Policy
from watchllm.cache.semantic.features import Features, features
from watchllm.cache.semantic.lexicon import lexicon
from watchllm.cache.semantic.text import MAX_CHARACTERS, MAX_TOKENS
from watchllm.cache.semantic.typos import distance_at_most

WORDS = """
how do I not 's n't can't the and or by was than who is in as a table to python May of de más nicht v v1 Mb
. , : ? ``` ` " ' « -x --flag / % # ° [ ] ( ) * 3 3.10 1,000 $5 half 20th 1/0 1 ² ½ ٣ 007 שלום مرحبا 日本 ß İ 👍
:) <3 hi thanks please if whether could you tell me i want do regards spell 2 r dont its it's
"""
PIECES = st.sampled_from(
    [*WORDS.split(), "5 km", "6 pm", "\x00", "\x000", "\u200b", "\u202e", "\ud800", "\n", "\t"],
)
PROMPTS = st.one_of(
    st.text(max_size=60), st.lists(PIECES, max_size=25).map(" ".join), st.lists(PIECES, max_size=25).map("".join)
)


@pytest.mark.fuzz
@given(PROMPTS, PROMPTS)
def test_any_two_prompts_are_decided_alike_from_both_sides(a: str, b: str) -> None:
    assert decision(a, b).hit == decision(b, a).hit


@pytest.mark.fuzz
@given(PIECES | st.text(min_size=1, max_size=6), PIECES, st.sampled_from(["", " ", ". ", ", "]))
def test_one_thing_repeated_up_to_the_limit_is_decided(unit: str, tail: str, between: str) -> None:
    prompt = (f"{unit}{between}" * MAX_CHARACTERS)[:MAX_CHARACTERS]
    for other in (prompt[:-1], prompt[len(unit) :], f"{tail} {prompt[: MAX_CHARACTERS // 2]}"):
        assert decision(prompt, other).hit == decision(other, prompt).hit


@pytest.mark.fuzz
@given(st.lists(PIECES, min_size=120, max_size=400), st.randoms(use_true_random=False))
def test_long_prompts_of_the_same_words_in_another_order_are_decided(words: list[str], random: Random) -> None:
    shuffled = [word for word in words if word not in ("the", "a")]
    random.shuffle(shuffled)
    a, b = " ".join(words), " ".join(shuffled)
    assert decision(a, b).hit == decision(b, a).hit


@pytest.mark.fuzz
@given(PROMPTS)
def test_features_survive_being_stored(prompt: str) -> None:
    assume(prompt.isprintable() or prompt.isascii())
    found = features(prompt)
    if all(char < "\ud800" or char > "\udfff" for char in prompt):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Features) == found


@pytest.mark.fuzz
@given(st.lists(PIECES, max_size=12).map(" ".join), st.integers(0, 10_000), st.integers(0, 10_000))
def test_another_number_is_never_served(prompt: str, one: int, other: int) -> None:
    assume(one != other)
    assert not decision(f"{prompt} order {one}0001", f"{prompt} order {other}0001", 1.0).hit


@pytest.mark.parametrize(
    "blank", ["", " ", "\n\t", "\x00\x01\x02", "\u200b\u200d", "please", "Hello! Thanks.", "...", "???"]
)
def test_prompts_that_say_nothing_are_not_served(blank: str) -> None:
    assert decision(blank, blank, 1.0).guard == "empty"
    assert not decision(blank, "What is the capital of Peru?", 1.0).hit


@pytest.mark.parametrize(
    "prompt",
    [
        "a " * 500_000,
        "x" * 1_000_000,
        "\u202e" * 1_000_000,
        '"' * 1_000_000,
        "`" * (MAX_CHARACTERS + 1),
        "a " * (MAX_TOKENS + 1),
    ],
)
def test_prompts_longer_than_what_is_read_are_not_compared(prompt: str) -> None:
    found = features(prompt)
    assert found.too_long
    assert found.keys == ()
    assert decision(prompt, prompt, 1.0).guard == "too_long"


def test_one_token_repeated_is_not_the_same_as_repeated_more_often() -> None:
    assert not decision("buffalo " * 300, "buffalo " * 299, 1.0).hit
    assert decision("buffalo " * 300, "buffalo " * 300, 1.0).hit


def test_long_prompts_that_differ_in_one_clause_are_compared_to_the_end() -> None:
    story = "The keeper of the lighthouse writes to his sister about the storm and the lamp. " * 25
    assert decision(story + "He is calm.", story + "he is calm", 1.0).hit
    assert not decision(story + "He is calm.", story + "He is drunk.", 1.0).hit
    assert not decision("He is calm. " + story, "He is not calm. " + story, 1.0).hit


@pytest.mark.parametrize(
    ("a", "b"),
    [
        # Made to collide: marks of ours, invisible letters, look-alikes.
        ("Say \x000 `rm -r`", "Say \x000 `ls -l`"),
        ("price of item #5 usd", "price of item $5"),
        ('key "a', "key `a`"),
        ("transfer 100 to Anna", "transfer 1\u200b000 to Anna"),
        ("open аpple", "open apple"),
        ("put `a` into `b`'s", "put `b` into `a`s"),
        ("please \u202eredro\u202c 12", "please order 12"),
        ("ﷺ" * 3, "ﷺ" * 4),
        ("delete file a.txt", "delete file a․ txt"),
    ],
)
def test_prompts_made_to_collide_do_not(a: str, b: str) -> None:
    assert not decision(a, b, 1.0).hit
    assert not decision(b, a, 1.0).hit


def test_the_same_few_words_at_different_lengths_are_in_no_order() -> None:
    a, b = "red blue " * 60 + "green", "blue green red " * 50
    assert not decision(a, b, 1.0).hit
    assert not decision(b, a, 1.0).hit


def test_a_text_that_grows_when_it_is_normalized_is_not_compared() -> None:
    assert features("ﷺ" * MAX_CHARACTERS).too_long


def test_what_a_lexicon_remembers_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchllm.cache.semantic.lexicon._REMEMBERED", 50)
    for start in range(0, 1_000, 100):
        features(" ".join(f"the qx{number}z" for number in range(start, start + 100)))
    known = lexicon("en")
    assert max(len(known.said_words), len(known.simple_tokens)) <= 50
    features("the " + "long" * 100)
    assert not any(len(word) > 24 for word in known.said_words)


def test_too_many_differences_are_not_aligned() -> None:
    a, b = (features(" ".join(f"{word}{n}x" for n in range(300))) for word in ("left", "right"))
    alignment = align(a, b, lexicon("en"))
    assert not alignment.explained
    assert alignment.shared == 0.0


def test_only_so_many_words_are_compared_letter_by_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def counted(one: str, other: str) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr("watchllm.cache.semantic.align.is_slip", counted)
    monkeypatch.setattr("watchllm.cache.semantic.align.is_misspelling", counted)
    unknown = ["".join(Random(number).choices("bcdfgjklmpqxz", k=20)) for number in range(270)]
    other = [word[1:] + "b" if 100 <= at < 196 and at % 5 else word for at, word in enumerate(unknown)]
    for size, most in ((104, 12), (270, 0)):
        compared.clear()
        assert not decision(" ".join(unknown[:size]), " ".join(other[:size])).hit
        assert len(compared) <= most
        assert bool(compared) is bool(most)


def test_a_similarity_threshold_is_a_floor_beside_the_confidence() -> None:
    from watchllm.cache.semantic.decide import Candidate, decide

    one, other = features("Where can I buy stamps?"), features("where can i buy stamps")
    assert decide(one, Candidate(0.7, other), Policy()).hit
    found = decide(one, Candidate(0.7, other), Policy(similarity_threshold=0.75))
    assert (found.hit, found.guard) == (False, None)
    assert "0.70" in found.reason
    assert not decide(one, Candidate(1.0, other), Policy(min_confidence=1.01)).hit


@pytest.mark.parametrize(
    ("one", "other", "most", "expected"),
    [
        ("receive", "recieve", 1, True),
        ("colour", "color", 1, True),
        ("same", "same", 0, True),
        ("abcd", "badc", 2, True),
        ("abcd", "badc", 1, False),
        ("kitten", "sitting", 2, False),
    ],
)
def test_distance_counts_changed_added_missing_and_exchanged_letters(
    one: str, other: str, most: int, expected: bool
) -> None:
    assert distance_at_most(one, other, most) is expected
