"""Whether the order of listed things counts: "A and B" is "B and A" where it can be shown.

It can in a comparison, and of things that a question asks about alike. What is done, sorted, joined, subtracted or
named first has its order, and so have numbers, and times between which something lies.
"""

from collections.abc import Collection
from typing import Final, NamedTuple

from watchllm.cache.semantic.lexicon import EXACT, NAME, NUMBER, PREPOSITION, TIME, Lexicon

_CHOOSING: Final = frozenset(("should", "better", "prefer", "rather"))


class Listed(NamedTuple):
    """How things stand in a sentence of `words` that mean `keys`. `kinds` are theirs, `behind` is the word before the
    first and `behind_kind` its kind; `marked`: with an article, or behind "is" or "does"; `asked`: the sentence is a
    question; `alternative`: they are joined by "or"."""

    words: Collection[str]
    keys: Collection[str]
    kinds: Collection[int]
    behind: str
    behind_kind: int
    marked: bool
    asked: bool
    alternative: bool


def is_free(listed: Listed, lexicon: Lexicon) -> bool:
    """Whether their order does not count."""
    if listed.alternative and listed.asked and not _CHOOSING.isdisjoint(listed.words):
        return True
    if tells_order(listed.words, listed.keys, lexicon):
        return False
    if NUMBER in listed.kinds:
        return not lexicon.commuting.isdisjoint(listed.words)
    if not lexicon.comparing.isdisjoint(listed.words):
        return TIME not in listed.kinds
    if not listed.asked or not lexicon.between.isdisjoint(listed.words):
        return False
    return listed.alternative or listed.marked or _is_shown(listed)


def tells_order(words: Collection[str], keys: Collection[str], lexicon: Lexicon) -> bool:
    """Whether words, or what they mean, are about what comes first: in a list, in a story, in a sum."""
    return not (lexicon.ordered.isdisjoint(words) and lexicon.ordered.isdisjoint(keys)) or any(
        key[:1] == "#" and key.endswith("th") for key in keys
    )


def _is_shown(listed: Listed) -> bool:
    """Whether they are seen to be things, and nothing that is done one after the other."""
    if listed.behind_kind == PREPOSITION and listed.behind != "to":
        return True
    return all(kind in (NAME, EXACT) for kind in listed.kinds)
