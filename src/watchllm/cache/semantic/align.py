"""Two prompts side by side: which tokens answer for each other, and how each difference is explained, if it is.

What cannot be explained is material.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from watchllm.cache.semantic import order, sequences
from watchllm.cache.semantic.features import Features
from watchllm.cache.semantic.lexicon import (
    EXACT,
    IDENTIFIER,
    MODAL,
    MODIFIER,
    NAME,
    NEGATION,
    NUMBER,
    PAST,
    PREPOSITION,
    PRONOUN,
    QUANTIFIER,
    QUESTION,
    TIME,
    WORD,
    Lexicon,
)
from watchllm.cache.semantic.typos import is_misspelling, is_slip
from watchllm.cache.semantic.wording import differences

MAX_DIFFERENT: Final = 96
"""Longest stretch, in tokens, that is compared word by word; prompts that differ in more are not alike."""
_LEAST_SHARED: Final = 0.4
_TYPED: Final = frozenset((WORD, MODIFIER, TIME, QUESTION))
"""Kinds of token that may be misspelt; a name with a letter changed is another name."""


_MISSPELT_TOGETHER: Final = 4
_MOST_MISSPELT: Final = 48
"""Pairs of words of one pair of prompts that are looked at for misspellings."""
_FEW_GAPS: Final = _MOST_MISSPELT // _MISSPELT_TOGETHER**2
"""Gaps that cannot have more pairs than that."""
_PREFIXES: Final = frozenset(("re", "un", "pre", "in", "dis", "co", "de", "non", "over", "under", "out", "up"))
_FUSED: Final = frozenset(
    ("maybe", "sometime", "sometimes", "already", "altogether", "everyday", "apart", "aside", "awhile", "into")
)
_LONGEST_TYPED: Final = 60
"""Letters of two words together; longer ones are made to be compared for long, not typed."""
_READ: Final = frozenset((*_TYPED, PREPOSITION, PRONOUN, MODAL, QUANTIFIER))
_UNKNOWN: Final = 0.34
_UNKNOWN_WITH_TYPOS: Final = 0.7
_ONE: Final = {"one", "#1"}


class Alignment(NamedTuple):
    """What differs. `left` and `right` are the tokens (key, kind) of either side for which there is no explanation."""

    shared: float
    """Share of the tokens of the longer prompt that the other has too, wherever they stand."""
    forms: int
    """Words in another form, spelling or a synonym."""
    typos: int
    optional: int
    """Small words that one side has and nothing is missing without."""
    reordered: int
    """Stretches exchanged where the order does not count."""
    opposites: int
    """Negated antonyms: not happy, unhappy."""
    moved: bool
    """The same tokens in another order, for which there is no explanation."""
    left: tuple[tuple[str, int], ...]
    right: tuple[tuple[str, int], ...]
    retold: bool = False
    """Whether the tense is told by a verb that one side has misspelt."""

    @property
    def explained(self) -> bool:
        """Whether every difference is harmless."""
        return not (self.left or self.right or self.moved)


def align(a: Features, b: Features, lexicon: Lexicon) -> Alignment:
    """Align two prompts' features."""
    left, right = a.keys, b.keys
    if left != right and _same_but_for_punctuation(a, b):
        return Alignment(1.0, 1, 0, 0, 0, 0, False, (), ())
    if left == right:
        work = _Work(a, b, lexicon)
        work.run(0, 0, len(left))
        return work.result(1.0)
    start, end_a, end_b = sequences.trim(left, right)
    size_a, size_b = end_a - start, end_b - start
    same = sequences.shared(left[start:end_a], right[start:end_b]) + start + len(left) - end_a
    shared = same / max(len(left), len(right))
    if max(size_a, size_b) > MAX_DIFFERENT or shared < _LEAST_SHARED:
        return _different(a, b, shared)
    work = _Work(a, b, lexicon)
    if abs(size_a - size_b) == 1 and _owned(a, b, (start, end_a), (start, end_b)):
        work.forms += 1
        return work.result(shared)
    work.run(0, 0, start)
    work.run(end_a, end_b, len(left) - end_a)
    if size_a == size_b and order.is_converse(left[start:end_a], right[start:end_b], lexicon):
        return work.result(shared, reordered=1)
    if size_a == size_b == same - start - len(left) + end_a:
        # The same tokens in another order.
        if order.is_free(a, b, start, end_a, lexicon):
            work.same(*_by_key(left, right, range(start, end_a)))
            return work.result(shared, reordered=1)
        return work.result(shared, moved=True)
    work.compare(start, end_a, end_b, same - start - len(left) + end_a)
    return work.result(shared)


class _Work:
    """The comparison of one pair."""

    __slots__ = (
        *("_crossed", "_letters", "_pairs", "_read", "_retold"),
        *("a", "b", "forms", "left", "lexicon", "opposites", "optional", "right", "typos"),
    )

    def __init__(self, a: Features, b: Features, lexicon: Lexicon) -> None:
        self.a, self.b, self.lexicon = a, b, lexicon
        self._retold = False
        self._read: bool | None = None
        self._crossed = False
        """Whether the sides have a token in common that they do not have in the same order."""
        self._letters = a.letters or b.letters
        self.typos = self.optional = self.opposites = self.forms = 0
        self.left: list[tuple[str, int]] = []
        self._pairs: list[tuple[int, int]] = []
        self.right: list[tuple[str, int]] = []

    def result(self, shared: float, *, reordered: int = 0, moved: bool = False) -> Alignment:
        left, right = self.left, self.right
        a, b = self.a, self.b
        worded = self._worded()
        if self._crossed:
            # What is only on one side here and only on the other there has moved: nobody knows whether that matters.
            both = {key for key, _ in left} & {key for key, _ in right}
            moved = moved or bool(both)
            left = [token for token in left if token[0] not in both]
            right = [token for token in right if token[0] not in both]
        if worded:
            left = [*left, *((f"={a.surfaces[one]}", WORD) for one, _ in worded)]
        if a.verbatim != b.verbatim:
            left = [*left, *((word, WORD) for word in a.verbatim if word not in b.verbatim)]
            right = [*right, *((word, WORD) for word in b.verbatim if word not in a.verbatim)]
        if worded:
            right = [*right, *((f"={b.surfaces[other]}", WORD) for _, other in worded)]
        return Alignment(
            shared,
            self.forms,
            self.typos,
            self.optional,
            reordered,
            self.opposites,
            moved,
            tuple(left),
            tuple(right),
            self._retold,
        )

    def _worded(self) -> list[tuple[int, int]]:
        """The places of the same keys whose words do not answer for each other; all other words count as forms."""
        a, b = self.a, self.b
        words, marks, said, its_marks = a.surfaces, a.before, b.surfaces, b.before
        changed = [
            (one, other) for one, other in self._pairs if words[one] != said[other] or marks[one] != its_marks[other]
        ]
        if not changed:
            return []
        self.forms += len([one for one, other in changed if words[one] != said[other]])
        return differences(a, b, changed, self.lexicon)

    def run(self, at_a: int, at_b: int, size: int) -> None:
        """A stretch that has the same keys on both sides."""
        a, b = self.a, self.b
        end_a, end_b = at_a + size, at_b + size
        if a.surfaces[at_a:end_a] != b.surfaces[at_b:end_b] or a.before[at_a:end_a] != b.before[at_b:end_b]:
            self._pairs.extend(zip(range(at_a, end_a), range(at_b, end_b), strict=True))

    def same(self, left: Iterable[int], right: Iterable[int]) -> None:
        """Places that have the same key: what is written there in other words, harmless or not."""
        self._pairs.extend(zip(left, right, strict=True))

    def compare(self, start: int, end_a: int, end_b: int, shared: int) -> None:
        """Explain what stands between the tokens that both have in the same order; `shared` they have in any order."""
        before_a, before_b = start, start
        gaps: list[tuple[int, int, int, int]] = []
        matches = sequences.matches(self.a.keys, self.b.keys, start, end_a, end_b) if shared else []
        self._pairs.extend(matches)
        self._crossed = len(matches) < shared
        for at_a, at_b in (*matches, (end_a, end_b)):
            if at_a > before_a or at_b > before_b:
                gaps.append((before_a, at_a, before_b, at_b))
            before_a, before_b = at_a + 1, at_b + 1
        # Nobody misspells that many words; who pretends to is not to be felt by the event loop.
        few = len(gaps) <= _FEW_GAPS or sum(_compared(gap) for gap in gaps) <= _MOST_MISSPELT
        for gap in gaps:
            start_a, end_a, start_b, end_b = gap
            if start_a == end_a:
                self._alone(self.b, range(start_b, end_b), self.right)
            elif start_b == end_b:
                self._alone(self.a, range(start_a, end_a), self.left)
            else:
                self._gap(list(range(start_a, end_a)), list(range(start_b, end_b)), near=few and _compared(gap) > 0)

    def _gap(self, left: list[int], right: list[int], *, near: bool) -> None:
        """Explain what either side has in the other's place; `near`: words may be each other, misspelt."""
        if self._joined(left, right):
            self.forms += 1
            return
        if self._opposite(left, right):
            self.opposites += 1
            return
        if len(left) == len(right) == 1 and self._confused(left[0], right[0]):
            self.typos += 1
            return
        if near:
            self._without_misspelt(left, right)
        if left and right:
            self.left.extend([(self.a.keys[at], self.a.kinds[at]) for at in left])
            self.right.extend([(self.b.keys[at], self.b.kinds[at]) for at in right])
        else:
            self._alone(self.a, left, self.left)
            self._alone(self.b, right, self.right)

    def _alone(self, side: Features, places: Sequence[int], rest: list[tuple[str, int]]) -> None:
        """What one side has and the other has nothing for goes to the `rest`, but for one word that may be left out."""
        if len(places) == 1 and self._may_go(side, places[0]):
            self.optional += 1
        else:
            rest.extend([(side.keys[at], side.kinds[at]) for at in places])

    def _without_misspelt(self, left: list[int], right: list[int]) -> None:
        """Take out the words that are each other, misspelt."""
        if self._letters or (self._are_known(self.a, left) and self._are_known(self.b, right)):
            return
        for one in tuple(left):
            for other in right:
                if self._misspelt(one, other):
                    self.typos += 1
                    left.remove(one)
                    right.remove(other)
                    break

    def _are_known(self, side: Features, places: list[int]) -> bool:
        """Whether no word at these places may be a misspelt one."""
        kinds, surfaces = side.kinds, side.surfaces
        return all(map(self.lexicon.is_known, [surfaces[at] for at in places if kinds[at] in _TYPED]))

    def _may_go(self, side: Features, at: int) -> bool:
        """An optional word beside a quantity or a name says how it is meant: before 5 pm, at 5 pm, to Paris."""
        if side.keys[at] not in self.lexicon.optional:
            return False
        if side.kinds[at] == PREPOSITION and (at + 1 == len(side.keys) or at + 1 in side.starts):
            return False  # What is it, what is it for.
        following = side.kinds[at + 1] if at + 1 < len(side.kinds) else WORD
        if side.keys[at] == "to":
            return following == PRONOUN  # He stopped to eat; he stopped eating.
        return following not in (NUMBER, NAME, EXACT, IDENTIFIER)

    def _joined(self, left: list[int], right: list[int]) -> bool:
        """data base, database."""
        if len(left) == len(right) or len(left) + len(right) > 5 or self._letters:
            return False
        one = "".join(self.a.surfaces[left[0] : left[-1] + 1])
        if one != "".join(self.b.surfaces[right[0] : right[-1] + 1]) or not one.isalpha():
            return False
        first = self.a.surfaces[left[0]] if len(left) > len(right) else self.b.surfaces[right[0]]
        # To re-sign is not to resign; may be, maybe.
        return first not in _PREFIXES and one not in self.lexicon.function_words and one not in _FUSED

    def _opposite(self, left: list[int], right: list[int]) -> bool:
        """A word on one side, its opposite negated on the other."""
        if len(left) + len(right) != 3:
            return False
        one, other, few, many = (self.a, self.b, left, right) if len(left) == 1 else (self.b, self.a, right, left)
        if other.kinds[many[0]] != NEGATION or other.keys[many[0]] != "not":
            return False
        return self.lexicon.opposite(one.keys[few[0]], other.keys[many[1]])

    def _are_read(self) -> bool:
        """Whether there is a dictionary for what the prompts are written in: most of their words are common in it."""
        if self._read is None:
            shares = sorted(self._unknown(side) for side in (self.a, self.b))
            self._read = bool(self.lexicon.known) and shares[0] <= _UNKNOWN and shares[1] <= _UNKNOWN_WITH_TYPOS
        return self._read

    def _unknown(self, side: Features) -> float:
        """The share of words that are not common, of those that may be."""
        spoken = zip(side.surfaces, side.kinds, strict=True)
        words = [word for word, kind in spoken if kind in _READ and word.isalpha()]
        return sum(not self.lexicon.is_common(word) for word in words) / len(words) if words else 1.0

    def _confused(self, at_a: int, at_b: int) -> bool:
        """to, too: small words that are taken for each other by ear, of which only one makes sense in a place."""
        if {self.a.keys[at_a], self.b.keys[at_b]} == _ONE:
            return True  # "One" is a pronoun, too, and no number where it is read.
        pair = (self.a.surfaces[at_a], self.b.surfaces[at_b])
        return not self._letters and (pair in self.lexicon.confused or pair[::-1] in self.lexicon.confused)

    def _misspelt(self, at_a: int, at_b: int) -> bool:
        a, b, lexicon = self.a, self.b, self.lexicon
        if a.kinds[at_a] not in _TYPED or b.kinds[at_b] not in _TYPED:
            return False
        one, other = a.surfaces[at_a], b.surfaces[at_b]
        if not (one + other).isalpha() or len(one) + len(other) > _LONGEST_TYPED:
            return False
        one_known, other_known = lexicon.is_known(one), lexicon.is_known(other)
        if one_known and other_known:
            return False
        if not one_known and not other_known:
            # Two words that nobody knows may be two names: only what a slip of the fingers makes.
            return len(one) > 4 and is_slip(one, other) and self._are_read()
        wrong, word = (other, one) if one_known else (one, other)
        if not (is_misspelling(wrong, word) if word in lexicon.common else is_slip(wrong, word)):
            return False  # A rare word may have a neighbour that no dictionary has, as one medicine another.
        if not self._are_read():
            return False
        self._retold |= (a if one_known else b).past and lexicon.word(word).form == PAST
        return True


def _compared(gap: tuple[int, int, int, int]) -> int:
    """How many pairs of words of a gap may be each other, misspelt; 0 = longer stretches are other words."""
    start_a, end_a, start_b, end_b = gap
    size_a, size_b = end_a - start_a, end_b - start_b
    return size_a * size_b if size_a <= _MISSPELT_TOGETHER and size_b <= _MISSPELT_TOGETHER else 0


def _different(a: Features, b: Features, shared: float) -> Alignment:
    """Too little in common to align: what either side has alone."""
    keys_a, keys_b = set(a.keys), set(b.keys)
    left = tuple((key, kind) for key, kind in zip(a.keys, a.kinds, strict=True) if key not in keys_b)
    right = tuple((key, kind) for key, kind in zip(b.keys, b.kinds, strict=True) if key not in keys_a)
    return Alignment(shared, 0, 0, 0, 0, 0, True, left, right)


def _same_but_for_punctuation(a: Features, b: Features) -> bool:
    """Whether apostrophes and what ends sentences are all that differs: dog's, dogs; it's, its."""
    return (
        a.plain == b.plain
        and bool(a.plain)
        and a.exact == b.exact
        and a.quantities == b.quantities
        and a.identifiers == b.identifiers
        and not (a.letters or b.letters)
    )


def _by_key(left: Sequence[str], right: Sequence[str], places: range) -> tuple[list[int], list[int]]:
    """The places of the same keys on either side, in whatever order."""
    return sorted(places, key=left.__getitem__), sorted(places, key=right.__getitem__)


def _owned(a: Features, b: Features, place_a: tuple[int, int], place_b: tuple[int, int]) -> bool:
    """The tail of dog, dogs tail: an apostrophe left out."""
    long, its, short, other = a, place_a, b, place_b
    if place_b[1] - place_b[0] > place_a[1] - place_a[0]:
        long, its, short, other = b, place_b, a, place_a
    keys, plain = long.keys[slice(*its)], short.keys[slice(*other)]
    if "of" not in keys:
        return False
    at = keys.index("of")
    owner = short.surfaces[other[0] + len(keys) - at - 2]
    written = long.surfaces[its[1] - 1]
    return plain == (*keys[at + 1 :], *keys[:at]) and owner == f"{written}s"
