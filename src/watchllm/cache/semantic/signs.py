"""Operators that are written as punctuation is, and are words of a formula: minus signs, factorials, primes."""

from typing import Final

_BESIDE: Final = "()[]{}|.,;:?!'\""
_PRONOUN: Final = "I"
_ARTICLE: Final = "a"
_SPOKEN: Final = frozenset("no")
"""Letters with an apostrophe behind them in rock n' roll, o' clock."""
_SAID: Final = frozenset("aiu")
"""Letters that people write for words."""
MINUS: Final = "-"
FACTORIAL: Final = "!"
PRIME: Final = "\u2032"


def is_minus(before: str, after: str) -> bool:
    """Whether a line between two chunks takes one from the other."""
    return before != _PRONOUN and after != _ARTICLE and _is_operand(before) and _is_operand(after)


def primes(stripped: str, tail: str) -> int:
    """How many primes behind a number or a letter are what the tail's quotation marks are: y', 5'11"."""
    if not (stripped[-1].isdigit() or (len(stripped) == 1 and stripped.isalpha() and stripped not in _SPOKEN)):
        return 0
    marks = tail[: len(tail) - len(tail.lstrip("'\""))]
    return len(marks) + marks.count('"')


def is_factorial(stripped: str, tail: str) -> bool:
    """Whether the exclamation mark behind it is one, perhaps: 5!, n!, (n + k)!"""
    if not tail.lstrip(")").startswith("!"):
        return stripped[-1].isdigit() and "!" in tail
    return stripped[-1].isdigit() or (len(stripped) == 1 and stripped.islower() and stripped not in _SAID)


def _is_operand(chunk: str) -> bool:
    bare = chunk.strip(_BESIDE)
    return bool(bare) and (bare[0].isdigit() or (len(bare) == 1 and bare.isalpha()))
