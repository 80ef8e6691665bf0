"""What says no: each guard knows one kind of difference after which another answer is due.

Names are stable: they are in logs and in what `watchllm eval` prints. A guard speaks when it is sure. A difference that
nobody can explain is no guard's business: it costs confidence, and a judge may still be asked.
"""

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
_MIXED: Final = -1
_TO_THE_LETTER: Final = {kinds.EXACT: "code", kinds.IDENTIFIER: "identifier"}
_SORTS: Final = {
    kinds.QUESTION: "question_kind",
    kinds.QUANTIFIER: "quantifier",
    kinds.TIME: "date",
    kinds.PRONOUN: "personal",
    kinds.MODIFIER: "modifier",
    kinds.MODAL: "modal",
    kinds.CONJUNCTION: "conjunction",
}
"""Guards of words of one kind."""


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
    differing = {kind for _, kind in (*alignment.left, *alignment.right)}
    only = differing.pop() if len(differing) == 1 else _MIXED
    if only in _TO_THE_LETTER and alignment.shared >= _SAME_BUT:
        return _TO_THE_LETTER[only]
    if only == kinds.NUMBER:
        return _quantity(a, b)
    for check in _CHECKS:
        name = check(a, b, alignment, lexicon)
        if name is not None:
            return name
    return _one_sort(only, alignment)


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
    if a.negations == b.negations or len(alignment.left) + len(alignment.right) > 2:
        return None
    either = (*alignment.left, *alignment.right)
    return "negation" if any(kind == kinds.NEGATION for _, kind in either) else None


def _antonym(a: Features, b: Features, alignment: Alignment, lexicon: Lexicon) -> str | None:
    if alignment.moved or not len(alignment.left) == len(alignment.right) == 1:
        return None
    return "antonym" if lexicon.opposite(alignment.left[0][0], alignment.right[0][0]) else None


def _relative_time(a: Features, b: Features, alignment: Alignment, lexicon: Lexicon) -> str | None:
    known = lexicon.relative_time
    if known.isdisjoint([key for key, _ in alignment.left]) or known.isdisjoint([key for key, _ in alignment.right]):
        return None
    return "relative_time"


def _one_sort(kind: int, alignment: Alignment) -> str | None:
    """What all words that differ are of: that they are replaced, or only one side has any and nothing else differs."""
    left, right = alignment.left, alignment.right
    replaced = bool(left and right)
    if kind == kinds.NAME:
        return "name" if replaced else None
    if len(left) > 2 or len(right) > 2 or (alignment.moved and not replaced):
        return None
    if kind == kinds.QUESTION and not replaced:
        return None  # A command and a question may ask the same.
    return _SORTS.get(kind)


_CHECKS: Final = (_negation, _antonym, _relative_time)
