"""Which English words there are: to know a misspelling from another word."""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

_PREFIX: Final = 3
_FIRST_PROPER: Final = "-----"


class Dictionary:
    """Words in lower case, kept as one text for each beginning of three letters: a tenth of a set's memory, and a
    look-up of about a microsecond, which callers remember. `lines` are words with blanks between."""

    def __init__(self, lines: Iterable[str]) -> None:
        texts: dict[str, str] = {"": ""}
        prefix, group = "", [""]
        for line in lines:
            for word in line.split():
                if word[:_PREFIX] != prefix:
                    # Joined one by one, because all words at once would take the memory that this is to save.
                    texts[prefix] = f"{texts.get(prefix, '')} {' '.join(group)} "
                    prefix, group = word[:_PREFIX], []
                group.append(word)
        texts[prefix] = f"{texts.get(prefix, '')} {' '.join(group)} "
        texts.pop("")
        self._texts = texts

    def __contains__(self, word: str) -> bool:
        text = self._texts.get(word[:_PREFIX])
        return text is not None and f" {word} " in text

    def __bool__(self) -> bool:
        return bool(self._texts)


NOTHING: Final = Dictionary(())


class Words(NamedTuple):
    """A language's words that may be written small, the common ones among them, and its proper nouns."""

    known: Dictionary
    common: Dictionary
    proper: Dictionary


UNKNOWN: Final = Words(NOTHING, NOTHING, NOTHING)


@cache
def english() -> Words:
    """Of English."""
    parts = [_text(name).partition(_FIRST_PROPER) for name in ("known_en.txt", "rare_en.txt")]
    (common, _, names), (rare, _, rare_names) = parts
    return Words(
        Dictionary(f"{common}\n{rare}".splitlines()),
        Dictionary(common.splitlines()),
        Dictionary(f"{names}\n{rare_names}".splitlines()),
    )


def _text(name: str) -> str:
    text = (files(__package__) / "words" / name).read_text(encoding="utf-8")
    return "\n".join(line for line in text.split("\n") if not line.startswith("#"))
