"""Whether an English word is a verb, an adjective or a noun where it stands, as far as the words around it show.

Not a grammar: a place that does not show it is none. A word inside a compound ("hard drive", "cost function", "shop
steward") is shown to be nothing.
"""

from typing import Final

from watchllm.cache.semantic.features import Features
from watchllm.cache.semantic.lexicon import (
    BASE,
    CONJUNCTION,
    EXACT,
    GERUND,
    IDENTIFIER,
    MODAL,
    MODIFIER,
    NUMBER,
    PAST,
    PREPOSITION,
    PRONOUN,
    QUANTIFIER,
    QUESTION,
    WORD,
    Lexicon,
)
from watchllm.cache.semantic.marks import ARTICLE, CAPITAL, COPULA, DO

VERB, ADJECTIVE, NOUN = "verb", "adjective", "noun"

_SUBJECTS: Final = frozenset(("i", "you", "we", "they", "he", "she", "it", "to", "not", "howto"))
_PARTICLES: Final = frozenset(("up", "down", "out", "off", "away", "back", "over", "through", "around", "along"))
_DEGREES: Final = frozenset(("how", "very", "so", "too", "more", "most", "less", "least", "become", "feel", "quite"))
_DETERMINERS: Final = frozenset(("my", "your", "his", "her", "its", "our", "their", "this", "that", "which", "what"))
_CLOSING: Final = frozenset((PREPOSITION, PRONOUN, MODAL, CONJUNCTION, QUESTION, NUMBER, QUANTIFIER))
_LEADING: Final = frozenset((PREPOSITION, QUANTIFIER, NUMBER, CONJUNCTION, MODIFIER))
_TECHNICAL: Final = frozenset((EXACT, IDENTIFIER))
_A: Final = 1
_NAMING: Final = frozenset(("what", "which", "who", "define"))


def is_a(part: str, side: Features, at: int, lexicon: Lexicon) -> bool:
    """Whether the word at `at` is such a `part` of speech."""
    if part == VERB:
        return _is_verb(side, at, lexicon)
    if _is_technical(side, lexicon):
        return False  # A method in Java, a type in C.
    if part == ADJECTIVE:
        return _is_adjective(side, at, lexicon)
    return _is_noun(side, at, lexicon)


def _is_technical(side: Features, lexicon: Lexicon) -> bool:
    """Whether code or a technology is named; rust and python are things, too, unless they have a capital."""
    return not _TECHNICAL.isdisjoint(side.kinds) or any(
        word in lexicon.technology and (mark & CAPITAL or word not in lexicon.common)
        for word, mark in zip(side.surfaces, side.before, strict=True)
    )


def _is_verb(side: Features, at: int, lexicon: Lexicon) -> bool:
    """I buy, to buy, how to buy, does the film begin, buy; but not: buy out, which changes the meaning."""
    if side.before[at] & (ARTICLE | COPULA) or _following(side, at) in _PARTICLES:
        return False
    if side.keys[at] not in lexicon.plain_verbs and _is_idiom(side, at, lexicon):
        return False
    if at in side.starts or side.kinds[at - 1] == MODAL or side.surfaces[at - 1] in _SUBJECTS:
        return True
    return bool(side.before[at - 1] & DO)


def _is_idiom(side: Features, at: int, lexicon: Lexicon) -> bool:
    """Whether a bare word follows, as in: keep fit, change gear."""
    if _ends(side, at) or side.kinds[at + 1] != WORD or side.before[at + 1]:
        return False
    return lexicon.lemma(side.surfaces[at + 1])[1] == BASE


def _is_adjective(side: Features, at: int, lexicon: Lexicon) -> bool:
    """Is it hard, more humble, how hard; a hard question, but not: a hard drive."""
    following = _following(side, at)
    if following and lexicon.lemma(following)[0] in lexicon.plain_heads:
        return _ends(side, at + 1) or side.kinds[at + 2] != WORD or bool(side.before[at + 2])
    if side.before[at] & ARTICLE or not (_ends(side, at) or side.kinds[at + 1] in _CLOSING):
        return False
    start = max(start for start in side.starts if start <= at)
    if at == start:
        return False  # Is big more common than huge?
    if at > start and side.surfaces[at - 1] in _DEGREES:
        return True
    if side.surfaces[start] in _NAMING:
        return False  # What is the tag big?
    return any(mark & COPULA for mark in side.before[start : at + 1])


def _is_noun(side: Features, at: int, lexicon: Lexicon) -> bool:
    """A cost, my cost, cost of: alone before what ends a noun; but not: the cost function, an opportunity cost."""
    mark = side.before[at]
    if mark & COPULA and (mark & ARTICLE) <= _A and at and side.surfaces[at - 1] in _NAMING:
        return False  # What is a bill of lading?
    if at in side.starts or mark & ARTICLE or side.kinds[at - 1] in _LEADING:
        led = True
    else:
        before = side.surfaces[at - 1]
        led = (
            before in _DETERMINERS
            or before in lexicon.request_verbs
            or side.keys[at - 1] in lexicon.verbs
            or lexicon.word(before).form in (GERUND, PAST)
        )
    if not led:
        return False
    if _ends(side, at) or side.kinds[at + 1] in _CLOSING or side.before[at + 1] & (DO | COPULA):
        return True
    # Does a physician earn; but not: does a shop steward do.
    return bool(mark & DO) and side.kinds[at + 1] == WORD and (_ends(side, at + 1) or side.kinds[at + 2] in _CLOSING)


def _ends(side: Features, at: int) -> bool:
    return at + 1 == len(side.keys) or at + 1 in side.starts


def _following(side: Features, at: int) -> str:
    return "" if _ends(side, at) else side.surfaces[at + 1]
