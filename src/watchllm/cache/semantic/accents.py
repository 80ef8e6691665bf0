"""Which accents may be left out, as quick typists do: those without which a word is no other word.

No dictionary of Spanish or French is here, so that it is told by endings and lists of what is common: an accent of
which they say nothing counts. German umlauts are written as two letters where they are left out, and count otherwise.
"""

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

_SPANISH_ARTICLES: Final = frozenset(("el", "un", "una", "mi", "tu", "su", "del", "al", "este", "esta", "por", "de"))
_LAST_ACCENTED: Final = re.compile(r"[áéíóú][sn]?\Z")
_FRENCH_COUNTS: Final = re.compile(r"[âêîôû]|ée?s?\Z|ès\Z")
"""A participle's ending, and marks by which short words are told apart."""


class _Known(NamedTuple):
    endings: re.Pattern[str]
    safe: frozenset[str]
    counted: frozenset[str]


def may_go(word: str, language: str, behind: str, *, is_word: bool) -> bool:
    """Whether a lower-case word says the same without its accents.

    `behind` is the word before it; `is_word`: a dictionary of the language has it without them.
    """
    known = _known().get(language)
    if known is None or word in known.counted:
        return False
    if word in known.safe or known.endings.search(word):
        return True
    if language == "es":
        # (Yo) numero: behind an article it is no verb.
        return behind in _SPANISH_ARTICLES and _LAST_ACCENTED.search(word) is None
    if language == "fr":
        return _FRENCH_COUNTS.search(word) is None
    return is_word


@cache
def _known() -> dict[str, _Known]:
    tables = tomllib.loads((files(__package__) / "words" / "accents.toml").read_text(encoding="utf-8"))
    return {
        language: _Known(
            re.compile(rf"(?:{table['endings']})s?\Z" if table["endings"] else r"(?!)"),
            frozenset(table["safe"].split()),
            frozenset(table["count"].split()),
        )
        for language, table in tables.items()
    }
