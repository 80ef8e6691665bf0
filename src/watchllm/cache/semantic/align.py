"""Two prompts side by side: which tokens answer for each other, and how each difference is explained, if it is.

What cannot be explained is material.
"""

from itertools import pairwise
from typing import Final, NamedTuple

from watchllm.cache.semantic import sequences
from watchllm.cache.semantic.features import Features
from watchllm.cache.semantic.lexicon import (
    CONJUNCTION,
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
    QUESTION,
    TIME,
    WORD,
    Lexicon,
)
from watchllm.cache.semantic.typos import is_misspelling, is_slip

MAX_DIFFERENT: Final = 96
"""Longest stretch, in tokens, that is compared word by word; prompts that differ in more are not alike."""
_LEAST_SHARED: Final = 0.4
_TYPED: Final = frozenset((WORD, MODIFIER, TIME, QUESTION))
"""Kinds of token that may be misspelt; a name with a letter changed is another name."""


_MISSPELT_TOGETHER: Final = 4
_MOST_MISSPELT: Final = 48
"""Pairs of words of one pair of prompts that are looked at for misspellings."""
_LONGEST_TYPED: Final = 60
"""Letters of two words together; longer ones are made to be compared for long, not typed."""
_BINDING: Final = frozenset((PREPOSITION, QUESTION, NEGATION, CONJUNCTION))
_COMMUTATIVE: Final = ("and", "or", "plus", "times", "versus")
_SUBJECT: Final = 4
_SUBJECT_KINDS: Final = frozenset((WORD, PRONOUN, NAME, MODIFIER))


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
        forms = 0 if a.surfaces == b.surfaces else sequences.forms(a.surfaces, b.surfaces)
        return Alignment(1.0, forms, 0, 0, 0, 0, False, (), ())
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
    if size_a == size_b and _converse(left[start:end_a], right[start:end_b], lexicon):
        return work.result(shared, reordered=1)
    if size_a == size_b == same - start - len(left) + end_a:
        # The same tokens in another order.
        if work.order_is_free(start, end_a):
            return work.result(shared, reordered=1)
        return work.result(shared, moved=True)
    work.compare(start, end_a, end_b)
    return work.result(shared)


class _Work:
    """The comparison of one pair."""

    def __init__(self, a: Features, b: Features, lexicon: Lexicon) -> None:
        self.a, self.b, self.lexicon = a, b, lexicon
        self._retold = False
        self._letters = a.letters or b.letters
        self._in_order = _tells_order(a, lexicon)
        self.typos = self.optional = self.opposites = self.forms = 0
        self.left: list[tuple[str, int]] = []
        self.right: list[tuple[str, int]] = []

    def result(self, shared: float, *, reordered: int = 0, moved: bool = False) -> Alignment:
        left, right = self.left, self.right
        if left and right:
            # What is only on one side here and only on the other there has moved: nobody knows whether that matters.
            both = {key for key, _ in left} & {key for key, _ in right}
            moved = moved or bool(both)
            left = [token for token in left if token[0] not in both]
            right = [token for token in right if token[0] not in both]
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

    def order_is_free(self, start: int, end: int) -> bool:
        a, b = self.a, self.b
        left, right = a.keys[start:end], b.keys[start:end]
        return (
            # A second list may answer to the first by place: x, y and z are 1, 2 and 3.
            (
                not self._in_order
                and a.kinds.count(CONJUNCTION) < 2
                and _exchanged(left, right, self.lexicon, a.kinds[start:end])
            )
            or self._negation_moved(start, end)
            or self._rotated()
            or self._verb_last()
        )

    def _negation_moved(self, start: int, end: int) -> bool:
        """Why doesn't my code compile, why does my code not compile: a short subject between the verb and its "not"."""
        a, b = self.a, self.b
        if not start or a.kinds[start - 1] not in (QUESTION, MODAL) or end - start > _SUBJECT:
            return False
        for one, other in ((a, b), (b, a)):
            if one.keys[start] == "not" and other.keys[start:end] == (*one.keys[start + 1 : end], "not"):
                return all(kind in _SUBJECT_KINDS for kind in one.kinds[start + 1 : end])
        return False

    def _rotated(self) -> bool:
        """Whether sentences, or the clauses of one, are the same in another order."""
        a, b = self.a, self.b
        sentences = [_sentences(side) for side in (a, b)]
        if not self._in_order and len(sentences[0]) > 1 and sorted(sentences[0]) == sorted(sentences[1]):
            return True
        changed = (
            [(one, other) for one, other in zip(*sentences, strict=False) if one != other]
            if len(sentences[0]) == len(sentences[1])
            else []
        )
        return bool(changed) and all(self._fronted(one, other) or self._fronted(other, one) for one, other in changed)

    def _verb_last(self) -> bool:
        """Wie funktioniert das, (sag mir,) wie das funktioniert: the verb at the end of a clause that depends."""
        a, b = self.a, self.b
        if self.lexicon.language != "de":
            return False
        for one, other in ((a, b), (b, a)):
            for start, end in pairwise((*one.starts, len(one.keys))):
                if end - start > 2 and one.kinds[start] == QUESTION:
                    keys = one.keys
                    moved = (*keys[: start + 1], keys[end - 1], *keys[start + 1 : end - 1], *keys[end:])
                    if moved == other.keys:
                        return True
        return False

    def _fronted(self, one: tuple[str, ...], other: tuple[str, ...]) -> bool:
        """Whether `one` is `other` with a clause of its end brought to the front, as "in Python" may be."""
        if one[0] not in self.lexicon.fronting or len(one) != len(other) or other[0] in self.lexicon.fronting:
            return False
        return any(one[cut:] + one[:cut] == other for cut in range(1, len(one)))

    def compare(self, start: int, end_a: int, end_b: int) -> None:
        """Explain what stands between the tokens that both have in the same order."""
        before_a, before_b = start, start
        gaps: list[tuple[int, int, int, int]] = []
        for at_a, at_b in (*sequences.matches(self.a.keys, self.b.keys, start, end_a, end_b), (end_a, end_b)):
            if at_a > before_a or at_b > before_b:
                gaps.append((before_a, at_a, before_b, at_b))
            before_a, before_b = at_a + 1, at_b + 1
        # Nobody misspells that many words; who pretends to is not to be felt by the event loop.
        compared = sum(
            (end_a - start_a) * (end_b - start_b) for start_a, end_a, start_b, end_b in filter(_is_near, gaps)
        )
        for gap in gaps:
            self._gap(*gap, near=compared <= _MOST_MISSPELT and _is_near(gap))

    def _gap(self, start_a: int, end_a: int, start_b: int, end_b: int, *, near: bool) -> None:
        a, b, lexicon = self.a, self.b, self.lexicon
        left = list(range(start_a, end_a))
        right = list(range(start_b, end_b))
        if left and right and self._joined(left, right):
            self.forms += 1
            return
        if self._opposite(left, right):
            self.opposites += 1
            return
        if len(left) == len(right) == 1 and self._confused(left[0], right[0]):
            self.typos += 1
            return
        for one in tuple(left) if near else ():
            for other in right:
                inflected = self._inflected(one, other)
                if inflected or self._misspelt(one, other):
                    self.forms += inflected
                    self.typos += not inflected
                    left.remove(one)
                    right.remove(other)
                    break
        for side, places, rest in ((a, left, self.left), (b, right, self.right)):
            alone = not (left and right)
            for at in places:
                if alone and side.keys[at] in lexicon.optional and len(places) == 1 and self._may_go(side, at):
                    self.optional += 1
                else:
                    rest.append((side.keys[at], side.kinds[at]))

    @staticmethod
    def _may_go(side: Features, at: int) -> bool:
        """An optional word beside a quantity or a name says how it is meant: before 5 pm, at 5 pm, to Paris."""
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
        one = "".join(self.a.surfaces[at] for at in left)
        return one == "".join(self.b.surfaces[at] for at in right) and one.replace(" ", "").isalpha()

    def _opposite(self, left: list[int], right: list[int]) -> bool:
        """A word on one side, its opposite negated on the other."""
        for one, other, few, many in ((self.a, self.b, left, right), (self.b, self.a, right, left)):
            if len(few) == 1 and len(many) == 2 and other.kinds[many[0]] == NEGATION and other.keys[many[0]] == "not":
                return self.lexicon.opposite(one.keys[few[0]], other.keys[many[1]])
        return False

    def _inflected(self, at_a: int, at_b: int) -> bool:
        """Whether the words differ in an ending of their language only, where no dictionary tells their base."""
        endings = self.lexicon.endings
        if not endings or self.a.kinds[at_a] not in _TYPED or self.b.kinds[at_b] not in _TYPED:
            return False
        one, other = sorted((self.a.surfaces[at_a], self.b.surfaces[at_b]), key=len)
        return len(one) > 4 and other.startswith(one) and other[len(one) :] in endings

    def _confused(self, at_a: int, at_b: int) -> bool:
        """to, too: small words that are taken for each other by ear, of which only one makes sense in a place."""
        pair = (self.a.surfaces[at_a], self.b.surfaces[at_b])
        return not self._letters and (pair in self.lexicon.confused or pair[::-1] in self.lexicon.confused)

    def _misspelt(self, at_a: int, at_b: int) -> bool:
        a, b, lexicon = self.a, self.b, self.lexicon
        if self._letters:
            return False
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
            return len(one) > 4 and is_slip(one, other)
        wrong, word = (other, one) if one_known else (one, other)
        if not (is_misspelling(wrong, word) if word in lexicon.common else is_slip(wrong, word)):
            return False  # A rare word may have a neighbour that no dictionary has, as one medicine another.
        self._retold |= (a if one_known else b).past and lexicon.word(word).form == PAST
        return True


def _is_near(gap: tuple[int, int, int, int]) -> bool:
    """Whether words of a gap may be each other, misspelt: longer stretches are other words."""
    start_a, end_a, start_b, end_b = gap
    return end_a - start_a <= _MISSPELT_TOGETHER and end_b - start_b <= _MISSPELT_TOGETHER


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


def _tells_order(side: Features, lexicon: Lexicon) -> bool:
    """Whether a prompt, or one of the same words, is about what comes first: in a list, in a story, in a sum."""
    return not lexicon.ordering.isdisjoint(side.keys) or any(
        key[0] == "#" and key.endswith("th") for key in side.quantities
    )


def _exchanged(left: tuple[str, ...], right: tuple[str, ...], lexicon: Lexicon, kinds: bytes) -> bool:
    """Whether the sides of a symmetric predicate are exchanged: P and Q, Q and P."""
    size, first = len(left), right[0]
    for end in range(2, size):
        if left[end] != first:
            continue
        for length in range(1, min(4, end)):
            middle = left[end - length : end]
            if right == left[end:] + middle + left[: end - length] and _plain(middle) in lexicon.symmetric:
                # A word that relates one side to something may relate the other too when they are exchanged.
                sides = kinds[: end - length] + kinds[end:]
                return _BINDING.isdisjoint(sides) and (NUMBER not in sides or middle[0] in _COMMUTATIVE)
    return False


def _plain(phrase: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key.rstrip("!") for key in phrase)


def _owned(a: Features, b: Features, place_a: tuple[int, int], place_b: tuple[int, int]) -> bool:
    """The tail of dog, dogs tail: an apostrophe left out."""
    (long, its), (short, other) = sorted(((a, place_a), (b, place_b)), key=lambda side: side[1][0] - side[1][1])
    keys, plain = long.keys[slice(*its)], short.keys[slice(*other)]
    if "of" not in keys:
        return False
    at = keys.index("of")
    owner = short.surfaces[other[0] + len(keys) - at - 2]
    written = long.surfaces[its[1] - 1]
    return plain == (*keys[at + 1 :], *keys[:at]) and owner == f"{written}s"


def _converse(left: tuple[str, ...], right: tuple[str, ...], lexicon: Lexicon) -> bool:
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


def _sentences(side: Features) -> list[tuple[str, ...]]:
    ends = (*side.starts[1:], len(side.keys))
    return [sentence for start, end in zip(side.starts, ends, strict=True) if (sentence := side.keys[start:end])]
