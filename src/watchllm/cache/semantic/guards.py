"""What says no: each guard knows one kind of difference after which another answer is due.

Names are stable: they are in logs and in what `watchllm eval` prints. A guard speaks when it is sure. A difference that
nobody can explain is no guard's business: it costs confidence, and a judge may still be asked.
"""

from collections.abc import Callable
from typing import Final

from watchllm.cache.semantic import lexicon as kinds
from watchllm.cache.semantic.align import Alignment
from watchllm.cache.semantic.features import Features
from watchllm.cache.semantic.lexicon import Lexicon
from watchllm.cache.semantic.literal import contradiction, difference

_SAID_OR_ASKED: Final = {"says", "?"}
_SAME_BUT: Final = 0.75
_ALIKE: Final = 0.6
"""Share of common tokens from which on a word that differs is seen to stand in the other's place."""


def before_alignment(a: Features, b: Features) -> str | None:
    """The first guard that says no without looking at the order of words; None = none does."""
    if a.too_long or b.too_long:
        return "too_long"
    if not a.keys or not b.keys:
        return "empty"
    if a.literal != b.literal or a.literal.smuggles:
        name = contradiction(a.literal, b.literal)
        if name is not None:
            return name
    if a.exact != b.exact and _both_differ(a.exact, b.exact):
        return "code"
    if a.language != b.language and a.language and b.language:
        return "language"
    if a.quantities != b.quantities and _both_differ(a.quantities, b.quantities):
        return _quantity(a, b)
    if a.identifiers != b.identifiers and _both_differ(a.identifiers, b.identifiers):
        return "flag" if any(key.startswith("-") for key in (*a.identifiers, *b.identifiers)) else "identifier"
    if a.formats != b.formats and _both_differ(a.formats, b.formats):
        return "format"
    if a.cased != b.cased and a.cased and b.cased:
        return "name"  # it and IT, polish and Polish.
    return None


def guard(a: Features, b: Features, alignment: Alignment, lexicon: Lexicon) -> str | None:
    """The first guard that says no to what differs; None = none is sure."""
    if a.formats != b.formats and alignment.shared >= _ALIKE:
        return "format"
    if alignment.explained:
        return _sentence_guard(a, b, alignment)
    if alignment.shared < _ALIKE:
        return None  # Who shares this little says the same in other words, or something else: nothing here can tell.
    if alignment.shared >= _SAME_BUT and (name := _whatever_else(a, b, alignment, lexicon)) is not None:
        return name
    if alignment.moved and not alignment.left and not alignment.right:
        return _order(a, b)
    for sort, kind in (("code", kinds.EXACT), ("identifier", kinds.IDENTIFIER)):
        if alignment.shared >= _SAME_BUT and _only(alignment, kind):
            return sort
    if _only(alignment, kinds.NUMBER):
        return _quantity(a, b)
    for check in _CHECKS:
        name = check(a, b, alignment, lexicon)
        if name is not None:
            return name
    return None


def _whatever_else(a: Features, b: Features, alignment: Alignment, lexicon: Lexicon) -> str | None:
    """The guards that need not know what else differs where most is the same: hardly any other words make up for a
    "not" there, or for another name."""
    one = {kind for _, kind in alignment.left}
    other = {kind for _, kind in alignment.right}
    if a.negations != b.negations and (kinds.NEGATION in one or kinds.NEGATION in other):
        return "negation"
    # A name or a number that the other side has none for may be called otherwise there ("NYC", "half of") or left out.
    for kind in (kinds.NAME, kinds.NUMBER):
        sides = (kind in one) + (kind in other)
        if sides == 2:
            return "name" if kind == kinds.NAME else _quantity(a, b)
    return _relative_time(a, b, alignment, lexicon)


def _both_differ(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Whether each side has one that the other lacks; when only one has more, the alignment tells what it is."""
    return not (set(left) <= set(right) or set(right) <= set(left))


def _quantity(a: Features, b: Features) -> str:
    """What kind of quantity differs."""
    left, right = set(a.quantities) - set(b.quantities), set(b.quantities) - set(a.quantities)
    either = left | right
    if any(key.endswith((" date", " clock")) for key in either):
        return "date"
    if any(key.endswith((" usd", " eur", " gbp", " jpy", " chf")) for key in either):
        return "amount"
    if {key.partition(" ")[2] for key in left} != {key.partition(" ")[2] for key in right}:
        return "unit"
    if any(key.count(".") > 1 for key in either):
        return "version"
    return "number"


def _sentence_guard(a: Features, b: Features, alignment: Alignment) -> str | None:
    """Guards of what a prompt says as a whole, when nothing else differs."""
    if a.literal != b.literal and (name := difference(a.literal, b.literal)) is not None:
        return name
    if a.past != b.past and not alignment.retold:
        return "tense"
    if a.question != b.question and a.question and b.question and "?" not in (a.question, b.question):
        return "question_kind"
    if {a.question, b.question} == _SAID_OR_ASKED and not any(0 < start < len(a.keys) for start in a.starts):
        return "question_kind"  # You are sure. You are sure?
    return None


def _only(alignment: Alignment, kind: int) -> bool:
    """Whether all that differs is of this kind."""
    return all(found == kind for _, found in (*alignment.left, *alignment.right))


def _order(a: Features, b: Features) -> str | None:
    """Two names, persons or things exchanged, with the rest in its place."""
    if len(a.keys) != len(b.keys):
        return None  # Too different to be aligned, of the same few words.
    places = [at for at, (one, other) in enumerate(zip(a.keys, b.keys, strict=True)) if one != other]
    # Beside each other they are one compound ("error 942", "942 error"), and nobody can be sure.
    if len(places) == 2 and places[1] > places[0] + 1:
        kind = a.kinds[places[0]]
        return "role" if kind == kinds.PRONOUN else "order"
    return None


def _negation(a: Features, b: Features, alignment: Alignment, lexicon: Lexicon) -> str | None:
    negated = [kind == kinds.NEGATION for _, kind in (*alignment.left, *alignment.right)]
    if any(negated) and len(negated) <= 2 and a.negations != b.negations:
        return "negation"
    return None


def _antonym(a: Features, b: Features, alignment: Alignment, lexicon: Lexicon) -> str | None:
    if alignment.moved or not len(alignment.left) == len(alignment.right) == 1:
        return None
    return "antonym" if lexicon.opposite(alignment.left[0][0], alignment.right[0][0]) else None


def _one_sort(name: str, kind: int) -> Callable[[Features, Features, Alignment, Lexicon], str | None]:
    """A guard of words of one kind: that they are replaced, or only one side has one and nothing else differs."""

    def check(a: Features, b: Features, alignment: Alignment, lexicon: Lexicon) -> str | None:
        left, right = alignment.left, alignment.right
        if len(left) > 2 or len(right) > 2:
            return None
        if left and right and all(found == kind for _, found in (*left, *right)):
            return name
        alone = left or right
        if kind == kinds.QUESTION:
            return None  # A command and a question may ask the same.
        return (
            name if not (left and right) and not alignment.moved and all(found == kind for _, found in alone) else None
        )

    return check


def _name(a: Features, b: Features, alignment: Alignment, lexicon: Lexicon) -> str | None:
    left, right = ([key for key, kind in side if kind == kinds.NAME] for side in (alignment.left, alignment.right))
    if left and right and len(left) == len(alignment.left) and len(right) == len(alignment.right):
        return "name"
    return None


def _relative_time(a: Features, b: Features, alignment: Alignment, lexicon: Lexicon) -> str | None:
    left, right = ({key for key, _ in side} & lexicon.relative_time for side in (alignment.left, alignment.right))
    return "relative_time" if left and right else None


_CHECKS: Final = (
    _negation,
    _antonym,
    _relative_time,
    _name,
    _one_sort("question_kind", kinds.QUESTION),
    _one_sort("quantifier", kinds.QUANTIFIER),
    _one_sort("date", kinds.TIME),
    _one_sort("personal", kinds.PRONOUN),
    _one_sort("modifier", kinds.MODIFIER),
    _one_sort("modal", kinds.MODAL),
    _one_sort("conjunction", kinds.CONJUNCTION),
)
