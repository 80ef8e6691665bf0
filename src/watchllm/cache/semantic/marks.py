"""The words that are none: how punctuation, and what must be the same to the letter, stand among a prompt's words."""

import re
from collections.abc import Mapping
from typing import Final

EXACT_MARK: Final = "\x00"
"""Followed by a number: which of the texts that were set aside."""
BREAK: Final = "."
COMMA: Final = ","
COLON: Final = ":"

EMOJI: Final = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf]+")
EMOTICON: Final = re.compile(r"[:;=8][-'^o~]?[)(\]\[dpDPoO3/\\|*]+|:'[()]|<3+|[xX][dD]+|\^_*\^")


def is_emote(word: str) -> bool:
    """Whether a word is emoji or an emoticon, in either letter case."""
    return not word.isalnum() and (EMOJI.fullmatch(word) is not None or EMOTICON.fullmatch(word) is not None)


ARTICLE: Final = 15
CAPITAL: Final = 16
DO: Final = 32
COPULA: Final = 64
THERE: Final = 128
"""What stood before a word, or on it, and is no word of its own: which article (a number of its language, 0 = none), a
capital inside a sentence, "do", "is", "there"."""
_SENTENCES: Final = (BREAK, COLON)


def between(silent: list[tuple[int, str]], size: int, marking: Mapping[str, int]) -> tuple[tuple[int, ...], bytes]:
    """Where sentences start among the `size` words of a prompt that say something, and what is noted at each of these
    words of the `silent` ones before it (place among all, word)."""
    starts = [0]
    before = bytearray(size + 1)
    for skipped, (at, word) in enumerate(silent):
        following = at - skipped
        if word in _SENTENCES:
            if starts[-1] != following:
                starts.append(following)
            before[following] = 0
        elif word in marking:
            before[following] |= marking[word]
    return tuple(starts), bytes(before[:size])
