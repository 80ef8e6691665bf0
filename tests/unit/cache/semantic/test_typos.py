"""Which words are others misspelt: slips of the fingers and of the ear, and not other words."""

import pytest

from watchllm.cache.semantic.dictionary import Dictionary, english
from watchllm.cache.semantic.lexicon import lexicon
from watchllm.cache.semantic.typos import is_misspelling, is_slip, is_small_word


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ("tabel", "table"),
        ("acommodate", "accommodate"),
        ("pasword", "password"),
        ("definately", "definitely"),
        ("kitchwn", "kitchen"),
        ("hosue", "house"),
        ("recieve", "receive"),
        ("bluberries", "blueberries"),
        ("diffrence", "difference"),
        ("stomache", "stomach"),
    ],
)
def test_a_misspelling_is_known(wrong: str, word: str) -> None:
    assert is_misspelling(wrong, word)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("canva", "canvas"),
        ("deno", "demo"),
        ("hypotension", "hypertension"),
        ("kibibyte", "kilobyte"),
        ("methanol", "ethanol"),
        ("nitrite", "nitrate"),
        ("marx", "mars"),
        ("cat", "cart"),
    ],
)
def test_another_word_is_no_misspelling(one: str, other: str) -> None:
    assert not is_misspelling(one, other)
    assert not is_misspelling(other, one)


def test_a_slip_exchanges_or_doubles_letters() -> None:
    assert is_slip("form", "from")
    assert is_slip("leter", "letter")
    assert not is_slip("later", "letter")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("wht", "what"), ("teh", "teh"), ("whihc", "which"), ("frm", "from"), ("becuase", "because")],
)
def test_small_words_are_put_right_where_one_alone_is_near(typed: str, meant: str) -> None:
    known = lexicon("en")
    assert known.corrected(typed) in (meant, "the")


@pytest.mark.parametrize("word", ["thai", "whey", "usd", "python", "form", "July", "cats", "x" * 5_000])
def test_real_words_are_left_alone(word: str) -> None:
    assert lexicon("en").corrected(word.lower()) == word.lower()


def test_small_words_need_their_first_letter() -> None:
    assert not is_small_word("ahat", "what")


def test_a_dictionary_has_its_words_and_no_parts_of_them() -> None:
    words = Dictionary(["cat catalog", "dog"])
    assert "cat" in words
    assert "catalog" in words
    assert "cata" not in words
    assert "" not in words


def test_common_words_are_known_and_rare_ones_are_not_common() -> None:
    words = english()
    assert "bread" in words.common
    assert "bread" in words.known
    assert "dysphasia" in words.known
    assert "dysphasia" not in words.common
    assert "paris" in words.proper
