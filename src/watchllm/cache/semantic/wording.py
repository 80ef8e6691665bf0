"""Whether two words that answer for each other by their key do so where they stand: number, tense, synonym, article.

A word's key says that it may; its sentence says whether it does. "A cat" and "cats" are the same in what cats eat, and
not in what is bought; "purchase" is "buy" where it is a verb. What cannot be shown harmless is material.
"""

from collections.abc import Iterable
from typing import Final

from watchllm.cache.semantic.features import Features
from watchllm.cache.semantic.lexicon import (
    BASE,
    GERUND,
    MODAL,
    MODIFIER,
    NUMBER,
    PAST,
    PLURAL,
    QUANTIFIER,
    TIME,
    WORD,
    Lexicon,
)
from watchllm.cache.semantic.marks import ARTICLE, CAPITAL, COPULA, DO, THERE
from watchllm.cache.semantic.parts import is_a

_WORDS: Final = frozenset((WORD, MODIFIER, TIME))
_A: Final = 1
"""The place of "a" among the articles of English, and of an article that is as often left out in the others."""
_DETERMINERS: Final = frozenset(("my", "your", "his", "her", "its", "our", "their", "these", "those", "which", "what"))
_EVERY: Final = frozenset(("every", "each"))

Pair = tuple[int, int]


def differences(a: Features, b: Features, pairs: Iterable[Pair], lexicon: Lexicon) -> list[Pair]:
    """The places, of those that have the same key, whose words do not answer for each other there."""
    comparison = _Comparison(a, b, lexicon)
    return [(one, other) for one, other in pairs if not comparison.answers(one, other)]


class _Comparison:
    """Of one pair of prompts, from the left to the right."""

    def __init__(self, a: Features, b: Features, lexicon: Lexicon) -> None:
        self.a, self.b, self.lexicon = a, b, lexicon
        self._many: Features | None = None
        """The side that speaks of many where the other speaks of any one, once that is seen."""

    def answers(self, one: int, other: int) -> bool:
        a, b, lexicon = self.a, self.b, self.lexicon
        if a.kinds[one] not in _WORDS and b.kinds[other] not in _WORDS:
            return True
        written, said = a.surfaces[one], b.surfaces[other]
        if written == said:
            return a.before[one] == b.before[other] or self._articles_agree(one, other)
        word, form = lexicon.lemma(written)
        same, as_form = lexicon.lemma(said)
        if word != same:
            if self.lexicon.indefinite > _A:
                # Of another gender, perhaps.
                mark, second = a.before[one] & ARTICLE, b.before[other] & ARTICLE
                return (mark > lexicon.indefinite) == (second > lexicon.indefinite)
            part = lexicon.parts.get(a.keys[one].rstrip("!"), "")
            if part and not (is_a(part, a, one, lexicon) and is_a(part, b, other, lexicon)):
                return False
            if part and (a.before[one] | b.before[other]) & CAPITAL:
                return False  # Who wrote The Big Sleep?
        if form == as_form:
            return self._articles_agree(one, other)
        if PAST in (form, as_form):
            # Did Bell invent it, was it invented by Bell; not: it opened, it opens.
            side, at = (a, one) if form == BASE else (b, other)
            return BASE in (form, as_form) and side.past and _asks_with_do(side, at)
        if GERUND in (form, as_form):
            return one == other == 1 and a.keys[0] == b.keys[0] == "howto"
        if form == PLURAL:
            return self._number_is_free(a, one, b, other)
        return self._number_is_free(b, other, a, one)

    def _articles_agree(self, one: int, other: int) -> bool:
        """Not: the matrix, a matrix; the Doors, doors."""
        mark, second = self.a.before[one], self.b.before[other]
        article, opposed = mark & ARTICLE, second & ARTICLE
        if article and opposed:
            return article == opposed
        with_article, without = (mark, second) if article else (second, mark)
        return with_article & ARTICLE <= _A or not with_article & CAPITAL or bool(without & CAPITAL)

    def _number_is_free(self, many: Features, at: int, single: Features, place: int) -> bool:
        """Whether it does not matter that one side has a word with its -s where the other has it without."""
        if many.surfaces[at] in self.lexicon.units or self._is_verb(many, at, single, place):
            return True
        if (many.before[at] | single.before[place]) & CAPITAL or many.surfaces[at] in self.lexicon.own_plurals:
            return False
        if _is_every(many, at, single, place):
            return True
        if _is_owner(many, at) and _is_owner(single, place):
            return True
        begin = _start(single, place)
        start = at - (place - begin)
        if start < 0:
            return False
        if many.before[start] & ARTICLE or single.before[begin] & ARTICLE != _A or _is_determined(many, start):
            return False
        if self._many is many or many.keys[0] == single.keys[0] == "howto":
            return True
        if many.keys[0] == "what" and start and begin and many.keys[start - 1] == single.keys[begin - 1] == "of":
            return True  # What are the symptoms of a stroke?
        if _is_subject(many, start) and _is_subject(single, begin):
            self._many = many
            return True
        return False

    def _is_verb(self, many: Features, at: int, single: Features, place: int) -> bool:
        """It works, does it work; a cat eats, cats eat."""
        if (many.before[at] | single.before[place]) & ARTICLE:
            return False
        asked, told = (sum(mark & DO for mark in side.before) for side in (single, many))
        return self._many is single or asked == told + DO


def _asks_with_do(side: Features, at: int) -> bool:
    """Whether the sentence of a word has "did" before it."""
    start = max(start for start in side.starts if start <= at)
    return any(mark & DO for mark in side.before[start : at + 1])


def _is_every(many: Features, at: int, single: Features, place: int) -> bool:
    """All bats, every bat."""
    return at > 0 and place > 0 and many.surfaces[at - 1] == "all" and single.surfaces[place - 1] in _EVERY


def _is_owner(side: Features, at: int) -> bool:
    """A kids' party, a kid's party."""
    return (
        at > 1
        and side.surfaces[at - 1] == "of"
        and side.before[at - 2] & ARTICLE == _A
        and not side.before[at] & ARTICLE
    )


def _start(side: Features, at: int) -> int:
    """Where the article of a noun stands: at it, or at one of two words before it; the noun itself without any."""
    for start in range(at, max(at - 3, -1), -1):
        if side.before[start] & ARTICLE:
            return start
        if start in side.starts or side.kinds[start - 1] not in _WORDS:
            break
    return at


def _is_determined(side: Features, start: int) -> bool:
    """Whether some are meant, not any: my cats, three cats, which cats."""
    if not start or start in side.starts or side.before[start] & (DO | COPULA):
        return False
    return side.kinds[start - 1] in (QUANTIFIER, NUMBER) or side.surfaces[start - 1] in _DETERMINERS


def _is_subject(side: Features, start: int) -> bool:
    """Whether a question asks what such things do, are or may: do cats eat, is a cat, can cats."""
    if side.before[start] & THERE:
        return False
    if side.before[start] & DO:
        return True
    if start in side.starts:
        return bool(side.before[start] & COPULA)
    if side.keys[start - 1] == "how":
        return bool(side.before[start] & COPULA)
    return side.kinds[start - 1] == MODAL
