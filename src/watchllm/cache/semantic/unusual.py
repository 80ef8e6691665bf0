"""Which of a prompt's words are looked at closely: nearly all are not, and are known again from the last time."""

import re
from typing import Final, NamedTuple

from watchllm.cache.semantic.text import Text
from watchllm.cache.semantic.vocabulary import vocabulary

_PLAIN: Final = re.compile(r"(?:[^\W\d_]'?[^\W\d_'][^\W\d_']*(?:['-][^\W\d_]+)*|[aI])[.,;:!?]?|I'[a-z]+")
_WORD: Final = re.compile(r"[^\W\d_]\w*")
_LONGEST: Final = 24
_REMEMBERED: Final = 20_000
_TITLE: Final = 3
_plain: set[str] = set()
_odd: set[str] = set()
"""Words that were found to be plain, and words that speak of writing; bounded, and filled by whoever comes by."""


class Unusual(NamedTuple):
    """A prompt's text without what was set aside of it, `exact` as written, and of its `chunks` between blanks those
    that are not plain words in lower case or with a capital: `odd`, in no order; `words` are theirs in lower case."""

    text: str
    exact: list[str]
    chunks: list[str]
    odd: str
    words: frozenset[str]


def unusual(text: Text) -> Unusual:
    """Find them."""
    chunks = text.rest.split()
    unknown = set(chunks) - _plain
    odd = {chunk for chunk in unknown if chunk in _odd or not _is_plain(chunk)} if unknown else unknown
    if chunks and chunks[-1] == "a":
        odd.add("a")  # No article.
    if not odd:
        return Unusual(text.rest, text.written, chunks, "", frozenset())
    joined = " ".join(odd)
    return Unusual(text.rest, text.written, chunks, joined, frozenset(_WORD.findall(joined.lower())))


def _is_plain(chunk: str) -> bool:
    if len(chunk) > _LONGEST or _PLAIN.fullmatch(chunk) is None or (len(chunk) == 2 and not chunk.isalpha()):
        return False
    rest = chunk[1:].rstrip(".,;:!?")
    if rest and (not rest.islower() or (chunk[0].isupper() and len(rest) + 1 < _TITLE)):
        return False
    speaks = vocabulary().speaks_of_writing(chunk.lower().rstrip(".,;:!?"))
    known = _odd if speaks else _plain
    if len(known) >= _REMEMBERED:
        known.clear()
    known.add(chunk)
    return not speaks
