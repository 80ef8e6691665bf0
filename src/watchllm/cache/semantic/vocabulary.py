"""Words by which a prompt shows that it asks about writing itself: strings, lines, marks, in any language."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Vocabulary(NamedTuple):
    """Lower-case words of all languages together: to look closely where it was not needed costs a hit, no more."""

    strings: frozenset[str]
    """What is done with strings letter by letter, and what strings and symbols are called."""
    secrets: frozenset[str]
    """What is told apart by each letter in it."""
    layout: frozenset[str]
    spaces: frozenset[str]
    courtesy: frozenset[str]
    """Words of lines that are greetings and thanks."""
    punctuation: frozenset[str]
    before_mark: frozenset[str]
    """Words that no punctuation follows: the mark behind them is what is spoken of."""
    after_mark: frozenset[str]
    calls: frozenset[str]
    """Words beside which a word with a mark at its end is a name of code."""
    logic: frozenset[str]
    equality: frozenset[str]
    """Words that ask whether two texts are one."""
    small: frozenset[str]
    """Words of one letter."""

    def speaks_of_writing(self, word: str) -> bool:
        """Whether a prompt with this word is looked at closely."""
        closely = (self.strings, self.secrets, self.layout, self.spaces, self.punctuation, self.equality)
        return any(word in words for words in closely)


@cache
def vocabulary() -> Vocabulary:
    """The lists of `words/writing.toml`."""
    tables = tomllib.loads((files(__package__) / "words" / "writing.toml").read_text(encoding="utf-8"))
    return Vocabulary(**{name: frozenset(tables[name].split()) for name in Vocabulary._fields})
