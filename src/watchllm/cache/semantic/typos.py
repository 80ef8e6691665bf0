"""Whether one word is another, misspelt: which slips of the fingers and of the ear are told from another word."""

from functools import cache
from itertools import permutations
from typing import Final

_ROWS: Final = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_VOWELS: Final = frozenset("aeiouy")
_SOUNDS: Final = frozenset(("ck", "cs", "sz", "kq", "gj", "vw", "mn", "dt", "bp"))
"""Letters that are heard alike, each pair in order."""
_BEGINNINGS: Final = (
    *("hyper hypo", "inter intra", "macro micro", "mono bi", "uni bi", "pre pro", "ante anti", "endo exo", "ab ad"),
    *("meth eth", "kilo kibi", "mega mebi", "giga gibi", "in un", "im un", "over under", "centi milli", "deci deca"),
)
_ENDINGS: Final = ("ite ate ide", "ane ene yne", "ine one ane", "ase ose", "er ee", "ful less")
"""Parts of words that mean different things."""
_INFLECTING: Final = "sdrye"


def _neighbours() -> frozenset[str]:
    pairs: set[str] = set()
    for row, keys in enumerate(_ROWS):
        for column, key in enumerate(keys):
            beside = keys[column + 1 : column + 2]
            below = _ROWS[row + 1][max(0, column - 1) : column + 1] if row + 1 < len(_ROWS) else ""
            pairs.update("".join(sorted(key + other)) for other in beside + below)
    return frozenset(pairs)


_NEIGHBOURS: Final = _neighbours()


def is_slip(one: str, other: str) -> bool:
    """Whether one is the other with two neighbouring letters exchanged or one doubled."""
    if len(one) == len(other):
        different = _different(one, other)
        return (
            len(different) == 2
            and different[1] == different[0] + 1
            and one[different[0]] == other[different[1]]
            and one[different[1]] == other[different[0]]
        )
    short, long = sorted((one, other), key=len)
    return len(long) == len(short) + 1 and any(
        long[at] == long[at + 1] and long[:at] + long[at + 1 :] == short for at in range(len(short))
    )


def is_misspelling(wrong: str, word: str) -> bool:
    """Whether `wrong`, which is no word, is likely to be meant for `word`: the shorter, the less may differ."""
    if is_slip(wrong, word):
        return len(word) > 3
    if _other_meaning(wrong, word):
        return False
    if wrong[0] != word[0]:
        return False
    size = min(len(wrong), len(word))
    if len(wrong) == len(word):
        different = _different(wrong, word)
        if len(different) == 1:
            return size > 5 or (size == 5 and _alike(wrong[different[0]], word[different[0]]))
    elif abs(len(wrong) - len(word)) == 1:
        long, short = (wrong, word) if len(wrong) > len(word) else (word, wrong)
        if long[:-1] == short:
            # A letter more or less at the end makes another form, or another name, of a word.
            return long[-1] not in (_INFLECTING if size < 6 else "sd") and size > 4
        if size > 3 and distance_at_most(wrong, word, 1):
            return True
    return size > 7 and distance_at_most(wrong, word, 2)


def is_small_word(wrong: str, word: str) -> bool:
    """The same for one of the few words that every sentence has, which is what a word that is none is likely to be."""
    if len(wrong) < 3 or len(word) < 3:
        return False
    if len(wrong) == len(word):
        different = _different(wrong, word)
        if len(different) == 1 and different[0]:
            return len(word) > 3 and _alike(wrong[different[0]], word[different[0]])
        return sorted(wrong) == sorted(word) and is_slip(wrong, word)
    return wrong[0] == word[0] and distance_at_most(wrong, word, 1) and (len(word) > 3 or len(wrong) > len(word))


def distance_at_most(one: str, other: str, most: int) -> bool:
    """Whether at most `most` letters changed, added, left out or exchanged with the next make one word the other."""
    if one == other:
        return True
    if not most or abs(len(one) - len(other)) > most:
        return False
    at = 0
    while at < len(one) and at < len(other) and one[at] == other[at]:
        at += 1
    rest_one, rest_other = one[at:], other[at:]
    return (
        (
            rest_one[:2] == rest_other[1::-1]
            and len(rest_one) > 1
            and distance_at_most(rest_one[2:], rest_other[2:], most - 1)
        )
        or distance_at_most(rest_one[1:], rest_other[1:], most - 1)
        or distance_at_most(rest_one[1:], rest_other, most - 1)
        or distance_at_most(rest_one, rest_other[1:], most - 1)
    )


def _other_meaning(one: str, other: str) -> bool:
    """Whether what differs are parts of words that mean different things, as in hypertension, hypotension."""
    return any(
        one.startswith(left) and other.startswith(right) and one[len(left) :] == other[len(right) :]
        for left, right in _pairs(_BEGINNINGS)
    ) or any(
        one.endswith(left) and other.endswith(right) and one[: -len(left)] == other[: -len(right)]
        for left, right in _pairs(_ENDINGS)
    )


@cache
def _pairs(groups: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((left, right) for group in groups for left, right in permutations(group.split(), 2))


def _different(one: str, other: str) -> list[int]:
    return [at for at in range(len(one)) if one[at] != other[at]]


def _alike(one: str, other: str) -> bool:
    """Whether two letters are beside each other on a keyboard, both vowels, or heard alike."""
    pair = "".join(sorted(one + other))
    return pair in _NEIGHBOURS or pair in _SOUNDS or (one in _VOWELS and other in _VOWELS)
