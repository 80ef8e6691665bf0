"""Which English words there are: to know a misspelling from another word."""

from functools import cache
from importlib.resources import files
from typing import Final

_PREFIX: Final = 3
_FIRST_PROPER: Final = "-----"


class Dictionary:
    """Words in lower case, kept as one text for each beginning of three letters: a tenth of a set's memory, and a
    look-up of about a microsecond, which callers remember."""

    def __init__(self, words: list[str]) -> None:
        grouped: dict[str, list[str]] = {}
        for word in words:
            grouped.setdefault(word[:_PREFIX], []).append(word)
        self._texts = {prefix: f" {' '.join(group)} " for prefix, group in grouped.items()}

    def __contains__(self, word: str) -> bool:
        text = self._texts.get(word[:_PREFIX])
        return text is not None and f" {word} " in text

    def __bool__(self) -> bool:
        return bool(self._texts)


NOTHING: Final = Dictionary([])


@cache
def english() -> tuple[Dictionary, Dictionary]:
    """Words that may be written small, and proper nouns."""
    parts = [_text(name).partition(_FIRST_PROPER) for name in ("known_en.txt", "rare_en.txt")]
    return (
        Dictionary([word for words, _, _ in parts for word in words.split()]),
        Dictionary([word for _, _, proper in parts for word in proper.split()]),
    )


def _text(name: str) -> str:
    text = (files(__package__) / "words" / name).read_text(encoding="utf-8")
    return "\n".join(line for line in text.split("\n") if not line.startswith("#"))
