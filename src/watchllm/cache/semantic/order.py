"""When prompts of the same words in another order say the same."""

from itertools import pairwise
from typing import Final

from watchllm.cache.semantic import listing
from watchllm.cache.semantic.features import Features
from watchllm.cache.semantic.lexicon import (
    CONJUNCTION,
    MODAL,
    MODIFIER,
    NAME,
    NEGATION,
    NUMBER,
    PREPOSITION,
    PRONOUN,
    QUESTION,
    WORD,
    Lexicon,
)
from watchllm.cache.semantic.marks import CAPITAL

_BINDING: Final = frozenset((PREPOSITION, QUESTION, NEGATION, CONJUNCTION))
_LISTING: Final = frozenset(("and", "or", "y", "o", "e", "u", "et", "ou", "und", "oder"))
_COMMUTATIVE: Final = (*_LISTING, "plus", "times", "versus")
_SUBJECT: Final = 4
_SUBJECT_KINDS: Final = frozenset((WORD, PRONOUN, NAME, MODIFIER))
_LONGEST_PHRASE: Final = 4
_ASKED: Final = ("", "says", "?")
"""Kinds of question that are none."""


def is_free(a: Features, b: Features, start: int, end: int, lexicon: Lexicon) -> bool:
    """Whether prompts that have the same tokens between `start` and `end`, in another order, say the same."""
    if a.letters or b.letters:
        return False
    return (
        # A second list may answer to the first by place: x, y and z are 1, 2 and 3.
        (a.kinds.count(CONJUNCTION) < 2 and _is_exchanged(a, b, start, end, lexicon))
        or _is_negation_moved(a, b, start, end)
        or _is_rotated(a, b, lexicon)
        or _is_verb_last(a, b, lexicon)
    )


def is_converse(left: tuple[str, ...], right: tuple[str, ...], lexicon: Lexicon) -> bool:
    """Saturn lighter than Jupiter, Jupiter heavier than Saturn."""
    if "than" not in left:
        return False
    than = left.index("than")
    one, other = left[: than - 1], left[than + 1 :]
    comparison = len(other)
    return (
        than > 1
        and right == (*other, right[comparison], "than", *one)
        and lexicon.opposite(left[than - 1], right[comparison])
    )


def _is_exchanged(a: Features, b: Features, start: int, end: int, lexicon: Lexicon) -> bool:
    """Whether the sides of a symmetric predicate are exchanged: P and Q, Q and P."""
    left, right, kinds = a.keys[start:end], b.keys[start:end], a.kinds[start:end]
    size, first = len(left), right[0]
    for at in range(2, size):
        if left[at] != first:
            continue
        for length in range(1, min(_LONGEST_PHRASE, at)):
            middle = left[at - length : at]
            if right == left[at:] + middle + left[: at - length] and _plain(middle) in lexicon.symmetric:
                # A word that relates one side to something may relate the other too when they are exchanged.
                sides = kinds[: at - length] + kinds[at:]
                if not _BINDING.isdisjoint(sides) or (NUMBER in sides and middle[0] not in _COMMUTATIVE):
                    return False
                if middle[0] in _LISTING:
                    return _lists_freely(a, start, sides, middle[0], lexicon)
                return not listing.tells_order(a.surfaces, a.keys, lexicon)
    return False


def _lists_freely(side: Features, first: int, kinds: bytes, joined: str, lexicon: Lexicon) -> bool:
    behind = first - 1 if first and first not in side.starts else None
    listed = listing.Listed(
        words=side.surfaces,
        keys=side.keys,
        kinds=kinds,
        behind="" if behind is None else side.surfaces[behind],
        behind_kind=WORD if behind is None else side.kinds[behind],
        marked=bool(side.before[first] & ~CAPITAL),
        asked=side.question not in _ASKED,
        alternative=joined in ("or", "oder", "ou", "o", "u"),
    )
    return listing.is_free(listed, lexicon)


def _plain(phrase: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key.rstrip("!") for key in phrase)


def _is_negation_moved(a: Features, b: Features, start: int, end: int) -> bool:
    """Why doesn't my code compile, why does my code not compile: a short subject between the verb and its "not"."""
    if not start or a.kinds[start - 1] not in (QUESTION, MODAL) or end - start > _SUBJECT:
        return False
    for one, other in ((a, b), (b, a)):
        if one.keys[start] == "not" and other.keys[start:end] == (*one.keys[start + 1 : end], "not"):
            return all(kind in _SUBJECT_KINDS for kind in one.kinds[start + 1 : end])
    return False


def _is_rotated(a: Features, b: Features, lexicon: Lexicon) -> bool:
    """Whether a question and what it is about, or the clauses of a sentence, are the same in another order."""
    left, right = _sentences(a), _sentences(b)
    if len(left) != len(right):
        return False
    if len(left) == 2 and left == right[::-1]:
        # What is done one after the other is told so.
        return sum(_asks(side, lexicon) for side in left) == 1 and not listing.tells_order(a.surfaces, a.keys, lexicon)
    changed = [(one, other) for one, other in zip(left, right, strict=True) if one != other]
    return bool(changed) and all(
        _is_fronted(one, other, lexicon) or _is_fronted(other, one, lexicon) for one, other in changed
    )


def _asks(sentence: tuple[str, ...], lexicon: Lexicon) -> bool:
    return lexicon.word(sentence[0]).kind in (QUESTION, MODAL)


def _is_fronted(one: tuple[str, ...], other: tuple[str, ...], lexicon: Lexicon) -> bool:
    """Whether `one` is `other` with a clause of its end brought to the front, as "in Python" may be."""
    if one[0] not in lexicon.fronting or len(one) != len(other) or other[0] in lexicon.fronting:
        return False
    return any(one[cut:] + one[:cut] == other for cut in range(1, len(one)))


def _is_verb_last(a: Features, b: Features, lexicon: Lexicon) -> bool:
    """Wie funktioniert das, (sag mir,) wie das funktioniert: the verb at the end of a clause that depends."""
    if lexicon.language != "de":
        return False
    for one, other in ((a, b), (b, a)):
        for start, end in pairwise((*one.starts, len(one.keys))):
            if end - start > 2 and one.kinds[start] == QUESTION:
                keys = one.keys
                moved = (*keys[: start + 1], keys[end - 1], *keys[start + 1 : end - 1], *keys[end:])
                if moved == other.keys:
                    return True
    return False


def _sentences(side: Features) -> list[tuple[str, ...]]:
    ends = (*side.starts[1:], len(side.keys))
    return [sentence for start, end in zip(side.starts, ends, strict=True) if (sentence := side.keys[start:end])]
